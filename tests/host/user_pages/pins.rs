//! Pins of pages that came in runs and blocks.

use super::machine::{data, on_a_machine, page, pages};
use quarry::addr::PAGE_SIZE;
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
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
