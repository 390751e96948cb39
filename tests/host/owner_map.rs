//! The map of who has each byte of RAM, against a map of pages, and the rules that a finished map keeps.

use proptest::prelude::*;
use quarry::addr::{PhysAddr, PhysRange, to_usize};
use quarry::kernel::owner_map::{Owner, OwnerMap, OwnerMapError, Row};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

const OWNERS: [Owner; 4] = [Owner::Pages, Owner::Reserved("a"), Owner::Kernel("a"), Owner::NoMap("b")];

proptest! {
    #[test]
    fn painting_is_exact(strokes in prop::collection::vec((0_u64..200, 0_u64..60, 0_usize..4), 0..60)) {
        // As a device tree may state them: in any order, touching, one inside another.
        let banks = [range(120, 180), range(60, 90), range(10, 60), range(130, 140)];
        let mut map = OwnerMap::new(banks.into_iter()).unwrap();
        let mut model: Vec<Option<Owner>> = (0..300).map(|byte| {
            banks.iter().any(|bank| bank.contains(PhysAddr::new(byte))).then_some(Owner::LeftOut)
        }).collect();
        for (start, size, owner) in strokes {
            let owner = OWNERS[owner];
            map.paint(range(start, start + size), owner).unwrap();
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
    let mut map = OwnerMap::new([range(0, 100)].into_iter()).unwrap();
    map.paint(range(10, 20), Owner::Kernel("a")).unwrap();
    map.paint(range(20, 30), Owner::Kernel("a")).unwrap();
    assert_eq!(map.rows().len(), 3);
    assert_eq!(map.sum(|owner| owner == Owner::Kernel("a")), 20);
}

#[test]
fn memory_that_nobody_claims_breaks_the_map() {
    let mut map = OwnerMap::new([range(0, 0x9000)].into_iter()).unwrap();
    map.paint(range(0, 0x9000), Owner::Unclaimed).unwrap();
    map.paint(range(0, 0x4000), Owner::Pages).unwrap();
    map.paint(range(0x5000, 0x9000), Owner::Pages).unwrap();
    map.finish().unwrap();
    let lost = Row { range: range(0x4000, 0x5000), owner: Owner::Unclaimed };
    assert_eq!(map.check(), Err(OwnerMapError::Broken { tag: "ACCT-3", row: Some(lost) }));
}

#[test]
fn the_rest_of_a_page_belongs_to_nobody_else_and_a_whole_page_is_lost() {
    let mut map = OwnerMap::new([range(0, 0x8000)].into_iter()).unwrap();
    map.paint(range(0, 0x8000), Owner::Unclaimed).unwrap();
    map.paint(range(0x1800, 0x2400), Owner::Reserved("tree")).unwrap();
    map.paint(range(0, 0x1000), Owner::Pages).unwrap();
    map.paint(range(0x3000, 0x8000), Owner::Pages).unwrap();
    map.finish().unwrap();
    map.check().unwrap();
    assert_eq!(map.sum(|owner| owner == Owner::Remainder), 0x800 + 0xc00);

    let mut map = OwnerMap::new([range(0, 0x8000)].into_iter()).unwrap();
    map.paint(range(0, 0x8000), Owner::Unclaimed).unwrap();
    map.paint(range(0x1800, 0x2400), Owner::Reserved("tree")).unwrap();
    map.paint(range(0x4000, 0x8000), Owner::Pages).unwrap();
    map.finish().unwrap();
    let lost = Row { range: range(0, 0x1000), owner: Owner::Unclaimed };
    assert_eq!(map.check(), Err(OwnerMapError::Broken { tag: "ACCT-3", row: Some(lost) }));
    assert_eq!(map.sum(|owner| owner == Owner::Unclaimed), 0x2000, "the page before and the page behind");
}

#[test]
fn the_page_allocator_may_not_have_what_somebody_else_has() {
    let mut map = OwnerMap::new([range(0, 0x8000)].into_iter()).unwrap();
    map.paint(range(0, 0x8000), Owner::Unclaimed).unwrap();
    map.paint(range(0x4000, 0x5000), Owner::Kernel("text")).unwrap();
    map.paint(range(0x6000, 0x7000), Owner::Boot("page tables")).unwrap();
    let owner = Row { range: range(0x4000, 0x5000), owner: Owner::Kernel("text") };
    let given_up = |owner| owner == Owner::Boot("page tables");
    let refused = Err(OwnerMapError::Broken { tag: "ACCT-4", row: Some(owner) });
    assert_eq!(map.paint_pages(range(0x2000, 0x4001), given_up), refused);
    map.paint_pages(range(0x5000, 0x8000), given_up).unwrap();
    assert_eq!(map.sum(|owner| owner == Owner::Pages), 0x3000);
}

#[test]
fn sizes_are_printed_so_that_they_add_up() {
    let mut map = OwnerMap::new([range(0, 0x2000)].into_iter()).unwrap();
    map.paint(range(0, 0x2000), Owner::Pages).unwrap();
    map.paint(range(0x400, 0x401), Owner::Reserved("a byte")).unwrap();
    assert_eq!(
        map.to_string(),
        "  0x000000000000-0x000000000400          1 KiB    page allocator\n  \
           0x000000000400-0x000000000401          1 bytes  reserved: a byte\n  \
           0x000000000401-0x000000002000       7167 bytes  page allocator\n  \
         sum 8 KiB = reserved 1 bytes + page allocator 8191 bytes"
    );
}
