//! The search for free addresses against one that looks at every page.

use super::RW;
use super::world::{LAYOUT, World, addr};
use crate::random::Random;
use quarry::mm::user::map::{Limits, MapError, MapLayout, MmapRequest, Place, Placement, STACK_GUARD_GAP, VmFlags};

const PAGES: u64 = 4096;
const PAGE: u64 = 4096;

/// Free ranges by rising address, guard gaps of stacks left out.
fn free_ranges(world: &World) -> Vec<(u64, u64)> {
    let mut free = Vec::new();
    let mut end = 0;
    for area in world.areas() {
        let guard = if area.flags().contains(VmFlags::GROWSDOWN) { STACK_GUARD_GAP } else { 0 };
        free.push((end, area.start().get().saturating_sub(guard)));
        end = area.end().get();
    }
    free.push((end, u64::MAX));
    free.retain(|(start, end)| start < end);
    free
}

/// The highest and the lowest place for `size` bytes in `low..high`.
fn places(world: &World, size: u64, align: u64, low: u64, high: u64) -> Option<(u64, u64)> {
    let clipped = free_ranges(world).into_iter().map(|(start, end)| (start.max(low), end.min(high)));
    let places: Vec<(u64, u64)> = clipped
        .filter_map(|(start, end)| {
            let lowest = start.checked_next_multiple_of(align)?;
            let highest = end.checked_sub(size)? / align * align;
            (lowest <= highest && lowest + size <= end).then_some((highest, lowest))
        })
        .collect();
    Some((places.last()?.0, places.first()?.1))
}

fn random_world(random: &mut Random, placement: Placement) -> World {
    let base = random.below(PAGES - 1) + 1;
    let layout = MapLayout {
        mmap_min: addr(random.below(base) * PAGE),
        task_size: addr(PAGES * PAGE),
        mmap_base: addr(base * PAGE),
        placement,
    };
    let mut world = World::with(layout, Limits::DEFAULT);
    for _ in 0..random.below(120) {
        let (low, pages) = (random.below(PAGES), random.below(40) + 1);
        // Every second one is of another kind, so that they do not all become one.
        let access = if random.below(2) == 0 { RW } else { VmFlags::READ };
        let stack = if random.below(30) == 0 { VmFlags::GROWSDOWN } else { VmFlags::empty() };
        let request = MmapRequest::anonymous(pages * PAGE, access | stack).at(Place::FixedNoReplace(addr(low * PAGE)));
        let _ = world.mmap(&request);
    }
    world.check();
    world
}

// Seeds are printed with what differs.
#[test]
fn the_place_found_is_the_highest_or_lowest_that_fits() {
    for seed in 1..200 {
        let mut random = Random(seed);
        for placement in [Placement::TopDown, Placement::BottomUp] {
            let mut world = random_world(&mut random, placement);
            let MapLayout { mmap_min, task_size, mmap_base, .. } = *world.map.layout();
            let (min, base, end) = (mmap_min.get(), mmap_base.get(), task_size.get());
            for step in 0..40 {
                let size = (random.below(60) + 1) * PAGE;
                let align = if random.below(3) == 0 { PAGE << random.below(5) } else { PAGE };
                let below = places(&world, size, align, min, base);
                let above = places(&world, size, align, base, end);
                let request = MmapRequest { align, ..MmapRequest::anonymous(size, RW) };
                let found = world.mmap(&request);
                let context = format!("seed {seed}, step {step}, {placement:?}, {size:#x} by {align:#x}");
                let expected = match placement {
                    Placement::TopDown => below.map(|(highest, _)| highest).or(above.map(|(_, lowest)| lowest)),
                    Placement::BottomUp => above.or(below).map(|(_, lowest)| lowest),
                };
                match (found, expected) {
                    (Ok(found), Some(expected)) if align == PAGE => assert_eq!(found, expected, "{context}"),
                    // With an alignment, the highest or lowest gap with room for the worst of it is taken.
                    (Ok(found), Some(_)) => {
                        assert!(found.is_multiple_of(align), "{context}");
                        let inside =
                            if placement == Placement::TopDown && below.is_some() { (min, base) } else { (0, end) };
                        assert!(inside.0 <= found && found + size <= inside.1, "{context}");
                    }
                    (Err(error), None) => assert_eq!(error, MapError::NoGap(size), "{context}"),
                    (found, expected) => panic!("{context}: {found:?} instead of {expected:?}"),
                }
                if let Ok(found) = found
                    && random.below(2) == 0
                {
                    world.munmap(found, found + size).unwrap();
                }
            }
            world.check();
        }
    }
}

#[test]
fn gaps_too_large_to_be_told_apart_are_told_apart() {
    const TIB: u64 = 1 << 40;
    for placement in [Placement::TopDown, Placement::BottomUp] {
        let layout = MapLayout {
            placement,
            mmap_base: addr(if placement == Placement::TopDown { 1 << 48 } else { 0x1_0000 }),
            ..LAYOUT
        };
        let mut world = World::with(layout, Limits::DEFAULT);
        // Gaps of 20, 40, 30 and about 160 TiB, and one more that lies between.
        for (at, access) in [(20, RW), (61, VmFlags::READ), (92, RW), (93, VmFlags::READ)] {
            world.anonymous(at * TIB, (at + 1) * TIB, access);
        }
        world.anonymous((1 << 48) - TIB, 1 << 48, RW);
        let sizes: [u64; 4] = [161, 35, 29, 19];
        for size in sizes {
            let (highest, lowest) = places(&world, size * TIB, PAGE, 0x1_0000, 1 << 48).unwrap();
            let expected = if placement == Placement::TopDown { highest } else { lowest };
            assert_eq!(world.mmap(&MmapRequest::anonymous(size * TIB, RW)), Ok(expected), "{size} {placement:?}");
        }
        assert_eq!(world.mmap(&MmapRequest::anonymous(41 * TIB, RW)), Err(MapError::NoGap(41 * TIB)));
        world.check();
    }
}
