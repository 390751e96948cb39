//! The uses of all RAM: blocks over owners, and the names of the uses.

use proptest::prelude::*;
use quarry::addr::{Order, PhysAddr, PhysRange, to_usize};
use quarry::kernel::owner_map::{Owner, Row};
use quarry::kernel::picture::{Band, Canvas, Legend, Overlay, Ram, Style, Use};
use quarry::mm::page::{Kind, MigrateType, PageState, ZoneId};
use std::collections::BTreeSet;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

const OWNERS: [Owner; 7] = [
    Owner::Unclaimed,
    Owner::Pages,
    Owner::LeftOut,
    Owner::Reserved("a"),
    Owner::NoMap("b"),
    Owner::Kernel("c"),
    Owner::Boot("d"),
];

proptest! {
    /// Whatever the blocks say, even if they lie outside RAM or over each other: the amounts are all of RAM.
    #[test]
    fn the_amounts_add_up_to_ram(
        ends in prop::collection::btree_set(0_u64..2000, 0..20),
        owners in prop::collection::vec(0_usize..OWNERS.len(), 10),
        blocks in prop::collection::vec((0_u64..2100, 0_u64..300, 0_u8..=10), 0..30),
    ) {
        let ends: Vec<u64> = ends.into_iter().collect();
        let rows: Vec<Row> = ends.chunks_exact(2).zip(&owners)
            .map(|(pair, owner)| Row { range: range(pair[0], pair[1]), owner: OWNERS[*owner] }).collect();
        let mut model: Vec<Option<Use>> = (0..2500).map(|byte| {
            rows.iter().find(|row| row.range.contains(PhysAddr::new(byte))).map(|row| Use::of_owner(row.owner))
        }).collect();
        let mut shown: Vec<Option<Use>> = vec![None; 2500];
        let mut canvas = Canvas::new(&Use::INKS, Style::Plain, [Band { name: "RAM", start: 0, end: 2500 }].into_iter(), 8, 1).unwrap();
        let mut at = 0;
        let mut overlay = Overlay::new(&rows, |range, found| {
            canvas.paint(range.start().get(), range.end().get(), found.index());
            for byte in range.start().get()..range.end().get() {
                assert!(shown[to_usize(byte)].replace(found).is_none(), "byte {byte} is shown twice");
            }
        });
        for (start, size, order) in blocks {
            overlay.block(range(start, start + size), Use::free(order));
            for byte in start.max(at)..start + size {
                if let Some(found) = &mut model[to_usize(byte)] {
                    *found = Use::free(order);
                }
            }
            at = at.max(start + size);
        }
        overlay.finish();
        prop_assert_eq!(shown, model);
        prop_assert_eq!(canvas.sum(), rows.iter().map(|row| row.range.size()).sum::<u64>());
    }
}

#[test]
fn every_use_has_a_letter_and_a_name_of_its_own() {
    let letters: BTreeSet<u8> = Use::INKS.iter().map(|ink| ink.letter).collect();
    let names: BTreeSet<&str> = Use::INKS.iter().map(|ink| ink.name).collect();
    assert_eq!((letters.len(), names.len()), (Use::COUNT, Use::COUNT));
    for ink in Use::INKS {
        assert!(ink.letter.is_ascii_graphic() && !ink.letter.is_ascii_lowercase(), "{}", ink.name);
    }
}

#[test]
fn every_kind_of_block_and_every_owner_is_in_the_legend() {
    let block = |kind| PageState::outside(ZoneId::PREFERRED, Order::ZERO, kind);
    let mut uses: Vec<Use> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_allocated())
        .filter_map(|kind| Use::of_block(block(kind)))
        .collect();
    assert_eq!(uses.len(), 8);
    uses.push(Use::of_block(PageState::on_pcp(0, Order::ZERO)).unwrap());
    let zone = ZoneId::PREFERRED;
    for order in 0..=10 {
        uses.push(Use::of_block(PageState::free(zone, order, MigrateType::Movable)).unwrap());
    }
    assert_eq!(Use::of_block(PageState::free(zone, 3, MigrateType::Cma)), Some(Use::of(Ram::CmaFree)));
    uses.push(Use::of(Ram::CmaFree));
    uses.extend(OWNERS.iter().skip(1).map(|owner| Use::of_owner(*owner)));
    let distinct: BTreeSet<usize> = uses.iter().map(|found| found.index()).collect();
    assert_eq!(
        (distinct.len(), uses.len()),
        (Use::COUNT, Use::COUNT),
        "each has a use of its own, and there is no other"
    );

    let mut sums = [0; Use::COUNT];
    uses.iter().for_each(|found| sums[found.index()] += 4096);
    let mut text = String::new();
    Legend { inks: &Use::INKS, sums: &sums, style: Style::Plain }.draw(&mut text).unwrap();
    for ink in Use::INKS {
        let entry = format!("{}  {} ", char::from(ink.letter), ink.name);
        assert_eq!(text.matches(&entry).count(), 1, "{entry:?} in\n{text}");
    }
    assert_eq!(text.matches(" 4 KiB").count(), Use::COUNT);
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
}

#[test]
fn memory_without_an_allocator_is_its_owners() {
    for kind in [Kind::Reserved, Kind::Hole, Kind::Inside, Kind::Tail] {
        assert_eq!(Use::of_block(PageState::outside(ZoneId::PREFERRED, Order::ZERO, kind)), None);
    }
    assert_eq!(Use::of_owner(Owner::Kernel("text")), Use::of(Ram::Kernel));
    assert_eq!(Use::of_owner(Owner::Remainder), Use::of(Ram::Reserved));
}
