//! Fork and copy-on-write.

use super::machine::{CPUS, Kernel, Space, data, on_a_machine, page, pages, run_on};
use quarry::addr::{CpuId, Order, PAGE_SIZE};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::Access;
use quarry::mm::user::pages::{Backing, FaultError, Handled, PagesError, Sharing};
use std::sync::atomic::Ordering;

fn fork(kernel: &'static Kernel, parent: &Space, asid: u16, count: u64, sharing: Sharing) -> Space {
    let mut child = kernel.space(asid);
    parent.fork(&mut child, [(pages(0, count), sharing)], Gfp::KERNEL).unwrap();
    kernel.check_quiet();
    child
}

// Behaviour 424.
#[test]
fn after_a_fork_each_side_keeps_its_own_bytes_and_the_last_owner_copies_nothing() {
    for largest in [Order::ZERO, Backing::RUN, Backing::BLOCK] {
        if cfg!(miri) && largest == Backing::BLOCK {
            return;
        }
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (parent, area) = (kernel.space(1), Backing { largest, ..data(512) });
            kernel.run_everywhere(&parent);
            for n in 0..20 {
                kernel.store(&parent, page(n), &area, 100 + n).unwrap();
            }
            let (before, free) = (parent.usage(), kernel.free_pages());
            let child = fork(kernel, &parent, 2, 512, Sharing::Private);
            assert_eq!(child.usage().anon, before.anon);
            assert_eq!((parent.usage(), kernel.free_pages()), (before, free), "no page was copied");
            kernel.check(&[&parent, &child]);
            for cpu in 0..CPUS {
                let cpu = kernel.sim.cpu(CpuId::new(cpu));
                assert!(cpu.store(page(0), Who::User, 1).is_err(), "nobody writes what is shared");
                assert_eq!(cpu.load(page(0), Who::User), Ok(100));
            }
            run_on(1);
            assert!(kernel.store(&child, page(3), &area, 7).unwrap().contains(&Handled::Copied));
            assert_eq!(kernel.load(&child, page(4), &area).unwrap().0, 104);
            run_on(0);
            assert_eq!(kernel.load(&parent, page(3), &area).unwrap().0, 103);
            kernel.check(&[&parent, &child]);
            // The parent is the last owner of that page, where it is one of its own.
            let handled = kernel.store(&parent, page(3), &area, 8).unwrap();
            if largest == Order::ZERO {
                assert_eq!(handled, [Handled::Reused]);
            }
            run_on(1);
            assert_eq!(kernel.load(&child, page(3), &area).unwrap().0, 7);
            run_on(0);
            kernel.check(&[&parent, &child]);
            kernel.run_everywhere(&parent);
            child.destroy();
            kernel.check(&[&parent]);
            for n in [0, 19] {
                assert_eq!(kernel.store(&parent, page(n), &area, 200 + n).unwrap().len(), 1);
            }
            assert_eq!(kernel.load(&parent, page(3), &area).unwrap().0, 8);
            kernel.check(&[&parent]);
            kernel.end([parent]);
        });
    }
}

#[test]
fn a_range_named_twice_is_inherited_once_and_part_of_a_block_is_copied() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (parent, area) = (kernel.space(1), Backing { largest: Backing::BLOCK, ..data(1024) });
        kernel.run_everywhere(&parent);
        for n in [5, 600] {
            kernel.store(&parent, page(n), &area, n).unwrap();
        }
        parent.discard(pages(512, 88), Gfp::KERNEL).unwrap();
        let mut child = kernel.space(2);
        let ranges = [(pages(0, 100), Sharing::Private), (pages(560, 100), Sharing::Private)];
        parent.fork(&mut child, ranges.into_iter().chain(ranges), Gfp::KERNEL).unwrap();
        kernel.check(&[&parent, &child]);
        assert_eq!(child.usage().anon, (100 + 60) * PAGE_SIZE);
        assert_eq!(kernel.load(&child, page(5), &area).unwrap().0, 5);
        assert_eq!(kernel.load(&child, page(600), &area).unwrap().0, 600);
        kernel.end([parent, child]);
    });
}

#[test]
fn the_last_owner_of_a_block_takes_it_back_whole() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (parent, area) = (kernel.space(1), Backing { largest: Backing::BLOCK, ..data(512) });
        kernel.run_everywhere(&parent);
        kernel.store(&parent, page(9), &area, 9).unwrap();
        let child = fork(kernel, &parent, 2, 512, Sharing::Private);
        child.destroy();
        assert_eq!(kernel.store(&parent, page(10), &area, 10).unwrap(), [Handled::Reused]);
        assert_eq!(parent.tables().translate(page(0)).unwrap().leaf.level, quarry::hal::level::LeafLevel::Pmd);
        assert_eq!(kernel.load(&parent, page(9), &area).unwrap().0, 9);
        kernel.check(&[&parent]);
        kernel.end([parent]);
    });
}

#[test]
fn shared_memory_stays_shared_and_guards_and_the_zero_page_are_inherited() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let parent = kernel.space(1);
        let area = Backing { sharing: Sharing::Shared, ..data(8) };
        parent.populate(pages(0, 8), &area, Gfp::KERNEL).unwrap();
        parent.guard(pages(7, 1), true, Gfp::KERNEL).unwrap();
        let private = Backing::private(pages(16, 4), Access::ReadWrite);
        kernel.load(&parent, page(16), &private).unwrap();
        let mut child = kernel.space(2);
        let ranges = [(area.range, Sharing::Shared), (private.range, Sharing::Private)];
        parent.fork(&mut child, ranges, Gfp::KERNEL).unwrap();
        assert_eq!(kernel.store(&child, page(2), &area, 5).unwrap(), []);
        assert_eq!(kernel.load(&parent, page(2), &area).unwrap(), (5, vec![]));
        assert_eq!(kernel.load(&child, page(7), &area), Err(FaultError::Guard(page(7))));
        assert_eq!(kernel.load(&child, page(16), &private).unwrap(), (0, vec![]));
        kernel.store(&child, page(16), &private, 3).unwrap();
        assert_eq!(kernel.load(&parent, page(16), &private).unwrap(), (0, vec![]));
        let shared = |_, at| area.range.contains(at);
        quarry::mm::user::pages::check(&[&parent, &child], shared).unwrap();
        kernel.end([parent, child]);
    });
}

// Behaviour 425.
#[test]
fn what_other_cpus_write_during_a_fork_is_in_both_or_in_the_parent_alone() {
    let rounds = if cfg!(miri) { 1 } else { 30 };
    on_a_machine(Config { eager: false, ..Config::CORTEX_A72 }, |kernel| {
        let (parent, area) = (kernel.space(1), data(32));
        kernel.run_everywhere(&parent);
        for n in 0..32 {
            kernel.store(&parent, page(n), &area, 0).unwrap();
        }
        for round in 1..=rounds {
            let done = std::sync::atomic::AtomicBool::new(false);
            let mut child = kernel.space(2);
            std::thread::scope(|scope| {
                for cpu in 1..3 {
                    let (parent, area, done) = (&parent, &area, &done);
                    scope.spawn(move || {
                        run_on(cpu);
                        let mut value = round << 32;
                        while !done.load(Ordering::Relaxed) {
                            value += 1;
                            for n in 0..32 {
                                let word = super::machine::va(page(n).get() + 8 * u64::from(cpu));
                                kernel.store(parent, word, area, value).unwrap();
                            }
                        }
                    });
                }
                parent.fork(&mut child, [(pages(0, 32), Sharing::Private)], Gfp::KERNEL).unwrap();
                // The child keeps the content that it had.
                let words = |n| [1, 2].map(|cpu| super::machine::va(page(n).get() + 8 * cpu));
                let read = |at| child.tables().translate(at).map(|found| kernel.sim.peek(found.phys)).unwrap();
                let first: Vec<_> = (0..32).flat_map(words).map(read).collect();
                std::thread::yield_now();
                let again: Vec<_> = (0..32).flat_map(words).map(read).collect();
                done.store(true, Ordering::Relaxed);
                assert_eq!(first, again, "the parent wrote to the child's page");
            });
            kernel.check(&[&parent, &child]);
            child.destroy();
        }
        kernel.end([parent]);
    });
}

// Behaviour 426: the n-th table, and the n-th page, cannot be had.
#[test]
fn a_fork_that_fails_leaves_an_empty_child_and_the_parent_as_it_was() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let parent = kernel.space(1);
        let far = Backing::private(pages(0, 1 << 19), Access::ReadWrite);
        kernel.run_everywhere(&parent);
        let places = [0, 1, 600, 5_000, 300_000, 300_001];
        for n in places {
            kernel.store(&parent, page(n), &far, n + 1).unwrap();
        }
        let pinned = parent.pin(page(600), true, &far, Gfp::KERNEL).unwrap();
        let (before, free) = (parent.usage(), kernel.free_pages());
        let mut failures = 0;
        kernel.pages.set_careful(true);
        for k in 0.. {
            let mut child = kernel.space(2);
            kernel.sim.fail_allocation_after(Some(k));
            let forked = parent.fork(&mut child, [(far.range, Sharing::Private)], Gfp::KERNEL);
            kernel.sim.fail_allocation_after(None);
            kernel.check(&[&parent, &child]);
            if forked.is_ok() {
                child.destroy();
                break;
            }
            assert_eq!(forked, Err(PagesError::OutOfMemory));
            assert_eq!((child.usage().anon, child.usage().tables), (0, PAGE_SIZE));
            assert_eq!((parent.usage(), kernel.free_pages()), (before, free));
            failures += 1;
            child.destroy();
        }
        assert!(failures >= 5, "{failures}");
        let mut child = kernel.space(2);
        kernel.pages.hal().until_failure.store(0, Ordering::Relaxed);
        kernel.drain();
        let forked = parent.fork(&mut child, [(far.range, Sharing::Private)], Gfp::KERNEL | Gfp::NOWARN);
        kernel.pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
        kernel.pages.set_careful(false);
        assert_eq!(forked, Err(PagesError::OutOfMemory), "the copy of the pinned page");
        kernel.check(&[&parent, &child]);
        child.destroy();
        pinned.unpin();
        for n in places {
            assert_eq!(kernel.load(&parent, page(n), &far).unwrap().0, n + 1);
            kernel.store(&parent, page(n), &far, n).unwrap();
        }
        assert_eq!(kernel.free_pages(), free, "each page was taken back, none copied");
        kernel.check(&[&parent]);
        kernel.end([parent]);
    });
}

// Behaviour 427.
#[test]
fn a_pinned_page_stays_the_parents_and_the_child_gets_a_copy() {
    for largest in [Order::ZERO, Backing::BLOCK] {
        if cfg!(miri) && largest == Backing::BLOCK {
            return;
        }
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (parent, area) = (kernel.space(1), Backing { largest, ..data(512) });
            kernel.run_everywhere(&parent);
            for n in 0..4 {
                kernel.store(&parent, page(n), &area, 10 + n).unwrap();
            }
            let pinned = parent.pin(page(2), true, &area, Gfp::KERNEL).unwrap();
            let child = fork(kernel, &parent, 2, 512, Sharing::Private);
            kernel.check(&[&parent, &child]);
            // The device writes, and the parent sees it, without a fault.
            kernel.sim.poke(pinned.phys(), 77);
            assert_eq!(kernel.load(&parent, page(2), &area).unwrap(), (77, vec![]));
            assert_eq!(kernel.store(&parent, page(2), &area, 78).unwrap(), []);
            assert_eq!(kernel.sim.peek(pinned.phys()), 78);
            run_on(1);
            assert_eq!(kernel.load(&child, page(2), &area).unwrap().0, 12);
            assert_eq!(kernel.load(&child, page(3), &area).unwrap().0, 13);
            run_on(0);
            kernel.run_everywhere(&parent);
            child.destroy();
            // The space gives it up; the device still has it.
            parent.unmap(pages(0, 512), pages(0, 512), Gfp::KERNEL).unwrap();
            kernel.sim.poke(pinned.phys(), 79);
            kernel.check(&[&parent]);
            kernel.end([parent]);
            pinned.unpin();
        });
    }
}

#[test]
fn pinning_makes_a_shared_page_this_spaces_own_first() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (parent, area) = (kernel.space(1), data(8));
        kernel.store(&parent, page(0), &area, 1).unwrap();
        kernel.load(&parent, page(1), &area).unwrap();
        let child = fork(kernel, &parent, 2, 8, Sharing::Private);
        // For reading too: what the device reads must be what the space writes later.
        for n in 0..3 {
            let pinned = child.pin(page(n), false, &area, Gfp::KERNEL).unwrap();
            kernel.store(&child, page(n), &area, 40 + n).unwrap();
            assert_eq!(kernel.sim.peek(pinned.phys()), 40 + n);
            assert_eq!(kernel.load(&parent, page(n), &area).unwrap().0, u64::from(n == 0));
            kernel.check(&[&parent, &child]);
            pinned.unpin();
        }
        let fixed = Backing::private(pages(0, 8), Access::ReadOnly);
        assert_eq!(child.pin(page(0), true, &fixed, Gfp::KERNEL).unwrap_err(), FaultError::Denied(page(0)));
        assert_eq!(child.pin(page(8), false, &fixed, Gfp::KERNEL).unwrap_err(), FaultError::Outside(page(8)));
        kernel.end([parent, child]);
    });
}

#[test]
fn a_pinned_page_survives_a_change_of_permission() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(4));
        let pinned = space.pin(page(0), true, &area, Gfp::KERNEL).unwrap();
        let again = space.pin(page(0), true, &area, Gfp::KERNEL).unwrap();
        space.protect(pages(0, 4), Access::ReadOnly, Sharing::Private, Gfp::KERNEL).unwrap();
        let child = fork(kernel, &space, 2, 4, Sharing::Private);
        assert_eq!(kernel.store(&space, page(0), &area, 3).unwrap(), [Handled::Reused]);
        assert_eq!(kernel.sim.peek(pinned.phys()), 3);
        assert_eq!(kernel.load(&child, page(0), &area).unwrap().0, 0);
        kernel.check(&[&space, &child]);
        drop((pinned, again));
        kernel.check(&[&space, &child]);
        kernel.end([space, child]);
    });
}

#[test]
fn many_pages_are_pinned_at_once_up_to_the_first_that_cannot_be() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing::private(pages(508, 8), Access::ReadWrite));
        // Some are there, some are the child's too, some are not there; and they lie in two tables.
        for n in [508, 509, 512, 513] {
            kernel.store(&space, page(n), &area, n).unwrap();
        }
        let mut child = kernel.space(2);
        space.fork(&mut child, [(pages(508, 2), Sharing::Private)], Gfp::KERNEL).unwrap();
        let mut pinned = [const { None }; 8];
        space.pin_pages(page(508), true, &area, Gfp::KERNEL, &mut pinned).unwrap();
        for (n, one) in (508..).zip(&pinned) {
            let phys = one.as_ref().unwrap().phys();
            assert_eq!(Some(phys), space.tables().translate(page(n)).map(|found| found.phys), "page {n}");
            let value = if [508, 509, 512, 513].contains(&n) { n } else { 0 };
            assert_eq!(kernel.sim.peek(phys), value, "page {n}");
        }
        kernel.check(&[&space, &child]);
        let guarded = pages(510, 1);
        pinned.iter_mut().for_each(|one| *one = None);
        kernel.check(&[&space, &child]);
        space.guard(guarded, true, Gfp::KERNEL).unwrap();
        let result = space.pin_pages(page(508), true, &area, Gfp::KERNEL, &mut pinned);
        assert_eq!(result, Err(FaultError::Guard(page(510))));
        assert!(pinned[..2].iter().all(Option::is_some) && pinned[2..].iter().all(Option::is_none));
        assert_eq!(
            space.pin_pages(page(515), false, &area, Gfp::KERNEL, &mut pinned[2..4]),
            Err(FaultError::Outside(page(516)))
        );
        kernel.check(&[&space, &child]);
        drop(pinned);
        kernel.end([space, child]);
    });
}

#[test]
fn the_end_of_a_space_leaves_nothing_of_it_in_any_tlb() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(600));
        for cpu in 0..CPUS {
            run_on(cpu);
            for n in [0, 7, 599] {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
        }
        run_on(0);
        let (asid, idle) = (space.asid(), kernel.space(0));
        kernel.run_everywhere(&idle);
        space.destroy();
        // The number may be another space's from now on.
        for cpu in (0..CPUS).map(CpuId::new) {
            kernel.sim.set_ttbr0(cpu, idle.root(), asid);
            for n in [0, 7, 599] {
                assert!(kernel.sim.cpu(cpu).load(page(n), Who::User).is_err(), "page {n} on {cpu:?}");
            }
        }
        kernel.check_quiet();
        kernel.end([idle]);
    });
}
