//! The fast paths of the candidate with `cmpxchg`, as its kernel would have them: in assembly, with the exclusive pairs of
//! every Armv8 (LDXP, STXP) or the compare-and-swap of FEAT_LSE (CASP).
//!
//! Neither masks interrupts. Each reads the CPU's free list and its transaction number (`tid`), computes, and replaces
//! both if both are unchanged; every change of the list adds one to the number, so a list that was changed and changed back is
//! not taken for the same (Linux: `__update_cpu_freelist_fast`).

use super::slub::{CpuSlab, LINK, Local, SLOT};
use core::arch::asm;
use core::mem::offset_of;
use quarry::addr::{PAGE_SHIFT, VirtAddr};
use quarry::arch::aarch64::features::IdRegisters;
use quarry::mm::layout::PAGE_DESCRIPTOR_SIZE;
use quarry::mm::page::PageDescriptor;

const _: () = {
    assert!(offset_of!(Local, descriptors) == 0 && offset_of!(Local, mark) == 8);
    assert!(offset_of!(CpuSlab, freelist) == 0 && offset_of!(CpuSlab, tid) == 8 && offset_of!(CpuSlab, slab) == 16);
    assert!(offset_of!(CpuSlab, secret) == 24 && offset_of!(CpuSlab, link) == 32);
    assert!(PAGE_DESCRIPTOR_SIZE == 32 && PAGE_SHIFT == 12);
};

/// Result of a fast path of freeing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Given {
    /// It is on the CPU's list.
    Done,
    /// It is an object that is in use, of another slab than the CPU's. It may have been marked as free, nothing else has
    /// changed.
    Elsewhere,
    /// It is no object, or a free one. Nothing has changed.
    Refused,
}

/// Two words that change together.
pub(crate) type Pair = [u64; 2];

/// A way of replacing two words that have not changed meanwhile.
pub(crate) trait CompareExchange {
    /// Whether the CPU has its instructions.
    fn is_there(cpu: &IdRegisters) -> bool;

    /// Takes the first object of this CPU's list, still marked as free.
    fn take() -> Option<VirtAddr>;

    /// Marks an object as free and puts it on this CPU's list, if it is of the CPU's slab.
    fn give(object: VirtAddr) -> Given;

    /// Replaces the words at `place` if they are `from`. Returns whether they were. A CPU that sees the new words sees all
    /// earlier writes.
    ///
    /// # Safety
    ///
    /// Two words of memory at a multiple of 16.
    unsafe fn replace(place: *const Pair, from: Pair, to: Pair) -> bool;
}

/// A sequence of `$replace` replaces x2, x3 at [x9] by x4, x5, or starts again at `2`.
macro_rules! short_ways {
    ($name:ident, $doc:literal, $is_there:expr, [$($extension:literal)?], [$($replace:literal,)+], [$($release:literal,)+]) => {
        #[doc = $doc]
        #[derive(Debug)]
        pub(crate) struct $name;

        impl CompareExchange for $name {
            fn is_there(cpu: &IdRegisters) -> bool {
                $is_there(cpu)
            }

            #[inline(always)]
            fn take() -> Option<VirtAddr> {
                let object: u64;
                // SAFETY: TPIDR_EL0 points to this CPU's `Local`, and its list, if it is not empty, to a free object, or to one
                // that was free a moment ago: mapped for good. The value read counts only if nothing has changed.
                unsafe {
                    asm!(
                        $($extension,)?
                        "2: mrs x9, tpidr_el0",
                        "add x9, x9, {slot}",
                        "ldp x2, x3, [x9]",     // free list, tid
                        "ldr x4, [x9, #24]",    // secret
                        "cbz x2, 8f",
                        "add x10, x2, #{link}",
                        "ldr x5, [x10]",
                        "rev x10, x10",
                        "eor x4, x4, x5",
                        "eor x4, x4, x10",      // the object after it
                        "add x5, x3, #1",
                        $($replace,)+
                        "8:",
                        slot = in(reg) SLOT,
                        link = const LINK,
                        out("x2") object,
                        out("x3") _,
                        out("x4") _,
                        out("x5") _,
                        out("x6") _,
                        out("x7") _,
                        out("x9") _,
                        out("x10") _,
                        options(nostack),
                    );
                }
                (object != 0).then(|| VirtAddr::new(object))
            }

            #[inline(always)]
            fn give(object: VirtAddr) -> Given {
                // SAFETY: what is written is the link and the mark of an object that its page's word says is one and
                // that the caller gives up; then this CPU's list, if nothing has changed. Loads that may fault have
                // where to go.
                unsafe {
                    asm!(
                        $($extension,)?
                        "mrs x9, tpidr_el0",
                        "ldp x10, x11, [x9]",           // descriptors, mark
                        "ubfx x12, {object}, #12, #44",
                        "add x10, x10, x12, lsl #5",
                        "3: ldr x13, [x10, #{aux}]",    // the page's word
                        "ubfx x12, x13, #20, #16",
                        "bfxil x12, {object}, #0, #12",
                        "mul w12, w12, w13",
                        "cmp w12, w13",
                        "b.hs {refused}",               // no object starts there
                        "4: ldr x12, [{object}]",
                        "cmp x12, x11",
                        "b.eq {refused}",               // free already
                        "ubfx x12, x13, #32, #4",
                        "sub x10, x10, x12, lsl #5",    // the descriptor of the slab's first page
                        "add x9, x9, x13, lsr #40",
                        "2: ldp x2, x3, [x9]",          // free list, tid
                        "ldp x12, x14, [x9, #16]",      // the CPU's slab, secret
                        "cmp x12, x10",
                        "b.ne {elsewhere}",
                        "ldr x12, [x9, #32]",
                        "add x12, {object}, x12",       // where the link stands
                        "rev x13, x12",
                        "eor x14, x14, x2",
                        "eor x13, x13, x14",
                        "str x13, [x12]",
                        "str x11, [{object}]",
                        "mov x4, {object}",
                        "add x5, x3, #1",
                        $($replace,)+
                        ".pushsection quarry_extable, \"aR\"",
                        ".balign 8",
                        ".quad 3b, 3b + 4, 9f",
                        ".quad 4b, 4b + 4, 9f",
                        ".popsection",
                        ".subsection 1",
                        "9: b {refused}",
                        ".previous",
                        object = in(reg) object.get(),
                        aux = const PageDescriptor::AUX,
                        out("x2") _,
                        out("x3") _,
                        out("x4") _,
                        out("x5") _,
                        out("x6") _,
                        out("x7") _,
                        out("x9") _,
                        out("x10") _,
                        out("x11") _,
                        out("x12") _,
                        out("x13") _,
                        out("x14") _,
                        refused = label { return Given::Refused },
                        elsewhere = label { return Given::Elsewhere },
                        options(nostack),
                    );
                }
                Given::Done
            }

            #[inline(always)]
            unsafe fn replace(place: *const Pair, from: Pair, to: Pair) -> bool {
                let done: u64;
                // SAFETY: by `# Safety`, two words of memory at a multiple of 16.
                unsafe {
                    asm!(
                        $($extension,)?
                        $($release,)+
                        "8: cset x6, eq",
                        inout("x2") from[0] => _,
                        inout("x3") from[1] => _,
                        in("x4") to[0],
                        in("x5") to[1],
                        out("x6") done,
                        out("x7") _,
                        in("x9") place,
                        options(nostack),
                    );
                }
                done != 0
            }
        }
    };
}

short_ways!(
    Exclusives,
    "A pair of exclusive accesses: any Armv8.",
    |_| true,
    [],
    ["5: ldxp x6, x7, [x9]", "cmp x6, x2", "ccmp x7, x3, #0, eq", "b.ne 2b", "stxp w6, x4, x5, [x9]", "cbnz w6, 5b",],
    ["5: ldxp x6, x7, [x9]", "cmp x6, x2", "ccmp x7, x3, #0, eq", "b.ne 8f", "stlxp w6, x4, x5, [x9]", "cbnz w6, 5b",]
);

short_ways!(
    CompareAndSwapPair,
    "One instruction: FEAT_LSE, Armv8.1.",
    IdRegisters::has_lse,
    [".arch_extension lse"],
    ["mov x6, x2", "mov x7, x3", "casp x6, x7, x4, x5, [x9]", "cmp x6, x2", "ccmp x7, x3, #0, eq", "b.ne 2b",],
    ["mov x6, x2", "mov x7, x3", "caspl x6, x7, x4, x5, [x9]", "cmp x6, x2", "ccmp x7, x3, #0, eq",]
);
