//! Every invariant, broken in a list that a memblock has made: the checker names it.

use super::arena::{Access, Arena};
use super::{MIB, at, range, with_memory};
use quarry::addr::PhysRange;
use quarry::hal::{BootMemory, Unreachable};
use quarry::mm::memblock::{
    ListView, Memblock, MemblockBroken, MemblockError, Region, RegionFlags, RegionOwner, check_lists,
};

/// Lists of a memblock, open to change.
struct Lists {
    memory: Vec<Region>,
    reserved: Vec<Region>,
    memory_bytes: u64,
    reserved_bytes: u64,
}

impl Lists {
    /// Three regions of memory and two reservations.
    fn new() -> Self {
        let mut memblock = with_memory(MIB, MIB);
        memblock.add(at(4 * MIB), MIB).unwrap();
        memblock.add(at(8 * MIB), 4 * MIB).unwrap();
        memblock.reserve(at(MIB), 4096).unwrap();
        memblock.reserve(at(8 * MIB), MIB).unwrap();
        memblock.check().unwrap();
        Self {
            memory: memblock.memory().regions().to_vec(),
            reserved: memblock.reserved().regions().to_vec(),
            memory_bytes: memblock.memory().total(),
            reserved_bytes: memblock.reserved().total(),
        }
    }

    fn memory(&self) -> ListView<'_> {
        let count = self.memory.len();
        ListView { name: "memory", slots: &self.memory, count, total: self.memory_bytes, storage: None }
    }

    fn reserved(&self) -> ListView<'_> {
        let count = self.reserved.len();
        ListView { name: "reserved", slots: &self.reserved, count, total: self.reserved_bytes, storage: None }
    }

    fn check(&self) -> Result<(), MemblockBroken> {
        check_lists(self.memory(), self.reserved())
    }
}

fn found(damage: impl FnOnce(&mut Lists)) -> Option<(&'static str, &'static str, usize)> {
    let mut lists = Lists::new();
    assert_eq!(lists.check(), Ok(()));
    damage(&mut lists);
    lists.check().err().map(|broken| (broken.tag, broken.list, broken.index))
}

#[test]
fn each_damage_is_named_with_its_list_and_slot() {
    let overlap = found(|lists| lists.memory[0].range = range(MIB, 3 * MIB + 1));
    assert_eq!(overlap, Some(("MEMB-1", "memory", 0)));
    let unsorted = found(|lists| lists.memory.swap(0, 1));
    assert_eq!(unsorted, Some(("MEMB-1", "memory", 0)));
    let empty = found(|lists| lists.reserved[1].range = range(8 * MIB, 0));
    assert_eq!(empty, Some(("MEMB-2", "reserved", 1)));
    let adjacent = found(|lists| lists.memory[1].range = range(4 * MIB, 4 * MIB));
    assert_eq!(adjacent, Some(("MEMB-3", "memory", 1)));
    let sum = found(|lists| lists.memory_bytes += 1);
    assert_eq!(sum, Some(("MEMB-4", "memory", 0)));
    let beyond = found(|lists| lists.memory[2].range = range(1 << 52, MIB));
    assert_eq!(beyond, Some(("MEMB-6", "memory", 2)));
    let flagged = found(|lists| lists.reserved[0].flags = RegionFlags::NOMAP);
    assert_eq!(flagged, Some(("MEMB-8", "reserved", 0)));
    let owned = found(|lists| lists.memory[1].owner = RegionOwner::new(1));
    assert_eq!(owned, Some(("MEMB-8", "memory", 1)));
}

#[test]
fn slots_that_are_not_in_use_are_empty_and_there_are_enough() {
    let lists = Lists::new();
    let few = ListView { count: 4, ..lists.memory() };
    assert_eq!(few.check().map_err(|broken| (broken.tag, broken.index)), Err(("MEMB-5", 4)));
    let stale = ListView { count: 2, total: 2 * MIB, ..lists.memory() };
    assert_eq!(stale.check().map_err(|broken| (broken.tag, broken.index)), Err(("MEMB-5", 2)));
}

#[test]
fn an_array_lies_in_mapped_reserved_memory_of_its_own() {
    let lists = Lists::new();
    // A page holds the three slots.
    let place = range(8 * MIB, 4096);
    let with = |memory, reserved| {
        let memory = ListView { storage: memory, ..lists.memory() };
        check_lists(memory, ListView { storage: reserved, ..lists.reserved() })
            .map_err(|broken| (broken.tag, broken.list))
    };
    assert_eq!(with(Some(place), None), Ok(()));
    assert_eq!(with(None, Some(place)), Ok(()));
    for wrong in [range(8 * MIB + 8, 4096), range(8 * MIB, 8192), range(4 * MIB, 4096), range(2 * MIB, 4096)] {
        assert_eq!(with(Some(wrong), None), Err(("MEMB-7", "memory")), "{wrong}");
        assert_eq!(with(None, Some(wrong)), Err(("MEMB-7", "reserved")), "{wrong}");
    }
    assert_eq!(with(Some(place), Some(place)), Err(("MEMB-7", "memory")));
    let mut lists = Lists::new();
    lists.memory[2].flags = RegionFlags::NOMAP;
    let unmapped = ListView { storage: Some(place), ..lists.memory() };
    assert_eq!(check_lists(unmapped, lists.reserved()).map_err(|broken| broken.tag), Err("MEMB-7"));
}

/// Memory that comes out shorter than it was asked for.
struct Short<'m>(Access<'m>);

impl<'m> BootMemory<'m> for Short<'m> {
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable> {
        self.0.zero(range)
    }

    fn claim<T: Copy + 'm>(&mut self, range: PhysRange, fill: T) -> Result<&'m mut [T], Unreachable> {
        self.0.claim(range, fill)?.get_mut(..1).ok_or(Unreachable)
    }
}

#[test]
fn an_array_that_is_shorter_than_asked_for_is_not_used() {
    let arena = Arena::new(MIB, MIB);
    let mut memblock: Memblock<Short, 2> = Memblock::new(Short(arena.access()));
    memblock.add(at(MIB), MIB).unwrap();
    memblock.set_limit(at(2 * MIB));
    memblock.allow_resize();
    memblock.add(at(4 * MIB), MIB).unwrap();
    let refused = memblock.add(at(6 * MIB), MIB);
    assert!(matches!(refused, Err(MemblockError::Unreachable { .. })), "{refused:?}");
    assert_eq!(super::regions(memblock.memory()), [(MIB, MIB), (4 * MIB, MIB)]);
    memblock.check().unwrap();
}

#[test]
fn what_lies_beyond_the_physical_space_is_not_freed() {
    let mut memblock = with_memory(MIB, MIB);
    let beyond = range(1 << 53, MIB);
    assert_eq!(memblock.free(beyond), Err(MemblockError::OutsidePhysicalSpace { base: beyond.start() }));
}
