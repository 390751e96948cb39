//! TLBI operands: what a CPU would make of them.

use proptest::prelude::*;
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::tlbi::{RangeStep, RangeSteps, asid_operand, page_operand, range_steps, short_range};
use quarry::hal::level::LeafLevel;
use quarry::hal::mmu::{Asid, AsidScope, Invalidation, MAX_RANGE_PAGES, WalkDepth};

const LAST_PAGE: VirtAddr = VirtAddr::new(0xffff_ffff_ffff_f000);

#[test]
fn an_upper_half_address_leaves_ttl_and_asid_bits_clear() {
    assert_eq!(page_operand(LAST_PAGE, None, None), 0x0000_0fff_ffff_ffff);
    assert_eq!(page_operand(VirtAddr::new(0xffff_0000_0000_1000), None, None), 0x0000_0ff0_0000_0001);
    assert_eq!(page_operand(VirtAddr::new(0x0000_ffff_ffff_f000), None, None), 0x0000_000f_ffff_ffff);
    assert_eq!(page_operand(VirtAddr::ZERO, None, None), 0);
}

#[test]
fn an_offset_in_the_page_does_not_reach_the_operand() {
    assert_eq!(page_operand(VirtAddr::new(0xffff_0000_0000_1fff), None, None), 0x0000_0ff0_0000_0001);
}

#[test]
fn the_asid_stands_in_the_top_sixteen_bits() {
    let asid = Asid::new(0xabcd);
    assert_eq!(page_operand(VirtAddr::new(0x1000), Some(asid), None), 0xabcd_0000_0000_0001);
    assert_eq!(asid_operand(asid), 0xabcd_0000_0000_0000);
}

#[test]
fn a_level_hint_names_granule_and_level() {
    let hint = |level| page_operand(VirtAddr::ZERO, None, Some(level)) >> 44;
    assert_eq!(hint(LeafLevel::Pud), 0b0101);
    assert_eq!(hint(LeafLevel::Pmd), 0b0110);
    assert_eq!(hint(LeafLevel::Pte), 0b0111);
}

/// First page and number of pages that an instruction reaches, both halves told apart by bit 48 of the address.
fn reach(step: RangeStep) -> (u64, u64) {
    let (page, bits, count) = match step {
        RangeStep::Page(operand) => (operand & 0xfff_ffff_ffff, 44, 1),
        RangeStep::Range(operand) => {
            assert_eq!(operand >> 46 & 0b11, 0b01, "granule");
            assert_eq!(operand >> 37 & 0b11, 0, "TTL");
            let (scale, num) = (operand >> 44 & 0b11, operand >> 39 & 0b1_1111);
            (operand & 0x1f_ffff_ffff, 37, (num + 1) << (5 * scale + 1))
        }
    };
    let sign = if page >> (bits - 1) == 1 { u64::MAX << bits } else { 0 };
    ((page | sign) & 0xf_ffff_ffff_ffff, count)
}

fn assert_exact(start: VirtAddr, pages: u64, asid: Option<Asid>) {
    let mut next = start.get() >> 12;
    let mut left = pages;
    for (steps, step) in RangeSteps::new(start, pages, asid).enumerate() {
        let (RangeStep::Page(operand) | RangeStep::Range(operand)) = step;
        assert_eq!(operand >> 48, asid.map_or(0, |asid| u64::from(asid.get())));
        let (first, count) = reach(step);
        assert_eq!(first, next, "a gap or an overlap");
        assert!(count <= left, "more than was asked for");
        next = (next + count) & 0xf_ffff_ffff_ffff;
        left -= count;
        assert!(steps < 5, "at most one instruction a scale, and an odd page");
    }
    assert_eq!(left, 0, "pages left out");
}

#[test]
fn range_operands_cover_small_counts_exactly() {
    for pages in 1..=4_200 {
        assert_exact(VirtAddr::new(0xffff_8000_1234_5000), pages, None);
    }
}

#[test]
fn a_short_range_is_the_one_instruction_that_it_comes_to() {
    let (start, scope) = (VirtAddr::new(0x0000_1234_5678_9000), AsidScope::One(Asid::new(0xabcd)));
    for stride in [LeafLevel::Pte, LeafLevel::Pmd] {
        for count in 0..=130 {
            let what = Invalidation { start, count, stride, depth: WalkDepth::LastLevel, scope };
            let pages = what.pages();
            let short = short_range(what);
            assert_eq!(short.is_some(), pages.is_multiple_of(2) && (2..=64).contains(&pages), "{count} of {stride:?}");
            if let Some(operand) = short {
                assert_eq!(reach(RangeStep::Range(operand)), (start.get() >> 12, pages));
                assert_eq!(operand >> 48, 0xabcd);
                assert_eq!(range_steps(what).count(), 1, "no more than it comes to");
            }
        }
    }
}

#[test]
fn the_largest_range_and_the_last_page_are_reached() {
    assert_exact(VirtAddr::new(0xffff_0000_0000_0000), MAX_RANGE_PAGES, None);
    assert_exact(LAST_PAGE, 1, None);
    assert_exact(VirtAddr::new(0xffff_ffff_ffff_e000), 2, None);
    assert_eq!(RangeSteps::new(LAST_PAGE, 0, None).count(), 0);
}

proptest! {
    #[test]
    fn range_operands_cover_every_range_exactly(
        page in 0..1_u64 << 36,
        upper in any::<bool>(),
        pages in 1..=MAX_RANGE_PAGES,
        asid in any::<Option<u16>>(),
    ) {
        let pages = pages.min((1 << 36) - page);
        let base = if upper { 0xffff_0000_0000_0000 } else { 0 };
        assert_exact(VirtAddr::new(base | page << 12), pages, asid.map(Asid::new));
    }
}
