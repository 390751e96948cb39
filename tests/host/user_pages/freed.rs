//! Pages that leave a space in numbers: where they wait, and what they are by then.

use super::machine::{MIB, cpu, data, on_a_machine, page, pages, with_banks, with_ram};
use quarry::addr::{Order, PAGE_SIZE, PhysAddr};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::mm::page::{Kind, PageMap};
use quarry::mm::user::pages::{Backing, Sharing};
use quarry::mm::zone::PageHal;

/// A writable area of so many pages that come in runs of sixteen.
fn runs(count: u64) -> Backing {
    Backing { largest: Backing::RUN, ..data(count) }
}

#[test]
fn pages_of_ram_that_lies_elsewhere_are_no_devices() {
    let ram = [(0, 8 * MIB), (64 * MIB, 8 * MIB)];
    with_banks(Config::CORTEX_A72, &ram, |kernel| {
        let (space, free) = (kernel.space(1), kernel.pages.free_page_count());
        // More than the RAM in either place: neighbours in both.
        let count = if cfg!(miri) { 2100 } else { 3000 };
        for n in 0..count {
            kernel.store(&space, page(n), &data(count), n).unwrap();
        }
        assert_eq!((space.usage().anon, space.usage().mapped), (count * PAGE_SIZE, 0));
        kernel.check(&[&space]);
        space.unmap(pages(0, count), pages(0, count), Gfp::KERNEL).unwrap();
        assert_eq!((space.usage().anon, space.usage().mapped), (0, 0));
        kernel.drain();
        assert_eq!(kernel.pages.free_page_count(), free);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn a_run_that_nobody_else_has_is_free_as_one_block() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), runs(64));
        let map = kernel.pages.hal().map();
        let state = |phys: PhysAddr| map.get(map.find(quarry::addr::Pfn::containing(phys)).unwrap()).state();
        for whole in [true, false] {
            for n in [0, 16, 32, 48] {
                kernel.store(&space, page(n), &area, n).unwrap();
            }
            let at = |n| space.tables().translate(page(n)).unwrap().phys;
            let (first, second, third) = (at(0), at(16), at(32));
            // One page of a run is a device's too, and one run is cut.
            let pinned = space.pin(page(20), true, &area, Gfp::KERNEL).unwrap();
            if whole {
                space.unmap(pages(0, 40), pages(0, 40), Gfp::KERNEL).unwrap();
            } else {
                space.discard(pages(0, 40), Gfp::KERNEL).unwrap();
            }
            assert_eq!((state(first).kind(), state(first).order()), (Kind::Pcp, Backing::RUN));
            for n in 1..16 {
                assert_eq!(state(PhysAddr::new(first.get() + n * PAGE_SIZE)).kind(), Kind::Inside, "page {n}");
            }
            for n in 0..16 {
                let expected = if n == 4 { Kind::User } else { Kind::Pcp };
                let found = state(PhysAddr::new(second.get() + n * PAGE_SIZE));
                assert_eq!((found.kind(), found.order()), (expected, Order::ZERO), "page {n}");
            }
            for n in 0..16 {
                let expected = if n >= 8 { Kind::User } else { Kind::Pcp };
                assert_eq!(state(PhysAddr::new(third.get() + n * PAGE_SIZE)).kind(), expected, "page {n}");
            }
            assert_eq!(space.usage().anon, 24 * PAGE_SIZE);
            kernel.check(&[&space]);
            kernel.pages.check().unwrap();
            pinned.unpin();
            space.unmap(pages(0, 64), pages(0, 64), Gfp::KERNEL).unwrap();
            assert_eq!(space.usage().anon, 0);
        }
        kernel.end([space]);
    });
}

#[test]
fn a_run_that_a_child_has_too_stays_with_it() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (parent, area) = (kernel.space(1), runs(64));
        for n in 0..64 {
            kernel.store(&parent, page(n), &area, n).unwrap();
        }
        let mut child = kernel.space(2);
        parent.fork(&mut child, [(pages(0, 64), Sharing::Private)], Gfp::KERNEL).unwrap();
        // The child has some pages of its own.
        for n in [3, 17, 18, 40] {
            kernel.store(&child, page(n), &area, 100 + n).unwrap();
        }
        kernel.check(&[&parent, &child]);
        parent.unmap(pages(0, 64), pages(0, 64), Gfp::KERNEL).unwrap();
        assert_eq!(parent.usage().anon, 0);
        kernel.check(&[&parent, &child]);
        for n in 0..64 {
            let value = if [3, 17, 18, 40].contains(&n) { 100 + n } else { n };
            assert_eq!(kernel.load(&child, page(n), &area).unwrap().0, value, "page {n}");
        }
        kernel.end([parent, child]);
    });
}

#[test]
fn many_pages_wait_in_reserve_for_the_next_burst() {
    if cfg!(miri) {
        return;
    }
    // So that a CPU's share of the zone is more than that.
    with_ram(Config::CORTEX_A72, 512 << 20, |kernel| {
        let (space, area) = (kernel.space(1), data(1000));
        // The first bursts are fetched from the zone: so much may wait from then on.
        for _ in 0..3 {
            space.populate(pages(0, 1000), &area, Gfp::KERNEL).unwrap();
            space.unmap(pages(0, 1000), pages(0, 1000), Gfp::KERNEL).unwrap();
            kernel.pages.check().unwrap();
        }
        let listed = kernel.pages.pages_on_lists(cpu());
        assert!(listed >= 800, "{listed} pages wait");
        // What does not fit on the list goes behind it at once: the list keeps what came first, and gives that first.
        space.populate(pages(0, 1000), &area, Gfp::KERNEL).unwrap();
        let frame = |n| space.tables().translate(page(n)).unwrap().phys;
        let freed: Vec<_> = (0..1000).map(frame).collect();
        space.unmap(pages(0, 1000), pages(0, 1000), Gfp::KERNEL).unwrap();
        kernel.store(&space, page(0), &area, 1).unwrap();
        let next = freed.iter().position(|freed| *freed == frame(0));
        assert!(next.is_some_and(|next| next < 256), "the page that comes next was the {next:?}. of 1000 to go");
        kernel.pages.check().unwrap();
        for n in 0..1000 {
            kernel.store(&space, page(n), &area, n).unwrap();
        }
        kernel.check(&[&space]);
        kernel.pages.check().unwrap();
        kernel.end([space]);
    });
}
