//! A load-exclusive and a store-exclusive apart from each other, for a word that is read, tested, and changed unless another
//! CPU has changed it: one comparison less than a compare-and-exchange after a load.
//!
//! Nothing accesses memory between the two where the compiler keeps the values between them in registers, and then they succeed
//! as surely as any such pair (Arm ARM B2.12.5). A build that is not optimised spills to the stack there, so it compares.
//! Callers have a slow path for the case that the store fails.

use crate::sync::CHECKED;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Loads `word` and watches it (LDXR).
#[inline(always)]
pub fn load(word: &AtomicU64) -> u64 {
    if CHECKED {
        return word.load(Ordering::Relaxed);
    }
    let value: u64;
    // SAFETY: a load of a word that the reference says is there. A watch that no store ends is ended by the next exception
    // or the next watch, and does nothing meanwhile.
    unsafe {
        asm!("ldxr {value}, [{word}]", value = out(reg) value, word = in(reg) word, options(nostack, preserves_flags));
    };
    value
}

/// Stores `new` if nobody has stored to `word` since [`load`] of the same word, the last one on this CPU, found `found`:
/// whether it did. It may fail for no reason (STXR).
#[inline(always)]
pub fn store(word: &AtomicU64, found: u64, new: u64) -> bool {
    if CHECKED {
        return word.compare_exchange_weak(found, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    }
    let failed: u32;
    // SAFETY: a store to an atomic.
    unsafe {
        asm!(
            "stxr {failed:w}, {new}, [{word}]",
            failed = out(reg) failed,
            new = in(reg) new,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
    };
    failed == 0
}

/// [`store`] after all accesses before it on this CPU (STLXR).
#[inline(always)]
pub fn store_release(word: &AtomicU64, found: u64, new: u64) -> bool {
    if CHECKED {
        return word.compare_exchange_weak(found, new, Ordering::Release, Ordering::Relaxed).is_ok();
    }
    let failed: u32;
    // SAFETY: a store to an atomic.
    unsafe {
        asm!(
            "stlxr {failed:w}, {new}, [{word}]",
            failed = out(reg) failed,
            new = in(reg) new,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
    };
    failed == 0
}
