//! Operands of the TLBI instructions (Arm ARM C5.5). Pure arithmetic, for both halves of the address space: an address
//! of the upper half has all its high bits set, and bits that are not masked off would be read as ASID, TTL or range fields.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::hal::level::LeafLevel;
use crate::hal::mmu::{Asid, Invalidation, MAX_RANGE_PAGES, WalkDepth};

/// `VA[55:12]` of the by-address forms, bits 43:0.
const VA_MASK: u64 = (1 << 44) - 1;
/// `BaseADDR` of the range forms with a 4 KiB granule, bits 36:0.
const BASE_MASK: u64 = (1 << 37) - 1;
/// The granule field (`TG`, bits 47:46 of a range; bits 3:2 of a `TTL`) for 4 KiB.
const GRANULE_4K: u64 = 0b01;

/// The ASID, bits 63:48.
const fn asid_field(asid: Option<Asid>) -> u64 {
    match asid {
        Some(asid) => (asid.get() as u64) << 48,
        None => 0,
    }
}

/// The `TTL` field, bits 47:44: the granule and the level.
const fn ttl_field(level: LeafLevel) -> u64 {
    (GRANULE_4K << 2 | level.level() as u64) << 44
}

/// The operand of `TLBI VAE1IS` and its sisters. `asid` is `None` for the all-ASID forms, which ignore the field.
///
/// `ttl` names the level that the leaf stands at; give it only where the CPU has FEAT_TTL (`ID_AA64MMFR2_EL1.TTL`),
/// since the bits must be zero elsewhere, and only if every entry in question stands at that level.
#[must_use]
#[inline]
pub const fn page_operand(addr: VirtAddr, asid: Option<Asid>, ttl: Option<LeafLevel>) -> u64 {
    let hint = match ttl {
        Some(level) => ttl_field(level),
        None => 0,
    };
    asid_field(asid) | hint | addr.get() >> PAGE_SHIFT & VA_MASK
}

/// The operand of `TLBI ASIDE1IS`.
#[must_use]
pub const fn asid_operand(asid: Asid) -> u64 {
    asid_field(Some(asid))
}

/// The operands of the by-address forms for an invalidation, one a leaf. With `ttl`, which needs FEAT_TTL, each names
/// the level, unless tables went too: then the cached entries may have had any size.
#[must_use]
#[inline(always)]
pub const fn page_operands(what: Invalidation, ttl: bool) -> PageOperands {
    let hinted = if ttl && matches!(what.depth, WalkDepth::LastLevel) { u64::MAX } else { 0 };
    let first = page_operand(what.start, what.scope.asid(), None) | ttl_field(what.stride) & hinted;
    PageOperands { first, step: what.stride.size() >> PAGE_SHIFT, count: what.count }
}

/// Operands that follow on, a leaf's pages apart.
#[derive(Clone, Copy, Debug)]
pub struct PageOperands {
    first: u64,
    step: u64,
    count: u64,
}

impl PageOperands {
    /// Issues one instruction for each, several in a round of the loop: counting costs as much as they do.
    #[inline(always)]
    pub fn each(self, mut issue: impl FnMut(u64)) {
        const ROUND: u64 = 8;
        let mut operand = self.first;
        // An invalidation stays within one half, so the address field does not carry.
        let mut next = || {
            issue(operand);
            operand = operand.wrapping_add(self.step);
        };
        for _ in 0..self.count / ROUND {
            for _ in 0..ROUND {
                next();
            }
        }
        for _ in 0..self.count % ROUND {
            next();
        }
    }
}

/// The instructions of the range forms for an invalidation.
#[must_use]
pub const fn range_steps(what: Invalidation) -> RangeSteps {
    RangeSteps::new(what.start, what.pages(), what.scope.asid())
}

/// The operand of the one range form that an invalidation comes to, if it is one of the smallest scale: of an even number of up
/// to 64 pages.
#[must_use]
#[inline]
pub const fn short_range(what: Invalidation) -> Option<u64> {
    let pages = what.pages();
    // No pages become more than there can be.
    if pages & 1 != 0 || pages.wrapping_sub(1) >= 64 {
        return None;
    }
    let base = what.start.get() >> PAGE_SHIFT & BASE_MASK;
    Some(asid_field(what.scope.asid()) | GRANULE_4K << 46 | (pages / 2 - 1) << 39 | base)
}

/// One instruction that a range comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeStep {
    /// A range form (`TLBI RVAE1IS` …) with this operand.
    Range(u64),
    /// A by-address form (`TLBI VAE1IS` …) with this operand: a single page, which no range can say.
    Page(u64),
}

/// The instructions that together reach exactly the pages of a range, with FEAT_TLBIRANGE.
///
/// A range form covers `(NUM + 1) << (5 × SCALE + 1)` pages, NUM 0 to 31 and SCALE 0 to 3; so the count is written in
/// base 32 from the highest digit down, twice the digit's weight at a time, and an odd page goes by itself.
#[derive(Clone, Debug)]
pub struct RangeSteps {
    page: u64,
    pages: u64,
    scale: u32,
    asid: Option<Asid>,
}

impl RangeSteps {
    /// Splits `pages` pages from `start` on, at most [`MAX_RANGE_PAGES`]; pages beyond are cut.
    #[must_use]
    pub const fn new(start: VirtAddr, pages: u64, asid: Option<Asid>) -> Self {
        debug_assert!(pages <= MAX_RANGE_PAGES, "more pages than the range forms can say");
        let pages = if pages < MAX_RANGE_PAGES { pages } else { MAX_RANGE_PAGES };
        Self { page: start.get() >> PAGE_SHIFT, pages, scale: 3, asid }
    }
}

impl Iterator for RangeSteps {
    type Item = RangeStep;

    fn next(&mut self) -> Option<RangeStep> {
        if self.pages == 0 {
            return None;
        }
        if self.pages == 1 {
            self.pages = 0;
            return Some(RangeStep::Page(page_operand(VirtAddr::new(self.page << PAGE_SHIFT), self.asid, None)));
        }
        loop {
            let shift = 5 * self.scale + 1;
            let digit = (self.pages >> shift).min(32);
            if digit > 0 {
                let operand = asid_field(self.asid)
                    | GRANULE_4K << 46
                    | u64::from(self.scale) << 44
                    | (digit - 1) << 39
                    | self.page & BASE_MASK;
                self.page += digit << shift;
                self.pages -= digit << shift;
                return Some(RangeStep::Range(operand));
            }
            // Pages are two or more, so scale 0 has a digit: this never falls below zero.
            self.scale -= 1;
        }
    }
}
