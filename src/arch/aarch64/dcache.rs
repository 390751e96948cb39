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

/// One instruction for each line of a range: two instructions a line in runs of sixteen, four in what is left.
macro_rules! each_line {
    ($range:expr, $op:literal) => {{
        let (range, line): (VirtRange, u64) = ($range, line());
        let (start, end) = (range.start().get() & !(line - 1), range.end().get());
        // SAFETY: the caller owns the range, which is mapped, and answers for its lines; HAL-12 says what becomes of them.
        // Nothing else is changed.
        unsafe {
            asm!(
                "cmp {at}, {whole}",
                "b.hs 3f",
                "2:",
                ".rept 16",
                concat!("dc ", $op, ", {at}"),
                "add {at}, {at}, {line}",
                ".endr",
                "cmp {at}, {whole}",
                "b.lo 2b",
                "3:",
                "cmp {at}, {end}",
                "b.hs 5f",
                "4:",
                concat!("dc ", $op, ", {at}"),
                "add {at}, {at}, {line}",
                "cmp {at}, {end}",
                "b.lo 4b",
                "5:",
                at = inout(reg) start => _,
                // One past the last address from which sixteen lines end before the range does.
                whole = in(reg) (start + ((end - start) & !(16 * line - 1))),
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

    #[inline]
    fn clean(&self, _: Internal, range: VirtRange) {
        each_line!(range, "cvac");
    }

    #[inline]
    fn invalidate(&self, _: Internal, range: VirtRange) {
        each_line!(range, "ivac");
    }

    #[inline]
    fn clean_and_invalidate(&self, _: Internal, range: VirtRange) {
        each_line!(range, "civac");
    }

    #[inline(always)]
    fn complete(&self) {
        // SAFETY: a barrier.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }
}
