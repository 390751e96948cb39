//! Making instructions that were written as data visible to instruction fetches.

use crate::addr::VirtRange;
use core::arch::asm;

/// Every CPU fetches the instructions written to `range` from now on (Linux: `flush_icache_range`; Arm ARM B2.7.4). By virtual
/// address, so any mapping of the memory will do: one that may be read. Any context. Cost: two instructions a cache line.
pub fn sync(range: VirtRange) {
    let ctr: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // CTR_EL0: log2 of the words of a line, DminLine in 19:16, IminLine in 3:0.
    let (data, instruction) = (4 << (ctr >> 16 & 0xf), 4 << (ctr & 0xf));
    each_line(range, data, |line| {
        // SAFETY: cleaning a line changes no content; the range is mapped.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
    });
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    each_line(range, instruction, |line| {
        // SAFETY: dropping a line of the instruction cache changes no content; the range is mapped.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
    });
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

fn each_line(range: VirtRange, line: u64, f: impl Fn(u64)) {
    let mut at = range.start().align_down(line).get();
    while at < range.end().get() {
        f(at);
        at += line;
    }
}
