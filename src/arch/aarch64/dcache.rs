//! The data caches as devices need them maintained: the body of [`DataCache`].

use crate::addr::VirtRange;
use crate::hal::Internal;
use crate::hal::cache::DataCache;
use core::arch::asm;

/// The data caches of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caches;

/// Bytes of the smallest line of all data caches.
#[inline(always)]
fn line() -> u64 {
    let ctr: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(pure, nomem, nostack, preserves_flags)) };
    // DminLine: log2 of words.
    4 << (ctr >> 16 & 0xf)
}

/// One instruction for each line of a range that is not empty: two instructions a line in runs of 32, two and a half in runs of
/// four, four in what is left.
macro_rules! each_line {
    ($range:expr, $op:literal) => {{
        let (range, line): (VirtRange, u64) = ($range, line());
        let (start, end) = (range.start().get() & line.wrapping_neg(), range.end().get());
        // SAFETY: the caller owns the range, which is mapped, and answers for its lines; HAL-12 says what becomes of them.
        // Nothing else is changed.
        unsafe {
            asm!(
                "cmp {at}, {many}",
                "b.hi 3f",
                "2:",
                ".rept 32",
                concat!("dc ", $op, ", {at}"),
                "add {at}, {at}, {line}",
                ".endr",
                "cmp {at}, {many}",
                "b.ls 2b",
                "3:",
                "cmp {at}, {few}",
                "b.hi 5f",
                "4:",
                ".rept 4",
                concat!("dc ", $op, ", {at}"),
                "add {at}, {at}, {line}",
                ".endr",
                "cmp {at}, {few}",
                "b.ls 4b",
                "5:",
                "cmp {at}, {end}",
                "b.hs 7f",
                "6:",
                concat!("dc ", $op, ", {at}"),
                "add {at}, {at}, {line}",
                "cmp {at}, {end}",
                "b.lo 6b",
                "7:",
                at = inout(reg) start => _,
                // The last addresses from which as many lines end with the range, or before.
                many = in(reg) end.saturating_sub(line << 5),
                few = in(reg) end.saturating_sub(line << 2),
                line = in(reg) line,
                end = in(reg) end,
                options(nostack)
            )
        };
    }};
}

// SAFETY: HAL-12: the instructions of the architecture, by virtual address to the point of coherency, at the line size that
// CTR_EL0 states (Arm ARM D7.5.9); DSB SY completes them for every observer.
unsafe impl DataCache for Caches {
    #[inline(always)]
    fn line(&self) -> u64 {
        line()
    }

    #[inline(always)]
    fn clean(&self, _: Internal, range: VirtRange) {
        each_line!(range, "cvac");
    }

    #[inline(always)]
    fn invalidate(&self, _: Internal, range: VirtRange) {
        each_line!(range, "ivac");
    }

    #[inline(always)]
    fn clean_and_invalidate(&self, _: Internal, range: VirtRange) {
        each_line!(range, "civac");
    }

    #[inline(always)]
    fn complete(&self) {
        // SAFETY: a barrier.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }
}
