//! The map of who has each byte of RAM, against a map of pages.

use proptest::prelude::*;
use quarry::addr::{PhysAddr, PhysRange, to_usize};
use quarry::kernel::memmap::{MemoryMap, Owner};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

const OWNERS: [Owner; 4] = [Owner::Free, Owner::Reserved("a"), Owner::Kernel("a"), Owner::NoMap("b")];

proptest! {
    #[test]
    fn painting_is_exact(strokes in prop::collection::vec((0_u64..200, 0_u64..60, 0_usize..4), 0..60)) {
        let banks = [range(10, 60), range(60, 90), range(120, 180)];
        let mut map = MemoryMap::new(banks.into_iter());
        let mut model: Vec<Option<Owner>> = (0..300).map(|byte| {
            banks.iter().any(|bank| bank.contains(PhysAddr::new(byte))).then_some(Owner::Free)
        }).collect();
        for (start, size, owner) in strokes {
            let owner = OWNERS[owner];
            map.paint(range(start, start + size), owner);
            for byte in model.iter_mut().skip(to_usize(start)).take(to_usize(size)).flatten() {
                *byte = owner;
            }
            prop_assert_eq!(map.check(), Ok(()));
        }
        let mut painted = vec![None; 300];
        for row in map.rows() {
            for byte in row.range.start().get()..row.range.end().get() {
                painted[to_usize(byte)] = Some(row.owner);
            }
        }
        prop_assert_eq!(painted, model);
        prop_assert_eq!(map.total(), 140);
    }
}

#[test]
fn neighbours_of_one_owner_are_one_row() {
    let mut map = MemoryMap::new([range(0, 100)].into_iter());
    map.paint(range(10, 20), Owner::Kernel("a"));
    map.paint(range(20, 30), Owner::Kernel("a"));
    assert_eq!(map.rows().len(), 3);
    assert_eq!(map.sum(|owner| owner == Owner::Kernel("a")), 20);
}
