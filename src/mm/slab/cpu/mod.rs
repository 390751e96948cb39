//! The data of one CPU, which it alone changes: an array of free objects for each cache, the fast paths over it, and the
//! requests of other CPUs to drain it.
#![forbid(unsafe_code)]

mod array;
pub mod masked;
mod requests;

pub use requests::CpuSlabs;

pub(super) use array::Array;
