//! An object: its memory, the slot that it lies in, and what is chosen for both when a cache is made. The lowest layer: it
//! knows no slab and no CPU.

mod flags;
mod freelist;
mod id;
mod memory;
mod order;
mod random;
mod shape;

pub use flags::SlabFlags;
pub use id::MAX_CACHES;

pub(super) use freelist::{decode, encode, split_past, with_past};
pub(super) use id::{CacheId, CacheSet, SET_WORDS};
pub(super) use memory::{Object, copy_words, load_words, low};
pub(super) use order::{MAX_SLAB_BYTES, MAX_SLAB_ORDER, slab_bytes};
pub(super) use random::{Random, below};
pub(super) use shape::{CACHE_LINE, Shape, TRACK, WORD};
