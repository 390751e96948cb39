//! The numbers of caches, and sets of them.
#![forbid(unsafe_code)]

/// Maximum number of caches.
pub const MAX_CACHES: usize = 512;

/// The number of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm::slab) struct CacheId(u16);

impl CacheId {
    /// The cache of records of caches.
    pub(in crate::mm::slab) const BOOT: Self = Self(0);

    pub(in crate::mm::slab) const fn new(raw: u16) -> Self {
        Self(raw)
    }

    pub(in crate::mm::slab) const fn get(self) -> u16 {
        self.0
    }
}

/// Bits of a word.
const BITS: u16 = 64;
/// Words of a set.
pub(in crate::mm::slab) const SET_WORDS: usize = MAX_CACHES.div_ceil(BITS as usize);

/// A set of caches, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm::slab) struct CacheSet([u64; SET_WORDS]);

impl CacheSet {
    pub(in crate::mm::slab) const NONE: Self = Self([0; SET_WORDS]);
    /// The set of all possible caches.
    pub(in crate::mm::slab) const ALL: Self = Self([u64::MAX; SET_WORDS]);

    /// One cache.
    pub(in crate::mm::slab) fn of(id: CacheId) -> Self {
        let mut set = Self::NONE;
        set.add(id);
        set
    }

    pub(in crate::mm::slab) fn add(&mut self, id: CacheId) {
        if let Some(word) = self.0.get_mut(usize::from(id.0 / BITS)) {
            *word |= 1 << (id.0 % BITS);
        }
    }

    /// As words, the lowest numbers first.
    pub(in crate::mm::slab) const fn words(&self) -> [u64; SET_WORDS] {
        self.0
    }
}
