//! Random numbers for the order of objects, the secrets of caches and the mark of free objects.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

/// A generator that any number of CPUs may use: each call mixes the next number of a Weyl sequence (SplitMix64). Knowledge of
/// one secret does not reveal the others as long as the seed is unknown.
#[derive(Debug)]
pub(in crate::mm::slab) struct Random(AtomicU64);

impl Random {
    pub(in crate::mm::slab) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Mixes in bits unknown outside.
    pub(in crate::mm::slab) fn seed(&self, entropy: u64) {
        self.0.fetch_add(mix(entropy), Ordering::Relaxed);
    }

    pub(in crate::mm::slab) fn next(&self) -> u64 {
        mix(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// A number below `end` out of 32 random bits.
pub(in crate::mm::slab) const fn below(bits: u32, end: u32) -> u32 {
    ((bits as u64 * end as u64) >> 32) as u32
}
