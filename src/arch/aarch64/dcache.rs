//! The data caches as devices need them maintained: the body of [`DataCache`].

use crate::addr::VirtRange;
use crate::hal::Internal;
use crate::hal::cache::DataCache;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

global_asm!(include_str!("dcache.S"));

/// The data caches of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caches;

/// The smallest line of all data caches of all CPUs (`CTR_EL0.DminLine`), as [`lines`] of the log2 of its bytes: what maintenance
/// goes by. Before [`init_cpu`] the smallest that there can be, which is right for every machine, as lines may be maintained
/// more than once.
static LINES: AtomicU64 = AtomicU64::new(lines(4));
/// Bytes that a write-back may overwrite at most, on any CPU (`CTR_EL0.CWG`): what buffers must not share. Before [`init_cpu`] the
/// largest that there can be.
static GRANULE: AtomicU64 = AtomicU64::new(2048);
/// The granule of a CPU that does not say (Linux: `ARCH_DMA_MINALIGN`).
const UNKNOWN_GRANULE: u64 = 128;

/// Bytes of a line, and their log2 in the low six bits, which are all that a shift looks at.
const fn lines(log2: u64) -> u64 {
    64 << log2 | log2
}

/// Takes this CPU's caches into account. Each CPU once, before it maintains a cache; the boot CPU, which is `first`, before all
/// others. A CPU whose lines are longer than another's must not step over the other's.
pub fn init_cpu(first: bool) {
    let ctr: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(pure, nomem, nostack, preserves_flags)) };
    // Both are log2 of words of four bytes.
    let line = lines(2 + (ctr >> 16 & 0xf));
    let granule = match ctr >> 24 & 0xf {
        0 => UNKNOWN_GRANULE,
        words => 4 << words.min(9),
    };
    if first {
        LINES.store(line, Ordering::Relaxed);
        GRANULE.store(granule, Ordering::Relaxed);
    } else {
        LINES.fetch_min(line, Ordering::Relaxed);
        GRANULE.fetch_max(granule, Ordering::Relaxed);
    }
    super::icache::init_cpu(ctr, first);
}

/// One instruction for each line of a range that is not empty. The first line is done in place, since small buffers have no
/// more; for the others a jump into a run leaves two instructions a line. An address names the line that it lies in, so none
/// is rounded.
macro_rules! each_line {
    ($range:expr, $op:literal) => {
        each_line!($range, $op, concat!("dc ", $op, ", x9"))
    };
    ($range:expr, $op:literal, $first:expr) => {{
        let range: VirtRange = $range;
        let start = range.start().get();
        let last = range.end().get().wrapping_sub(start).wrapping_sub(1);
        // SAFETY: the caller owns the range, which is mapped; HAL-12 says what becomes of its lines.
        // Nothing else is changed, and the routine's clobbers are declared.
        unsafe {
            asm!(
                $first,
                "lsr x11, x11, x10",
                "lsr x12, x9, x10",
                "subs x11, x11, x12",
                "b.eq 2f",
                concat!("bl dc_lines_", $op),
                "2:",
                inout("x9") start => _,
                in("x10") LINES.load(Ordering::Relaxed),
                inout("x11") start.wrapping_add(last) => _,
                out("x12") _,
                out("x13") _,
                out("lr") _,
                options(nostack)
            )
        };
    }};
}

// SAFETY: HAL-12: the instructions of the architecture, by virtual address to the point of coherency, at the line size that
// CTR_EL0 states (Arm ARM D7.5.9); DSB SY completes them for every observer.
unsafe impl DataCache for Caches {
    #[inline(always)]
    fn granule(&self) -> u64 {
        GRANULE.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn clean(&self, _: Internal, range: VirtRange) {
        // `dc cvac, x9` takes the first one's place where it works; `dcache.S` has the same for the others.
        each_line!(
            range,
            "cvac",
            "771: dc civac, x9
            .pushsection quarry_alternatives, \"aR\"
            .quad 771b, 0x2d50b7a29
            .popsection"
        );
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
