//! Bytes on their way from an interrupt handler to one reader.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// A queue of bytes with one writer and one reader, and a count of lost bytes: those that found no room, and those that the
/// sender says never came. Neither side waits.
///
/// # Invariants
///
/// - `RING-1`: `read` ≤ `written` ≤ `read` + `N`; the writer alone moves `written`, the reader alone `read`. Places from
///   `read` to `written` are the reader's, all others the writer's.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    written: AtomicUsize,
    read: AtomicUsize,
    lost: AtomicU64,
}

impl<const N: usize> Ring<N> {
    /// An empty one. `N` is a power of two.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "the counters wrap") };
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Adds a byte, or counts it as lost. The writer alone.
    pub fn push(&self, byte: u8) {
        let written = self.written.load(Ordering::Relaxed);
        // Acquire pairs with the release in `pop`: the reader has finished with the place.
        if written.wrapping_sub(self.read.load(Ordering::Acquire)) == N {
            return self.lose(1);
        }
        if let Some(place) = self.bytes.get(written % N) {
            place.store(byte, Ordering::Relaxed);
        }
        // INVARIANT: RING-1. Release pairs with the acquire in `pop`: the byte is there.
        self.written.store(written.wrapping_add(1), Ordering::Release);
    }

    /// Counts bytes that never came here. Any context.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes the oldest byte. The reader alone.
    pub fn pop(&self) -> Option<u8> {
        let read = self.read.load(Ordering::Relaxed);
        if self.written.load(Ordering::Acquire) == read {
            return None;
        }
        let byte = self.bytes.get(read % N)?.load(Ordering::Relaxed);
        // INVARIANT: RING-1.
        self.read.store(read.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    /// Whether there is nothing to take. The reader alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.load(Ordering::Acquire) == self.read.load(Ordering::Relaxed)
    }

    /// Number of bytes lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}
