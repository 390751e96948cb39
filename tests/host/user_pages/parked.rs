//! Memory that nobody may access for now, in whole spaces: it stays, and what happens to other memory happens to it.

use super::machine::{CPUS, run_on};
use super::whole::{NONE, R, RW, RX, Scarce, Whole, World, map, move_to, on_a_world};
use quarry::addr::{CpuId, Order, PAGE_SIZE, UserAddr, VirtAddr};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::entry::Entry;
use quarry::hal::prot::Access;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Advice, MapError, VmFlags};
use quarry::mm::user::pages::{Backing, FaultAccess, FaultError};
use std::ops::ControlFlow;

/// Begins 16 pages before the end of a table.
const AT: u64 = 0x4000_0000 - 16 * PAGE_SIZE;

const fn page(n: u64) -> u64 {
    AT + n * PAGE_SIZE
}

fn protect(space: &Whole, first: u64, pages: u64, access: VmFlags) -> Result<(), MapError> {
    space.mprotect(UserAddr::new(page(first)), pages * PAGE_SIZE, access)
}

fn parked(space: &Whole) -> usize {
    let mut count = 0;
    let _ = space.pages().tables().walk_all(|visit| {
        count += usize::from(matches!(visit.entry, Entry::Parked(_)));
        ControlFlow::<()>::Continue(())
    });
    count
}

/// A space with this unit, with 600 pages that hold their numbers and 1.
fn filled(world: &World, largest: Order) -> Whole {
    let mut space = world.space();
    space.set_largest_unit(largest);
    map(&space, AT, 600, RW);
    for n in 0..600 {
        world.store(&space, page(n), n + 1).unwrap();
    }
    space
}

fn everything_is_there(world: &World, space: &Whole, pages: impl Iterator<Item = u64>, what: &str) {
    for n in pages {
        assert_eq!(world.load(space, page(n)), Ok(n + 1), "{what}: page {n}");
    }
}

const UNITS: [Order; 3] = [Order::ZERO, Backing::RUN, Backing::BLOCK];

// Behaviour 420: no access, and back.
#[test]
fn memory_without_access_keeps_its_content_until_it_has_some_again() {
    if cfg!(miri) {
        return;
    }
    for largest in UNITS {
        on_a_world(Config::CORTEX_A72, 16, |world| {
            let space = filled(world, largest);
            let usage = space.usage().anon;
            world.enter_everywhere(&space);
            for cpu in 0..CPUS {
                assert_eq!(world.kernel.sim.cpu(CpuId::new(cpu)).load(VirtAddr::new(page(20)), Who::User), Ok(21));
            }
            protect(&space, 5, 590, NONE).unwrap();
            world.check(&[&space]);
            assert!(parked(&space) > 0);
            assert_eq!(space.usage().anon, usage, "nothing is freed");
            for cpu in 0..CPUS {
                run_on(cpu);
                for n in [5, 16, 300, 594] {
                    let at = UserAddr::new(page(n));
                    assert!(world.kernel.sim.cpu(CpuId::new(cpu)).load(VirtAddr::new(page(n)), Who::User).is_err());
                    for access in [FaultAccess::Read, FaultAccess::Write, FaultAccess::Execute] {
                        assert_eq!(space.fault(at, access, Gfp::KERNEL), Err(SpaceFault::Denied(at)));
                    }
                }
                everything_is_there(world, &space, [0, 4, 595, 599].into_iter(), "around it");
            }
            run_on(0);
            // Nor can it be pinned, not even if the caller names a permission that the area does not have.
            let range = quarry::addr::VirtRange::from_size(VirtAddr::new(page(5)), 8 * PAGE_SIZE).unwrap();
            let pinned = space.pages().pin(
                VirtAddr::new(page(6)),
                true,
                &Backing::private(range, Access::ReadWrite),
                Gfp::KERNEL,
            );
            assert_eq!(pinned.unwrap_err(), FaultError::Denied(VirtAddr::new(page(6))));
            protect(&space, 5, 200, R).unwrap();
            protect(&space, 205, 200, RW).unwrap();
            protect(&space, 405, 190, RX).unwrap();
            world.check(&[&space]);
            assert_eq!(parked(&space), 0);
            everything_is_there(world, &space, 0..600, "back");
            assert_eq!(world.store(&space, page(6), 1), Err(SpaceFault::Denied(UserAddr::new(page(6)))));
            world.store(&space, page(206), 1).unwrap();
            assert_eq!(world.access(&space, page(406), FaultAccess::Execute, 0), Ok(407));
            world.check(&[&space]);
            world.end(space);
        });
    }
}

// Behaviours 424 and 427 for such memory.
#[test]
fn a_child_gets_what_its_parent_may_not_access() {
    if cfg!(miri) {
        return;
    }
    for largest in UNITS {
        on_a_world(Config::CORTEX_A72, 16, |world| {
            let parent = filled(world, largest);
            let range = quarry::addr::VirtRange::from_size(VirtAddr::new(AT), 600 * PAGE_SIZE).unwrap();
            let area = Backing::private(range, Access::ReadWrite);
            // A device writes one of them meanwhile.
            let pinned = parent.pages().pin(VirtAddr::new(page(100)), true, &area, Gfp::KERNEL).unwrap();
            protect(&parent, 0, 600, NONE).unwrap();
            let child = parent.fork().unwrap();
            world.check(&[&parent, &child]);
            assert_eq!(parked(&child), if largest == Backing::BLOCK { 600 } else { parked(&parent) });
            assert_eq!(world.load(&child, page(3)), Err(SpaceFault::Denied(UserAddr::new(page(3)))));
            world.kernel.sim.poke(pinned.phys(), 77);
            for one in [&parent, &child] {
                protect(one, 0, 600, RW).unwrap();
                world.check(&[&parent, &child]);
                everything_is_there(world, one, (0..600).filter(|n| *n != 100), "shared");
            }
            assert_eq!((world.load(&parent, page(100)), world.load(&child, page(100))), (Ok(77), Ok(101)));
            // Each writes its own.
            world.store(&parent, page(7), 1007).unwrap();
            world.store(&child, page(300), 2300).unwrap();
            assert_eq!((world.load(&parent, page(300)), world.load(&child, page(7))), (Ok(301), Ok(8)));
            world.check(&[&parent, &child]);
            drop(pinned);
            world.end(child);
            everything_is_there(world, &parent, (0..600).filter(|n| ![7, 100].contains(n)), "the child is gone");
            world.end(parent);
        });
    }
}

// Behaviours 419, 421, 430 and 431 for such memory.
#[test]
fn what_nobody_may_access_is_moved_discarded_guarded_and_unmapped() {
    if cfg!(miri) {
        return;
    }
    for largest in UNITS {
        for to in [AT + (1 << 30), AT + (1 << 30) + 3 * PAGE_SIZE] {
            on_a_world(Config::CORTEX_A72, 16, |world| {
                let space = filled(world, largest);
                protect(&space, 0, 600, NONE).unwrap();
                let usage = space.usage().anon;
                move_to(&space, AT, 600, to).unwrap();
                world.check(&[&space]);
                assert_eq!(space.usage().anon, usage);
                assert_eq!(world.load(&space, to), Err(SpaceFault::Denied(UserAddr::new(to))));
                move_to(&space, to, 600, AT).unwrap();
                // A part of it, out of the middle of what may be a block.
                protect(&space, 40, 10, RW).unwrap();
                everything_is_there(world, &space, 40..50, "a part");
                space.munmap(UserAddr::new(page(50)), 20 * PAGE_SIZE).unwrap();
                space.madvise(UserAddr::new(page(100)), 20 * PAGE_SIZE, Advice::DontNeed).unwrap();
                space.madvise(UserAddr::new(page(130)), 5 * PAGE_SIZE, Advice::GuardInstall).unwrap();
                world.check(&[&space]);
                assert_eq!(space.usage().anon, usage - 45 * PAGE_SIZE);
                protect(&space, 70, 530, RW).unwrap();
                everything_is_there(world, &space, (70..100).chain(120..130).chain(135..600), "the rest");
                assert_eq!(world.load(&space, page(110)), Ok(0), "given up");
                assert_eq!(world.load(&space, page(131)), Err(SpaceFault::Guard(UserAddr::new(page(131)))));
                world.check(&[&space]);
                assert!(space.kill(), "killed with the rest parked");
                assert_eq!(space.usage().anon, 0);
                world.end(space);
            });
        }
    }
}

// Behaviours 419 and 420: a failure changes nothing.
#[test]
fn taking_access_away_from_a_part_fails_before_anything_changes() {
    if cfg!(miri) {
        return;
    }
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = filled(world, Backing::BLOCK);
        for (first, access) in [(40, NONE), (45, RW)] {
            for what in [Scarce::Records, Scarce::Tables] {
                for count in 0..8 {
                    world.fail_after(what, Some(count));
                    let result = protect(&space, first, 300, access);
                    world.nothing_fails();
                    world.check(&[&space]);
                    if result.is_ok() {
                        assert!(count > 0 || what == Scarce::Tables);
                        // Back, for the next.
                        let back = if access == NONE { RW } else { NONE };
                        protect(&space, first, 300, back).unwrap();
                        break;
                    }
                    assert_eq!(result, Err(MapError::NoMemory));
                    let before = if access == NONE {
                        Ok(first + 51)
                    } else {
                        Err(SpaceFault::Denied(UserAddr::new(page(first + 50))))
                    };
                    assert_eq!(world.load(&space, page(first + 50)), before);
                }
            }
            if access == NONE {
                protect(&space, 0, 600, NONE).unwrap();
            }
        }
        protect(&space, 0, 600, RW).unwrap();
        everything_is_there(world, &space, 0..600, "in the end");
        world.end(space);
    });
}

// Behaviours 421 and 497: a move onto memory that is in use.
#[test]
fn a_move_onto_something_fails_before_anything_changes() {
    if cfg!(miri) {
        return;
    }
    let mut failures = 0;
    for (source, target, distance) in [
        (Order::ZERO, Order::ZERO, 1 << 30),
        (Order::ZERO, Backing::BLOCK, (1 << 30) + 5 * PAGE_SIZE),
        (Backing::BLOCK, Order::ZERO, (1 << 30) + 5 * PAGE_SIZE),
        (Backing::BLOCK, Backing::BLOCK, (1 << 30) + 7 * PAGE_SIZE),
        (Backing::BLOCK, Backing::BLOCK, 1 << 30),
    ] {
        on_a_world(Config::CORTEX_A72, 16, |world| {
            let mut space = filled(world, source);
            space.set_largest_unit(target);
            let to = AT + distance;
            // Some of the target, with a hole, and not to its end.
            map(&space, to, 200, RW);
            map(&space, to + 210 * PAGE_SIZE, 1400, RW);
            let others =
                || (0..200).chain(210..1610).map(|n| (to + n * PAGE_SIZE, n + 5000)).filter(|(_, n)| n % 3 == 0);
            others().for_each(|(at, value)| world.store(&space, at, value).unwrap());
            let usage = space.usage();
            // Tables first: the first move may split the blocks.
            for what in [Scarce::Tables, Scarce::Records, Scarce::Pages] {
                for count in 0.. {
                    world.fail_after(what, Some(count));
                    let moved = move_to(&space, AT, 600, to);
                    world.nothing_fails();
                    world.check(&[&space]);
                    if moved.is_ok() {
                        break;
                    }
                    failures += 1;
                    assert_eq!(moved, Err(MapError::NoMemory));
                    assert_eq!(space.usage().anon, usage.anon, "{what:?} {count}");
                    everything_is_there(world, &space, 0..600, "the source");
                    others().for_each(|(at, value)| assert_eq!(world.load(&space, at), Ok(value), "{at:#x}"));
                }
                // All of it where the source was, for the next round.
                for n in 0..600 {
                    assert_eq!(world.load(&space, to + n * PAGE_SIZE), Ok(n + 1), "the target, page {n}");
                }
                assert_eq!(world.load(&space, AT), Err(SpaceFault::NotMapped(UserAddr::new(AT))));
                move_to(&space, to, 600, AT).unwrap();
                map(&space, to, 200, RW);
                map(&space, to + 210 * PAGE_SIZE, 390, RW);
                others().for_each(|(at, value)| world.store(&space, at, value).unwrap());
                world.check(&[&space]);
            }
            world.end(space);
        });
    }
    assert!(failures >= 4, "{failures} failures: too little was scarce");
}

// Behaviour 426 for a range that is brought in at once.
#[test]
fn a_range_is_brought_in_as_far_as_it_is_mapped_and_memory_lasts() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let mut space = world.space();
        space.set_largest_unit(Order::ZERO);
        map(&space, AT, 20, RW);
        map(&space, page(20), 10, R);
        map(&space, page(40), 4, NONE);
        let range = |first: u64, pages: u64| (UserAddr::new(page(first)), pages * PAGE_SIZE);
        let populate = |(at, size): (UserAddr, u64)| space.populate(at, size);
        assert_eq!(populate(range(2, 25)), Ok(()));
        assert_eq!(space.usage().anon, 18 * PAGE_SIZE, "what is only read has the page of zeros");
        assert_eq!(populate(range(28, 4)), Err(SpaceFault::NotMapped(UserAddr::new(page(30)))));
        assert_eq!(populate(range(40, 1)), Err(SpaceFault::Denied(UserAddr::new(page(40)))));
        space.madvise(UserAddr::new(AT), 4 * PAGE_SIZE, Advice::DontNeed).unwrap();
        space.madvise(UserAddr::new(page(3)), PAGE_SIZE, Advice::GuardInstall).unwrap();
        assert_eq!(populate(range(0, 20)), Err(SpaceFault::Guard(UserAddr::new(page(3)))));
        space.madvise(UserAddr::new(AT), 20 * PAGE_SIZE, Advice::DontNeed).unwrap();
        world.fail_after(Scarce::Pages, Some(5));
        assert_eq!(populate(range(4, 10)), Err(SpaceFault::OutOfMemory));
        world.nothing_fails();
        world.check(&[&space]);
        assert_eq!(populate(range(4, 10)), Ok(()));
        assert!(space.kill());
        assert_eq!(populate(range(4, 10)), Err(SpaceFault::Killed));
        world.check(&[&space]);
        world.end(space);
    });
}
