//! `vm_map_ram`: blocks of addresses by CPU.

use super::held::not_mine;
use super::kernel::{Vmalloc, asking, take_page, touch, with_machine};
use super::machine::run_on;
use crate::random::Random;
use quarry::addr::{CpuId, Order, PAGE_SIZE, PMD_SIZE, VirtAddr, to_usize};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::hal::prot::Prot;
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::vmalloc::{AreaError, BLOCKS, MAX_PAGES, RamBlocks, VmFlags, VmallocError};
use quarry::mm::zone::{FreeError, PageHal};

type Blocks<'s, 'm> = RamBlocks<'s, 'm, super::kernel::Kernel<'m>>;

/// Runs `f` with 64 pages, and gives them to other owners in the end.
fn with_blocks(f: impl for<'s> FnOnce(&Vmalloc<'s>, &Blocks<'_, 's>, &[Page])) {
    with_machine(Config::CORTEX_A72, |space| {
        let pages: Vec<Page> = (0..64).map(|_| take_page(space).unwrap()).collect();
        // Large: not on the stack of a test's thread.
        let blocks = Box::new(RamBlocks::new(space));
        asking(&|first, pages| blocks.maps(first, pages), || f(space, &blocks, &pages));
        blocks.check().unwrap();
        assert_eq!(blocks.pages_in_use(), 0);
        for page in pages {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
        while take_page(space).is_some() {}
        space.hal().machine.check().unwrap();
    });
}

fn map(blocks: &Blocks<'_, '_>, pages: &[Page]) -> VirtAddr {
    let addr = blocks.vm_map_ram(pages, Prot::KERNEL_RW).unwrap();
    blocks.check().unwrap();
    addr
}

#[test]
fn pages_are_mapped_in_order_with_a_guard_page_behind() {
    with_blocks(|space, blocks, pages| {
        for count in [1, 2, 16, MAX_PAGES] {
            let addr = map(blocks, &pages[..count]);
            touch(space, addr, count as u64);
            for (index, page) in pages[..count].iter().enumerate() {
                assert_eq!(space.vmalloc_to_page(VirtAddr::new(addr.get() + index as u64 * PAGE_SIZE)), Some(*page));
            }
            let behind = VirtAddr::new(addr.get() + count as u64 * PAGE_SIZE);
            assert!(space.hal().machine.cpu(CpuId::BOOT).load(behind, Who::Kernel).is_err());
            raw!(blocks.vm_unmap_ram(addr, count)).unwrap();
            assert!(space.hal().machine.cpu(CpuId::new(1)).load(addr, Who::Kernel).is_err(), "gone on every CPU");
        }
        assert_eq!(blocks.vm_map_ram(&[], Prot::KERNEL_RW), Err(VmallocError::Empty));
    });
}

// Behaviour 269.
#[test]
fn another_count_or_address_than_was_mapped_is_refused() {
    with_blocks(|_, blocks, pages| {
        let (first, second) = (map(blocks, &pages[..4]), map(blocks, &pages[4..8]));
        let at = |addr: VirtAddr, offset| VirtAddr::new(addr.get() + offset);
        for (addr, count) in [
            (first, 3),
            (first, 5),
            (first, 9),
            (first, 0),
            (first, MAX_PAGES + 1),
            (first, usize::MAX),
            (at(first, PAGE_SIZE), 3),
            (at(first, 8), 4),
            (at(first, 4 * PAGE_SIZE), 1),
            (at(second, PMD_SIZE), 4),
        ] {
            assert_eq!(raw!(blocks.vm_unmap_ram(addr, count)), Err(VmallocError::NotMapped(addr, count)));
        }
        raw!(blocks.vm_unmap_ram(first, 4)).unwrap();
        assert_eq!(raw!(blocks.vm_unmap_ram(first, 4)), Err(VmallocError::NotMapped(first, 4)), "twice");
        raw!(blocks.vm_unmap_ram(second, 4)).unwrap();
    });
}

#[test]
fn large_mappings_have_areas_of_their_own() {
    with_blocks(|space, blocks, pages| {
        let addr = map(blocks, &pages[..64]);
        assert_eq!(space.find(addr).unwrap().flags, VmFlags::MAP_RAM);
        assert_eq!(blocks.pages_in_use(), 0);
        assert_eq!(raw!(blocks.vm_unmap_ram(addr, 63)), Err(VmallocError::NotMapped(addr, 63)));
        raw!(blocks.vm_unmap_ram(addr, 64)).unwrap();
        assert_eq!(space.find(addr), None);
    });
}

// The longest that a block takes, and a page more, where there is a block.
#[test]
fn a_mapping_that_is_too_long_for_a_block_by_a_page_has_an_area() {
    with_blocks(|space, blocks, pages| {
        let short = map(blocks, &pages[..1]);
        let longest = map(blocks, &pages[..MAX_PAGES]);
        assert_eq!(blocks.pages_in_use(), 2 + 64, "each with its guard page");
        let area = map(blocks, &pages[..=MAX_PAGES]);
        assert_eq!(space.find(area).unwrap().flags, VmFlags::MAP_RAM);
        assert_eq!(blocks.pages_in_use(), 2 + 64);
        for (addr, count) in [(area, MAX_PAGES + 1), (short, 1), (longest, MAX_PAGES)] {
            raw!(blocks.vm_unmap_ram(addr, count)).unwrap();
        }
    });
}

#[test]
fn unmapping_an_area_takes_no_addresses_for_blocks() {
    with_blocks(|space, blocks, pages| {
        let addr = map(blocks, &pages[..64]);
        for count in [0, 1, 63, usize::MAX >> 12, usize::MAX] {
            assert_eq!(raw!(blocks.vm_unmap_ram(addr, count)), Err(VmallocError::NotMapped(addr, count)));
        }
        let areas = space.iter().count();
        raw!(blocks.vm_unmap_ram(addr, 64)).unwrap();
        assert_eq!(space.iter().count(), areas - 1);
    });
}

// Behaviour 270.
#[test]
fn a_block_belongs_to_one_cpu_until_its_last_page_is_back() {
    let rounds = if cfg!(miri) { 20 } else { 3_000 };
    with_blocks(|_, blocks, pages| {
        let mut random = Random(11);
        let mut live: Vec<(u32, VirtAddr, usize)> = Vec::new();
        let block_of = |addr: VirtAddr| addr.get() / PMD_SIZE;
        for _ in 0..rounds {
            let cpu = u32::try_from(random.below(2)).unwrap();
            run_on(cpu);
            if random.below(5) < 3 && live.len() < 100 {
                let count = 1 + to_usize(random.below(20));
                let addr = map(blocks, &pages[..count]);
                let foreign = live.iter().any(|(other, at, _)| *other != cpu && block_of(*at) == block_of(addr));
                assert!(!foreign, "the block is another CPU's");
                let end = |at: VirtAddr, count: usize| at.get() + (count as u64 + 1) * PAGE_SIZE;
                let overlaps = |(_, at, pages): &(u32, VirtAddr, usize)| {
                    at.get() < end(addr, count) && addr.get() < end(*at, *pages)
                };
                assert!(!live.iter().any(overlaps));
                live.push((cpu, addr, count));
            } else if !live.is_empty() {
                let (_, addr, count) = live.swap_remove(to_usize(random.below(live.len() as u64)));
                raw!(blocks.vm_unmap_ram(addr, count)).unwrap();
            }
        }
        for (_, addr, count) in live.drain(..) {
            raw!(blocks.vm_unmap_ram(addr, count)).unwrap();
        }
        // Every block is anybody's again: one CPU fills them all.
        run_on(1);
        let per_block = 512 / 64;
        if !cfg!(miri) {
            for _ in 0..BLOCKS * per_block {
                live.push((1, map(blocks, &pages[..MAX_PAGES]), MAX_PAGES));
            }
            assert_eq!(blocks.pages_in_use(), (BLOCKS * 512) as u64);
        }
        for (_, addr, count) in live {
            raw!(blocks.vm_unmap_ram(addr, count)).unwrap();
        }
        run_on(0);
    });
}

// Each call frees only the areas of its counterpart, at every address.
#[test]
fn an_area_of_vmap_and_one_of_vm_map_ram_are_told_apart() {
    with_blocks(|space, blocks, pages| {
        let long: Vec<Page> = pages.iter().chain(pages).copied().collect();
        let (ram, area) = (map(blocks, &long), space.vmap(&long, VmFlags::empty(), Prot::KERNEL_RW).unwrap());
        let wrong = |refused| matches!(refused, Err(VmallocError::Area(AreaError::WrongKind(_))));
        assert!(wrong(raw!(blocks.vm_unmap_ram(area, long.len()))));
        assert!(wrong(raw!(space.vunmap(ram))));
        assert!(wrong(raw!(space.vfree(ram))));
        touch(space, ram, 128);
        touch(space, area, 128);
        raw!(blocks.vm_unmap_ram(ram, long.len())).unwrap();
        raw!(space.vunmap(area)).unwrap();
    });
}

// Promises 3, 4 and 9: the descriptor decides, not the caller.
#[test]
fn only_pages_that_somebody_has_and_nobody_has_claimed_are_mapped_for_a_short_while() {
    with_blocks(|space, blocks, pages| {
        not_mine(space, |page, wrong| {
            for list in [vec![page], vec![pages[0], page, pages[1]]] {
                let refused = blocks.vm_map_ram(&list, Prot::KERNEL_RW);
                assert!(matches!(refused, Err(VmallocError::BadPage(error)) if wrong(error)), "{refused:?}");
                assert_eq!(blocks.pages_in_use(), 0);
            }
            // Addresses that were refused serve the next caller, and map nothing meanwhile.
            let addr = map(blocks, &pages[..3]);
            raw!(blocks.vm_unmap_ram(addr, 3)).unwrap();
            let _ = blocks.vm_map_ram(&[pages[0], page], Prot::KERNEL_RW);
            assert!(space.hal().table.translate(addr).is_none());
        });
    });
}

#[test]
fn a_page_that_is_mapped_for_a_short_while_is_not_freed_meanwhile() {
    with_blocks(|space, blocks, pages| {
        let allocator = &space.hal().pages;
        let mapped = |page| Err(FreeError::Mapped(allocator.hal().map().pfn(page)));
        let block = allocator.alloc_pages(Gfp::KERNEL, Order::new(2).unwrap()).unwrap();
        let list = [pages[0], block.offset(1), block.offset(2), pages[1], pages[0]];
        for _ in 0..3 {
            let (first, second) = (map(blocks, &list), map(blocks, &list[..2]));
            touch(space, first, 5);
            for _ in 0..2 {
                assert_eq!(raw!(allocator.free_pages(pages[0], Order::ZERO)), mapped(pages[0]));
                assert_eq!(raw!(allocator.put_page(block.offset(3))), mapped(block));
                assert_eq!(raw!(allocator.claim(pages[0], Kind::Slab, 1)), mapped(pages[0]));
                assert_eq!(raw!(allocator.set_memory_type(block, MemoryType::NonCacheable)), mapped(block));
                // Another holder lets go of what is his.
                allocator.get_page(pages[0]).unwrap();
                raw!(allocator.put_page(pages[0])).unwrap();
                let _ = raw!(blocks.vm_unmap_ram(first, 5));
            }
            raw!(blocks.vm_unmap_ram(second, 2)).unwrap();
        }
        raw!(allocator.free_pages(block, Order::new(2).unwrap())).unwrap();
        // The next owner of the same page is asked nothing about what was.
        raw!(allocator.claim(pages[0], Kind::Dma, 1)).unwrap();
        assert!(matches!(blocks.vm_map_ram(&pages[..1], Prot::KERNEL_RW), Err(VmallocError::BadPage(_))));
        raw!(allocator.disown(pages[0], Kind::Dma)).unwrap();
    });
}
