//! The allocator seen from outside: its invariants as a check, its figures, and the objects of a slab one by one.
#![forbid(unsafe_code)]

mod check;
mod occupancy;
mod slabinfo;

pub use occupancy::{Objects, Slot};
pub use slabinfo::{CacheInfo, SlabInfo};
