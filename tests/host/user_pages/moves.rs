//! Memory moved to other addresses, and memory of drivers.

use super::machine::{CPUS, data, on_a_machine, page, pages, run_on};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::{Access, MemoryType};
use quarry::mm::page::PageMap;
use quarry::mm::user::pages::{Backing, FaultError, PagesError, Sharing};
use quarry::mm::zone::PageHal;

// Behaviour 421.
#[test]
fn moved_memory_keeps_its_bytes_and_the_old_addresses_are_empty() {
    if cfg!(miri) {
        return;
    }
    for (largest, to) in [
        (Order::ZERO, 1536),
        (Order::ZERO, 1537),
        (Order::ZERO, 3000),
        (Backing::RUN, 1537),
        (Backing::BLOCK, 1536),
        (Backing::BLOCK, 1537),
    ] {
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (space, area) = (kernel.space(1), Backing { largest, ..data(1200) });
            kernel.run_everywhere(&space);
            let touched: Vec<u64> = (0..1200).filter(|n| n % 7 == 0 || (512..800).contains(n)).collect();
            for n in &touched {
                kernel.store(&space, page(*n), &area, n + 1).unwrap();
            }
            space.guard(pages(1100, 2), true, Gfp::KERNEL).unwrap();
            let (usage, free) = (space.usage().anon, kernel.free_pages());
            space.relocate(pages(0, 1200), page(to), Gfp::KERNEL).unwrap();
            kernel.check(&[&space]);
            assert_eq!((space.usage().anon, kernel.free_pages()), (usage, free));
            let moved = Backing { range: pages(to, 1200), ..area };
            for cpu in 0..CPUS {
                run_on(cpu);
                for n in touched.iter().filter(|n| !(1100..1102).contains(*n)) {
                    assert_eq!(kernel.load(&space, page(to + n), &moved).unwrap().0, n + 1);
                    assert!(kernel.sim.cpu(CpuId::new(cpu)).load(page(*n), Who::User).is_err());
                }
                assert_eq!(kernel.load(&space, page(to + 1101), &moved), Err(FaultError::Guard(page(to + 1101))));
            }
            run_on(0);
            kernel.check(&[&space]);
            kernel.end([space]);
        });
    }
}

#[test]
fn a_whole_table_moves_as_one() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(512));
        kernel.run_everywhere(&space);
        for n in 0..512 {
            kernel.store(&space, page(n), &area, n).unwrap();
        }
        let stores = kernel.sim.counts().stores;
        space.relocate(pages(0, 512), page(1024), Gfp::KERNEL).unwrap();
        assert!(kernel.sim.counts().stores - stores < 20);
        let moved = Backing { range: pages(1024, 512), ..area };
        assert_eq!(kernel.load(&space, page(1024 + 77), &moved).unwrap(), (77, vec![]));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_move_that_cannot_be_done_leaves_everything_where_it_was() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { largest: Backing::BLOCK, ..data(1024) });
        for n in [0, 511, 512, 1023] {
            kernel.store(&space, page(n), &area, n + 1).unwrap();
        }
        let relocate = |to| space.relocate(pages(0, 1024), page(to), Gfp::KERNEL);
        assert_eq!(relocate(1000), Err(PagesError::Overlap));
        let other = Backing::private(pages(3000, 8), Access::ReadWrite);
        kernel.store(&space, page(3007), &other, 1).unwrap();
        assert!(matches!(relocate(2500), Err(PagesError::Occupied(_))));
        for k in 0.. {
            kernel.sim.fail_allocation_after(Some(k));
            let moved = relocate((1 << 18) + 3);
            kernel.sim.fail_allocation_after(None);
            kernel.check(&[&space]);
            if moved.is_ok() {
                break;
            }
            assert_eq!(moved, Err(PagesError::OutOfMemory));
            for n in [0, 511, 512, 1023] {
                assert_eq!(kernel.load(&space, page(n), &area).unwrap(), (n + 1, vec![]));
            }
        }
        kernel.end([space]);
    });
}

#[test]
fn a_drivers_page_is_mapped_and_stays_until_it_is_unmapped() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { sharing: Sharing::Shared, ..data(8) });
        kernel.run_everywhere(&space);
        let taken = kernel.pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, Order::ZERO).unwrap();
        let phys = kernel.pages.hal().map().phys(taken);
        let insert = |n, access| raw!(space.insert_page(page(n), taken, access, Gfp::KERNEL));
        insert(0, Access::ReadOnly).unwrap();
        insert(1, Access::ReadWrite).unwrap();
        assert_eq!(insert(1, Access::ReadOnly), Err(PagesError::Occupied(page(1))));
        assert_eq!(insert(2, Access::Execute), Err(PagesError::SharedExecutable));
        assert_eq!(kernel.pages.page_count(taken), 3);
        assert_eq!(space.usage().mapped, 2 * PAGE_SIZE);
        kernel.store(&space, page(1), &area, 6).unwrap();
        assert_eq!(kernel.sim.peek(phys), 6);
        // A page that the driver gave for reading is not written, even if the area permits writing.
        assert_eq!(kernel.store(&space, page(0), &area, 7), Err(FaultError::Denied(page(0))));
        let mut child = kernel.space(2);
        space.fork(&mut child, [(area.range, Sharing::Private)], Gfp::KERNEL).unwrap();
        assert_eq!(kernel.pages.page_count(taken), 5);
        quarry::mm::user::pages::check(&[&space, &child], |_, _| false).unwrap();
        // The driver frees it: it stays while it is mapped.
        raw!(kernel.pages.free_pages(taken, Order::ZERO)).unwrap();
        assert_eq!(kernel.load(&child, page(0), &area).unwrap().0, 6);
        let pinned = child.pin(page(1), true, &area, Gfp::KERNEL).unwrap();
        kernel.end([space, child]);
        assert_eq!(kernel.pages.page_count(taken), 1);
        pinned.unpin();
    });
}

#[test]
fn memory_that_is_nobodys_to_map_is_refused() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(8));
        kernel.store(&space, page(0), &area, 1).unwrap();
        let own = Pfn::containing(space.tables().translate(page(0)).unwrap().phys);
        let map = kernel.pages.hal().map();
        let insert = |pfn, memory| raw!(space.insert_pfn(pages(4, 1), pfn, memory, Access::ReadOnly, Gfp::KERNEL));
        assert_eq!(insert(own, MemoryType::WriteBack), Err(PagesError::BadPage(own)));
        let taken = kernel.pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let frame = map.pfn(taken);
        let uncached = insert(frame, MemoryType::NonCacheable);
        assert_eq!(uncached, Err(PagesError::MemoryType(frame, MemoryType::WriteBack)));
        raw!(kernel.pages.free_pages(taken, Order::ZERO)).unwrap();
        assert_eq!(insert(frame, MemoryType::WriteBack), Err(PagesError::BadPage(frame)));
        let last = Pfn::new((1 << 36) - 1);
        let beyond = raw!(space.insert_pfn(pages(4, 2), last, MemoryType::DeviceNGnRE, Access::ReadOnly, Gfp::KERNEL));
        assert!(matches!(beyond, Err(PagesError::Range(_))));
        assert_eq!(space.usage().mapped, 0);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_device_is_mapped_with_its_memory_type_all_or_nothing() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { sharing: Sharing::Shared, ..data(600) });
        kernel.run_everywhere(&space);
        let device = Pfn::containing(PhysAddr::new(0x900_0000));
        let insert =
            |range| raw!(space.insert_pfn(range, device, MemoryType::DeviceNGnRE, Access::ReadWrite, Gfp::KERNEL));
        kernel.store(&space, page(520), &area, 1).unwrap();
        assert!(matches!(insert(pages(500, 64)), Err(PagesError::Occupied(_))));
        assert_eq!(space.usage().mapped, 0);
        assert!(space.tables().translate(page(500)).is_none());
        insert(pages(496, 16)).unwrap();
        let found = space.tables().translate(page(511)).unwrap();
        assert_eq!(found.phys, PhysAddr::new(0x900_f000));
        assert_eq!(found.leaf.prot.memory(), MemoryType::DeviceNGnRE);
        kernel.store(&space, page(500), &area, 5).unwrap();
        assert_eq!(kernel.sim.peek(PhysAddr::new(0x900_4000)), 5);
        let pinned = space.pin(page(500), true, &area, Gfp::KERNEL);
        assert_eq!(pinned.unwrap_err(), FaultError::NotPinnable(page(500)));
        // It does not become executable, and keeps its type.
        space.protect(pages(496, 16), Access::Execute, Sharing::Private, Gfp::KERNEL).unwrap();
        let found = space.tables().translate(page(511)).unwrap().leaf.prot;
        assert_eq!((found.access(), found.memory()), (Access::ReadOnly, MemoryType::DeviceNGnRE));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}
