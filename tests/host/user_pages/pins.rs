//! Pins of pages that came in runs and blocks.

use super::machine::{Space, data, on_a_machine, page, pages};
use quarry::addr::{Order, PAGE_SIZE};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::mm::page::PageState;
use quarry::mm::user::pages::{Backing, Handled, Sharing};

#[test]
fn pages_of_runs_and_blocks_are_pinned_together_and_unpinned_one_by_one() {
    for largest in [Backing::RUN, Backing::BLOCK] {
        if cfg!(miri) && largest == Backing::BLOCK {
            return;
        }
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (space, area) = (kernel.space(1), Backing { largest, ..data(600) });
            for n in [490, 512] {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
            let before = space.usage();
            // Over the edge of two tables, and of what is there.
            let mut pinned = [const { None }; 50];
            space.pin_pages(page(490), true, &area, Gfp::KERNEL, &mut pinned).unwrap();
            for (n, one) in (490..).zip(&pinned) {
                let phys = one.as_ref().unwrap().phys();
                assert_eq!(Some(phys), space.tables().translate(page(n)).map(|found| found.phys), "page {n}");
                assert_eq!(kernel.sim.peek(phys), if [490, 512].contains(&n) { n } else { 0 }, "page {n}");
            }
            assert!(space.usage().anon >= before.anon);
            kernel.check(&[&space]);
            // The same pages once more: a pin is counted each time.
            let mut again = [const { None }; 50];
            space.pin_pages(page(490), false, &area, Gfp::KERNEL, &mut again).unwrap();
            kernel.check(&[&space]);
            pinned.iter_mut().step_by(2).for_each(|one| *one = None);
            kernel.check(&[&space]);
            // A fork copies what is pinned, so that the device and the parent stay together.
            let mut child = kernel.space(2);
            space.fork(&mut child, [(pages(0, 600), Sharing::Private)], Gfp::KERNEL).unwrap();
            kernel.check(&[&space, &child]);
            for (n, one) in (490..).zip(&again) {
                assert_eq!(kernel.store(&space, page(n), &area, 1000 + n).unwrap(), [], "page {n}");
                assert_eq!(kernel.sim.peek(one.as_ref().unwrap().phys()), 1000 + n, "page {n}");
                let value = if [490, 512].contains(&n) { n } else { 0 };
                assert_eq!(kernel.load(&child, page(n), &area).unwrap().0, value, "page {n}");
            }
            // The space gives them up, the device has them, and the last pin frees them.
            space.unmap(pages(0, 600), pages(0, 600), Gfp::KERNEL).unwrap();
            for (n, one) in (490..).zip(&again) {
                assert_eq!(kernel.sim.peek(one.as_ref().unwrap().phys()), 1000 + n, "page {n}");
            }
            drop((pinned, again));
            kernel.check(&[&space, &child]);
            kernel.end([space, child]);
        });
    }
}

#[test]
fn a_block_that_was_pinned_is_its_owners_again_when_the_last_pin_is_gone() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), Backing { largest: Backing::BLOCK, ..data(512) });
        kernel.store(&space, page(0), &area, 1).unwrap();
        let mut pinned = [const { None }; 40];
        space.pin_pages(page(7), true, &area, Gfp::KERNEL, &mut pinned).unwrap();
        assert_eq!(space.usage().anon, 512 * PAGE_SIZE);
        pinned.iter_mut().for_each(|one| *one = None);
        kernel.check(&[&space]);
        // Nothing is left of the pins: the child shares the block, which is the parent's alone when the child has gone.
        let mut child = kernel.space(2);
        space.fork(&mut child, [(pages(0, 512), Sharing::Private)], Gfp::KERNEL).unwrap();
        assert_eq!(space.tables().translate(page(7)).map(|found| found.phys), {
            child.tables().translate(page(7)).map(|found| found.phys)
        });
        kernel.end([child]);
        assert_eq!(kernel.store(&space, page(9), &area, 5).unwrap(), [Handled::Reused]);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn more_pins_of_a_page_than_its_state_counts_are_counted_all_the_same() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(2));
        kernel.store(&space, page(0), &area, 7).unwrap();
        let many = PageState::MAX_MAPPINGS as usize + 9;
        let mut pinned: Vec<_> = (0..many).map(|_| space.pin(page(0), true, &area, Gfp::KERNEL).unwrap()).collect();
        kernel.check(&[&space]);
        let phys = pinned[0].phys();
        assert!(pinned.iter().all(|one| one.phys() == phys));
        // First those go that the state counts, so that what is left is counted elsewhere.
        let rest = pinned.split_off(many - 3);
        drop(pinned);
        kernel.check(&[&space]);
        let mut child = kernel.space(2);
        space.fork(&mut child, [(pages(0, 2), Sharing::Private)], Gfp::KERNEL).unwrap();
        assert_eq!(kernel.store(&space, page(0), &area, 8).unwrap(), [], "the parent keeps the page, and may write it");
        assert_eq!((kernel.sim.peek(phys), kernel.load(&child, page(0), &area).unwrap().0), (8, 7));
        drop(rest);
        kernel.check(&[&space, &child]);
        // Nothing is left of them: the next child shares the page.
        let mut second = kernel.space(3);
        space.fork(&mut second, [(pages(0, 2), Sharing::Private)], Gfp::KERNEL).unwrap();
        assert_eq!(second.tables().translate(page(0)).map(|found| found.phys), Some(phys));
        kernel.end([space, child, second]);
    });
}

#[test]
fn pins_are_given_back_together_whatever_their_pages_are() {
    for largest in [Order::ZERO, Backing::RUN] {
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (space, area) = (kernel.space(1), Backing { largest, ..data(64) });
            for n in [0, 17, 40] {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
            let mut pinned = [const { None }; 50];
            space.pin_pages(page(0), true, &area, Gfp::KERNEL, &mut pinned).unwrap();
            kernel.check(&[&space]);
            // A place that has a pin loses it for the new one; one that has none is passed over.
            let again = &mut pinned[10..20];
            space.pin_pages(page(30), true, &area, Gfp::KERNEL, again).unwrap();
            kernel.check(&[&space]);
            pinned[3] = None;
            // Of some pages the pin is the last owner.
            space.unmap(pages(4, 4), pages(4, 4), Gfp::KERNEL).unwrap();
            space.unpin_pages(&mut pinned);
            assert!(pinned.iter().all(Option::is_none));
            kernel.check(&[&space]);
            space.unpin_pages(&mut pinned);
            // The pages are the space's alone again.
            let mut child = kernel.space(2);
            space.fork(&mut child, [(pages(0, 64), Sharing::Private)], Gfp::KERNEL).unwrap();
            kernel.check(&[&space, &child]);
            let of = |space: &Space| space.tables().translate(page(17)).map(|found| found.phys);
            assert_eq!(of(&space), of(&child));
            kernel.end([space, child]);
        });
    }
}
