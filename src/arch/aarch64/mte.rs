//! Memory tags (FEAT_MTE2, Arm ARM D10): switching the checks on, setting and reading the tags of memory.
//!
//! The boot stub lets EL1 have tags on the way down (`HCR_EL2.ATA`, `SCR_EL3.ATA`), and slot 7 of MAIR is tagged memory
//! on a CPU that knows it. The rest is done here, on each CPU, and only if tags are wanted: until then nothing is
//! checked, and the top byte of an address counts.

use crate::addr::{TAG_GRANULE, Tag, TagSet, VirtAddr};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// `TCR_EL1`: TBI1, the top byte of a kernel address is no part of it; TCMA1, accesses with the tag 0xf there are not checked.
const TCR_TAGS: u64 = 1 << 38 | 1 << 58;
/// `SCTLR_EL1`: ATA, tags are accessible; TCF, a wrong one is a synchronous exception.
const SCTLR_ATA: u64 = 1 << 43;
const SCTLR_TCF: u64 = 3 << 40;
const SCTLR_TCF_SYNC: u64 = 1 << 40;
/// `GCR_EL1.RRND`: the CPU may choose tags as it likes.
const GCR_RRND: u64 = 1 << 16;

/// Added to the seed of each CPU, which differs by that.
static CPUS: AtomicU64 = AtomicU64::new(0);

/// Switches tag checks on, on this CPU, which has FEAT_MTE2: for loads and stores through pointers with a tag into
/// memory that is mapped as tagged. `seed` is what this CPU chooses tags by if it has no randomness of its own.
/// Exceptions masked.
pub fn init_cpu(seed: u64) {
    // Start value of the generator: 16 bits, not all zero (Arm ARM D24.2, `RGSR_EL1`).
    let number = CPUS.fetch_add(1, Ordering::Relaxed);
    let start = (seed.rotate_left((number & 63) as u32) ^ number) & 0xffff;
    let rgsr = if start == 0 { 1 << 8 } else { start << 8 };
    let gcr = GCR_RRND | u64::from(!TagSet::OWNERS.bits());
    // SAFETY: these registers decide about tags alone.
    unsafe {
        asm!(
            "msr S3_0_C1_C0_5, {rgsr}", // RGSR_EL1
            "msr S3_0_C1_C0_6, {gcr}",  // GCR_EL1
            "msr S3_0_C5_C6_0, xzr",    // TFSR_EL1
            "msr S3_0_C5_C6_1, xzr",    // TFSRE0_EL1
            rgsr = in(reg) rgsr,
            gcr = in(reg) gcr,
            options(nostack, preserves_flags),
        );
    }
    // SAFETY: the top byte of every kernel address in use is 0xff, so all keep their meaning; the TLB may hold the register.
    unsafe {
        asm!(
            "mrs {tcr}, tcr_el1",
            "orr {tcr}, {tcr}, {tags}",
            "msr tcr_el1, {tcr}",
            "isb",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            tcr = out(reg) _,
            tags = in(reg) TCR_TAGS,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(feature = "boot")]
    super::trap::use_tagging_vectors();
    // SAFETY: no pointer with a tag is in use yet on this CPU, and those without match all.
    unsafe {
        asm!(
            "mrs {sctlr}, sctlr_el1",
            "bic {sctlr}, {sctlr}, {tcf}",
            "orr {sctlr}, {sctlr}, {on}",
            "msr sctlr_el1, {sctlr}",
            ".inst 0xd503409f", // msr tco, #0: checks are not overridden
            "isb",
            sctlr = out(reg) _,
            tcf = in(reg) SCTLR_TCF,
            on = in(reg) SCTLR_ATA | SCTLR_TCF_SYNC,
            options(nostack, preserves_flags),
        );
    }
}

/// Whether tag checks are overridden where this runs (`PSTATE.TCO`). On a CPU with tags only.
#[must_use]
pub fn is_overridden() -> bool {
    let tco: u64;
    // SAFETY: reading it has no effect.
    unsafe { asm!("mrs {}, S3_3_C4_C2_7", out(reg) tco, options(nomem, nostack, preserves_flags)) };
    tco & 1 << 25 != 0
}

/// One of `choices`, at random; they are not empty.
#[must_use]
pub fn random(choices: TagSet) -> Tag {
    let mut pointer = 0_u64;
    // SAFETY: arithmetic, and a step of the generator.
    unsafe {
        asm!(
            ".arch_extension memtag",
            "irg {pointer}, {pointer}, {exclude}",
            pointer = inout(reg) pointer,
            exclude = in(reg) u64::from(!choices.bits()),
            options(nomem, nostack, preserves_flags),
        );
    }
    Tag::from_bits(pointer >> 56)
}

/// The tag of the granule at `at`. Zero where the memory is not mapped as tagged.
///
/// # Safety
///
/// `at` is mapped, and [`init_cpu`] has run on this CPU.
#[must_use]
pub unsafe fn get(at: VirtAddr) -> Tag {
    let mut pointer = at.get();
    // SAFETY: by this function's `# Safety`, `at` is mapped and the CPU has tags; a load changes nothing.
    unsafe {
        asm!(
            ".arch_extension memtag",
            "ldg {pointer}, [{pointer}]",
            pointer = inout(reg) pointer,
            options(nostack, readonly, preserves_flags),
        );
    }
    Tag::from_bits(pointer >> 56)
}

/// Bytes whose tags one DC GVA sets, or zero if it may not be used.
fn block_size() -> u64 {
    let dczid: u64;
    // SAFETY: reading it has no effect.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nomem, nostack, preserves_flags)) };
    if dczid & 1 << 4 != 0 { 0 } else { 4 << (dczid & 0xf) }
}

/// Gives `bytes` bytes from `at` on, both multiples of the granule, this tag. Without effect where the memory is not
/// mapped as tagged.
///
/// # Safety
///
/// The range is mapped, writable and its tags nobody else's, and [`init_cpu`] has run on this CPU.
pub unsafe fn set(at: VirtAddr, bytes: u64, tag: Tag) {
    debug_assert!(at.is_aligned(TAG_GRANULE) && bytes.is_multiple_of(TAG_GRANULE), "granules are whole");
    let block = block_size();
    let (mut at, mut left) = (at.with_tag(tag).get(), bytes);
    while left != 0 {
        let step = if block != 0 && left >= block && at.is_multiple_of(block) { block } else { TAG_GRANULE };
        if step == TAG_GRANULE {
            // SAFETY: by this function's `# Safety`, the range is writable and its tags nobody else's; the granule lies in it.
            unsafe {
                asm!(".arch_extension memtag", "stg {at}, [{at}]", at = in(reg) at, options(nostack, preserves_flags));
            }
        } else {
            // SAFETY: by this function's `# Safety`, the range is writable and its tags nobody else's; the block lies in it.
            unsafe {
                asm!(".arch_extension memtag", "dc gva, {at}", at = in(reg) at, options(nostack, preserves_flags));
            }
        }
        at = at.wrapping_add(step);
        left = left.saturating_sub(step);
    }
}

/// Tags that were set before are visible to all before what follows.
pub fn fence() {
    // SAFETY: a barrier.
    unsafe { asm!("dmb ish", options(nostack, preserves_flags)) };
}
