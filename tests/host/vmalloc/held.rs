//! Pages of others that areas map: whose they may be, and that they are not freed meanwhile.

use super::MIB;
use super::kernel::{Vmalloc, on_a_machine, take_page, touch, with_machine};
use quarry::addr::{Order, PAGE_SIZE, PhysRange, VirtAddr};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::hal::prot::{MemoryType, Prot};
use quarry::mm::page::{Kind, Page, PageMap, PageState};
use quarry::mm::vmalloc::{VmFlags, VmallocError, VmallocRequest};
use quarry::mm::zone::{FreeError, PageHal};

fn vmalloc(space: &Vmalloc<'_>, bytes: u64) -> Result<VirtAddr, VmallocError> {
    space.vmalloc(&VmallocRequest::new(bytes, Gfp::KERNEL | Gfp::NOWARN))
}

/// Calls `f` with pages that nobody may map, each with what a refusal may say.
pub(super) fn not_mine(space: &Vmalloc<'_>, mut f: impl FnMut(Page, fn(FreeError) -> bool)) {
    let pages = &space.hal().pages;
    let page = take_page(space).unwrap();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_allocated() && *kind != Kind::Block) {
        raw!(pages.claim(page, kind, 1)).unwrap();
        f(page, |error| matches!(error, FreeError::Claimed { .. }));
        raw!(pages.disown(page, kind)).unwrap();
    }
    for memory in [MemoryType::NonCacheable, MemoryType::WriteThrough, MemoryType::DeviceNGnRE] {
        raw!(pages.set_memory_type(page, memory)).unwrap();
        f(page, |error| matches!(error, FreeError::MemoryType { .. }));
        raw!(pages.set_memory_type(page, MemoryType::WriteBack)).unwrap();
    }
    raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    f(page, |error| matches!(error, FreeError::DoubleFree(_)));
    let area = vmalloc(space, 3 * PAGE_SIZE).unwrap();
    f(space.vmalloc_to_page(area).unwrap(), |error| matches!(error, FreeError::Claimed { kind: Kind::Vmalloc, .. }));
    raw!(space.vfree(area)).unwrap();
}

// Promises 3, 4 and 9: the descriptor decides, not the caller.
#[test]
fn only_pages_that_somebody_has_and_nobody_has_claimed_are_mapped() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let mine = take_page(space).unwrap();
        let refused = |list: &[Page], wrong: &dyn Fn(FreeError) -> bool| {
            let areas = space.iter().count();
            for flags in [VmFlags::empty(), VmFlags::MAP_PUT_PAGES] {
                let refused = space.vmap(list, flags, Prot::KERNEL_RW);
                assert!(matches!(refused, Err(VmallocError::BadPage(error)) if wrong(error)), "{refused:?}");
                assert_eq!(space.iter().count(), areas);
                assert_eq!(state(space, mine).kind(), Kind::Block);
            }
        };
        not_mine(space, |page, wrong| {
            refused(&[page], &wrong);
            refused(&[mine, page, mine], &|error| wrong(error) || matches!(error, FreeError::Claimed { .. }));
        });
        for page in [mine.offset(1 << 30), mine.offset(u32::MAX - mine.index())] {
            refused(&[page], &|error| matches!(error, FreeError::NoDescriptor(_)));
        }
        raw!(space.hal().pages.free_pages(mine, Order::ZERO)).unwrap();
    });
}

/// The state of a page's own descriptor.
fn state(space: &Vmalloc<'_>, page: Page) -> PageState {
    space.hal().pages.hal().map().get(page).state()
}

#[test]
fn a_page_that_is_mapped_is_not_freed_before_the_last_mapping_goes() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let pages = &space.hal().pages;
        let (page, order) = (take_page(space).unwrap(), Order::new(3).unwrap());
        let block = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        let mapped = |page| Err(FreeError::Mapped(pages.hal().map().pfn(page)));
        let vmap = |list: &[Page]| space.vmap(list, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        // In a row the pages of a block count once.
        let list: Vec<Page> = (0..8).map(|index| block.offset(index)).chain([page, page, block, page]).collect();
        let (first, second) = (vmap(&list), vmap(&[page]));
        assert_eq!((state(space, block).mappings(), state(space, page).mappings()), (2, 4));
        touch(space, first, 12);
        assert_eq!(raw!(pages.free_pages(block, order)), mapped(block));
        assert_eq!(raw!(pages.put_page(block.offset(5))), mapped(block));
        assert_eq!(raw!(pages.split_page(block, order)), mapped(block));
        assert_eq!(raw!(pages.claim(block, Kind::Slab, 1)), mapped(block));
        assert_eq!(raw!(pages.set_memory_type(block, MemoryType::NonCacheable)), mapped(block));
        let put = space.vmap(&[page], VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RW);
        assert_eq!(put, Err(VmallocError::BadPage(mapped(page).unwrap_err())));
        pages.check().unwrap();
        // Another holder lets go of what is his.
        pages.get_page(page).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        assert_eq!(pages.page_count(page), 1);
        raw!(space.vunmap(first)).unwrap();
        raw!(pages.free_pages(block, order)).unwrap();
        assert_eq!(raw!(pages.free_pages(page, Order::ZERO)), mapped(page));
        raw!(space.vunmap(second)).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

#[test]
fn mappings_that_cannot_be_counted_are_refused() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let page = take_page(space).unwrap();
        let most = usize::try_from(PageState::MAX_MAPPINGS).unwrap();
        let long = vec![page; most];
        let addr = space.vmap(&long, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        for list in [&[page][..], &long] {
            let refused = space.vmap(list, VmFlags::empty(), Prot::KERNEL_RW);
            assert!(matches!(refused, Err(VmallocError::BadPage(FreeError::MappedTooOften(_)))), "{refused:?}");
        }
        assert_eq!(state(space, page).mappings(), PageState::MAX_MAPPINGS);
        touch(space, addr, 8);
        raw!(space.vunmap(addr)).unwrap();
        let refused = space.vmap(&vec![page; most + 1], VmFlags::empty(), Prot::KERNEL_RW);
        assert!(matches!(refused, Err(VmallocError::BadPage(FreeError::MappedTooOften(_)))), "{refused:?}");
        assert_eq!(state(space, page).mappings(), 0);
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

#[test]
fn pages_of_a_mapping_that_failed_are_free_to_go() {
    for flags in [VmFlags::empty(), VmFlags::MAP_PUT_PAGES] {
        with_machine(Config::CORTEX_A72, |space| {
            let hal = space.hal();
            let list: Vec<Page> = (0..3).map(|_| take_page(space).unwrap()).collect();
            for k in 0..3 {
                hal.machine.fail_allocation_after(Some(k));
                let mapped = space.vmap(&list, flags, Prot::KERNEL_RW);
                hal.machine.fail_allocation_after(None);
                assert!(matches!(mapped, Err(VmallocError::Tables(_))), "no table yet, and {k} of three: {mapped:?}");
                assert_eq!(space.iter().count(), 0);
                space.check().unwrap();
            }
            // The addresses that the next caller gets map nothing when a page at the end may not be given away.
            let addr = space.vmap(&list[..2], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
            touch(space, addr, 2);
            raw!(space.vunmap(addr)).unwrap();
            let refused = space.vmap(&[list[0], list[0]], VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RW);
            assert!(matches!(refused, Err(VmallocError::BadPage(_))));
            assert!(space.hal().table.translate(addr).is_none());
            let again = space.vmap(&list[1..], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
            assert_eq!(again, addr);
            touch(space, again, 2);
            raw!(space.vunmap(again)).unwrap();
            for page in list {
                raw!(hal.pages.free_pages(page, Order::ZERO)).unwrap();
            }
            hal.machine.check().unwrap();
        });
    }
}

// More than are unmapped with one invalidation, and whole tables of them.
#[test]
fn long_mappings_hold_their_pages_to_the_last() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::MAX, |space| {
        let hal = space.hal();
        let block = hal.pages.alloc_pages(Gfp::KERNEL, Order::new(10).unwrap()).unwrap();
        let single: Vec<Page> = (0..100).map(|_| take_page(space).unwrap()).collect();
        let list: Vec<Page> = (0..1024).map(|index| block.offset(index)).chain(single.iter().copied()).collect();
        let tables = hal.table.table_frames();
        let addr = space.vmap(&list, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        touch(space, addr, 1124);
        assert!(single.iter().all(|page| state(space, *page).mappings() == 1));
        assert_eq!(state(space, block).mappings(), 1);
        raw!(space.vunmap(addr)).unwrap();
        raw!(hal.pages.free_pages(block, Order::new(10).unwrap())).unwrap();
        let frames = PhysRange::from_size(hal.pages.hal().map().phys(block), 4 * MIB).unwrap();
        hal.machine.give_away(frames);
        for page in single {
            raw!(hal.pages.free_pages(page, Order::ZERO)).unwrap();
        }
        assert!(hal.table.table_frames() <= tables + 3, "whole tables went with it");
    });
}
