//! Making instructions that were written as data visible to instruction fetches.

use super::features::is_icache_pipt;
use crate::addr::VirtRange;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the instruction caches of all CPUs find a line by its physical address. Before [`init_cpu`] the answer that is right
/// for every machine.
static PIPT: AtomicBool = AtomicBool::new(false);
/// Bytes of the smallest data line and the smallest instruction line of all CPUs.
static LINES: [AtomicU64; 2] = [const { AtomicU64::new(4) }; 2];

/// Takes this CPU's caches into account, by its `CTR_EL0`. Each CPU once, the boot CPU, which is `first`, before all others.
pub(super) fn init_cpu(ctr: u64, first: bool) {
    // Log2 of the words of a line: DminLine in 19:16, IminLine in 3:0.
    for (line, shift) in LINES.iter().zip([16, 0]) {
        let here = 4 << (ctr >> shift & 0xf);
        if first {
            line.store(here, Ordering::Relaxed);
        } else {
            line.fetch_min(here, Ordering::Relaxed);
        }
    }
    if first {
        PIPT.store(is_icache_pipt(ctr), Ordering::Relaxed);
    } else {
        PIPT.fetch_and(is_icache_pipt(ctr), Ordering::Relaxed);
    }
}

/// Every CPU fetches the instructions written to `range` from now on (Linux: `caches_clean_inval_pou`; Arm ARM B2.7.4), whatever
/// mapping it executes them by: `range` is any mapping of the memory that may be read. Any context. Cost: two instructions a
/// cache line; on a machine with a VIPT instruction cache, which keeps lines by virtual address, one a line and the whole
/// instruction caches of all CPUs (Linux: `icache_is_aliasing`).
pub fn sync(range: VirtRange) {
    let [data, instruction] = LINES.each_ref().map(|line| line.load(Ordering::Relaxed));
    each_line(range, data, |line| {
        // `dc cvau, x9` takes its place where it works (alternative.rs).
        // SAFETY: cleaning a line changes no content; the range is mapped.
        unsafe {
            asm!(
                "771: dc civac, x9
                .pushsection quarry_alternatives, \"aR\"
                .quad 771b, 0x2d50b7b29
                .popsection",
                in("x9") line,
                options(nostack, preserves_flags)
            );
        };
    });
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    if PIPT.load(Ordering::Relaxed) {
        each_line(range, instruction, |line| {
            // SAFETY: dropping a line of the instruction cache changes no content; the range is mapped.
            unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        });
    } else {
        // SAFETY: as above, of all lines.
        unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
    }
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
