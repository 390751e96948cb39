//! Areas that become longer and shorter where they are.

use super::kernel::{Vmalloc, free_pages, on_a_machine, take_page, touch};
use super::{MIB, START};
use crate::random::Random;
use quarry::addr::{CpuId, Order, PAGE_SIZE, VirtAddr};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::mm::vmalloc::{AreaError, Resized, VmFlags, VmallocError, VmallocRequest};
use std::sync::atomic::Ordering;

/// In single pages, so that every edge is one between leaves.
fn vmalloc(space: &Vmalloc<'_>, pages: u64) -> VirtAddr {
    let request =
        VmallocRequest { flags: VmFlags::NO_HUGE_VMAP, ..VmallocRequest::new(pages * PAGE_SIZE, Gfp::KERNEL) };
    space.vmalloc(&request).unwrap()
}

fn resize(space: &Vmalloc<'_>, addr: VirtAddr, pages: u64) -> Result<Resized, VmallocError> {
    let resized = space.resize(addr, pages * PAGE_SIZE, Gfp::KERNEL | Gfp::NOWARN);
    space.check().unwrap();
    resized
}

fn in_place(pages: u64) -> Result<Resized, VmallocError> {
    Ok(Resized::InPlace(pages * PAGE_SIZE))
}

fn page(addr: VirtAddr, index: u64) -> VirtAddr {
    VirtAddr::new(addr.get() + index * PAGE_SIZE)
}

// Behaviour 252.
#[test]
fn what_is_cut_off_is_unmapped_and_free_and_comes_back_in_place() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let pages = &space.hal().pages;
        // Eight pages in one block, two in another, one by itself.
        let addr = vmalloc(space, 11);
        touch(space, addr, 11);
        let frames: Vec<_> = (0..11).map(|index| space.vmalloc_to_page(page(addr, index)).unwrap()).collect();
        let free = free_pages(space);
        assert_eq!(resize(space, addr, 9), in_place(10), "in whole blocks");
        assert_eq!(free_pages(space), free + 1);
        assert_eq!(resize(space, addr, 8), in_place(8));
        assert_eq!(space.find(addr).unwrap().pages, 8);
        for cpu in [CpuId::BOOT, CpuId::new(1)] {
            let cpu = space.hal().machine.cpu(cpu);
            assert!(cpu.load(page(addr, 7), Who::Kernel).is_ok());
            assert!(cpu.load(page(addr, 8), Who::Kernel).is_err(), "promise 3: gone on every CPU");
        }
        let other = take_page(space).unwrap();
        assert_eq!(resize(space, addr, 11), in_place(11));
        touch(space, addr, 11);
        let now = (0..8).map(|index| space.vmalloc_to_page(page(addr, index)).unwrap());
        assert!(now.eq(frames.into_iter().take(8)), "what both sizes have stays where it was");
        assert_eq!(resize(space, addr, 11), in_place(11), "as it is");
        assert_eq!(resize(space, addr, 12), Ok(Resized::MustMove(11 * PAGE_SIZE)));
        raw!(space.vfree(addr)).unwrap();
        raw!(pages.free_pages(other, Order::ZERO)).unwrap();
    });
}

#[test]
fn a_leaf_that_reaches_across_the_edge_stays_whole() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = space.vmalloc(&VmallocRequest::new(64 << 10, Gfp::KERNEL)).unwrap();
        assert!(space.hal().table.translate(addr).unwrap().leaf.contiguous);
        assert_eq!(resize(space, addr, 3), in_place(16));
        touch(space, addr, 16);
        raw!(space.vfree(addr)).unwrap();
    });
}

#[test]
fn what_cannot_be_resized_is_refused() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = vmalloc(space, 3);
        let page = take_page(space).unwrap();
        let mapping = space.vmap(&[page], VmFlags::empty(), quarry::hal::prot::Prot::KERNEL_RW).unwrap();
        assert_eq!(resize(space, addr, 0), Err(VmallocError::Empty));
        assert!(matches!(resize(space, addr, 1 << 40), Err(VmallocError::TooLarge(_))));
        let of_area = |result| if let Err(VmallocError::Area(error)) = result { Some(error) } else { None };
        assert!(matches!(of_area(resize(space, mapping, 2)), Some(AreaError::WrongKind(_))));
        let inside = VirtAddr::new(addr.get() + PAGE_SIZE);
        assert!(matches!(of_area(resize(space, inside, 2)), Some(AreaError::NotTheStart(..))));
        assert!(matches!(of_area(resize(space, VirtAddr::new(START + 512 * MIB), 2)), Some(AreaError::NoArea(_))));
        raw!(space.vunmap(mapping)).unwrap();
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        raw!(space.vfree(addr)).unwrap();
        assert!(matches!(of_area(resize(space, addr, 2)), Some(AreaError::NoArea(_))), "freed");
    });
}

#[test]
fn growth_that_fails_leaves_the_area_as_it_was() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = vmalloc(space, 13);
        assert_eq!(resize(space, addr, 1), in_place(8));
        space.hal().pages.set_careful(true);
        let mut failures = 0;
        for k in 0..8 {
            let free = free_pages(space);
            space.hal().pages.hal().until_failure.store(k, Ordering::Relaxed);
            let result = resize(space, addr, 13);
            space.hal().pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
            match result {
                Ok(_) => assert_eq!(resize(space, addr, 8), in_place(8)),
                Err(error) => {
                    assert!(matches!(error, VmallocError::Pages(_)), "{error}");
                    failures += 1;
                }
            }
            assert_eq!(space.find(addr).unwrap().pages, 8);
            assert_eq!(free_pages(space), free);
            touch(space, addr, 8);
        }
        assert!(failures > 0);
        space.hal().pages.set_careful(false);
        raw!(space.vfree(addr)).unwrap();
    });
}

#[test]
fn random_lengths_keep_promise_three() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let mut random = Random(5);
        let areas: Vec<_> = (0..4).map(|_| vmalloc(space, 40)).collect();
        let mut others = Vec::new();
        for _ in 0..if cfg!(miri) { 4 } else { 300 } {
            let addr = areas[usize::try_from(random.below(4)).unwrap()];
            let pages = 1 + random.below(40);
            let Ok(Resized::InPlace(bytes)) = resize(space, addr, pages) else { panic!("there is room") };
            assert!(bytes >= pages * PAGE_SIZE);
            touch(space, addr, bytes / PAGE_SIZE);
            others.extend(take_page(space));
            if others.len() > 20 {
                for page in others.drain(..) {
                    raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
                }
            }
        }
        for page in others {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
        for addr in areas {
            raw!(space.vfree(addr)).unwrap();
        }
    });
}

#[test]
fn an_area_that_is_not_writable_keeps_its_size() {
    use quarry::hal::prot::Prot;
    on_a_machine(Config::CORTEX_A72, |space| {
        let request = VmallocRequest { prot: Prot::KERNEL_RO, ..VmallocRequest::new(4 * PAGE_SIZE, Gfp::KERNEL) };
        let addr = space.vmalloc(&request).unwrap();
        for pages in [1, 4, 5, 100] {
            let refused = resize(space, addr, pages);
            assert!(
                matches!(refused, Err(VmallocError::NotWritable(area)) if area.range.start() == addr),
                "{refused:?}"
            );
        }
        assert_eq!(space.find(addr).unwrap().pages, 4);
        raw!(space.vfree(addr)).unwrap();
    });
}
