//! Objects that move in numbers: between a CPU's array, the depot and the slabs, and from there to the page allocator.
#![forbid(unsafe_code)]

mod drain;
mod exchange;
mod shrink;
