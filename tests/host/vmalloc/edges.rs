//! Where two numbers are equal: as much memory as there is, areas of just 2 MiB, just as many waiting pages as may wait, the
//! first page of a group; and what is under way while somebody else comes.

use super::kernel::{Vmalloc, acknowledging_late, asking, free_pages, on_a_machine, take_page, touch};
use super::machine::{Machine, memory};
use super::{MIB, all_free, alloc, free, of_pages, space};
use quarry::addr::{Order, PAGE_SIZE, PMD_SIZE, VirtAddr};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::hal::entry::Entry;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::Prot;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::vmalloc::{
    AreaError, AreaRequest, MAX_PAGES, RamBlocks, Resized, VmFlags, VmallocError, VmallocRequest,
};
use quarry::mm::zone::{FreeError, PageHal};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

const A72: Config = Config::CORTEX_A72;
/// All of RAM, in bytes.
const RAM: u64 = if cfg!(miri) { 8 * MIB } else { 64 * MIB };

fn vmalloc(space: &Vmalloc<'_>, bytes: u64) -> Result<VirtAddr, VmallocError> {
    space.vmalloc(&VmallocRequest::new(bytes, Gfp::KERNEL | Gfp::NOWARN))
}

#[test]
fn as_much_as_there_is_is_not_too_much() {
    on_a_machine(A72, |space| {
        assert!(matches!(vmalloc(space, RAM), Err(VmallocError::Pages(_))));
        assert_eq!(vmalloc(space, RAM + 1), Err(VmallocError::TooLarge(RAM + 1)));
        let addr = vmalloc(space, PAGE_SIZE).unwrap();
        assert_eq!(space.resize(addr, RAM, Gfp::KERNEL), Ok(Resized::MustMove(PAGE_SIZE)));
        assert_eq!(space.resize(addr, RAM + 1, Gfp::KERNEL), Err(VmallocError::TooLarge(RAM + 1)));
        raw!(space.vfree(addr)).unwrap();
        let pages = &space.hal().pages;
        let block = pages.alloc_pages(Gfp::KERNEL, Order::MAX).unwrap();
        let mut list: Vec<Page> = (0..RAM / PAGE_SIZE).map(|page| block.offset((page % 1024) as u32)).collect();
        let mapping = space.vmap(&list, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        raw!(space.vunmap(mapping)).unwrap();
        list.push(block);
        let more = space.vmap(&list, VmFlags::empty(), Prot::KERNEL_RW);
        assert_eq!(more, Err(VmallocError::TooLarge(RAM + PAGE_SIZE)));
        raw!(pages.free_pages(block, Order::MAX)).unwrap();
    });
}

#[test]
fn an_area_of_just_two_mebibytes_is_one_block() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(A72, |space| {
        // Otherwise any area would begin at a multiple.
        let small = vmalloc(space, PAGE_SIZE).unwrap();
        let addr = vmalloc(space, PMD_SIZE).unwrap();
        touch(space, addr, PMD_SIZE / PAGE_SIZE);
        assert!(addr.is_aligned(PMD_SIZE));
        assert_eq!(space.hal().table.translate(addr).unwrap().leaf.level, LeafLevel::Pmd);
        raw!(space.vfree(addr)).unwrap();
        raw!(space.vfree(small)).unwrap();
    });
}

// With its guard page: so much is not worth waiting for others.
#[test]
fn two_mebibytes_do_not_wait_and_a_page_less_does() {
    let mut nodes = memory(60);
    let space = space(Machine::new(1, &mut nodes), 1 << 14);
    for (pages, waits) in [(513, false), (512, false), (511, false), (510, true)] {
        let area = alloc(&space, &of_pages(pages)).unwrap();
        let flushes = space.hal().flushes.load(Ordering::Relaxed);
        free(&space, area.start());
        let flushed = space.hal().flushes.load(Ordering::Relaxed) - flushes;
        let expected = if waits { (pages, 0) } else { (0, 1) };
        assert_eq!((space.lazy_pages(), flushed), expected, "{pages} pages");
        space.purge_all();
    }
    all_free(&space);
}

#[test]
fn a_purge_is_due_from_a_share_on_and_not_before() {
    on_a_machine(A72, |space| {
        let share = space.lazy_max_pages() / 2;
        for (pages, due) in [(share - 1, false), (share, true)] {
            let addr = vmalloc(space, pages * PAGE_SIZE).unwrap();
            raw!(space.vfree_atomic(addr)).unwrap();
            assert_eq!(space.lazy_pages(), pages);
            assert_eq!(space.purge_due(), due, "{pages} of {share} pages");
            assert_eq!(space.lazy_pages(), if due { 0 } else { pages });
            space.purge_all();
        }
    });
}

// Nobody purges what is due, and the caller must not: until twice as much waits.
#[test]
fn what_is_left_for_others_to_purge_is_bounded() {
    on_a_machine(A72, |space| {
        let share = space.lazy_max_pages() / 2;
        let mut most = 0;
        for _ in 0..if cfg!(miri) { share } else { 8 * share } {
            let addr = vmalloc(space, 3 * PAGE_SIZE).unwrap();
            raw!(space.vfree_atomic(addr)).unwrap();
            most = space.lazy_pages().max(most);
        }
        assert!((share..2 * share + 3).contains(&most), "{most} pages waited, the share is {share}");
    });
}

#[test]
fn addresses_that_are_kept_are_given_only_where_they_are_aligned() {
    let mut nodes = memory(200);
    let space = space(Machine::new(1, &mut nodes), 1 << 14);
    // In a pool, and too large for one.
    for pages in [3, 63, 64, 300] {
        let below = alloc(&space, &of_pages(1)).unwrap();
        let area = space.alloc(&of_pages(pages)).unwrap();
        assert!(!area.start().is_aligned(4 * PAGE_SIZE));
        raw!(space.recycle(space.abandon(area).unwrap()));
        for align in [PAGE_SIZE, 4 * PAGE_SIZE, 64 * PAGE_SIZE, PMD_SIZE] {
            let again = space.alloc(&AreaRequest { align, ..of_pages(pages) }).unwrap();
            assert!(again.start().is_aligned(align), "{pages} pages at a multiple of {align:#x}: {}", again.start());
            raw!(space.recycle(space.abandon(again).unwrap()));
        }
        free(&space, below.start());
        all_free(&space);
    }
}

// The last few areas of a node, and those before them.
#[test]
fn an_area_is_the_next_one_at_its_first_address_and_not_behind_it() {
    let mut nodes = memory(60);
    let space = space(Machine::new(2, &mut nodes), 1 << 14);
    let mut starts: Vec<VirtAddr> = (0..12).map(|_| alloc(&space, &of_pages(3)).unwrap().start()).collect();
    starts.sort_unstable();
    let next = |addr: u64| space.next(VirtAddr::new(addr)).map(|area| area.range.start());
    for (index, start) in starts.iter().enumerate() {
        assert_eq!(next(start.get()), Some(*start));
        assert_eq!(next(start.get() + 1), starts.get(index + 1).copied());
        assert_eq!(space.find(*start).unwrap().range.start(), *start);
    }
    starts.into_iter().for_each(|start| free(&space, start));
    all_free(&space);
}

#[test]
fn an_area_that_somebody_else_changes_is_left_alone() {
    on_a_machine(A72, |space| {
        let busy = |answer| matches!(answer, Err(VmallocError::Area(AreaError::Uninitialized(_))));
        // It is not there yet.
        let area = space.alloc(&AreaRequest::new(3 * PAGE_SIZE, VmFlags::ALLOC | VmFlags::UNINITIALIZED)).unwrap();
        for _ in 0..2 {
            assert!(busy(space.resize(area.start(), PAGE_SIZE, Gfp::KERNEL).map(|_| ())));
            assert!(busy(raw!(space.vfree(area.start()))));
        }
        raw!(space.recycle(space.abandon(area).unwrap()));
        // Another CPU makes it smaller, and waits for an invalidation.
        let addr = vmalloc(space, 13 * PAGE_SIZE).unwrap();
        touch(space, addr, 13);
        let look = || {
            assert!(busy(space.resize(addr, 2 * PAGE_SIZE, Gfp::KERNEL).map(|_| ())));
            assert!(busy(raw!(space.vfree(addr))));
        };
        let resized = acknowledging_late(&look, || space.resize(addr, PAGE_SIZE, Gfp::KERNEL)).unwrap();
        assert!(matches!(resized, Resized::InPlace(_)));
        raw!(space.vfree(addr)).unwrap();
    });
}

#[test]
fn short_mappings_have_areas_of_their_own_where_there_is_no_room_for_blocks() {
    on_a_machine(A72, |space| {
        let size = space.region().unwrap().size() - 64 * MIB;
        let most = space.alloc(&AreaRequest::new(size, VmFlags::NO_GUARD)).unwrap();
        let pages: Vec<Page> = (0..3).map(|_| take_page(space).unwrap()).collect();
        let blocks = Box::new(RamBlocks::new(space));
        asking(&|first, count| blocks.maps(first, count), || {
            for _ in 0..2 {
                let addr = blocks.vm_map_ram(&pages, Prot::KERNEL_RW).unwrap();
                touch(space, addr, 3);
                assert_eq!(space.find(addr).unwrap().flags, VmFlags::MAP_RAM);
                raw!(blocks.vm_unmap_ram(addr, 3)).unwrap();
            }
        });
        blocks.check().unwrap();
        raw!(space.recycle(space.abandon(most).unwrap()));
        for page in pages {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

// Addresses are looked through in groups of 64.
#[test]
fn a_page_is_not_freed_wherever_in_a_group_it_is_mapped() {
    super::kernel::with_machine(A72, |space| {
        let pages: Vec<Page> = (0..MAX_PAGES).map(|_| take_page(space).unwrap()).collect();
        let allocator = &space.hal().pages;
        let blocks = Box::new(RamBlocks::new(space));
        asking(&|first, count| blocks.maps(first, count), || {
            // In the first group of a block, in the second, and in the middle of one.
            let groups: Vec<VirtAddr> = (0..2).map(|_| blocks.vm_map_ram(&pages, Prot::KERNEL_RW).unwrap()).collect();
            for addr in groups {
                for page in &pages {
                    let mapped = FreeError::Mapped(allocator.hal().map().pfn(*page));
                    assert_eq!(raw!(allocator.free_pages(*page, Order::ZERO)), Err(mapped));
                }
                raw!(blocks.vm_unmap_ram(addr, MAX_PAGES)).unwrap();
            }
            for page in pages {
                raw!(allocator.free_pages(page, Order::ZERO)).unwrap();
            }
        });
        blocks.check().unwrap();
        space.hal().pages.check().unwrap();
    });
}

#[test]
fn tables_that_an_area_in_use_needed_go_when_it_has_gone() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(A72, |space| {
        let tables = || space.hal().machine.frames_out();
        let first = vmalloc(space, PAGE_SIZE).unwrap();
        raw!(space.vfree(first)).unwrap();
        space.purge_all();
        let before = tables();
        let mut areas: Vec<VirtAddr> = (0..600).map(|_| vmalloc(space, PAGE_SIZE).unwrap()).collect();
        let last = areas.pop().unwrap();
        areas.into_iter().for_each(|addr| raw!(space.vfree(addr)).unwrap());
        for _ in 0..2 {
            space.purge_all();
            assert!(tables() > before, "the last area is mapped");
            touch(space, last, 1);
        }
        raw!(space.vfree(last)).unwrap();
        space.purge_all();
        assert_eq!(tables(), before);
    });
}

// Each table that is missing is asked for, and each in turn cannot be had.
#[test]
fn an_area_whose_last_table_cannot_be_had_maps_nothing() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(A72, |space| {
        let leaves = || {
            let mut found = 0;
            let _ = space.hal().table.walk(space.region().unwrap(), |visit| {
                found += u32::from(matches!(visit.entry, Entry::Leaf(_)));
                ControlFlow::<()>::Continue(())
            });
            found
        };
        // No two blocks of the highest order are neighbours, so that the area is mapped piece by piece.
        let pages = &space.hal().pages;
        let all: Vec<Page> = (0..15).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::MAX).unwrap()).collect();
        let (kept, gone): (Vec<Page>, Vec<Page>) = all.into_iter().partition(|page| page.index() >> 10 & 1 == 0);
        gone.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::MAX)).unwrap());
        let free = free_pages(space);
        let mut failures = 0;
        for successes in 0.. {
            space.hal().machine.fail_allocation_after(Some(successes));
            let flags = VmFlags::NO_HUGE_VMAP;
            let mapped = space.vmalloc(&VmallocRequest { flags, ..VmallocRequest::new(12 * MIB, Gfp::KERNEL) });
            space.hal().machine.fail_allocation_after(None);
            match mapped {
                Ok(addr) => {
                    raw!(space.vfree(addr)).unwrap();
                    break;
                }
                Err(error) => assert!(matches!(error, VmallocError::Tables(_)), "{error}"),
            }
            failures += 1;
            assert_eq!((leaves(), space.iter().count(), free_pages(space)), (0, 0, free));
        }
        assert!(failures > 3);
        kept.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::MAX)).unwrap());
    });
}
