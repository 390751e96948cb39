//! The calls: blocks of pages, out and back, one or many, and what their owners may do with them meanwhile.

mod alloc;
mod bulk;
mod drain;
mod free;
mod might_sleep;
mod owner;
mod raw_calls;
mod sizes;

pub use bulk::PageBatch;
pub(in crate::mm) use bulk::{Freeing, Way};
pub use might_sleep::SleepsInAtomic;
