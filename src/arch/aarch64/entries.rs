//! Loops over neighbouring table entries, two at a time: LDP and STP of two 64-bit registers are two single-copy atomic
//! accesses of 64 bits each (Arm ARM B2.2.1), which the compiler does not make of atomics by itself.

use crate::hal::entry::RawEntry;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Entries in one round of a loop.
const ROUND: usize = 8;

/// The OR of the entries, up to the first round with one that is not zero.
#[inline]
pub(super) fn any(entries: &[AtomicU64]) -> u64 {
    let (rounds, rest) = entries.as_chunks::<ROUND>();
    let mut any = rest.iter().fold(0, |any, entry| any | entry.load(Ordering::Relaxed));
    for round in rounds {
        // A run that is not empty mostly begins so.
        if any != 0 {
            break;
        }
        // SAFETY: loads of the eight entries that the reference covers.
        unsafe {
            asm!(
                "ldp {a}, {b}, [{at}]",
                "ldp {c}, {d}, [{at}, #16]",
                "orr {any}, {any}, {a}",
                "orr {b}, {b}, {c}",
                "ldp {a}, {c}, [{at}, #32]",
                "orr {any}, {any}, {d}",
                "orr {b}, {b}, {a}",
                "ldp {a}, {d}, [{at}, #48]",
                "orr {any}, {any}, {c}",
                "orr {b}, {b}, {a}",
                "orr {any}, {any}, {d}",
                "orr {any}, {any}, {b}",
                at = in(reg) round.as_ptr(),
                any = inout(reg) any,
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
    any
}

/// Writes `first`, `first + step`, … to the entries.
#[inline]
pub(super) fn fill(entries: &[AtomicU64], first: u64, step: u64) {
    let (rounds, rest) = entries.as_chunks::<ROUND>();
    let (mut low, mut high) = (first, first.wrapping_add(step));
    let two = step.wrapping_mul(2);
    for round in rounds {
        // SAFETY: stores to the eight entries that the reference covers, which are atomics.
        unsafe {
            asm!(
                "stp {low}, {high}, [{at}]",
                "add {low}, {low}, {two}",
                "add {high}, {high}, {two}",
                "stp {low}, {high}, [{at}, #16]",
                "add {low}, {low}, {two}",
                "add {high}, {high}, {two}",
                "stp {low}, {high}, [{at}, #32]",
                "add {low}, {low}, {two}",
                "add {high}, {high}, {two}",
                "stp {low}, {high}, [{at}, #48]",
                "add {low}, {low}, {two}",
                "add {high}, {high}, {two}",
                at = in(reg) round.as_ptr(),
                low = inout(reg) low,
                high = inout(reg) high,
                two = in(reg) two,
                options(nostack, preserves_flags),
            );
        }
    }
    for entry in rest {
        entry.store(low, Ordering::Relaxed);
        low = low.wrapping_add(step);
    }
}

/// Writes what `entry` makes of each of `list` to the entries, up to the first for which it returns `None`. Returns whether
/// there was none.
#[inline(always)]
pub(super) fn write_each<T: Copy>(
    entries: &[AtomicU64],
    list: &[T],
    mut entry: impl FnMut(T) -> Option<RawEntry>,
) -> bool {
    // Four in a round: half of a shorter one would be counting.
    let ((places, last_places), (items, last_items)) = (entries.as_chunks::<4>(), list.as_chunks::<4>());
    for (places, items) in places.iter().zip(items) {
        for (place, item) in places.iter().zip(items) {
            let Some(entry) = entry(*item) else { return false };
            place.store(entry.get(), Ordering::Relaxed);
        }
    }
    for (place, item) in last_places.iter().zip(last_items) {
        let Some(entry) = entry(*item) else { return false };
        place.store(entry.get(), Ordering::Relaxed);
    }
    true
}

/// Shows `each` of the entries.
#[inline(always)]
pub(super) fn read_each(entries: &[AtomicU64], mut each: impl FnMut(RawEntry)) {
    // As above.
    let (rounds, rest) = entries.as_chunks::<4>();
    for round in rounds {
        for entry in round {
            each(RawEntry::new(entry.load(Ordering::Relaxed)));
        }
    }
    for entry in rest {
        each(RawEntry::new(entry.load(Ordering::Relaxed)));
    }
}

/// Replaces each of the entries by what `change` makes of it, if it makes something.
#[inline(always)]
pub(super) fn change_each(entries: &[AtomicU64], mut change: impl FnMut(RawEntry) -> Option<RawEntry>) {
    let mut one = |entry: &AtomicU64| {
        if let Some(new) = change(RawEntry::new(entry.load(Ordering::Relaxed))) {
            entry.store(new.get(), Ordering::Relaxed);
        }
    };
    // As above.
    let (rounds, rest) = entries.as_chunks::<4>();
    for round in rounds {
        let [first, second, third, fourth] = round;
        one(first);
        one(second);
        one(third);
        one(fourth);
    }
    for entry in rest {
        one(entry);
    }
}

/// Clears the bits of the entries that `mask` does not have.
#[inline]
pub(super) fn keep(entries: &[AtomicU64], mask: u64) {
    let (rounds, rest) = entries.as_chunks::<ROUND>();
    for round in rounds {
        // SAFETY: loads of and stores to the eight entries that the reference covers, which are atomics.
        unsafe {
            asm!(
                "ldp {a}, {b}, [{at}]",
                "ldp {c}, {d}, [{at}, #16]",
                "and {a}, {a}, {mask}",
                "and {b}, {b}, {mask}",
                "and {c}, {c}, {mask}",
                "and {d}, {d}, {mask}",
                "stp {a}, {b}, [{at}]",
                "stp {c}, {d}, [{at}, #16]",
                "ldp {a}, {b}, [{at}, #32]",
                "ldp {c}, {d}, [{at}, #48]",
                "and {a}, {a}, {mask}",
                "and {b}, {b}, {mask}",
                "and {c}, {c}, {mask}",
                "and {d}, {d}, {mask}",
                "stp {a}, {b}, [{at}, #32]",
                "stp {c}, {d}, [{at}, #48]",
                at = in(reg) round.as_ptr(),
                mask = in(reg) mask,
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
    }
    for entry in rest {
        entry.store(entry.load(Ordering::Relaxed) & mask, Ordering::Relaxed);
    }
}

/// Writes zero to the entries.
#[inline]
pub(super) fn clear(entries: &[AtomicU64]) {
    let (rounds, rest) = entries.as_chunks::<ROUND>();
    for round in rounds {
        // SAFETY: as in `fill`.
        unsafe {
            asm!(
                "stp xzr, xzr, [{at}]",
                "stp xzr, xzr, [{at}, #16]",
                "stp xzr, xzr, [{at}, #32]",
                "stp xzr, xzr, [{at}, #48]",
                at = in(reg) round.as_ptr(),
                options(nostack, preserves_flags),
            );
        }
    }
    for entry in rest {
        entry.store(0, Ordering::Relaxed);
    }
}
