//! Advice: content that is given up, guards, what a child gets.

use super::world::{Entry, World, addr, object};
use super::{R, RW, layout, page};
use quarry::mm::user::map::{Advice, Backing, MapError, MmapRequest, Place, VmFlags};

pub(super) const DONTNEED: Advice = Advice::DontNeed;
pub(super) const FREE: Advice = Advice::Free;
pub(super) const GUARD: Advice = Advice::GuardInstall;

fn advise(world: &mut World, low: u64, high: u64, advice: Advice) -> Result<(), i32> {
    world.map.madvise(&world.below, addr(page(low)), (high - low) * 4096, advice).map_err(MapError::errno)
}

fn touched(world: &World) -> Vec<u64> {
    world.below.entries.borrow().keys().map(|number| number - (page(0) >> 12)).collect()
}

// Behaviour 430
#[test]
fn guards_survive_what_happens_to_their_areas() {
    let mut world = World::new();
    world.anonymous(page(0), page(8), RW);
    for number in 0..8 {
        world.touch(page(number), number).unwrap();
    }
    let (_, failures) = world.fail_every(|world| world.map.madvise(&world.below, addr(page(2)), 3 * 4096, GUARD));
    assert_eq!(failures, 3, "two edges, and the tables");
    assert_eq!((layout(&world), world.map.map_count()), (vec![(0, 8)], 1), "no area is cut for guards");
    let guards = |world: &World| {
        let is_guard =
            |number: &u64| world.below.entries.borrow().get(&((page(0) >> 12) + number)) == Some(&Entry::Guard);
        (0..16).filter(is_guard).collect::<Vec<_>>()
    };
    assert_eq!(guards(&world), [2, 3, 4]);
    assert_eq!(world.touch(page(3), 1), Err(()));
    // Split, merged, discarded, moved.
    world.mprotect(page(3), page(6), R).unwrap();
    assert_eq!(layout(&world), [(0, 3), (3, 6), (6, 8)]);
    world.mprotect(page(3), page(6), RW).unwrap();
    advise(&mut world, 0, 8, DONTNEED).unwrap();
    assert_eq!((guards(&world), layout(&world)), (vec![2, 3, 4], vec![(0, 8)]));
    world.mremap(page(0), 8 * 4096, 8 * 4096, Some(page(8))).unwrap();
    assert_eq!(guards(&world), [10, 11, 12]);
    world.check();
    advise(&mut world, 11, 16, Advice::GuardRemove).unwrap();
    assert_eq!(guards(&world), [10]);
    assert_eq!(world.touch(page(11), 5), Ok(()));
    // Unmapping takes them away.
    world.munmap(page(8), page(16)).unwrap();
    assert_eq!(guards(&world), [0; 0]);
}

#[test]
fn guards_are_refused_where_they_cannot_be() {
    let mut world = World::new();
    world.anonymous(page(0), page(2), RW);
    world.anonymous(page(3), page(4), RW);
    let before = world.state();
    assert_eq!(advise(&mut world, 0, 4, GUARD), Err(12), "a hole");
    world.below.file_adds.set(VmFlags::IO | VmFlags::PFNMAP);
    assert_eq!(world.state(), before);
    world.file(1, page(4), page(5), R);
    assert_eq!(advise(&mut world, 3, 5, GUARD), Err(22));
    assert_eq!(advise(&mut world, 3, 5, Advice::GuardRemove), Err(22));
    world.map.mlock(&world.below, addr(page(0)), 4096).unwrap();
    assert_eq!(advise(&mut world, 0, 2, GUARD), Err(22));
    assert!(world.below.entries.borrow().is_empty());
}

// Behaviour 431
#[test]
fn content_is_given_up_where_something_is_mapped() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    world.anonymous(page(6), page(8), RW);
    for number in [0, 1, 2, 3, 6, 7] {
        world.touch(page(number), number).unwrap();
    }
    assert_eq!(advise(&mut world, 1, 2, DONTNEED), Ok(()));
    assert_eq!(touched(&world), [0, 2, 3, 6, 7]);
    assert_eq!(*world.below.cuts.borrow(), [page(1), page(2)]);
    assert_eq!(advise(&mut world, 3, 7, DONTNEED), Err(12), "over a hole, and done nevertheless");
    assert_eq!(touched(&world), [0, 2, 7]);
    assert_eq!(advise(&mut world, 0, 4, FREE), Ok(()));
    assert_eq!(touched(&world), [0, 2, 7], "later");
    assert_eq!(advise(&mut world, 4, 6, DONTNEED), Err(12));
    assert_eq!(advise(&mut world, 4, 4, DONTNEED), Ok(()));
    let unaligned = world.map.madvise(&world.below, addr(page(0) + 1), 4096, DONTNEED);
    assert_eq!(unaligned.map_err(MapError::errno), Err(22));
    world.map.mlock(&world.below, addr(page(6)), 4096).unwrap();
    assert_eq!(advise(&mut world, 6, 8, DONTNEED), Err(22), "locked");
    let shared = MmapRequest {
        backing: Backing::Shared(object(1)),
        ..MmapRequest::anonymous(4096, RW | VmFlags::SHARED).at(Place::Fixed(addr(page(10))))
    };
    world.mmap(&shared).unwrap();
    assert_eq!(advise(&mut world, 10, 11, FREE), Err(22), "others have it too");
    assert_eq!(advise(&mut world, 10, 11, DONTNEED), Ok(()));
    assert_eq!(touched(&world), [0, 2, 7]);
}

#[test]
fn what_a_child_is_to_get_can_be_changed() {
    let mut world = World::new();
    world.anonymous(page(0), page(4), RW);
    assert_eq!(advise(&mut world, 1, 3, Advice::DontFork), Ok(()));
    assert_eq!(layout(&world), [(0, 1), (1, 3), (3, 4)]);
    assert_eq!(advise(&mut world, 0, 4, Advice::DoFork), Ok(()));
    assert_eq!(layout(&world), [(0, 4)]);
    assert_eq!(advise(&mut world, 0, 5, Advice::DontFork), Err(12));
    assert_eq!(layout(&world), [(0, 4)]);
    world.below.file_adds.set(VmFlags::IO | VmFlags::DONTCOPY);
    world.file(1, page(4), page(5), R);
    assert_eq!(advise(&mut world, 4, 5, Advice::DoFork), Err(22));
}
