//! Ranges unmapped, emptied, protected, guarded.

use super::machine::{CPUS, data, on_a_machine, page, pages, run_on};
use quarry::addr::{PAGE_SIZE, VirtRange};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::Access;
use quarry::mm::user::pages::{Backing, FaultError, Handled, PagesError, Sharing};
use std::sync::atomic::Ordering;

// Behaviours 432 and 434.
#[test]
fn what_is_unmapped_no_cpu_reaches_and_its_frames_are_free() {
    if cfg!(miri) {
        return;
    }
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |kernel| {
            let (space, area) = (kernel.space(1), data(1100));
            kernel.run_everywhere(&space);
            let free = kernel.free_pages();
            for n in (0..1100).step_by(3) {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
            space.unmap(pages(1, 1000), pages(1, 1000), Gfp::KERNEL).unwrap();
            kernel.check_quiet();
            for cpu in 0..CPUS {
                let cpu = kernel.sim.cpu(quarry::addr::CpuId::new(cpu));
                assert!(cpu.load(page(3), Who::User).is_err());
                assert_eq!(cpu.load(page(0), Who::User), Ok(0));
                assert_eq!(cpu.load(page(1002), Who::User), Ok(1002));
            }
            assert_eq!(space.usage().anon, (367 - 333) * PAGE_SIZE);
            assert_eq!(kernel.free_pages(), free - 34);
            kernel.check(&[&space]);
            // Nothing is there: no error.
            space.unmap(pages(1, 1000), pages(1, 1000), Gfp::KERNEL).unwrap();
            space.unmap(pages(0, 1100), pages(0, 1100), Gfp::KERNEL).unwrap();
            assert_eq!(kernel.free_pages(), free);
            // With the hole around it, the tables go too.
            space.unmap(pages(0, 1100), everywhere(), Gfp::KERNEL).unwrap();
            assert_eq!(space.usage().tables, PAGE_SIZE, "the root");
            kernel.check(&[&space]);
            kernel.store(&space, page(5), &area, 1).unwrap();
            kernel.check(&[&space]);
            kernel.end([space]);
        });
    }
}

/// All of the lower half.
fn everywhere() -> VirtRange {
    VirtRange::new(super::machine::va(0), super::machine::va(1 << 47)).unwrap()
}

#[test]
fn a_table_goes_with_its_pages_if_it_has_no_others() {
    if cfg!(miri) {
        return;
    }
    for config in [Config::CORTEX_A72, Config::MAX] {
        // Nothing, a page, a guard page: before the range and behind it, in the same table.
        for (other, tables) in [(None, 1), (Some(5), 4), (Some(505), 4)] {
            on_a_machine(config, |kernel| {
                let (space, area) = (kernel.space(1), data(512));
                kernel.run_everywhere(&space);
                let free = kernel.free_pages();
                for n in (10..500).chain(other) {
                    kernel.store(&space, page(n), &area, n).unwrap();
                }
                space.unmap(pages(10, 490), everywhere(), Gfp::KERNEL).unwrap();
                kernel.check_quiet();
                kernel.check(&[&space]);
                let left = other.map_or(0, |_| 1);
                assert_eq!((space.usage().anon, space.usage().tables), (left * PAGE_SIZE, tables * PAGE_SIZE));
                for cpu in 0..CPUS {
                    let cpu = kernel.sim.cpu(quarry::addr::CpuId::new(cpu));
                    assert!((10..500).all(|n| cpu.load(page(n), Who::User).is_err()));
                    assert_eq!(other.map(|n| cpu.load(page(n), Who::User)), other.map(Ok));
                }
                // A fault in the same place makes another table.
                kernel.store(&space, page(20), &area, 7).unwrap();
                kernel.check(&[&space]);
                space.unmap(pages(0, 512), everywhere(), Gfp::KERNEL).unwrap();
                assert_eq!((kernel.free_pages(), space.usage().tables), (free, PAGE_SIZE));
                kernel.end([space]);
            });
        }
    }
}

#[test]
fn a_table_whose_last_entries_go_one_by_one_is_known_to_be_empty() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(64));
        for n in 0..40 {
            kernel.store(&space, page(n), &area, n).unwrap();
        }
        space.guard(pages(40, 4), true, Gfp::KERNEL).unwrap();
        kernel.check(&[&space]);
        space.discard(pages(0, 20), Gfp::KERNEL).unwrap();
        space.relocate(pages(20, 10), page(48), Gfp::KERNEL).unwrap();
        kernel.check(&[&space]);
        space.unmap(pages(30, 10), everywhere(), Gfp::KERNEL).unwrap();
        space.guard(pages(40, 4), false, Gfp::KERNEL).unwrap();
        kernel.check(&[&space]);
        assert_eq!(space.usage().tables, 4 * PAGE_SIZE, "ten pages are left");
        space.unmap(pages(48, 10), everywhere(), Gfp::KERNEL).unwrap();
        assert_eq!(space.usage().tables, PAGE_SIZE, "the root");
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

// Behaviour 432.
#[test]
fn bad_ranges_are_refused() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let space = kernel.space(1);
        let range = |start, end| VirtRange::new(super::machine::va(start), super::machine::va(end)).unwrap();
        for bad in [range(0x1000, 0x1000), range(0x1001, 0x3000), range(0x1000, 0x3001), range(0, (1 << 48) + 4096)] {
            assert!(matches!(space.unmap(bad, bad, Gfp::KERNEL), Err(PagesError::Range(_))));
            assert!(matches!(space.discard(bad, Gfp::KERNEL), Err(PagesError::Range(_))));
            assert!(matches!(space.guard(bad, true, Gfp::KERNEL), Err(PagesError::Range(_))));
            let protect = space.protect(bad, Access::ReadOnly, Sharing::Private, Gfp::KERNEL);
            assert!(matches!(protect, Err(PagesError::Range(_))));
        }
        kernel.end([space]);
    });
}

#[test]
fn a_forgotten_flush_is_noticed() {
    let caught = std::panic::catch_unwind(|| {
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (space, area) = (kernel.space(1), data(8));
            kernel.run_everywhere(&space);
            kernel.store(&space, page(0), &area, 1).unwrap();
            kernel.forget.store(true, Ordering::Relaxed);
            space.discard(pages(0, 8), Gfp::KERNEL).unwrap();
            kernel.forget.store(false, Ordering::Relaxed);
            kernel.check(&[&space]);
        });
    });
    assert!(caught.is_err());
}

// Behaviour 431.
#[test]
fn discarded_memory_reads_as_zero() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let space = kernel.space(1);
        kernel.run_everywhere(&space);
        for largest in [quarry::addr::Order::ZERO, Backing::RUN, Backing::BLOCK] {
            let area = Backing { largest, ..data(1024) };
            space.populate(pages(0, 1024), &area, Gfp::KERNEL).unwrap();
            for n in 0..1024 {
                kernel.store(&space, page(n), &area, n + 1).unwrap();
            }
            // Neither at the edge of a block nor of a run.
            space.discard(pages(5, 700), Gfp::KERNEL).unwrap();
            kernel.check(&[&space]);
            for n in [0, 4, 5, 511, 512, 704, 705, 1023] {
                let value = if (5..705).contains(&n) { 0 } else { n + 1 };
                assert_eq!(kernel.load(&space, page(n), &area).unwrap().0, value, "{n}");
            }
            kernel.check(&[&space]);
            space.unmap(pages(0, 1024), pages(0, 1024), Gfp::KERNEL).unwrap();
            assert_eq!(space.usage().anon, 0);
        }
        kernel.end([space]);
    });
}

// Behaviours 385 and 420: the part about pages.
#[test]
fn what_is_made_read_only_no_cpu_writes() {
    for largest in [quarry::addr::Order::ZERO, Backing::RUN, Backing::BLOCK] {
        if cfg!(miri) && largest == Backing::BLOCK {
            return;
        }
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let space = kernel.space(1);
            let area = Backing { largest, ..data(512) };
            kernel.run_everywhere(&space);
            for n in 0..16 {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
            let flushes = kernel.sim.counts().barriers;
            space.protect(pages(3, 8), Access::ReadOnly, Sharing::Private, Gfp::KERNEL).unwrap();
            if largest == quarry::addr::Order::ZERO {
                assert!(kernel.sim.counts().barriers - flushes <= 2, "one flush");
            }
            kernel.check(&[&space]);
            for cpu in 0..CPUS {
                let cpu = kernel.sim.cpu(quarry::addr::CpuId::new(cpu));
                assert!(cpu.store(page(3), Who::User, 1).is_err() && cpu.store(page(10), Who::User, 1).is_err());
                assert_eq!(cpu.store(page(2), Who::User, 2), Ok(()));
                assert_eq!(cpu.store(page(11), Who::User, 11), Ok(()));
                assert_eq!(cpu.load(page(5), Who::User), Ok(5));
            }
            // And back, without a fault for pages that are this space's alone.
            space.protect(pages(3, 8), Access::ReadWrite, Sharing::Private, Gfp::KERNEL).unwrap();
            run_on(0);
            assert_eq!(kernel.store(&space, page(3), &area, 3).unwrap(), []);
            kernel.check(&[&space]);
            kernel.end([space]);
        });
    }
}

#[test]
fn code_is_never_writable_and_its_instructions_are_in_step() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(4));
        kernel.run_everywhere(&space);
        kernel.store(&space, page(0), &area, 0xd65f_03c0).unwrap();
        let code = Backing::private(pages(0, 4), Access::Execute);
        space.protect(pages(0, 4), Access::Execute, Sharing::Private, Gfp::KERNEL).unwrap();
        assert_eq!(kernel.synced.load(Ordering::Relaxed), 1);
        kernel.fetch(&space, page(0), &code).unwrap();
        assert_eq!(kernel.store(&space, page(0), &code, 1), Err(FaultError::Denied(page(0))));
        for cpu in 0..CPUS {
            assert!(kernel.sim.cpu(quarry::addr::CpuId::new(cpu)).store(page(0), Who::User, 1).is_err());
        }
        let shared = space.protect(pages(0, 4), Access::Execute, Sharing::Shared, Gfp::KERNEL);
        assert_eq!(shared, Err(PagesError::SharedExecutable));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

// Behaviour 430.
#[test]
fn guard_pages_refuse_every_access_until_they_are_removed() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { largest: Backing::RUN, ..data(64) });
        kernel.run_everywhere(&space);
        let free = kernel.free_pages();
        for n in 0..32 {
            kernel.store(&space, page(n), &area, n + 1).unwrap();
        }
        space.guard(pages(5, 20), true, Gfp::KERNEL).unwrap();
        kernel.check(&[&space]);
        assert_eq!(kernel.free_pages(), free - 12, "what was there is free");
        for cpu in 0..CPUS {
            run_on(cpu);
            for n in [5, 24] {
                assert_eq!(kernel.load(&space, page(n), &area), Err(FaultError::Guard(page(n))));
                assert_eq!(kernel.store(&space, page(n), &area, 1), Err(FaultError::Guard(page(n))));
            }
            assert_eq!(kernel.load(&space, page(4), &area).unwrap().0, 5);
            assert_eq!(kernel.load(&space, page(25), &area).unwrap().0, 26);
        }
        run_on(0);
        // They survive what happens to the memory around them.
        space.protect(pages(0, 64), Access::ReadOnly, Sharing::Private, Gfp::KERNEL).unwrap();
        space.protect(pages(0, 64), Access::ReadWrite, Sharing::Private, Gfp::KERNEL).unwrap();
        space.discard(pages(0, 64), Gfp::KERNEL).unwrap();
        let filled = space.populate(pages(0, 64), &data(64), Gfp::KERNEL);
        assert_eq!(filled, Err(PagesError::Fault(FaultError::Guard(page(5)))));
        assert_eq!(kernel.load(&space, page(5), &area), Err(FaultError::Guard(page(5))));
        space.guard(pages(5, 10), false, Gfp::KERNEL).unwrap();
        assert_eq!(kernel.load(&space, page(5), &area).unwrap(), (0, vec![Handled::ZeroPage]));
        assert_eq!(kernel.load(&space, page(15), &area), Err(FaultError::Guard(page(15))));
        space.unmap(pages(0, 64), pages(0, 64), Gfp::KERNEL).unwrap();
        assert_eq!(kernel.load(&space, page(15), &area).unwrap().0, 0, "unmapping takes them away");
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_block_that_cannot_be_split_for_want_of_a_table_stays_whole() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { largest: Backing::BLOCK, ..data(512) });
        kernel.store(&space, page(7), &area, 7).unwrap();
        kernel.sim.fail_allocation_after(Some(0));
        let part = pages(0, 100);
        assert_eq!(space.unmap(part, part, Gfp::NOWAIT), Err(PagesError::OutOfMemory));
        kernel.sim.fail_allocation_after(Some(0));
        assert_eq!(space.guard(part, true, Gfp::NOWAIT), Err(PagesError::OutOfMemory));
        kernel.sim.fail_allocation_after(Some(0));
        let protect = space.protect(part, Access::ReadOnly, Sharing::Private, Gfp::NOWAIT);
        assert_eq!(protect, Err(PagesError::OutOfMemory));
        kernel.sim.fail_allocation_after(None);
        assert_eq!(space.tables().translate(page(0)).unwrap().leaf.level, LeafLevel::Pmd);
        assert_eq!(kernel.store(&space, page(7), &area, 8).unwrap(), []);
        kernel.check(&[&space]);
        // All of it needs none.
        kernel.sim.fail_allocation_after(Some(0));
        space.unmap(pages(0, 512), pages(0, 512), Gfp::NOWAIT).unwrap();
        kernel.sim.fail_allocation_after(None);
        assert_eq!(space.usage().anon, 0);
        kernel.end([space]);
    });
}
