//! The words by which a call decides what an address is, without a lock: those of a slab in its page descriptors, the header
//! of a CPU's array, and the multiplication that finds the start of an object.
#![forbid(unsafe_code)]

mod array;
mod member;
mod slab;

pub use array::{ArrayHeader, ArrayOffset};
pub use member::CacheObjects;
pub use slab::SlabWord;

pub(super) use array::{Magazine, get, pack, set, unpack};
pub(super) use member::{Divisor, Members};
pub(super) use slab::{Book, NIL};
