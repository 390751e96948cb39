//! Single areas: how gaps are split and merged, guard pages, what is refused.

use super::machine::{Machine, memory};
use super::{START, all_free, alloc, free, of_pages, pages_at, space};
use quarry::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::mm::vmalloc::{AreaError, AreaRequest, Tuning, VmFlags};

fn addr(page: u64) -> VirtAddr {
    VirtAddr::new(START + page * PAGE_SIZE)
}

/// Exactly `pages` pages at page `first`, without a guard page.
fn exactly(first: u64, pages: u64) -> AreaRequest {
    let range = pages_at(first, pages);
    AreaRequest { within: Some(range), ..AreaRequest::new(range.size(), VmFlags::NO_GUARD) }
}

// Behaviour 261.
#[test]
fn a_gap_is_split_at_either_edge_in_the_middle_or_taken_whole() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 16);
    // Left edge, right edge, middle, and each of the three gaps whole.
    for (first, pages) in [(0, 4), (12, 4), (7, 2), (4, 3), (9, 3)] {
        let area = space.alloc(&exactly(first, pages)).unwrap();
        assert_eq!(area.info().range, pages_at(first, pages));
        space.check().unwrap();
    }
    assert_eq!(space.alloc(&exactly(0, 1)).unwrap_err(), AreaError::Exhausted);
    assert_eq!(space.alloc(&AreaRequest::new(1, VmFlags::NO_GUARD)).unwrap_err(), AreaError::Exhausted);
    for page in [9, 0, 7, 12, 4] {
        free(&space, addr(page));
        space.check().unwrap();
    }
    all_free(&space);
}

// Behaviour 260: merged with the gap before, behind, with both, with none.
#[test]
fn a_freed_area_merges_with_the_gaps_it_touches() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 8);
    let sizes = |pages: u64| space.alloc(&AreaRequest::new(pages * PAGE_SIZE, VmFlags::NO_GUARD)).map(|a| a.start());
    for page in 0..8 {
        space.alloc(&exactly(page, 1)).unwrap();
    }
    // None; none; behind; both.
    for (page, largest) in [(1, 1), (5, 1), (4, 2), (2, 2), (3, 5)] {
        raw!(space.recycle(space.remove(addr(page), VmFlags::empty()).unwrap()));
        space.purge_all();
        space.check().unwrap();
        assert!(sizes(largest + 1).is_err());
        let found = sizes(largest).unwrap();
        raw!(space.recycle(space.remove(found, VmFlags::empty()).unwrap()));
        space.purge_all();
    }
    for page in [0, 6, 7] {
        free(&space, addr(page));
    }
    all_free(&space);
}

// Behaviours 262 and 499.
#[test]
fn a_split_without_memory_uses_the_spares_and_a_free_needs_none() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 64);
    let first = space.alloc(&exactly(10, 1)).unwrap();
    let kept = space.hal().run_dry();
    // Two descriptors are in reserve: a split into three parts still works, the next does not.
    let second = space.alloc(&exactly(20, 1)).map(|area| area.start());
    let mut live = vec![first.start()];
    live.extend(second.ok());
    let mut page = 30;
    loop {
        match space.alloc(&exactly(page, 1)) {
            Ok(area) => live.push(area.start()),
            Err(error) => {
                assert_eq!(error, AreaError::NoDescriptor);
                break;
            }
        }
        page += 4;
        space.check().unwrap();
    }
    assert!(live.len() >= 2, "spares were used");
    space.check().unwrap();
    for start in live {
        free(&space, start);
        space.check().unwrap();
    }
    space.hal().refill(kept);
    all_free(&space);
}

#[test]
fn every_area_is_followed_by_a_guard_page_unless_it_asks_for_none() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 64);
    let guarded = alloc(&space, &of_pages(3)).unwrap().info();
    assert_eq!((guarded.range.size(), guarded.size()), (4 * PAGE_SIZE, 3 * PAGE_SIZE));
    assert!(guarded.is_guard(addr(3)) && !guarded.is_guard(addr(2)) && !guarded.is_guard(addr(4)));
    let bare = alloc(&space, &AreaRequest::new(1, VmFlags::ALLOC | VmFlags::NO_GUARD)).unwrap().info();
    assert_eq!((bare.range, bare.size()), (pages_at(4, 1), PAGE_SIZE));
    assert_eq!(space.find(addr(3)), Some(guarded), "the guard page belongs to its area");
    assert_eq!(space.find(addr(4)), Some(bare));
    assert_eq!(space.find(addr(5)), None);
    free(&space, addr(0));
    free(&space, addr(4));
    all_free(&space);
}

// Behaviour 241, at the level of areas.
#[test]
fn what_is_no_area_is_refused_by_name() {
    let mut nodes = memory(64);
    let space = space(Machine::new(4, &mut nodes), 256);
    let area = alloc(&space, &of_pages(40)).unwrap();
    let info = area.info();
    let inside = |bytes| VirtAddr::new(info.range.start().get() + bytes);
    for bytes in [8, PAGE_SIZE, 39 * PAGE_SIZE, 40 * PAGE_SIZE] {
        assert_eq!(
            raw!(space.remove(inside(bytes), VmFlags::empty())).unwrap_err(),
            AreaError::NotTheStart(inside(bytes), info)
        );
    }
    for wild in [inside(41 * PAGE_SIZE), VirtAddr::ZERO, VirtAddr::MAX, VirtAddr::new(START - PAGE_SIZE)] {
        assert_eq!(raw!(space.remove(wild, VmFlags::empty())).unwrap_err(), AreaError::NoArea(wild));
    }
    space.check().unwrap();
    free(&space, area.start());
    assert_eq!(raw!(space.remove(inside(0), VmFlags::empty())).unwrap_err(), AreaError::NoArea(inside(0)), "twice");
    all_free(&space);
}

// Behaviour 230: at the level of areas.
#[test]
fn impossible_requests_are_refused_at_once() {
    let mut nodes = memory(16);
    let space = space(Machine::new(1, &mut nodes), 64);
    let ask = |size, align| space.alloc(&AreaRequest { align, ..AreaRequest::new(size, VmFlags::ALLOC) }).unwrap_err();
    assert_eq!(ask(0, PAGE_SIZE), AreaError::Empty);
    assert!(matches!(ask(u64::MAX, PAGE_SIZE), AreaError::TooLarge(_)));
    assert!(matches!(ask(64 * PAGE_SIZE, PAGE_SIZE), AreaError::TooLarge(_)));
    assert_eq!(ask(PAGE_SIZE, 0), AreaError::BadAlignment(0));
    assert_eq!(ask(PAGE_SIZE, 3 * PAGE_SIZE), AreaError::BadAlignment(3 * PAGE_SIZE));
    let outside = AreaRequest { within: Some(pages_at(64, 8)), ..of_pages(1) };
    assert_eq!(space.alloc(&outside).unwrap_err(), AreaError::OutsideSpace);
    assert_eq!(space.hal().flushes.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing was purged for them");
    let unready = super::Space::new(Machine::new(1, &mut []));
    assert_eq!(unready.alloc(&of_pages(1)).unwrap_err(), AreaError::NotReady);
    assert_eq!(
        space.set_up(&Tuning { region: pages_at(0, 64), ram_pages: 1 }).unwrap_err().to_string(),
        "the address space was set up before"
    );
}

#[test]
fn an_area_under_construction_cannot_be_freed() {
    let mut nodes = memory(16);
    let space = space(Machine::new(1, &mut nodes), 64);
    let request = AreaRequest::new(PAGE_SIZE, VmFlags::ALLOC | VmFlags::UNINITIALIZED);
    let area = space.alloc(&request).unwrap();
    assert!(matches!(raw!(space.remove(area.start(), VmFlags::empty())), Err(AreaError::Uninitialized(_))));
    raw!(area.complete());
    space.retire(raw!(space.remove(area.start(), VmFlags::empty())).unwrap());
    let area = space.alloc(&request).unwrap();
    raw!(space.recycle(space.abandon(area).unwrap()));
    all_free(&space);
}

#[test]
fn areas_are_listed_by_address_with_what_is_known_of_them() {
    let mut nodes = memory(64);
    let space = space(Machine::new(4, &mut nodes), 1024);
    let line = line!() + 1;
    let first = alloc(&space, &AreaRequest::new(100, VmFlags::ALLOC | VmFlags::USERMAP)).unwrap();
    let big = alloc(&space, &of_pages(100)).unwrap();
    let device = space.alloc(&AreaRequest::new(PAGE_SIZE, VmFlags::IOREMAP)).unwrap();
    device.set_phys(PhysAddr::new(0x0900_0000));
    let listed: Vec<_> = space.iter().collect();
    assert_eq!(listed, [first.info(), big.info(), device.info()]);
    let mut text = String::new();
    listed[0].write_line(&mut text).unwrap();
    let expected = format!(
        "{START:#018x}-{:#018x}    8192 tests/host/vmalloc/areas.rs:{line} pages=1 vmalloc user",
        START + 2 * PAGE_SIZE
    );
    assert_eq!(text, expected);
    text.clear();
    listed[2].write_line(&mut text).unwrap();
    assert!(text.ends_with(" phys=0x0000000009000000 ioremap"), "{text}");
    // Found from any address inside, whichever node it names.
    for page in 0..101 {
        assert_eq!(space.find(VirtAddr::new(big.start().get() + page * PAGE_SIZE + 5)), Some(big.info()));
    }
}

#[test]
fn flags_have_linuxs_values_and_words() {
    let words = [
        (0x1, " ioremap"),
        (0x2, " vmalloc"),
        (0x4, " vmap"),
        (0x8, " user"),
        (0x10, " dma-coherent"),
        (0x20, ""),
        (0x40, ""),
        (0x80, ""),
        (0x100, ""),
        (0x200, ""),
        (0x400, ""),
        (0x8000, " vm_map_ram"),
        // The architecture's.
        (1 << 20, ""),
        (1 << 31, ""),
    ];
    let named = [
        VmFlags::IOREMAP,
        VmFlags::ALLOC,
        VmFlags::MAP,
        VmFlags::USERMAP,
        VmFlags::DMA_COHERENT,
        VmFlags::UNINITIALIZED,
        VmFlags::NO_GUARD,
        VmFlags::KASAN,
        VmFlags::FLUSH_RESET_PERMS,
        VmFlags::MAP_PUT_PAGES,
        VmFlags::NO_HUGE_VMAP,
        VmFlags::MAP_RAM,
    ];
    assert!(named.iter().zip(words).all(|(flag, (bits, _))| flag.bits() == bits));
    for (bits, word) in words {
        assert_eq!(VmFlags::from_bits(bits).unwrap().to_string(), word);
    }
}

// The rule of `alloc` for alignment: the lowest gap that fits for any start, and by chance only where there is none.
#[test]
fn an_aligned_area_comes_from_the_lowest_gap_that_surely_fits() {
    let mut nodes = memory(64);
    let space = space(Machine::new(1, &mut nodes), 256);
    // Gaps of 8 pages from 8 on, which is aligned, and of 15 from 33 on, which is not; all else but the end is in use.
    for (first, pages) in [(0, 8), (16, 17), (48, 8)] {
        space.alloc(&exactly(first, pages)).unwrap();
    }
    let aligned = AreaRequest { align: 8 * PAGE_SIZE, ..AreaRequest::new(8 * PAGE_SIZE, VmFlags::NO_GUARD) };
    assert_eq!(space.alloc(&aligned).unwrap().start(), addr(40), "15 pages are enough wherever they start");
    space.alloc(&exactly(56, 200)).unwrap();
    assert_eq!(space.alloc(&aligned).unwrap().start(), addr(8), "and 8 where they lie right");
    assert_eq!(space.alloc(&aligned).unwrap_err(), AreaError::Exhausted);
    space.check().unwrap();
}
