//! The checker is worth something only if it fails: planted bugs, and every bit of a descriptor.

use super::machine::{GIB, MIB, Pages, Sim, range, with_sections};
use super::{Spec, give_back, order};
use quarry::addr::{Order, Pfn};
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::cpu::PerCpu;
use quarry::mm::page::{MigrateType, Page, PageMap, Section};
use quarry::mm::zone::{ContigError, PageHal, ZoneBroken};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Flips a bit of the first half of a descriptor: state (0 to 63), next (64 to 95), prev (96 to 127).
pub(super) fn flip(pages: &Pages<'_>, page: Page, bit: u32) {
    let map = pages.hal().map();
    let start = std::ptr::from_ref(map.get(page));
    if bit < 64 {
        // SAFETY: a descriptor starts with a 64-bit atomic (`repr(C)`), and lives as long as the map.
        unsafe { &*start.cast::<AtomicU64>() }.fetch_xor(1 << bit, Ordering::Relaxed);
    } else {
        let word = start.cast::<AtomicU32>().wrapping_add(bit as usize / 32);
        // SAFETY: two 32-bit atomics follow it.
        unsafe { &*word }.fetch_xor(1 << (bit % 32), Ordering::Relaxed);
    }
}

/// A machine with a block of every kind, and the blocks.
fn with_every_kind(f: impl FnOnce(&Pages<'_>, &[(&'static str, Page, u32)])) {
    Spec::of_size(16 * MIB).run(|pages| {
        let single = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let listed = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let block = pages.alloc_pages(Gfp::KERNEL, order(3)).unwrap();
        let compound = pages.alloc_pages(Gfp::KERNEL | Gfp::COMP, order(3)).unwrap();
        raw!(pages.free_pages(listed, Order::ZERO)).unwrap();
        // The other half of a block that was split for these is free.
        let map = pages.hal().map();
        let free = |page: &Page| map.get(*page).state().kind() == quarry::mm::page::Kind::Free;
        let freed = (0..4096).map(|index| single.align_down(10).offset(index % 1024)).find(free).unwrap();
        pages.check().unwrap();
        // How many bits of each matter: links are the owner's in an allocated block.
        let kinds = [
            ("free head", freed, 128),
            ("allocated page", single, 64),
            ("allocated block", block, 64),
            ("inside a block", block.offset(5), 64),
            ("compound head", compound, 64),
            ("tail", compound.offset(7), 96),
            ("on a list", listed, 64),
        ];
        f(pages, &kinds);
        pages.check().unwrap();
        give_back(pages, [single], Order::ZERO);
        give_back(pages, [block, compound], order(3));
    });
}

/// Bits whose change leaves a state that is as legal as the one before: how many references there are beside the first,
/// what memory type, what allocated kind, for what use; whether and how often areas map it.
fn is_owners(name: &str, bit: u32) -> bool {
    let allocated = name.starts_with("allocated") || name == "compound head";
    allocated && matches!(bit, 0 | 1 | 12..16 | 18..31 | 33..64)
}

// Behaviour 504.
#[test]
fn no_flipped_bit_of_a_descriptor_goes_unnoticed() {
    with_every_kind(|pages, kinds| {
        for (name, page, bits) in kinds {
            for bit in (0..*bits).step_by(if cfg!(miri) { 29 } else { 1 }) {
                flip(pages, *page, bit);
                let found = pages.check();
                flip(pages, *page, bit);
                assert!(found.is_err() || is_owners(name, bit), "{name}, bit {bit}");
            }
        }
        pages.check().unwrap();
    });
}

fn tag(found: Result<(), ZoneBroken>) -> &'static str {
    found.err().map_or("nothing", |broken| broken.tag)
}

#[test]
fn each_planted_bug_is_found_by_its_tag() {
    with_every_kind(|pages, kinds| {
        let page = |wanted: &str| kinds.iter().find(|(name, ..)| *name == wanted).unwrap().1;
        for (name, bit, expected) in [
            ("inside a block", 31, "PAGE-1"),
            ("allocated block", 8, "PAGE-1"),
            ("allocated block", 11, "PAGE-2"),
            ("allocated block", 2, "PAGE-2"),
            ("allocated page", 32, "PAGE-3"),
            ("allocated page", 16, "PAGE-3"),
            ("allocated block", 7, "PAGE-3"),
            ("on a list", 20, "PAGE-3"),
            ("free head", 15, "BUD-1"),
            ("allocated block", 17, "PAGE-5"),
            ("tail", 64, "PAGE-4"),
            ("on a list", 0, "PCP-1"),
            ("free head", 96, "BUD-2"),
            ("free head", 64, "BUD-1"),
        ] {
            flip(pages, page(name), bit);
            assert_eq!(tag(pages.check()), expected, "{name}, bit {bit}");
            flip(pages, page(name), bit);
        }
        // Areas map only what nobody has claimed, and what is write-back.
        let single = page("allocated page");
        for bit in [15, 20] {
            assert_eq!(tag_with(pages, single, &[bit]), "nothing");
            assert_eq!(tag_with(pages, single, &[bit, 28]), "PAGE-3", "mapped and a slab");
            assert_eq!(tag_with(pages, single, &[bit, 13]), "PAGE-3", "mapped and not write-back");
        }
        // A page block of another type than its lists.
        let map = pages.hal().map();
        let free = page("free head");
        let before = map.block_type(free).fetch_xor(3, Ordering::Relaxed);
        assert_eq!(tag(pages.check()), "BUD-5");
        map.block_type(free).store(before, Ordering::Relaxed);
    });
}

/// Flips bits, and flips them back when the check has been asked.
fn tag_with(pages: &Pages<'_>, page: Page, bits: &[u32]) -> &'static str {
    bits.iter().for_each(|bit| flip(pages, page, *bit));
    let found = tag(pages.check());
    bits.iter().for_each(|bit| flip(pages, page, *bit));
    found
}

/// Gives a descriptor the state of another one while `f` runs.
fn disguised<R>(pages: &Pages<'_>, page: Page, like: Page, f: impl FnOnce() -> R) -> R {
    let map = pages.hal().map();
    let word = |page| {
        // SAFETY: a descriptor starts with a 64-bit atomic (`repr(C)`), and lives as long as the map.
        unsafe { &*std::ptr::from_ref(map.get(page)).cast::<AtomicU64>() }
    };
    let before = word(page).swap(word(like).load(Ordering::Relaxed), Ordering::Relaxed);
    let result = f();
    word(page).store(before, Ordering::Relaxed);
    result
}

#[test]
fn a_page_that_says_it_is_on_a_list_of_a_cpu_and_is_on_none_is_found() {
    with_every_kind(|pages, kinds| {
        let page = |wanted: &str| kinds.iter().find(|(name, ..)| *name == wanted).unwrap().1;
        let (single, listed) = (page("allocated page"), page("on a list"));
        assert_eq!(disguised(pages, single, listed, || tag(pages.check())), "PCP-1");
        // A block that is neither unmovable, movable nor reclaimable.
        assert_eq!(tag_with(pages, single, &[0, 1]), "PAGE-3");
    });
}

#[test]
fn a_walk_over_descriptors_that_make_no_sense_ends_with_an_error() {
    with_every_kind(|pages, kinds| {
        let page = |wanted: &str| kinds.iter().find(|(name, ..)| *name == wanted).unwrap().1;
        let (single, inside) = (page("allocated page"), page("inside a block"));
        let walk = || pages.for_each_run(|_, _| ()).err().map(|broken| broken.tag);
        assert_eq!(walk(), None);
        disguised(pages, single, inside, || {
            assert_eq!(walk(), Some("PAGE-1"));
            assert!(pages.census().is_err());
            assert_eq!(pages.alloc_contig_pages(4000, 1, Gfp::KERNEL), Err(ContigError::NoRange));
        });
        // An order that the block is not aligned to.
        flip(pages, page("allocated block"), 11);
        assert_eq!(walk(), Some("PAGE-2"));
        flip(pages, page("allocated block"), 11);
    });
}

#[test]
fn a_hole_between_zones_that_makes_no_sense_is_found() {
    let ram = [range(GIB, 7 * MIB), range(GIB + 9 * MIB, 7 * MIB)];
    Spec::new(&ram).limits(GIB + 8 * MIB).run(|pages| {
        let map = pages.hal().map();
        let page = |phys: u64| map.find(Pfn::containing(quarry::addr::PhysAddr::new(phys))).unwrap();
        let (hole, inside) = (page(GIB + 7 * MIB), page(GIB + 7 * MIB + 4096));
        disguised(pages, hole, inside, || {
            assert_eq!(pages.for_each_run(|_, _| ()).err().map(|broken| broken.tag), Some("PAGE-1"));
        });
    });
}

// A page that says that it is reserved, or a hole: what was handed over does not add up to it.
#[test]
fn pages_that_the_zone_does_not_count_are_found() {
    with_every_kind(|pages, kinds| {
        let single = kinds.iter().find(|(name, ..)| *name == "allocated page").unwrap().1;
        let (reserved, hole) = ([28, 29, 31, 32], [30, 31, 32]);
        assert_eq!(tag_with(pages, single, &reserved), "ZONE-2");
        assert_eq!(tag_with(pages, single, &hole), "ZONE-2");
        // A page block that nobody counted as kept for contiguous allocations; one that nobody moves besides.
        for (gfp, found) in [(Gfp::KERNEL | Gfp::MOVABLE, "ZONE-3"), (Gfp::KERNEL, "CMA-1")] {
            let whole = pages.alloc_pages(gfp, order(9)).unwrap();
            let kind = pages.hal().map().block_type(whole).swap(MigrateType::Cma as u8, Ordering::Relaxed);
            assert_eq!(tag(pages.check()), found);
            pages.hal().map().block_type(whole).store(kind, Ordering::Relaxed);
            give_back(pages, [whole], order(9));
        }
    });
}

#[test]
fn a_block_that_reaches_into_the_next_zone_is_found() {
    Spec::of_size(16 * MIB).limits(GIB + 2 * MIB).without_reserve().run(|pages| {
        let whole = pages.alloc_pages(Gfp::KERNEL | Gfp::DMA | Gfp::MEMALLOC, order(9)).unwrap();
        // Order 10 instead of 9.
        assert_eq!(tag_with(pages, whole, &[8, 9]), "ZONE-4");
        give_back(pages, [whole], order(9));
    });
}

#[test]
fn two_free_buddies_are_found() {
    let cma = range(GIB + 2 * MIB, 2 * MIB);
    Spec::of_size(16 * MIB).reserve(cma).run(|pages| {
        let map = pages.hal().map();
        let first = map.find(Pfn::containing(cma.start())).unwrap();
        super::add_cma(pages, first, 512).unwrap();
        pages.check().unwrap();
        // They are apart for one reason alone: that their page blocks are of two types.
        map.block_type(first).store(MigrateType::Movable as u8, Ordering::Relaxed);
        assert_eq!(tag(pages.check()), "BUD-4");
        map.block_type(first).store(MigrateType::Cma as u8, Ordering::Relaxed);
    });
}

#[test]
fn damaged_lists_of_a_cpu_are_found() {
    Spec::of_size(64 * MIB).without_reserve().run(|pages| {
        let taken: Vec<Page> = (0..640).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect();
        give_back(pages, taken.iter().copied(), Order::ZERO);
        pages.check().unwrap();
        let step = if cfg!(miri) { 213 } else { 16 };
        let tags: BTreeSet<&str> = taken.iter().step_by(step).map(|page| tag_with(pages, *page, &[0])).collect();
        assert!(tags.contains("PCP-1") && tags.contains("PCP-3"), "{tags:?}");

        let lists = std::ptr::from_ref(<Sim<'_> as PageHal>::pages(pages.hal().local()));
        // SAFETY: the lists of a CPU start with the control word of the first one (`repr(C)`), an atomic.
        let control = unsafe { &*lists.cast::<AtomicU64>() };
        let before = control.fetch_or(0xff << 8, Ordering::Relaxed);
        assert_ne!(before & 0xff, 0, "there are pages on it");
        assert_eq!(tag(pages.check()), "PCP-2");
        control.store(before, Ordering::Relaxed);
    });
}

#[test]
fn sections_that_cannot_be_are_found() {
    Spec::of_size(16 * MIB).run(|pages| {
        let origin = pages.hal().map().origin();
        let section = |first, end| Section { first, end };
        for (origin, sections, expected) in [
            (origin, vec![section(0, 4096)], "nothing"),
            (Pfn::new(origin.get() + 512), vec![section(0, 4096)], "MAP-2"),
            (origin, vec![section(1024, 4096)], "MAP-2"),
            (origin, vec![section(0, 2048), section(1024, 4096)], "MAP-1"),
            (origin, vec![section(0, 2048), section(2048, 2048)], "MAP-1"),
            (origin, vec![section(0, 2048), section(2048, 3584)], "MAP-1"),
        ] {
            assert_eq!(with_sections(origin, &sections, || tag(pages.check())), expected, "{sections:?}");
        }
    });
}

// Whatever a bit does to a free list, no page is handed out twice.
#[test]
fn a_damaged_free_list_never_hands_a_page_out_twice() {
    for bit in (0..128).step_by(if cfg!(miri) { 37 } else { 1 }) {
        super::machine::run_on(0);
        let mut duplicates = 0;
        Spec::of_size(4 * MIB).without_reserve().run_setup(|pages, handed| {
            handed.unwrap();
            pages.set_careful(true);
            let single = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
            // The buddy is the only free page of order 0, so what its links say is where the list goes on.
            flip(pages, single.buddy(0), bit);
            // A link out of memory ends the simulated machine as it ends the real one: with a fault, not with a lie.
            let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let next = || pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO).ok();
                std::iter::from_fn(next).take(2000).collect::<Vec<Page>>()
            }));
            if let Ok(taken) = taken {
                let distinct: BTreeSet<Page> = taken.iter().copied().chain([single]).collect();
                duplicates = taken.len() + 1 - distinct.len();
            }
        });
        assert_eq!(duplicates, 0, "bit {bit}");
    }
}

// A write into a page that is free cannot reach the lists: they lie elsewhere. What can is caught by the check.
#[test]
fn a_damaged_zone_stays_damaged_until_it_is_mended() {
    Spec::of_size(8 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        pages.set_careful(true);
        flip(pages, page.buddy(0), 8);
        assert!(pages.check().is_err());
        assert!(pages.free_blocks(ZoneType::Dma).is_some(), "reports go on");
        flip(pages, page.buddy(0), 8);
        pages.check().unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        pages.set_careful(false);
    });
}
