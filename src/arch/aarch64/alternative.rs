//! Instructions that the kernel exchanges once, when it knows its CPUs: the image holds what is right on every core, and
//! [`settle`] puts what is faster in its place where no CPU needs the former ([`super::errata`]). A kernel that never calls it
//! is right all the same.
//!
//! A site adds two words to the section `quarry_alternatives`: its address, and the instruction that may take its place, with
//! the reason in the upper half. As with `quarry_rseq`, the linker makes the symbols around the section.

use super::errata::{Handling, Rows};
use crate::addr::VirtAddr;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// The end of a run of broadcast TLBIs, as text for `asm!`: DSB ISH and ISB, with one more TLBI and DSB between them where a
/// core needs it ([`Handling::RepeatTlbi`]). Both the branch and the ISB that replaces it are instructions that may be exchanged
/// while another CPU executes them (Arm ARM B2.7.4.2).
macro_rules! complete_invalidation {
    () => {
        "dsb ish
        771: b 772f
        773:
        .pushsection .text.quarry_repeat_tlbi, \"ax\"
        772: tlbi vale1is, xzr
        dsb ish
        isb
        b 773b
        .popsection
        .pushsection quarry_alternatives, \"aR\"
        .quad 771b, 0x1d5033fdf
        .popsection"
    };
}
pub(super) use complete_invalidation;

/// `REPEAT` and `CLEAN` in the upper half of a site's second word.
const REPEAT: u32 = 1;
const CLEAN: u32 = 2;

/// A place in the code.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Site {
    at: VirtAddr,
    instruction: u32,
    reason: u32,
}

unsafe extern "C" {
    static __start_quarry_alternatives: Site;
    static __stop_quarry_alternatives: Site;
}

fn sites() -> &'static [Site] {
    let (start, end) = (&raw const __start_quarry_alternatives, &raw const __stop_quarry_alternatives);
    let count = (end.addr() - start.addr()) / size_of::<Site>();
    // SAFETY: the linker puts both symbols around the section, which consists of whole sites, read-only and there for good.
    unsafe { core::slice::from_raw_parts(start, count) }
}

/// The reasons whose sites have been exchanged.
static TAKEN_OUT: AtomicU32 = AtomicU32::new(0);

const fn handling(reason: u32) -> Option<Handling> {
    match reason {
        REPEAT => Some(Handling::RepeatTlbi),
        CLEAN => Some(Handling::CleanAndInvalidate),
        _ => None,
    }
}

/// Whether a CPU to which `rows` apply finds all that it needs in the image.
#[must_use]
pub fn suits(rows: Rows) -> bool {
    let out = TAKEN_OUT.load(Ordering::Acquire);
    [REPEAT, CLEAN].into_iter().all(|reason| out & reason == 0 || !handling(reason).is_some_and(|how| rows.need(how)))
}

/// Exchanges every site that no CPU with `rows` needs, through `write`, which puts an instruction at an address of the image.
/// Returns how many it has exchanged. Each [`suits`] from now on counts with that.
///
/// # Safety
///
/// `rows` are those of every CPU that is online; the others do not execute the kernel, or wait in registers, and synchronise
/// before they go on. `write` gives the address of a mapping of the instruction's memory that may be written, and does not
/// move it before its next call.
pub unsafe fn settle(rows: Rows, mut writable: impl FnMut(VirtAddr) -> Option<VirtAddr>) -> usize {
    let mut exchanged = 0;
    for reason in [REPEAT, CLEAN] {
        if handling(reason).is_none_or(|how| rows.need(how)) {
            continue;
        }
        TAKEN_OUT.fetch_or(reason, Ordering::AcqRel);
        for site in sites().iter().filter(|site| site.reason == reason) {
            let Some(at) = writable(site.at) else { continue };
            // SAFETY: the caller's promise.
            unsafe { at.as_ptr::<u32>().write_volatile(site.instruction.to_le()) };
            // Not through `icache`, which has sites itself.
            // SAFETY: the line was just written; its content is kept.
            unsafe { asm!("dc civac, {}", in(reg) at.get(), options(nostack, preserves_flags)) };
            exchanged += 1;
        }
    }
    // SAFETY: instructions are fetched anew; nothing else changes.
    unsafe { asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
    exchanged
}

/// Number of sites, and of those that hold the instruction that takes the former's place: for tests.
#[must_use]
pub fn census() -> (usize, usize) {
    // SAFETY: sites are instructions of the image, which is mapped readable.
    let exchanged = |site: &&Site| unsafe { site.at.as_ptr::<u32>().read_volatile() } == site.instruction;
    (sites().len(), sites().iter().filter(exchanged).count())
}
