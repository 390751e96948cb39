//! vmalloc and vmap on a machine whose TLBs keep what they have.

use super::kernel::{Asked, Vmalloc, on_a_machine, take_page, touch, with_machine};
use super::machine::run_on;
use super::{MIB, START};
use crate::random::Random;
use quarry::addr::{Order, PAGE_SIZE, VirtAddr, VirtRange};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::Prot;
use quarry::mm::page::Page;
use quarry::mm::pgtable::{MapFlags, UnmapFlags};
use quarry::mm::vmalloc::{AreaError, Resized, VmFlags, VmallocError, VmallocRequest};
use std::sync::atomic::Ordering;

fn vmalloc(space: &Vmalloc<'_>, bytes: u64) -> Result<VirtAddr, VmallocError> {
    space.vmalloc(&VmallocRequest::new(bytes, Gfp::KERNEL | Gfp::NOWARN))
}

fn phys(space: &Vmalloc<'_>, addr: VirtAddr) -> Option<u64> {
    space.hal().table.translate(addr).map(|found| found.phys.get())
}

#[test]
fn every_size_is_mapped_whole_with_a_hole_behind() {
    on_a_machine(Config::CORTEX_A72, |space| {
        for bytes in [1, PAGE_SIZE, PAGE_SIZE + 1, 5 * PAGE_SIZE, 64 << 10, 100 << 10, MIB, 2 * MIB, 5 * MIB + 1] {
            if cfg!(miri) && bytes > MIB {
                continue;
            }
            let addr = vmalloc(space, bytes).unwrap();
            let pages = bytes.div_ceil(PAGE_SIZE);
            touch(space, addr, pages);
            let behind = VirtAddr::new(addr.get() + pages * PAGE_SIZE);
            assert!(space.hal().machine.cpu(quarry::addr::CpuId::BOOT).load(behind, Who::Kernel).is_err());
            let info = space.find(addr).unwrap();
            assert_eq!((info.pages, info.flags), (u32::try_from(pages).unwrap(), VmFlags::ALLOC));
            assert!(info.caller.unwrap().file().ends_with("mapping.rs"));
            assert!(space.vmalloc_to_page(addr).is_some() && space.vmalloc_to_page(behind).is_none());
            raw!(space.vfree(addr)).unwrap();
            space.check().unwrap();
        }
    });
}

// Behaviour 250: large areas use blocks, smaller ones contiguous groups.
#[test]
fn large_areas_are_mapped_by_blocks_and_groups() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let leaf = |addr| space.hal().table.translate(addr).unwrap().leaf;
        let huge = vmalloc(space, 8 * MIB).unwrap();
        assert_eq!(leaf(huge).level, LeafLevel::Pmd);
        let group = vmalloc(space, 64 << 10).unwrap();
        assert!(leaf(group).contiguous && leaf(group).level == LeafLevel::Pte);
        let flags = VmFlags::NO_HUGE_VMAP;
        let single = VmallocRequest { flags, ..VmallocRequest::new(8 * MIB, Gfp::KERNEL) };
        let single = space.vmalloc(&single).unwrap();
        assert!(leaf(single).level == LeafLevel::Pte && !leaf(single).contiguous);
        for addr in [huge, group, single] {
            raw!(space.vfree(addr)).unwrap();
        }
        // Where a small area has left a table, too.
        space.purge_all();
        let small = vmalloc(space, PAGE_SIZE).unwrap();
        raw!(space.vfree(small)).unwrap();
        space.purge_all();
        let huge = vmalloc(space, 2 * MIB).unwrap();
        assert_eq!(huge, small, "the lowest fit");
        assert_eq!(leaf(huge).level, LeafLevel::Pmd);
        raw!(space.vfree(huge)).unwrap();
    });
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused_however_small() {
    on_a_machine(Config::CORTEX_A72, |space| {
        for align in [0, 3, PAGE_SIZE - 1, PAGE_SIZE + 1, u64::MAX] {
            let request = VmallocRequest { align, ..VmallocRequest::new(MIB, Gfp::KERNEL) };
            assert_eq!(space.vmalloc(&request), Err(VmallocError::Area(AreaError::BadAlignment(align))));
        }
        assert_eq!(space.iter().count(), 0);
        for align in [1, 8, 1 << 20] {
            let addr = space.vmalloc(&VmallocRequest { align, ..VmallocRequest::new(MIB, Gfp::KERNEL) }).unwrap();
            assert!(addr.is_aligned(align));
            raw!(space.vfree(addr)).unwrap();
        }
    });
}

// Behaviour 230.
#[test]
fn nothing_and_more_than_ram_are_refused_at_once() {
    on_a_machine(Config::CORTEX_A72, |space| {
        assert_eq!(vmalloc(space, 0), Err(VmallocError::Empty));
        for size in [u64::MAX, 1 << 40, 65 * MIB] {
            assert_eq!(vmalloc(space, size), Err(VmallocError::TooLarge(size)));
        }
        assert_eq!(space.iter().count(), 0);
        // Less than there is RAM, but more than is free: all of it comes back.
        let half = if cfg!(miri) { 5 * MIB } else { 40 * MIB };
        let first = vmalloc(space, half).unwrap();
        assert!(matches!(vmalloc(space, half), Err(VmallocError::Pages(_))));
        raw!(space.vfree(first)).unwrap();
    });
}

// Behaviours 241 and 242.
#[test]
fn what_vmalloc_did_not_give_is_not_freed() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = vmalloc(space, 3 * PAGE_SIZE).unwrap();
        let pages = [take_page(space).unwrap(), take_page(space).unwrap()];
        let other = space.vmap(&pages, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        assert_eq!(raw!(space.vfree(VirtAddr::ZERO)), Ok(()));
        let refused = |addr| match raw!(space.vfree(addr)) {
            Err(VmallocError::Area(error)) => error,
            answer => panic!("{answer:?}"),
        };
        for offset in [8, PAGE_SIZE] {
            assert!(matches!(refused(VirtAddr::new(addr.get() + offset)), AreaError::NotTheStart(..)));
        }
        assert!(matches!(refused(other), AreaError::WrongKind(_)));
        assert!(matches!(refused(VirtAddr::new(0xffff_0000_4000_0000)), AreaError::NoArea(_)));
        assert!(matches!(raw!(space.vunmap(addr)), Err(VmallocError::Area(AreaError::WrongKind(_)))));
        space.check().unwrap();
        raw!(space.vfree(addr)).unwrap();
        assert!(matches!(refused(addr), AreaError::NoArea(_)), "twice");
        raw!(space.vunmap(other)).unwrap();
        for page in pages {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

// Behaviours 246, 247 and 497: the k-th allocation of pages fails, then the k-th of tables.
#[test]
fn a_failure_half_way_gives_everything_back() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let hal = space.hal();
        hal.pages.set_careful(true);
        let mut failures = 0;
        for k in 0.. {
            hal.pages.hal().until_failure.store(k, Ordering::Relaxed);
            let result = vmalloc(space, 13 * PAGE_SIZE);
            hal.pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
            space.check().unwrap();
            match result {
                // A block of several pages that could not be had is made up for by smaller ones.
                Ok(addr) => {
                    raw!(space.vfree(addr)).unwrap();
                    failures += 1;
                }
                Err(VmallocError::Pages(_)) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            space.purge_all();
            if k > 8 {
                break;
            }
        }
        assert!(failures > 3);
        hal.pages.set_careful(false);
        for k in 0..3 {
            hal.machine.fail_allocation_after(Some(k));
            // A place where there are no tables yet.
            let within = VirtRange::from_size(VirtAddr::new(START + 512 * MIB), 64 * MIB);
            let request = VmallocRequest { within, ..VmallocRequest::new(3 * PAGE_SIZE, Gfp::KERNEL) };
            let result = space.vmalloc(&request);
            hal.machine.fail_allocation_after(None);
            match result {
                Ok(addr) => raw!(space.vfree(addr)).unwrap(),
                Err(error) => assert!(matches!(error, VmallocError::Tables(_)), "{error}"),
            }
            space.check().unwrap();
            assert!(hal.machine.check().is_ok());
            space.purge_all();
        }
    });
}

#[test]
fn single_pages_serve_where_there_are_no_larger_blocks() {
    on_a_machine(Config::CORTEX_A72, |space| {
        // All memory as single pages, every second one kept.
        let pages: Vec<Page> = std::iter::from_fn(|| take_page(space)).collect();
        for page in pages.iter().step_by(2) {
            raw!(space.hal().pages.free_pages(*page, Order::ZERO)).unwrap();
        }
        let addr = vmalloc(space, 40 * PAGE_SIZE).unwrap();
        touch(space, addr, 40);
        let mut seen: Vec<_> = (0..40).map(|n| phys(space, VirtAddr::new(addr.get() + n * PAGE_SIZE))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 40);
        raw!(space.vfree(addr)).unwrap();
        for page in pages.iter().skip(1).step_by(2) {
            raw!(space.hal().pages.free_pages(*page, Order::ZERO)).unwrap();
        }
    });
}

// Behaviours 264, 265, 267 and 274.
#[test]
fn pages_are_mapped_in_the_order_of_the_list() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let pages: Vec<Page> = (0..40).map(|_| take_page(space).unwrap()).collect();
        let mut list: Vec<Page> = pages.iter().rev().copied().collect();
        list.push(list[3]);
        let addr = space.vmap(&list, VmFlags::empty(), Prot::KERNEL_RO).unwrap();
        for (index, page) in list.iter().enumerate() {
            let here = VirtAddr::new(addr.get() + index as u64 * PAGE_SIZE);
            assert_eq!(space.vmalloc_to_page(here), Some(*page));
            assert_eq!(space.hal().table.translate(here).unwrap().leaf.prot, Prot::KERNEL_RO);
        }
        touch(space, addr, 41);
        let cpu = space.hal().machine.cpu(quarry::addr::CpuId::BOOT);
        assert_eq!(cpu.store(addr, Who::Kernel, 1).unwrap_err().kind, quarry::arch::host::FaultKind::Permission);
        raw!(space.vunmap(addr)).unwrap();
        // At once: nobody reaches them any more, so they may go to others.
        for page in pages {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
        let all: Vec<Page> = std::iter::from_fn(|| take_page(space)).collect();
        for page in all {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

// Behaviour 266; that a page is one is said by its type.
#[test]
fn nothing_cannot_be_mapped() {
    on_a_machine(Config::CORTEX_A72, |space| {
        assert_eq!(space.vmap(&[], VmFlags::empty(), Prot::KERNEL_RW), Err(VmallocError::Empty));
        let page = take_page(space).unwrap();
        let many = vec![page; usize::try_from(space.hal().pages.total_pages()).unwrap() + 1];
        assert!(matches!(space.vmap(&many, VmFlags::empty(), Prot::KERNEL_RW), Err(VmallocError::TooLarge(_))));
        assert_eq!(space.iter().count(), 0);
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

#[test]
fn pages_that_were_put_go_with_the_area() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let list: Vec<Page> = (0..4).map(|_| take_page(space).unwrap()).collect();
        let addr = space.vmap(&list, VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RW).unwrap();
        assert!(raw!(space.hal().pages.free_pages(list[1], Order::ZERO)).is_err(), "it is the area's");
        raw!(space.vfree(addr)).unwrap();
        // A page twice cannot be given away twice.
        let page = take_page(space).unwrap();
        let twice = space.vmap(&[page, page], VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RW);
        assert!(matches!(twice, Err(VmallocError::BadPage(_))));
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// A gather remembers the last table, but not one that it has taken out: tables that wait are linked through their entries.
#[test]
fn a_table_that_was_taken_out_is_not_written_to() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let (table, frames) = (&space.hal().table, &space.hal().machine.frames());
        let start = VirtAddr::new(START + 512 * MIB);
        let part = |offset, size| VirtRange::from_size(VirtAddr::new(start.get() + offset), size).unwrap();
        let whole = part(0, 6 * MIB);
        table.populate(frames, whole, LeafLevel::Pmd).unwrap();
        let before = table.table_frames();
        for last in [0, 2 * MIB, 4 * MIB] {
            let page = part(last, PAGE_SIZE);
            let phys = quarry::addr::PhysAddr::new(0x80_0100_0000);
            raw!(table.map(frames, whole, phys, Prot::KERNEL_RW, MapFlags::all())).unwrap();
            let mut gather = table.gather(frames);
            raw!(table.unmap(page, UnmapFlags::empty(), &mut gather)).unwrap();
            raw!(table.unmap(whole, UnmapFlags::empty(), &mut gather)).unwrap();
            raw!(table.unmap(page, UnmapFlags::empty(), &mut gather)).unwrap();
            gather.flush();
            assert_eq!(table.table_frames(), before, "all three are given back");
            table.check().unwrap();
        }
    });
}

/// Allocations, frees, mappings and other owners of pages, on two CPUs.
fn history(space: &Vmalloc<'_>, seed: u64, steps: u64) {
    let mut random = Random(seed);
    let (mut areas, mut maps, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps {
        run_on(u32::try_from(random.below(2)).unwrap());
        match random.below(8) {
            0..3 => {
                let most = if random.below(8) == 0 { 600 } else { 20 };
                let pages = 1 + random.below(most);
                if let Ok(addr) = vmalloc(space, pages * PAGE_SIZE) {
                    touch(space, addr, pages.min(8));
                    areas.push(addr);
                }
            }
            3..5 if !areas.is_empty() => {
                let index = usize::try_from(random.below(areas.len() as u64)).unwrap();
                raw!(space.vfree(areas.swap_remove(index))).unwrap();
            }
            5 => others.extend(take_page(space)),
            6 if others.len() > 4 => {
                let pages: Vec<Page> = others.split_off(others.len() - 4);
                let addr = space.vmap(&pages, VmFlags::empty(), Prot::KERNEL_RW).unwrap();
                touch(space, addr, 4);
                maps.push((addr, pages));
            }
            _ => {
                if let Some((addr, pages)) = maps.pop() {
                    raw!(space.vunmap(addr)).unwrap();
                    for page in pages {
                        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
                    }
                }
            }
        }
        space.check().unwrap();
    }
    run_on(0);
    for (addr, pages) in maps {
        raw!(space.vunmap(addr)).unwrap();
        others.extend(pages);
    }
    for addr in areas {
        raw!(space.vfree(addr)).unwrap();
    }
    space.purge_all();
    // All memory goes to others.
    while let Some(page) = take_page(space) {
        others.push(page);
    }
    for page in others {
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    }
}

#[test]
fn no_page_goes_to_another_owner_while_a_cpu_translates_to_it() {
    let steps = if cfg!(miri) { 10 } else { 1_500 };
    for (seed, config) in [(1, Config::CORTEX_A72), (2, Config::MAX), (3, Config::CORTEX_A72)] {
        on_a_machine(config, |space| {
            history(space, seed, steps);
            space.hal().machine.violations().unwrap();
        });
    }
}

#[test]
fn a_flush_left_out_is_noticed() {
    with_machine(Config::CORTEX_A72, |space| {
        space.hal().table.mmu().forget.store(true, Ordering::Relaxed);
        history(space, 1, 50);
        let violations = space.hal().machine.violations().expect_err("stale translations");
        assert!(violations.mention("owner"), "{violations:?}");
    });
}

#[test]
fn what_a_handler_frees_is_purged_later() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = vmalloc(space, 4 * PAGE_SIZE).unwrap();
        space.hal().in_handler.store(true, Ordering::Relaxed);
        raw!(space.vfree(addr)).unwrap();
        space.hal().in_handler.store(false, Ordering::Relaxed);
        assert_eq!(space.lazy_pages(), 4);
        assert_eq!(space.find(addr), None);
    });
}

#[test]
fn zeroed_memory_is_zeroed_page_by_page() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = space.vmalloc(&VmallocRequest::new(21 * PAGE_SIZE, Gfp::KERNEL | Gfp::ZERO)).unwrap();
        assert_eq!(space.hal().pages.hal().zeroed.load(Ordering::Relaxed), 21);
        raw!(space.vfree(addr)).unwrap();
    });
}

// Promise 6: with NOFAIL nothing inside may fail, and with fewer rights than KERNEL nothing inside may wait.
#[test]
fn flags_reach_every_allocation_inside() {
    for gfp in [Gfp::KERNEL | Gfp::NOFAIL, Gfp::NOIO, Gfp::ATOMIC | Gfp::NOWARN, Gfp::KERNEL | Gfp::MEMALLOC] {
        on_a_machine(Config::CORTEX_A72, |space| {
            let asked = || std::mem::take(&mut *space.hal().asked.lock().unwrap());
            asked();
            // The request for the pages says nothing about the memory behind them.
            let request = VmallocRequest::new(5 * PAGE_SIZE, gfp | Gfp::DMA | Gfp::ZERO | Gfp::ACCOUNT);
            let first = space.vmalloc(&request).unwrap();
            let Asked { descriptors, tables } = asked();
            assert!(!descriptors.is_empty() && descriptors.iter().all(|asked| *asked == gfp), "{descriptors:?}");
            assert!(!tables.is_empty() && tables.iter().all(|asked| asked.effort() == gfp), "{tables:?}");
            assert!(matches!(space.resize(first, 2 * PAGE_SIZE, gfp), Ok(Resized::InPlace(_))));
            asked();
            assert!(matches!(space.resize(first, 5 * PAGE_SIZE, gfp), Ok(Resized::InPlace(_))));
            assert!(asked().tables.iter().all(|asked| asked.effort() == gfp));
            raw!(space.vfree(first)).unwrap();
        });
    }
}

// Promises 4 and 9: for every caller, RAM is mapped as its linear alias is, and never for execution.
#[test]
fn ram_is_mapped_for_the_kernel_write_back_and_without_execution() {
    use quarry::hal::prot::{Access, MemoryType};
    use quarry::mm::vmalloc::RamBlocks;
    on_a_machine(Config::CORTEX_A72, |space| {
        let page = take_page(space).unwrap();
        let blocks = Box::new(RamBlocks::new(space));
        let memory = [MemoryType::NonCacheable, MemoryType::WriteThrough, MemoryType::DeviceNGnRE];
        let other = memory.map(|memory| Prot::KERNEL_RW.with_memory(memory).unwrap());
        let executable = [Prot::KERNEL_RX, Prot::user(Access::Execute)];
        let user = [Access::ReadOnly, Access::ReadWrite].map(Prot::user);
        for prot in other.into_iter().chain(executable).chain(user) {
            let refused = VmallocError::Protection(prot);
            assert_eq!(space.vmap(&[page], VmFlags::empty(), prot), Err(refused));
            assert_eq!(blocks.vm_map_ram(&[page], prot), Err(refused));
            assert_eq!(blocks.vm_map_ram(&[page; 100], prot), Err(refused));
            let request = VmallocRequest { prot, ..VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL) };
            assert_eq!(space.vmalloc(&request), Err(refused));
        }
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

#[test]
fn no_caller_says_by_which_call_an_area_was_made() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let page = take_page(space).unwrap();
        let refused = [
            VmFlags::ALLOC,
            VmFlags::IOREMAP,
            VmFlags::UNINITIALIZED,
            VmFlags::FLUSH_RESET_PERMS,
            VmFlags::MAP_RAM,
            VmFlags::NO_GUARD,
        ];
        for flags in refused {
            assert_eq!(space.vmap(&[page], flags, Prot::KERNEL_RW), Err(VmallocError::Flags(flags)));
            let among = flags | VmFlags::USERMAP;
            assert_eq!(space.vmap(&[page], among, Prot::KERNEL_RW), Err(VmallocError::Flags(flags)));
        }
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// After a peak, tables that areas shared are freed when nothing is left in them.
#[test]
fn tables_go_back_when_the_last_area_in_them_does() {
    if cfg!(miri) {
        return;
    }
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |space| {
            let table = &space.hal().table;
            let before = table.table_frames();
            let mut areas: Vec<VirtAddr> = (0..1_200).map(|_| vmalloc(space, PAGE_SIZE).unwrap()).collect();
            let peak = table.table_frames();
            assert!(peak >= before + 5, "five tables of last entries, {before} and {peak}");
            let kept = areas.swap_remove(700);
            touch(space, kept, 1);
            for (round, addr) in areas.into_iter().enumerate() {
                run_on(u32::try_from(round % 2).unwrap());
                raw!(space.vfree(addr)).unwrap();
            }
            run_on(0);
            space.purge_all();
            assert_eq!(table.table_frames(), peak - 4, "all but that of the area that is left, and those above it");
            touch(space, kept, 1);
            space.check().unwrap();
            // Nothing to be found a second time, nor where an area is.
            let invalidations = space.hal().machine.counts();
            space.purge_all();
            assert_eq!(space.hal().machine.counts(), invalidations);
            // The next area finds its table, or makes one.
            let again: Vec<VirtAddr> = (0..600).map(|_| vmalloc(space, PAGE_SIZE).unwrap()).collect();
            again.iter().for_each(|addr| touch(space, *addr, 1));
            again.into_iter().for_each(|addr| raw!(space.vfree(addr)).unwrap());
            raw!(space.vfree(kept)).unwrap();
            space.purge_all();
            assert!(table.table_frames() <= before + 2, "those above span more than the region");
        });
    }
}
