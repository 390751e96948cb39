//! CPUs that acknowledge an invalidation late: what is given away, or told apart no longer, before they have.

use super::kernel::{Vmalloc, acknowledging_late, asking, on_a_machine, take_page, touch, with_machine};
use quarry::addr::{CpuId, Order, PAGE_SIZE, PMD_SIZE, PhysAddr, VirtAddr};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::{MemoryType, Prot};
use quarry::mm::io::{IoError, IoSpace, ReservedMap};
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::percpu::{PerCpuAllocator, UNIT_SIZE};
use quarry::mm::vmalloc::{RamBlocks, Resized, VmFlags, VmallocRequest};
use quarry::mm::zone::{FreeError, PageHal};
use std::cell::Cell;

/// Use of a page.
fn kind(space: &Vmalloc<'_>, page: Page) -> Kind {
    space.hal().pages.head(page).unwrap().1.kind()
}

/// Runs `f`, and `look` while its first invalidation is not acknowledged.
fn meanwhile<R>(look: impl Fn(), f: impl FnOnce() -> R) -> R {
    let looked = Cell::new(false);
    let first = || {
        if !looked.replace(true) {
            look();
        }
    };
    let result = acknowledging_late(&first, f);
    assert!(looked.get(), "nothing was invalidated");
    result
}

/// The other CPU reads at an address by what it still has.
fn still_reads(space: &Vmalloc<'_>, at: VirtAddr) {
    space.hal().machine.cpu(CpuId::new(1)).load(at, Who::Kernel).unwrap();
}

fn pages_of(space: &Vmalloc<'_>, start: VirtAddr, count: u64) -> Vec<Page> {
    (0..count).map(|page| space.vmalloc_to_page(VirtAddr::new(start.get() + page * PAGE_SIZE)).unwrap()).collect()
}

#[test]
fn pages_of_others_are_held_until_every_cpu_has_let_go() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let pages = &space.hal().pages;
        let list: Vec<Page> = (0..70).map(|_| take_page(space).unwrap()).collect();
        let held = |page: Page| {
            assert_eq!(raw!(pages.free_pages(page, Order::ZERO)), Err(FreeError::Mapped(pages.hal().map().pfn(page))));
        };
        for count in [1, 5, 70] {
            let addr = space.vmap(&list[..count], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
            touch(space, addr, count as u64);
            // The last ones go last, where there are several invalidations.
            acknowledging_late(&|| held(list[count - 1]), || raw!(space.vunmap(addr))).unwrap();
        }
        for page in list {
            raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

// The blocks keep their addresses, so the machine does not come to rest.
#[test]
fn addresses_of_a_short_mapping_are_not_given_again_until_every_cpu_has_let_go() {
    with_machine(Config::CORTEX_A72, |space| {
        let list: Vec<Page> = (0..10).map(|_| take_page(space).unwrap()).collect();
        let blocks = Box::new(RamBlocks::new(space));
        asking(&|first, pages| blocks.maps(first, pages), || {
            let addr = blocks.vm_map_ram(&list[..5], Prot::KERNEL_RW).unwrap();
            touch(space, addr, 5);
            let others = || {
                still_reads(space, addr);
                let other = blocks.vm_map_ram(&list[5..10], Prot::KERNEL_RW).unwrap();
                assert_ne!(other, addr, "a CPU would read the old pages there");
                raw!(blocks.vm_unmap_ram(other, 5)).unwrap();
            };
            meanwhile(others, || raw!(blocks.vm_unmap_ram(addr, 5))).unwrap();
        });
        blocks.check().unwrap();
        for page in list {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
        space.hal().machine.check().unwrap();
    });
}

#[test]
fn pages_of_an_area_are_its_own_until_every_cpu_has_let_go() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let vmalloc = |bytes| space.vmalloc(&VmallocRequest::new(bytes, Gfp::KERNEL)).unwrap();
        for bytes in [PAGE_SIZE, 64 << 10, PMD_SIZE] {
            let addr = vmalloc(bytes);
            let pages = pages_of(space, addr, bytes / PAGE_SIZE);
            touch(space, addr, 1);
            let look = || {
                still_reads(space, addr);
                assert!(pages.iter().all(|page| kind(space, *page) != Kind::Free && kind(space, *page) != Kind::Pcp));
            };
            let free = || {
                raw!(space.vfree(addr)).unwrap();
                space.purge_all();
            };
            meanwhile(look, free);
            assert!(pages.iter().all(|page| matches!(kind(space, *page), Kind::Free | Kind::Pcp)));
        }
        let addr = vmalloc(13 * PAGE_SIZE);
        let pages = pages_of(space, addr, 13);
        touch(space, addr, 13);
        let look = || assert!(pages.iter().all(|page| kind(space, *page) == Kind::Vmalloc));
        let resized = meanwhile(look, || space.resize(addr, PAGE_SIZE, Gfp::KERNEL)).unwrap();
        assert!(matches!(resized, Resized::InPlace(_)));
        assert!(pages.iter().any(|page| kind(space, *page) != Kind::Vmalloc));
        raw!(space.vfree(addr)).unwrap();
    });
}

#[test]
fn tables_are_tables_until_every_cpu_has_let_go() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let areas: Vec<VirtAddr> =
            (0..600).map(|_| space.vmalloc(&VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL)).unwrap()).collect();
        areas.into_iter().for_each(|addr| raw!(space.vfree(addr)).unwrap());
        let (before, seen) = (space.hal().machine.frames_out(), Cell::new(usize::MAX));
        acknowledging_late(&|| seen.set(seen.get().min(space.hal().machine.frames_out())), || space.purge_all());
        assert!(seen.get() > space.hal().machine.frames_out() && seen.get() <= before);
    });
}

#[test]
fn a_device_has_its_memory_type_until_every_cpu_has_let_go() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let io = IoSpace::new(space);
        io.set_up(PhysAddr::new(1 << 44), ReservedMap::NONE);
        let device = PhysAddr::new(0x10_0000_0000);
        for bytes in [8, 3 * PAGE_SIZE, PMD_SIZE] {
            let addr = io.ioremap(device, bytes, MemoryType::DeviceNGnRE).unwrap();
            let look = || {
                let other = io.ioremap(device, bytes, MemoryType::NonCacheable);
                assert!(matches!(other, Err(IoError::Conflict(..))), "{other:?}");
            };
            meanwhile(look, || raw!(io.iounmap(addr))).unwrap();
            let other = io.ioremap(device, bytes, MemoryType::NonCacheable).unwrap();
            raw!(io.iounmap(other)).unwrap();
        }
    });
}

#[test]
fn pages_of_a_chunk_are_its_own_until_every_cpu_has_let_go() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let percpu = PerCpuAllocator::new(space);
        let ptr = percpu.alloc(UNIT_SIZE, 8, Gfp::KERNEL).unwrap();
        let pages = pages_of(space, ptr.addr(), 2 * UNIT_SIZE / PAGE_SIZE);
        touch(space, ptr.addr(), 1);
        raw!(percpu.free(ptr)).unwrap();
        assert_eq!(meanwhile(|| assert_eq!(kind(space, pages[0]), Kind::PerCpu), || percpu.trim()), pages.len() as u64);
    });
}
