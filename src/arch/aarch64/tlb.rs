//! TLB maintenance: the barriers and the TLBI instructions, inner shareable throughout, and the CPUs' features.
//!
//! The sequence for a live change is store, [`order_before_invalidate`], TLBI…, [`complete`] (Arm ARM D8.16). Operands
//! come from [`super::tlbi`], masked for either half of the address space.

use super::alternative::complete_invalidation;
use super::errata::has_no_conflict_abort;
use super::tlbi::{RangeStep, asid_operand, page_operands, range_steps, short_range};
use crate::addr::VirtAddr;
use crate::hal::level::LeafLevel;
use crate::hal::mmu::{Asid, AsidScope, BbmLevel, Invalidation, WalkDepth};
use aarch64_cpu::registers::{ID_AA64ISAR0_EL1, MIDR_EL1};
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};
use tock_registers::interfaces::Readable;

/// FEAT_TLBIRANGE: `ID_AA64ISAR0_EL1.TLB` is 2 or more.
const RANGE: u8 = 1 << 0;
/// FEAT_TTL: `ID_AA64MMFR2_EL1.TTL` is 1.
const TTL: u8 = 1 << 1;
/// `ID_AA64MMFR2_EL1.BBM` is 2, on a core that never answers with a TLB conflict abort.
const BBM2: u8 = 1 << 2;

/// Features that every started CPU has.
static FEATURES: AtomicU8 = AtomicU8::new(0);

/// Reads what this CPU can do. The boot CPU's answer counts at once; each other CPU may only take away from it.
///
/// Call once on each CPU, before it edits page tables, and before blocks are split live.
pub fn init_cpu(boot: bool) {
    let here = detect();
    if boot {
        FEATURES.store(here, Ordering::Relaxed);
    } else {
        FEATURES.fetch_and(here, Ordering::Relaxed);
    }
}

fn detect() -> u8 {
    let mut features = 0;
    if ID_AA64ISAR0_EL1.get() >> 56 & 0xf >= 2 {
        features |= RANGE;
    }
    let mmfr2: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, id_aa64mmfr2_el1", out(reg) mmfr2, options(nomem, nostack, preserves_flags)) };
    if mmfr2 >> 48 & 0xf >= 1 {
        features |= TTL;
    }
    if mmfr2 >> 52 & 0xf >= 2 && has_no_conflict_abort(MIDR_EL1.get()) {
        features |= BBM2;
    }
    features
}

/// Whether the range forms may be used.
#[must_use]
#[inline]
pub fn has_range_invalidation() -> bool {
    FEATURES.load(Ordering::Relaxed) & RANGE != 0
}

/// Changes that need no break-before-make.
#[must_use]
pub fn bbm_level() -> BbmLevel {
    if FEATURES.load(Ordering::Relaxed) & BBM2 != 0 { BbmLevel::Two } else { BbmLevel::Zero }
}

/// DSB ISHST: earlier stores to tables are visible to every walker in the inner shareable domain.
#[inline]
pub fn order_before_invalidate() {
    // SAFETY: a barrier has no effect that Rust can see; no `nomem`, so that stores stay before it.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// DSB ISHST; ISB: new entries can be used by every walker, and by the next instruction here.
#[inline]
pub fn publish() {
    // SAFETY: a barrier has no effect that Rust can see; no `nomem`, so that stores stay before it.
    unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) };
}

/// DSB ISH; ISB: every invalidation issued here is complete on every CPU. On cores with an erratum there is more between the two
/// (`alternative.rs`).
#[inline]
pub fn complete() {
    // SAFETY: barriers, and dropping a translation, which is walked anew.
    unsafe { asm!(complete_invalidation!(), options(nostack, preserves_flags)) };
}

/// The whole sequence for one kernel page whose entry has just been made absent.
pub fn flush_kernel_page(page: VirtAddr) {
    order_before_invalidate();
    invalidate(Invalidation {
        start: page,
        count: 1,
        stride: LeafLevel::Pte,
        depth: WalkDepth::LastLevel,
        scope: AsidScope::All,
    });
    complete();
}

/// Drops every EL1&0 translation of every CPU.
#[inline]
pub fn invalidate_all() {
    // SAFETY: dropping translations is always allowed; they are walked anew.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) };
}

/// Drops every translation that belongs to `asid`.
#[inline]
pub fn invalidate_asid(asid: Asid) {
    // SAFETY: dropping translations is always allowed; they are walked anew.
    unsafe { asm!("tlbi aside1is, {}", in(reg) asid_operand(asid), options(nostack, preserves_flags)) };
}

/// An instruction with one operand, as a function.
macro_rules! tlbi {
    ($name:ident, $instruction:literal) => {
        #[inline]
        fn $name(operand: u64) {
            // SAFETY: dropping translations is always allowed; they are walked anew.
            unsafe { asm!($instruction, in(reg) operand, options(nostack, preserves_flags)) };
        }
    };
}

tlbi!(vae1is, "tlbi vae1is, {}");
tlbi!(vale1is, "tlbi vale1is, {}");
tlbi!(vaae1is, "tlbi vaae1is, {}");
tlbi!(vaale1is, "tlbi vaale1is, {}");
// FEAT_TLBIRANGE by encoding, since the compiler's baseline is v8.0: RVAE1IS, RVALE1IS, RVAAE1IS, RVAALE1IS.
tlbi!(rvae1is, "sys #0, c8, c2, #1, {}");
tlbi!(rvale1is, "sys #0, c8, c2, #5, {}");
tlbi!(rvaae1is, "sys #0, c8, c2, #3, {}");
tlbi!(rvaale1is, "sys #0, c8, c2, #7, {}");

#[inline]
fn by_page(operand: u64, scope: AsidScope, depth: WalkDepth) {
    match (scope, depth) {
        (AsidScope::All, WalkDepth::LastLevel) => vaale1is(operand),
        (AsidScope::All, WalkDepth::AnyLevel) => vaae1is(operand),
        (AsidScope::One(_), WalkDepth::LastLevel) => vale1is(operand),
        (AsidScope::One(_), WalkDepth::AnyLevel) => vae1is(operand),
    }
}

/// Drops translations by address, one TLBI a leaf.
#[inline(always)]
pub fn invalidate(what: Invalidation) {
    let ttl = FEATURES.load(Ordering::Relaxed) & TTL != 0;
    let operands = page_operands(what, ttl);
    match (what.scope, what.depth) {
        (AsidScope::All, WalkDepth::LastLevel) => operands.each(vaale1is),
        (AsidScope::All, WalkDepth::AnyLevel) => operands.each(vaae1is),
        (AsidScope::One(_), WalkDepth::LastLevel) => operands.each(vale1is),
        (AsidScope::One(_), WalkDepth::AnyLevel) => operands.each(vae1is),
    }
}

/// Drops translations by address with the range forms.
pub fn invalidate_range(what: Invalidation) {
    // Nearly always a few pages, for which one instruction does.
    if let Some(operand) = short_range(what) {
        return by_range(operand, what.scope, what.depth);
    }
    for step in range_steps(what) {
        match step {
            RangeStep::Page(operand) => by_page(operand, what.scope, what.depth),
            RangeStep::Range(operand) => by_range(operand, what.scope, what.depth),
        }
    }
}

#[inline]
fn by_range(operand: u64, scope: AsidScope, depth: WalkDepth) {
    match (scope, depth) {
        (AsidScope::All, WalkDepth::LastLevel) => rvaale1is(operand),
        (AsidScope::All, WalkDepth::AnyLevel) => rvaae1is(operand),
        (AsidScope::One(_), WalkDepth::LastLevel) => rvale1is(operand),
        (AsidScope::One(_), WalkDepth::AnyLevel) => rvae1is(operand),
    }
}
