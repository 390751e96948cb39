//! The fast paths of allocating and freeing, as restartable sequences ([`rseq`](crate::arch::aarch64::rseq)): no interrupt is
//! masked, and nothing is atomic.
//!
//! Each reads the address of this CPU's data, works on the cache's array in them, and ends in one store to the array's `top`.
//! Nobody else sees the result before that store. The other loads of these sequences may fault; the slow path then finds the
//! cause. The load of a page's descriptor faults because an address outside the linear map computes to one that is never
//! mapped; the load of the object itself faults because an invalid address may compute to any address.

use super::cpu::{CpuLocal, KernelPages, KernelScopes, NUMBERED};
use super::machine::linear_offset;
use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::hal::cpu::PerCpu;
use crate::mm::layout::{self, PAGE_DESCRIPTOR_SIZE, VMEMMAP_START};
use crate::mm::page::{PageDescriptor, PageMap};
use crate::mm::slab::{ArrayHeader, ArrayOffset, CacheObjects, CpuSlabs};
use crate::mm::zone::PageHal;
use core::arch::asm;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

const NO_WAIT: usize = offset_of!(CpuLocal, scopes) + KernelScopes::NO_WAIT;

const _: () = {
    assert!(offset_of!(CpuLocal, slab) == 0 && offset_of!(CpuSlabs, descriptors) == 0);
    assert!(offset_of!(ArrayHeader, mark) == 24);
    assert!(offset_of!(ArrayHeader, served) == 0 && offset_of!(ArrayHeader, top) == 8);
    assert!(offset_of!(ArrayHeader, limit) == 16 && PAGE_DESCRIPTOR_SIZE == 32 && PAGE_SHIFT == 12);
    assert!(NO_WAIT <= 32_760 && NO_WAIT.is_multiple_of(8), "an offset that a load can have");
    // An address of the kernel's half outside the linear map computes to a descriptor in the space behind all possible ones.
    // Nothing may ever be mapped there.
    let (start, end) = (layout::VMEMMAP_END, layout::VMEMMAP_END + (layout::VMEMMAP_END - VMEMMAP_START));
    let mut rest: &[layout::Region] = &layout::REGIONS;
    while let [region, tail @ ..] = rest {
        assert!(region.end.get() <= start || region.start.get() >= end, "descriptors of addresses that are no memory");
        rest = tail;
    }
};

/// Ends a sequence that takes an object: `2` is its start, `8` its end, `3` the load that faults as long as there are no
/// arrays, `7` the exit if the array is empty.
macro_rules! pop_tables {
    () => {
        ".subsection 1
         7: mov {object}, xzr
         b 8b
         .previous
         .pushsection quarry_rseq, \"aR\"
         .balign 8
         .quad 2b, 8b, 2b
         .popsection
         .pushsection quarry_extable, \"aR\"
         .balign 8
         .quad 3b, 3b + 4, 7b
         .popsection"
    };
}

/// Takes the object on top of this CPU's array; `None` if there is none.
#[inline(always)]
pub(super) fn pop(offset: ArrayOffset) -> Option<VirtAddr> {
    let object: u64;
    // SAFETY: ARR-3, ARR-2: the header is there, and the word below its top. An exception in between starts it again, and
    // until the last store it has written `served` alone, which is a statistic.
    unsafe {
        asm!(
            "2: mrs {local}, tpidr_el1",
            "add {local}, {local}, {offset}",
            "ldp {served}, {top}, [{local}]",
            "3: ldr {object}, [{top}, #-8]!",
            "cbz {object}, 8f",
            "add {served}, {served}, #1",
            "str {served}, [{local}]",
            "str {top}, [{local}, #8]",
            "8:",
            pop_tables!(),
            local = out(reg) _,
            served = out(reg) _,
            top = out(reg) _,
            object = out(reg) object,
            offset = in(reg) u64::from(offset.distance()),
            options(nostack),
        );
    }
    (object != 0).then(|| VirtAddr::new(object))
}

/// The same for a caller that may want to wait: `None` also if waiting is not legal in its context.
#[inline(always)]
pub(super) fn pop_or_wait(offset: ArrayOffset) -> Option<VirtAddr> {
    let object: u64;
    // SAFETY: as in `pop`; reading the interrupt mask has no effect.
    unsafe {
        asm!(
            "2: mrs {local}, tpidr_el1",
            "mrs {served}, daif",
            "ldr {top}, [{local}, #{no_wait}]",
            "tst {served}, {top}",
            "b.ne 7f",
            "add {local}, {local}, {offset}",
            "ldp {served}, {top}, [{local}]",
            "3: ldr {object}, [{top}, #-8]!",
            "cbz {object}, 8f",
            "add {served}, {served}, #1",
            "str {served}, [{local}]",
            "str {top}, [{local}, #8]",
            "8:",
            pop_tables!(),
            local = out(reg) _,
            served = out(reg) _,
            top = out(reg) _,
            object = out(reg) object,
            offset = in(reg) u64::from(offset.distance()),
            no_wait = const NO_WAIT,
            options(nostack),
        );
    }
    (object != 0).then(|| VirtAddr::new(object))
}

/// Common part of the two fast paths of freeing: `$check` looks at the word of the page, in x10, and leaves the object's offset
/// in the slab in x12.
macro_rules! push {
    ($object:expr, $($check:literal,)+ mark: $($mark:literal,)+ $(word = $word:expr, secret = $secret:expr)?) => {
        // SAFETY: it writes only the mark of an object (the page's word says that it is one) and an entry of this CPU's array
        // above its top (ARR-2). An exception in between starts it again: from the start as long as the mark is not there,
        // afterwards with the array.
        unsafe {
            asm!(
                "2: mrs x9, tpidr_el1",
                "ldr x10, [x9]",                // descriptors
                "ubfx x12, {object}, #12, #44", // as NUMBERED says
                "add x10, x10, x12, lsl #5",
                "3: ldr x10, [x10, #{aux}]",    // the page's word
                $($check,)+
                "mul w12, w12, w10",
                "cmp w12, w10",
                "b.hs {slow}",                  // no object starts there
                "add x9, x9, x10, lsr #40",
                "4: ldr x12, [{object}]",
                "ldp x13, x14, [x9, #8]",       // top, limit
                $($mark,)+
                "cmp w12, w11",                 // the half of the mark that is always there
                "ccmp x13, x14, #0b0010, ne",   // free already is like full
                "b.hs {slow}",
                "str x11, [{object}]",
                "5: str {object}, [x13], #8",   // marked from here on
                "str x13, [x9, #8]",
                "6:",
                ".subsection 1",
                "7: mrs x9, tpidr_el1",         // interrupted with the object marked
                "add x9, x9, x10, lsr #40",
                "ldp x13, x14, [x9, #8]",
                "cmp x13, x14",
                "b.lo 5b",
                "8: str x12, [{object}]",       // what was there before the mark
                "9: b {slow}",
                ".previous",
                ".pushsection quarry_rseq, \"aR\"",
                ".balign 8",
                ".quad 2b, 5b, 2b",
                ".quad 5b, 6b, 7b",
                ".quad 7b, 8b, 7b",
                ".popsection",
                ".pushsection quarry_extable, \"aR\"",
                ".balign 8",
                ".quad 3b, 3b + 4, 9b",
                ".quad 4b, 4b + 4, 9b",
                ".popsection",
                object = in(reg) $object.get(),
                aux = const PageDescriptor::AUX,
                $(word = in(reg) $word, secret = in(reg) $secret,)?
                out("x9") _,
                out("x10") _,
                out("x11") _,
                out("x12") _,
                out("x13") _,
                out("x14") _,
                slow = label { return false },
                options(nostack),
            );
        }
    };
}

/// Frees an object of any cache. Returns whether it could.
#[inline(always)]
pub(super) fn push(object: VirtAddr) -> bool {
    push!(
        object,
        "ubfx x12, x10, #20, #16",
        "bfxil x12, {object}, #0, #12",
        mark:
        "ldr x11, [x9, #24]",
        "eor x11, x11, {object}",
    );
    true
}

/// Frees an object whose page has this very word, for the first page of a slab, and whose mark differs from its address in
/// `secret`: those of the cache. Returns whether it could.
#[inline(always)]
pub(super) fn push_to(object: VirtAddr, word: u64, secret: u64) -> bool {
    push!(
        object,
        "cmp x10, {word}",
        "b.ne {slow}",
        "and x12, {object}, #0xfff",
        mark:
        "eor x11, {secret}, {object}",
        word = word,
        secret = secret
    );
    true
}

/// Marks the first of `objects` as free, and writes their addresses to `room`; see [`SlabHal::push_free_many`]. Four at a time: if
/// one of four is bad, those before it are checked one by one.
///
/// [`SlabHal::push_free_many`]: crate::mm::slab::SlabHal::push_free_many
#[inline(always)]
pub(super) fn push_many(local: &CpuLocal, of: &CacheObjects, objects: &[VirtAddr], room: &[AtomicU64]) -> usize {
    let end: *const AtomicU64;
    // SAFETY: no more is read and written than both slices have. An object is touched once it is known to be one, of which
    // the mark is the allocator's while it is free. If one of four is marked already, the old words of all are written back,
    // the last first, as one object may come twice.
    unsafe {
        asm!(
            "cbz {left}, 5f",
            "6: ldr {a}, [{from}]",          // of another slab
            "ubfx {three}, {a}, #12, #44",   // as NUMBERED says
            "add {one}, {descriptors}, {three}, lsl #5",
            "8: ldr {two}, [{one}, #{aux}]", // the page's word
            "cmp {tag}, {two}, lsr #39",
            "b.ne 5f",                       // not of this cache
            "ubfx {two}, {two}, #32, #4",    // the page's number in its slab
            "sub {one}, {one}, {two}, lsl #5",
            "ldr {one}, [{one}, #{owner}]",  // the slab's book
            "sub {three}, {three}, {two}",
            "orr {three}, {three}, #0xff << 44", // the slab's start in pages, whatever the highest byte was
            "and {one}, {one}, #0x1fff",     // objects
            "mneg {offset}, {three}, {page_factor}",
            "mul {bound}, {one}, {excess}",
            "madd {one}, {a}, {factor}, {offset}",
            "cmp {one}, {bound}",
            "b.hs 5f",                       // no object starts there
            "subs {left}, {left}, #4",
            "b.lo 3f",
            "2: ldp {c}, {d}, [{from}, #16]",
            "ldp {a}, {b}, [{from}], #32",
            "madd {one}, {a}, {factor}, {offset}",
            "cmp {one}, {bound}",
            "madd {one}, {b}, {factor}, {offset}",
            "ccmp {one}, {bound}, #0b0010, lo", // none if the one before is none
            "madd {one}, {c}, {factor}, {offset}",
            "ccmp {one}, {bound}, #0b0010, lo",
            "madd {one}, {d}, {factor}, {offset}",
            "ccmp {one}, {bound}, #0b0010, lo",
            "b.hs 9f",
            "ldr {one}, [{a}, {place}]",
            "eor {mark}, {secret}, {a}",
            "cmp {one:w}, {mark:w}",
            "str {mark}, [{a}, {place}]",
            "ldr {two}, [{b}, {place}]",
            "eor {mark}, {secret}, {b}",
            "ccmp {two:w}, {mark:w}, #0b0100, ne", // marked if the one before is
            "str {mark}, [{b}, {place}]",
            "ldr {three}, [{c}, {place}]",
            "eor {mark}, {secret}, {c}",
            "ccmp {three:w}, {mark:w}, #0b0100, ne",
            "str {mark}, [{c}, {place}]",
            "ldr {four}, [{d}, {place}]",
            "eor {mark}, {secret}, {d}",
            "ccmp {four:w}, {mark:w}, #0b0100, ne",
            "str {mark}, [{d}, {place}]",
            "b.eq 7f",
            "stp {a}, {b}, [{to}], #16",
            "stp {c}, {d}, [{to}], #16",
            "subs {left}, {left}, #4",
            "b.hs 2b",
            "3: adds {left}, {left}, #4",
            "b.eq 5f",
            "4: ldr {a}, [{from}]",
            "madd {one}, {a}, {factor}, {offset}",
            "cmp {one}, {bound}",
            "b.hs 6b",
            "ldr {one}, [{a}, {place}]",
            "eor {mark}, {secret}, {a}",
            "cmp {one:w}, {mark:w}",
            "b.eq 5f",                      // free already
            "str {mark}, [{a}, {place}]",
            "str {a}, [{to}], #8",
            "add {from}, {from}, #8",
            "subs {left}, {left}, #1",
            "b.ne 4b",
            "5:",
            ".subsection 1",
            "7: str {four}, [{d}, {place}]",
            "str {three}, [{c}, {place}]",
            "str {two}, [{b}, {place}]",
            "str {one}, [{a}, {place}]",
            "9: sub {from}, {from}, #32",
            "b 3b",
            ".previous",
            ".pushsection quarry_extable, \"aR\"",
            ".balign 8",
            ".quad 8b, 8b + 4, 5b",
            ".popsection",
            left = inout(reg) objects.len().min(room.len()) => _,
            from = inout(reg) objects.as_ptr() => _,
            to = inout(reg) room.as_ptr() => end,
            descriptors = in(reg) local.slab.descriptors.load(Ordering::Relaxed),
            tag = in(reg) of.array.tag(),
            factor = in(reg) of.size.factor,
            page_factor = in(reg) of.size.factor << PAGE_SHIFT,
            excess = in(reg) of.size.excess,
            place = in(reg) u64::from(of.mark),
            secret = in(reg) of.secret,
            mark = out(reg) _,
            offset = out(reg) _,
            bound = out(reg) _,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            one = out(reg) _,
            two = out(reg) _,
            three = out(reg) _,
            four = out(reg) _,
            aux = const PageDescriptor::AUX,
            owner = const PageDescriptor::OWNER,
            options(nostack),
        );
    }
    (VirtAddr::of(end).get().wrapping_sub(VirtAddr::of(room.as_ptr()).get()) / 8) as usize
}

/// The word at an address; zero if nothing is mapped there.
#[inline(always)]
pub(super) fn word_at(at: NonNull<u8>) -> u64 {
    let word: u64;
    // SAFETY: reads a word, which another context may be writing to, or faults and goes on with zero.
    unsafe {
        asm!(
            "3: ldr {word}, [{at}]",
            "8:",
            ".subsection 1",
            "9: mov {word}, xzr",
            "b 8b",
            ".previous",
            ".pushsection quarry_extable, \"aR\"",
            ".balign 8",
            ".quad 3b, 3b + 4, 9b",
            ".popsection",
            at = in(reg) at.as_ptr(),
            word = out(reg) word,
            options(nostack, readonly, preserves_flags),
        );
    }
    word
}

/// The number of the page that starts at an address, if it has a descriptor.
#[inline(always)]
pub(super) fn page_number(at: VirtAddr) -> Option<u32> {
    let local = KernelPages(()).local();
    let first = linear_offset().wrapping_add(KernelPages::local_map(local).origin().get() << PAGE_SHIFT);
    // A pointer that does not start a page becomes a large index, and so does one below the first page.
    let index = u32::try_from(at.get().wrapping_sub(first).rotate_right(PAGE_SHIFT)).ok()?;
    let descriptor =
        local.slab.descriptors.load(Ordering::Relaxed).wrapping_add((at.get() & NUMBERED) >> PAGE_SHIFT << 5);
    // SAFETY: reads a word of a descriptor, or faults: so far above the first one there are descriptors or nothing.
    unsafe {
        asm!(
            "3: ldr xzr, [{descriptor}]",
            ".subsection 1",
            "9: b {none}",
            ".previous",
            ".pushsection quarry_extable, \"aR\"",
            ".balign 8",
            ".quad 3b, 3b + 4, 9b",
            ".popsection",
            descriptor = in(reg) descriptor,
            none = label { return None },
            options(nostack, readonly, preserves_flags),
        );
    }
    Some(index)
}
