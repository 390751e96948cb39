//! The slots of mappings that booting makes for a moment.

use quarry::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use quarry::mm::io::{EARLY_SLOT_PAGES, EARLY_SLOTS, EarlyError, EarlySlots};

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

// Behaviour 295
#[test]
fn there_are_seven_slots_and_what_is_forgotten_is_named() {
    let mut slots = EarlySlots::new();
    let device = |number: usize| range(0x900_0000 + number as u64 * 0x1_0000, 0x1000);
    for number in 0..EARLY_SLOTS {
        assert_eq!(slots.take(device(number)), Ok(number));
    }
    assert_eq!(EARLY_SLOTS, 7);
    let Err(EarlyError::NoSlot(oldest)) = slots.take(device(7)) else { panic!("an eighth slot") };
    assert_eq!((oldest.slot, oldest.range), (0, device(0)));
    assert_eq!(slots.in_use().count(), 7, "nothing changed");
    for number in [0, 1, 2, 4, 5, 6] {
        assert_eq!(slots.give_back(number), Ok(device(number)));
    }
    assert_eq!(slots.give_back(5), Err(EarlyError::NotMapped(5)), "twice");
    assert_eq!(slots.give_back(7), Err(EarlyError::NotMapped(7)));
    let leaked: Vec<_> = slots.in_use().collect();
    assert_eq!(leaked.len(), 1);
    let text = leaked[0].to_string();
    assert!(text.starts_with("slot 3: [0x9030000..0x9031000), from ") && text.contains("early.rs"), "{text}");
    assert_eq!(slots.take(device(9)), Ok(0), "the first that is free");
}

#[test]
fn a_slot_holds_so_many_pages() {
    let mut slots = EarlySlots::new();
    let most = EARLY_SLOT_PAGES * PAGE_SIZE;
    assert_eq!(slots.take(range(0x1000, 0)), Err(EarlyError::Empty));
    assert_eq!(slots.take(range(0x1000, most)), Ok(0));
    for (start, size) in [(0x1000, most + 1), (0x1001, most), (u64::MAX - 8, 8)] {
        assert_eq!(slots.take(range(start, size)), Err(EarlyError::TooLarge(range(start, size))));
    }
}
