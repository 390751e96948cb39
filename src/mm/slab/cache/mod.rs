//! The state that the CPUs share: a cache's record, its node behind a lock, its slabs, and the table of all caches.

mod mark;
mod node;
mod record;
mod slab;
mod table;
mod tags;

pub use node::NodeEvents;
pub use record::{Cache, Constructor};

pub(super) use node::{Chain, Node};
pub(super) use record::{array_capacity, depot_magazines, min_partial};
pub(super) use slab::{Place, Slab};
pub(super) use table::{Registry, Table};
