//! Owners of physical address ranges: a tree of named ranges in named ranges (Linux: `kernel/resource.c`).
//!
//! The kernel enters the existing ranges (RAM, the image, the devices of the device tree); a driver **requests** the registers
//! that it drives, so that no second one has them; a bus **allocates** addresses for its devices. A range lies wholly inside
//! the one above it and shares no address with its neighbours, so a range that lies across a border is refused for every
//! purpose.
//!
//! [`ResourceTree`] is the tree as a value, [`Resources`] the same under a lock. A [`Span`] has its last address instead
//! of an end, so that the last byte of the address space can be in one.
//!
//! # Memory
//!
//! Records ([`ResourceRecord`]) come in arrays that the tree is given and keeps; a released record goes onto a list for the next request.
//! So a release needs no memory, and the memory is bounded by the most ranges there ever were.
//!
//! # Locks and contexts
//!
//! [`Resources`] holds its lock with interrupts masked, for O(ranges) at most, and not while it asks for memory. Any
//! context.

mod add;
mod allocate;
mod check;
mod error;
mod flags;
mod index;
mod info;
mod iomem;
mod registry;
mod release;
mod slots;
mod span;
mod tree;

pub use error::ResourceError;
pub use flags::ResourceFlags;
pub use info::{ResourceId, ResourceInfo};
pub use iomem::{Iomem, SharedIomem};
pub use registry::{ResourceHal, Resources};
pub use slots::ResourceRecord;
pub use span::Span;
pub use tree::{Request, ResourceTree};
