//! The table of a machine's caches by ID, and the state that the registry's lock protects.
#![forbid(unsafe_code)]

use super::super::object::{CacheId, MAX_CACHES};
use super::record::Cache;
use core::sync::atomic::AtomicPtr;

/// The records of all caches but the first, by ID; null where there is none.
pub(in crate::mm::slab) type Table<H> = [AtomicPtr<Cache<H>>; MAX_CACHES];

/// State protected by the registry's lock.
pub(in crate::mm::slab) struct Registry {
    /// One past the highest number of a cache.
    pub(in crate::mm::slab) len: usize,
    /// The number of the cache that is to be shrunk next.
    turn: usize,
}

impl Registry {
    pub(in crate::mm::slab) const fn new() -> Self {
        Self { len: 0, turn: 0 }
    }

    /// One past the highest number of a cache.
    pub(in crate::mm::slab) const fn len(&self) -> usize {
        self.len
    }

    /// The number of the cache to be shrunk next.
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_CACHES")]
    pub(in crate::mm::slab) fn next_in_turn(&mut self) -> CacheId {
        let turn = if self.turn < self.len { self.turn } else { 0 };
        self.turn = turn.wrapping_add(1);
        CacheId::new(turn as u16)
    }
}
