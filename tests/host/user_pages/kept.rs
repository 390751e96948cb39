//! Tables that a space keeps when nothing is in them any more: those of one place, for what is mapped next.

use super::whole::{RW, Scarce, Whole, World, map, move_to, on_a_world};
use quarry::addr::{Order, PAGE_SIZE, UserAddr};
use quarry::arch::host::Config;
use quarry::mm::user::SpaceFault;
use std::ops::ControlFlow;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const AT: u64 = 5 * GIB;

/// A space whose memory comes page by page.
fn paged(world: &World) -> Whole {
    let mut space = world.space();
    space.set_largest_unit(Order::ZERO);
    space
}

/// Tables below the root.
fn tables(space: &Whole) -> u64 {
    space.usage().tables / PAGE_SIZE - 1
}

fn map_and_store(world: &World, space: &Whole, at: u64, pages: u64) {
    map(space, at, pages, RW);
    (0..pages).for_each(|n| world.store(space, at + n * PAGE_SIZE, n + 1).unwrap());
}

fn unmap(space: &Whole, at: u64, pages: u64) {
    space.munmap(UserAddr::new(at), pages * PAGE_SIZE).unwrap();
}

/// Every table translates `at`.
fn all_lead_to(space: &Whole, at: u64) {
    let _ = space.pages().tables().walk_all(|visit| {
        assert!(!visit.is_table() || (visit.start.get()..=visit.last().get()).contains(&at), "{:#x}", visit.start);
        ControlFlow::<()>::Continue(())
    });
}

#[test]
fn memory_that_is_mapped_and_unmapped_again_and_again_finds_its_tables() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = paged(world);
        map_and_store(world, &space, AT, 4);
        let frames = world.kernel.sim.frames_out();
        for _ in 0..4 {
            unmap(&space, AT, 4);
            assert_eq!((space.usage().anon, tables(&space), space.reclaimable_tables()), (0, 3, 3));
            assert_eq!(world.load(&space, AT), Err(SpaceFault::NotMapped(UserAddr::new(AT))));
            world.check(&[&space]);
            world.fail_after(Scarce::Tables, Some(0));
            // Another place in the same table serves as well.
            map_and_store(world, &space, AT + 64 * PAGE_SIZE, 4);
            unmap(&space, AT + 64 * PAGE_SIZE, 4);
            map_and_store(world, &space, AT, 4);
            world.nothing_fails();
            assert_eq!(world.kernel.sim.frames_out(), frames);
            world.check(&[&space]);
        }
        world.end(space);
    });
}

#[test]
fn the_tables_of_one_place_stay_the_last_one() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = paged(world);
        // Of the same GiB, of another, of another 512 GiB; the first 2 MiB that a process can have, and the last.
        for at in [AT, AT + 2 * MIB, AT, AT + 7 * GIB, AT + 1024 * GIB, 2 * MIB - PAGE_SIZE, (1 << 48) - PAGE_SIZE, AT]
        {
            map_and_store(world, &space, at, 1);
            unmap(&space, at, 1);
            assert_eq!(tables(&space), 3, "{at:#x}");
            all_lead_to(&space, at);
            world.check(&[&space]);
        }
        // A table that goes with all it has leaves those above.
        for at in [AT, AT + 2 * MIB, AT + 4 * MIB] {
            map_and_store(world, &space, at, 512);
            unmap(&space, at, 512);
            assert_eq!(tables(&space), 2, "{at:#x}");
            all_lead_to(&space, at);
        }
        // Nothing was there.
        map(&space, AT + 6 * MIB, 1, RW);
        unmap(&space, AT + 6 * MIB, 1);
        assert_eq!(tables(&space), 2);
        // Where there is no table either.
        map(&space, AT + 2048 * GIB, 1, RW);
        unmap(&space, AT + 2048 * GIB, 1);
        assert_eq!(tables(&space), 2);
        all_lead_to(&space, AT);
        world.check(&[&space]);
        world.end(space);
    });
}

#[test]
fn a_table_whose_pages_all_move_to_another_offset_is_free() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = paged(world);
        map_and_store(world, &space, AT, 512);
        assert_eq!(tables(&space), 3);
        move_to(&space, AT, 512, AT + 16 * MIB + PAGE_SIZE).unwrap();
        // The pages lie in two tables now.
        assert_eq!(tables(&space), 4);
        assert_eq!(world.load(&space, AT + 16 * MIB + 512 * PAGE_SIZE), Ok(512));
        world.check(&[&space]);
        world.end(space);
    });
}

#[test]
fn tables_with_something_in_them_are_no_kept_ones() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = paged(world);
        // Another area has some of the 2 MiB: they are emptied with the last of both.
        map_and_store(world, &space, AT, 1);
        map_and_store(world, &space, AT + MIB, 1);
        unmap(&space, AT, 1);
        assert_eq!((tables(&space), space.reclaimable_tables()), (3, 0));
        unmap(&space, AT + MIB, 1);
        assert_eq!((tables(&space), space.reclaimable_tables()), (3, 3));
        // They are in use when others are emptied.
        map_and_store(world, &space, AT, 2);
        map_and_store(world, &space, AT + 2 * MIB, 1);
        unmap(&space, AT + 2 * MIB, 1);
        assert_eq!(tables(&space), 4);
        assert_eq!((world.load(&space, AT), world.load(&space, AT + PAGE_SIZE)), (Ok(1), Ok(2)));
        assert_eq!((space.trim(), tables(&space), space.reclaimable_tables()), (1, 3, 0));
        assert_eq!((world.load(&space, AT), world.load(&space, AT + PAGE_SIZE)), (Ok(1), Ok(2)));
        // An area has some of the 2 MiB, with nothing in it yet.
        map(&space, AT + MIB, 1, RW);
        unmap(&space, AT, 2);
        assert_eq!((tables(&space), space.reclaimable_tables()), (3, 0));
        unmap(&space, AT + MIB, 1);
        assert_eq!((tables(&space), space.reclaimable_tables()), (3, 3));
        // They are in use again when memory is short.
        map_and_store(world, &space, AT, 2);
        assert_eq!((space.trim(), tables(&space)), (0, 3));
        assert_eq!((world.load(&space, AT), world.load(&space, AT + PAGE_SIZE)), (Ok(1), Ok(2)));
        world.check(&[&space]);
        world.end(space);
    });
}

#[test]
fn no_table_is_kept_by_a_wide_call_nor_by_a_kill_nor_when_memory_is_short() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = paged(world);
        let keep = || {
            map_and_store(world, &space, AT, 1);
            unmap(&space, AT, 1);
            assert_eq!((tables(&space), space.reclaimable_tables()), (3, 3));
        };
        // Elsewhere, and around the place.
        for at in [AT + 9 * GIB + MIB, AT - PAGE_SIZE] {
            keep();
            map_and_store(world, &space, at, 512);
            unmap(&space, at, 512);
            assert_eq!((tables(&space), space.reclaimable_tables()), (0, 0));
        }
        keep();
        assert_eq!((space.trim(), tables(&space), space.reclaimable_tables()), (3, 0, 0));
        assert_eq!(space.trim(), 0);
        keep();
        assert!(space.kill());
        assert_eq!((tables(&space), space.reclaimable_tables()), (0, 0));
        world.check(&[&space]);
        world.end(space);
        // A child has none of its parent's, and a space ends with those that it keeps.
        let space = paged(world);
        map_and_store(world, &space, AT, 1);
        unmap(&space, AT, 1);
        let child = space.fork().unwrap();
        assert_eq!((tables(&child), child.reclaimable_tables()), (0, 0));
        world.end(child);
        world.end(space);
    });
}
