//! How memory becomes the allocator's: the hand-over from memblock, once, and reserved memory that booting no longer needs.

mod free_reserved;
mod handoff;
mod limits;

pub use handoff::Handed;
pub use limits::ZoneLimits;
