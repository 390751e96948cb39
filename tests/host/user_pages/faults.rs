//! Faults: content that an access finds, and changes that it brings about.

use super::machine::{CPUS, data, on_a_machine, page, pages, run_on, va};
use quarry::addr::{Order, PAGE_SIZE};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::Access;
use quarry::mm::user::pages::{Backing, FaultAccess, FaultError, Handled, Sharing};
use std::sync::atomic::Ordering;

const ZEROED: Handled = Handled::Zeroed(Order::ZERO);

#[test]
fn the_first_write_finds_a_zeroed_page_and_keeps_what_it_writes() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |kernel| {
            let (space, area) = (kernel.space(1), data(600));
            for n in [0, 1, 511, 512, 599] {
                let here = va(page(n).get() + 8);
                let handled = kernel.store(&space, here, &area, 7 + n).unwrap();
                assert!(handled.contains(&ZEROED), "{handled:?}");
                assert_eq!(kernel.load(&space, here, &area).unwrap(), (7 + n, vec![]));
                assert_eq!(kernel.load(&space, page(n), &area).unwrap(), (0, vec![]), "the rest is zero");
            }
            assert_eq!(space.usage().anon, 5 * PAGE_SIZE);
            assert_eq!(space.usage().tables, 5 * PAGE_SIZE, "root, two between, two of leaves");
            kernel.check(&[&space]);
            kernel.end([space]);
        });
    }
}

#[test]
fn a_read_finds_the_zero_page_which_the_first_write_replaces() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(4));
        kernel.run_everywhere(&space);
        let free = kernel.free_pages();
        for cpu in 0..CPUS {
            run_on(cpu);
            for n in 0..4 {
                assert_eq!(kernel.load(&space, page(n), &area).unwrap().0, 0);
            }
        }
        run_on(0);
        assert_eq!((kernel.free_pages(), space.usage().anon), (free, 0), "reading takes no memory");
        let handled = kernel.store(&space, page(2), &area, 5).unwrap();
        assert_eq!(handled, [ZEROED]);
        // The other CPUs have the zero page's translation no more.
        for cpu in 0..CPUS {
            run_on(cpu);
            assert_eq!(kernel.load(&space, page(2), &area).unwrap().0, 5);
            assert_eq!(kernel.load(&space, page(1), &area).unwrap().0, 0);
        }
        run_on(0);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn an_access_that_the_area_forbids_is_refused_and_changes_nothing() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let space = kernel.space(1);
        let fixed = Backing::private(pages(0, 4), Access::ReadOnly);
        assert_eq!(kernel.load(&space, page(0), &fixed).unwrap().0, 0);
        assert_eq!(kernel.store(&space, page(0), &fixed, 1), Err(FaultError::Denied(page(0))));
        assert_eq!(kernel.fetch(&space, page(0), &fixed), Err(FaultError::Denied(page(0))));
        assert_eq!(kernel.fetch(&space, page(1), &data(4)), Err(FaultError::Denied(page(1))));
        assert_eq!(kernel.load(&space, page(4), &fixed), Err(FaultError::Outside(page(4))));
        let code = Backing::private(pages(0, 4), Access::Execute);
        assert_eq!(kernel.store(&space, page(2), &code, 1), Err(FaultError::Denied(page(2))));
        kernel.fetch(&space, page(2), &code).unwrap();
        let shared = Backing { sharing: Sharing::Shared, ..code };
        assert_eq!(kernel.fetch(&space, page(3), &shared), Err(FaultError::Denied(page(3))));
        assert_eq!(space.usage().anon, 0);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

// Behaviour 386.
#[test]
fn a_fault_whose_entry_is_right_already_is_tried_again() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(4));
        kernel.store(&space, page(0), &area, 1).unwrap();
        for access in [FaultAccess::Read, FaultAccess::Write] {
            assert_eq!(space.fault(page(0), access, &area, Gfp::NOWAIT), Ok(Handled::Spurious));
        }
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

// Behaviour 390.
#[test]
fn an_aged_page_is_young_again_after_an_access_by_a_fault_where_the_hardware_sets_no_flag() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |kernel| {
            let (space, area) = (kernel.space(1), Backing { largest: Backing::RUN, ..data(64) });
            kernel.run_everywhere(&space);
            kernel.store(&space, page(0), &area, 1).unwrap();
            kernel.store(&space, page(40), &data(64), 2).unwrap();
            assert_eq!(space.age(pages(0, 64)), Ok(17));
            assert_eq!(space.age(pages(0, 64)), Ok(0));
            for (n, value) in [(0, 1), (40, 2)] {
                let handled = kernel.load(&space, page(n), &area).unwrap();
                let fault = if config.hardware_access_flag { vec![] } else { vec![Handled::Updated] };
                assert_eq!(handled, (value, fault));
            }
            assert_eq!(space.age(pages(0, 64)), Ok(2));
            kernel.store(&space, page(40), &area, 3).unwrap();
            assert_eq!(kernel.load(&space, page(40), &area).unwrap().0, 3);
            kernel.check(&[&space]);
            kernel.end([space]);
        });
    }
}

#[test]
fn nowait_without_memory_is_an_error_that_changes_nothing() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(64));
        kernel.store(&space, page(0), &area, 1).unwrap();
        let before = (space.usage(), kernel.free_pages());
        kernel.pages.set_careful(true);
        kernel.pages.hal().until_failure.store(0, Ordering::Relaxed);
        assert_eq!(space.fault(page(1), FaultAccess::Write, &area, Gfp::NOWAIT), Err(FaultError::OutOfMemory));
        kernel.pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
        kernel.pages.set_careful(false);
        assert_eq!(before, (space.usage(), kernel.free_pages()));
        // The same without a frame for a table.
        let far = Backing::private(pages(0, 4096), Access::ReadWrite);
        kernel.sim.fail_allocation_after(Some(0));
        assert_eq!(space.fault(page(1024), FaultAccess::Write, &far, Gfp::NOWAIT), Err(FaultError::OutOfMemory));
        kernel.sim.fail_allocation_after(None);
        assert_eq!(before, (space.usage(), kernel.free_pages()));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn an_aligned_write_gets_a_block_or_a_run_and_smaller_pieces_where_none_fits() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let space = kernel.space(1);
        // From page 3 on: the first 2 MiB are not whole.
        let area = Backing { largest: Backing::BLOCK, ..Backing::private(pages(3, 1100), Access::ReadWrite) };
        let level = |n| space.tables().translate(page(n)).map(|found| (found.leaf.level, found.leaf.contiguous));
        for (n, order) in [(3, Order::ZERO), (21, Backing::RUN), (600, Backing::BLOCK), (1080, Backing::RUN)] {
            let handled = kernel.store(&space, page(n), &area, n).unwrap();
            assert!(handled.contains(&Handled::Zeroed(order)), "{n}: {handled:?}");
        }
        assert_eq!(level(3), Some((LeafLevel::Pte, false)));
        assert_eq!(level(31), Some((LeafLevel::Pte, true)));
        assert_eq!((level(32), level(600)), (None, Some((LeafLevel::Pmd, false))));
        // The last run is cut by the end of the area.
        let handled = kernel.store(&space, page(1102), &area, 1).unwrap();
        assert!(handled.contains(&ZEROED), "{handled:?}");
        assert_eq!(space.usage().anon, (1 + 16 + 512 + 16 + 1) * PAGE_SIZE);
        assert_eq!(kernel.load(&space, page(900), &area).unwrap(), (0, vec![]));
        kernel.check(&[&space]);
        // Where there is no such block, pages serve.
        kernel.pages.set_careful(true);
        kernel.pages.hal().until_failure.store(0, Ordering::Relaxed);
        let more = Backing { range: pages(2048, 1024), ..area };
        let handled = kernel.store(&space, page(2048), &more, 1).unwrap();
        assert!(!handled.contains(&Handled::Zeroed(Backing::BLOCK)), "{handled:?}");
        kernel.pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
        kernel.pages.set_careful(false);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_range_is_populated_at_once_and_what_is_there_stays() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(1400));
        kernel.store(&space, page(700), &area, 9).unwrap();
        space.populate(pages(100, 1100), &area, Gfp::KERNEL).unwrap();
        assert_eq!(space.usage().anon, 1100 * PAGE_SIZE);
        for n in [100, 511, 512, 700, 1199] {
            let value = if n == 700 { 9 } else { 0 };
            assert_eq!(kernel.load(&space, page(n), &area).unwrap(), (value, vec![]));
            assert_eq!(kernel.store(&space, page(n), &area, n).unwrap(), []);
        }
        space.populate(pages(0, 1400), &area, Gfp::KERNEL).unwrap();
        assert_eq!(space.usage().anon, 1400 * PAGE_SIZE);
        kernel.check(&[&space]);
        // Read-only: the zero page.
        let fixed = Backing::private(pages(2048, 32), Access::ReadOnly);
        space.populate(pages(2048, 32), &fixed, Gfp::KERNEL).unwrap();
        assert_eq!(space.usage().anon, 1400 * PAGE_SIZE);
        assert_eq!(kernel.load(&space, page(2079), &fixed).unwrap(), (0, vec![]));
        let large = Backing { largest: Backing::BLOCK, ..Backing::private(pages(4096, 1600), Access::ReadWrite) };
        space.populate(pages(4096, 1600), &large, Gfp::KERNEL).unwrap();
        assert_eq!(space.tables().translate(page(4096)).unwrap().leaf.level, LeafLevel::Pmd);
        assert_eq!(space.usage().anon, 3000 * PAGE_SIZE);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn cpus_that_fault_on_one_page_at_once_get_the_same_one() {
    let rounds = if cfg!(miri) { 2 } else { 40 };
    on_a_machine(Config { eager: false, ..Config::CORTEX_A72 }, |kernel| {
        let (space, area) = (kernel.space(1), data(64));
        kernel.run_everywhere(&space);
        for round in 0..rounds {
            std::thread::scope(|scope| {
                for cpu in 0..CPUS {
                    let (space, area) = (&space, &area);
                    scope.spawn(move || {
                        run_on(cpu);
                        for n in 0..16 {
                            let word = va(page(n).get() + 8 * u64::from(cpu));
                            kernel.store(space, word, area, round * 64 + n + u64::from(cpu)).unwrap();
                        }
                    });
                }
            });
            for n in 0..16 {
                for cpu in 0..u64::from(CPUS) {
                    let word = va(page(n).get() + 8 * cpu);
                    assert_eq!(kernel.load(&space, word, &area).unwrap().0, round * 64 + n + cpu);
                }
            }
            assert_eq!(space.usage().anon, 16 * PAGE_SIZE);
            kernel.check(&[&space]);
            space.discard(pages(0, 64), Gfp::KERNEL).unwrap();
        }
        kernel.end([space]);
    });
}

#[test]
fn tables_come_and_go_around_the_faults_of_other_cpus() {
    let rounds = if cfg!(miri) { 3 } else { 60 };
    on_a_machine(Config { eager: false, ..Config::CORTEX_A72 }, |kernel| {
        let space = kernel.space(1);
        let all = quarry::addr::VirtRange::new(va(0), va(1 << 47)).unwrap();
        kernel.run_everywhere(&space);
        std::thread::scope(|scope| {
            for cpu in 0..CPUS {
                let space = &space;
                scope.spawn(move || {
                    run_on(cpu);
                    for round in 0..rounds {
                        // Two pages of one table, two of others of the same GiB, one far away.
                        let n = [3, 400, 5_000, 300_000, 1 << 28][quarry::addr::to_usize(round % 5)] + u64::from(cpu);
                        let area = Backing::private(pages(n, 1), Access::ReadWrite);
                        kernel.store(space, page(n), &area, round + 1).unwrap();
                        assert_eq!(kernel.load(space, page(n), &area).unwrap().0, round + 1);
                        space.unmap(pages(n, 1), all, Gfp::KERNEL).unwrap();
                    }
                });
            }
        });
        assert_eq!((space.usage().anon, space.usage().tables), (0, PAGE_SIZE));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_space_is_small() {
    assert!(size_of::<super::machine::Space>() <= 512, "{}", size_of::<super::machine::Space>());
}

#[test]
fn a_page_that_was_got_to_be_copied_to_is_not_mapped_as_a_zeroed_one() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(64));
        let word = |n: u64| va(page(n).get() + 8);
        // Free pages with something in them.
        for n in 0..16 {
            kernel.store(&space, word(n), &area, 7).unwrap();
        }
        space.discard(pages(0, 16), Gfp::KERNEL).unwrap();
        for n in 32..40 {
            kernel.store(&space, page(n), &area, n).unwrap();
        }
        let mut child = kernel.space(2);
        space.fork(&mut child, [(area.range, Sharing::Private)], Gfp::KERNEL).unwrap();
        for n in 32..36 {
            assert_eq!(kernel.store(&space, page(n), &area, 1).unwrap(), [Handled::Copied]);
            assert_eq!(kernel.store(&space, page(n - 32), &area, 1).unwrap(), [Handled::Zeroed(Order::ZERO)]);
            assert_eq!(kernel.load(&space, word(n - 32), &area).unwrap().0, 0, "page {}", n - 32);
        }
        kernel.check(&[&space, &child]);
        kernel.end([space, child]);
    });
}
