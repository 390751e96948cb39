//! The slab data of each CPU besides its arrays: the requests of other CPUs to drain them.
#![forbid(unsafe_code)]

use super::super::object::{CacheSet, SET_WORDS};
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// The slab allocator's data of each CPU besides its arrays. All-zero is the state before there is an allocator.
#[derive(Debug)]
#[repr(C)]
pub struct CpuSlabs {
    /// Where the descriptor of the page at address zero would lie, for a machine whose fast path of freeing computes with it.
    /// The same on every CPU.
    pub(crate) descriptors: AtomicU64,
    /// Caches whose objects other CPUs have requested, by number.
    wanted: [AtomicU64; SET_WORDS],
    /// Number of requests so far.
    requested: AtomicU64,
    /// Value of `requested` when this CPU last began to drain, once it has drained.
    answered: AtomicU64,
}

impl CpuSlabs {
    /// The state before there is an allocator.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            descriptors: AtomicU64::new(0),
            wanted: [const { AtomicU64::new(0) }; SET_WORDS],
            requested: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// Asks the CPU to drain its objects of these caches. Returns the number of the request, and whether an earlier request is
    /// still unanswered, so that the CPU is at work already. Any CPU.
    pub(in crate::mm::slab) fn request(&self, caches: &CacheSet) -> (u64, bool) {
        for (wanted, bits) in self.wanted.iter().zip(caches.words()) {
            if bits != 0 {
                wanted.fetch_or(bits, Ordering::Relaxed);
            }
        }
        // Release pairs with the acquire in `requests`: the CPU that answers sees all decisions made before. A count, not a
        // flag: the answer to one request must not answer another that has come since it began.
        let before = self.requested.fetch_add(1, Ordering::Release);
        // Pairs with the fence in `answer`: the CPU sees this request after it has answered the last one, or the answer is
        // seen here.
        fence(Ordering::SeqCst);
        (before.wrapping_add(1), self.owes(before))
    }

    /// Takes one of the requested caches. Caller must be the CPU, with interrupts masked.
    pub(in crate::mm::slab) fn take_wanted(&self) -> Option<u16> {
        for (word, number) in self.wanted.iter().zip((0_u16..).step_by(64)) {
            let bits = word.load(Ordering::Relaxed);
            if bits != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
                let bit = bits.trailing_zeros() as u16;
                word.fetch_and(!(1 << bit), Ordering::Relaxed);
                return Some(number + bit);
            }
        }
        None
    }

    /// Number of requests so far.
    pub(in crate::mm::slab) fn requests(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// Whether the CPU has yet to answer one of the first `requests`.
    pub(in crate::mm::slab) fn owes(&self, requests: u64) -> bool {
        // Pairs with the release in `answer`.
        self.answered.load(Ordering::Acquire) < requests
    }

    /// Answers: the objects have been drained, after `requests` were seen. Caller must be the CPU, with interrupts masked.
    pub(in crate::mm::slab) fn answer(&self, requests: u64) {
        self.answered.store(requests, Ordering::Release);
        // As in `request`.
        fence(Ordering::SeqCst);
    }
}

impl Default for CpuSlabs {
    fn default() -> Self {
        Self::new()
    }
}
