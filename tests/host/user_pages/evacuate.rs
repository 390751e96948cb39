//! Moving pages to other frames.

use super::machine::{CPUS, Handle, Kernel, Space, data, on_a_machine, page, pages, run_on, va};
use quarry::addr::{Order, Pfn, PhysAddr, VirtAddr};
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::hal::prot::Access;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::user::pages::{Backing, Sharing, evacuate};
use quarry::mm::zone::PageHal;
use std::sync::atomic::{AtomicBool, Ordering};

fn phys(space: &Space, at: VirtAddr) -> PhysAddr {
    space.tables().translate(at).unwrap().phys
}

fn page_of(kernel: &'static Kernel, phys: PhysAddr) -> Page {
    kernel.pages.hal().map().find(Pfn::containing(phys)).unwrap()
}

fn move_out(kernel: &'static Kernel, at: PhysAddr, spaces: &[&Space]) -> bool {
    evacuate(&Handle(kernel), page_of(kernel, at), &|f| spaces.iter().for_each(|space| f(space)))
}

#[test]
fn a_page_that_is_moved_keeps_its_content_for_every_space_on_every_cpu() {
    for largest in [Order::ZERO, Backing::RUN] {
        on_a_machine(Config::CORTEX_A72, |kernel| {
            let (parent, area) = (kernel.space(1), Backing { largest, ..data(32) });
            kernel.run_everywhere(&parent);
            for n in 0..20 {
                kernel.store(&parent, page(n), &area, 100 + n).unwrap();
            }
            // Every TLB has the old frames.
            for cpu in 0..CPUS {
                run_on(cpu);
                (0..20).for_each(|n| assert_eq!(kernel.load(&parent, page(n), &area).unwrap().0, 100 + n));
            }
            run_on(0);
            let free = kernel.free_pages();
            for n in [0, 3, 19] {
                let old = phys(&parent, page(n));
                assert!(move_out(kernel, old, &[&parent]));
                assert_ne!(phys(&parent, page(n)), old);
            }
            assert_eq!(kernel.free_pages(), free, "one for another");
            kernel.check(&[&parent]);
            // A page that two spaces map, each of which then writes.
            let mut child = kernel.space(2);
            parent.fork(&mut child, [(pages(0, 32), Sharing::Private)], Gfp::KERNEL).unwrap();
            let old = phys(&parent, page(4));
            assert!(!move_out(kernel, old, &[&parent]), "somebody else maps it");
            assert_eq!(phys(&child, page(4)), old);
            assert!(move_out(kernel, old, &[&parent, &child]));
            assert_eq!(phys(&parent, page(4)), phys(&child, page(4)));
            kernel.check(&[&parent, &child]);
            kernel.store(&child, page(4), &area, 7).unwrap();
            for cpu in 0..CPUS {
                run_on(cpu);
                (0..20).for_each(|n| assert_eq!(kernel.load(&parent, page(n), &area).unwrap().0, 100 + n));
                assert_eq!(kernel.load(&child, page(4), &area).unwrap().0, 7);
            }
            run_on(0);
            for n in 0..20 {
                kernel.store(&parent, page(n), &area, 200 + n).unwrap();
            }
            kernel.check(&[&parent, &child]);
            kernel.end([parent, child]);
        });
    }
}

// Behaviour 427.
#[test]
fn a_pinned_page_stays_and_one_that_was_moved_within_its_space_is_found() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(16));
        for n in 0..4 {
            kernel.store(&space, page(n), &area, 100 + n).unwrap();
        }
        let pinned = space.pin(page(0), true, &area, Gfp::KERNEL).unwrap();
        assert!(!move_out(kernel, pinned.phys(), &[&space]));
        assert_eq!(phys(&space, page(0)), pinned.phys());
        kernel.store(&space, page(0), &area, 5).unwrap();
        assert_eq!(
            (phys(&space, page(0)), kernel.sim.peek(pinned.phys())),
            (pinned.phys(), 5),
            "nor is it copied later"
        );
        drop(pinned);
        assert!(move_out(kernel, phys(&space, page(0)), &[&space]));
        space.relocate(pages(1, 1), page(9), Gfp::KERNEL).unwrap();
        let old = phys(&space, page(9));
        assert!(move_out(kernel, old, &[&space]));
        assert_eq!(kernel.load(&space, page(9), &area).unwrap().0, 101);
        // A page that belongs to no space is not moved.
        let other = kernel.pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        assert!(!evacuate(&Handle(kernel), other, &|f| f(&space)));
        raw!(kernel.pages.free_pages(other, Order::ZERO)).unwrap();
        assert!(!evacuate(&Handle(kernel), other, &|f| f(&space)));
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn no_write_is_lost_to_a_page_that_moves_meanwhile() {
    let rounds = if cfg!(miri) { 1 } else { 400 };
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(8));
        kernel.run_everywhere(&space);
        for n in 0..8 {
            kernel.store(&space, page(n), &area, 0).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for cpu in 1..3 {
                let (space, area, done) = (&space, &area, &done);
                scope.spawn(move || {
                    run_on(cpu);
                    let mut value = 0;
                    while !done.load(Ordering::Relaxed) {
                        for n in 0..8 {
                            let word = va(page(n).get() + 8 * u64::from(cpu));
                            assert_eq!(kernel.load(space, word, area).unwrap().0, value, "what was written is there");
                            kernel.store(space, word, area, value + 1).unwrap();
                        }
                        value += 1;
                    }
                });
            }
            let mut moved = 0;
            for round in 0..rounds * 8 {
                moved += u32::from(move_out(kernel, phys(&space, page(round % 8)), &[&space]));
            }
            done.store(true, Ordering::Relaxed);
            assert!(cfg!(miri) || moved != 0);
        });
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}

#[test]
fn code_that_is_moved_is_made_visible_to_instruction_fetches() {
    on_a_machine(Config::CORTEX_A72, |kernel| {
        let (space, area) = (kernel.space(1), data(2));
        kernel.store(&space, page(0), &area, 9).unwrap();
        space.protect(pages(0, 2), Access::Execute, Sharing::Private, Gfp::KERNEL).unwrap();
        let code = Backing::private(pages(0, 2), Access::Execute);
        kernel.fetch(&space, page(0), &code).unwrap();
        let synced = kernel.synced.load(Ordering::Relaxed);
        assert!(move_out(kernel, phys(&space, page(0)), &[&space]));
        assert_eq!(kernel.synced.load(Ordering::Relaxed), synced + 1);
        kernel.fetch(&space, page(0), &code).unwrap();
        assert_eq!(kernel.load(&space, page(0), &code).unwrap().0, 9);
        kernel.check(&[&space]);
        kernel.end([space]);
    });
}
