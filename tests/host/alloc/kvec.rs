//! Rows of values: growth, failure, values without bytes, panics.

use super::*;

#[test]
fn an_empty_row_has_no_block() {
    Ledger::run(|ledger| {
        ledger.fail_after(0);
        let empty: KVec<u64, _> = KVec::new_in(Audited(ledger));
        assert!(empty.is_empty() && empty.capacity() == 0);
        assert_eq!(empty.into_iter().count(), 0);
        let none: KVec<u64, _> = KVec::with_capacity_in(0, KERNEL, Audited(ledger)).unwrap();
        assert_eq!(none.into_boxed_slice(KERNEL).unwrap().len(), 0);
    });
    const EMPTY: KVec<u64, TheSystem> = KVec::new();
    assert_eq!(EMPTY.len(), 0);
}

#[test]
fn values_without_bytes_are_only_counted() {
    Ledger::run(|ledger| {
        let count = Cell::new(0);
        struct Nothing;
        ledger.fail_after(0);
        let mut row = row(ledger, [(), (), ()]);
        assert_eq!((row.len(), row.capacity()), (3, usize::MAX));
        assert_eq!(row.reserve(usize::MAX, KERNEL), Err(SlabAllocError::Overflow));
        assert_eq!(row.reserve(usize::MAX - 3, KERNEL), Ok(()));
        // SAFETY: units are there wherever one looks.
        unsafe { row.set_len(usize::MAX) };
        assert_eq!(
            row.push((), KERNEL),
            Err(quarry::mm::alloc::Refused { value: (), error: SlabAllocError::Overflow })
        );
        row.truncate(2);
        assert_eq!(row.into_iter().rev().count(), 2);
        let mut row = super::row(ledger, [Nothing, Nothing]);
        assert!(row.remove(0).is_some() && row.remove(1).is_none());
        let counted = super::row(ledger, [0; 0].map(|_: i32| Dropped::new(&count)));
        drop(counted);
        assert_eq!(row.into_boxed_slice(KERNEL).unwrap().len(), 1);
    });
}

#[test]
fn a_capacity_that_overflows_is_refused() {
    Ledger::run(|ledger| {
        for capacity in [usize::MAX, usize::MAX / 8 + 1, isize::MAX as usize / 8 + 1] {
            let refused = KVec::<u64, _>::with_capacity_in(capacity, KERNEL, Audited(ledger));
            assert_eq!(refused.err(), Some(SlabAllocError::Overflow));
            let mut row = row(ledger, [1_u64]);
            assert_eq!(row.reserve(capacity, KERNEL), Err(SlabAllocError::Overflow));
            assert_eq!(row, [1]);
        }
    });
}

#[test]
fn without_memory_the_value_comes_back_and_the_row_is_unchanged() {
    Ledger::run(|ledger| {
        let mut row = row(ledger, [1, 2, 3, 4].map(|number: u32| number.to_string()));
        ledger.fail_after(0);
        let refused = row.push("five".to_string(), KERNEL).unwrap_err();
        assert_eq!((refused.value.as_str(), refused.error), ("five", SlabAllocError::OutOfMemory));
        assert_eq!(SlabAllocError::from(refused), SlabAllocError::OutOfMemory);
        let refused = row.insert(1, "five".to_string(), KERNEL).unwrap_err();
        assert_eq!(refused.value, "five");
        assert_eq!(row.push_within_capacity("five".to_string()), Err("five".to_string()));
        assert_eq!(row.extend_from_slice(&["x".to_string()], KERNEL), Err(SlabAllocError::OutOfMemory));
        assert_eq!(row.resize(9, String::new(), KERNEL), Err(SlabAllocError::OutOfMemory));
        let refused = row.extend(["a".to_string(), "b".to_string()], KERNEL).unwrap_err();
        assert_eq!(refused.value, "a");
        assert_eq!(row.as_slice(), ["1", "2", "3", "4"]);
        row.truncate(2);
        let refused = row.into_boxed_slice(KERNEL).unwrap_err();
        assert_eq!(refused.value.as_slice(), ["1", "2"]);
    });
}

#[test]
fn growth_doubles_and_is_content_with_less() {
    Ledger::run(|ledger| {
        let mut row = row(ledger, 0..1000_u32);
        assert!(ledger.made.get() <= 9, "{} blocks for 1000 values", ledger.made.get());
        let capacity = row.capacity();
        row.resize(capacity, 7, KERNEL).unwrap();
        ledger.limit.set(Some(capacity * 4 + 100));
        row.push(7, KERNEL).unwrap();
        assert_eq!(row.capacity(), capacity + 1);
        row.reserve(24, KERNEL).unwrap();
        assert_eq!(row.reserve(25, KERNEL), Err(SlabAllocError::TooLarge));
        row.truncate(3);
        row.shrink_to_fit(KERNEL).unwrap();
        assert_eq!((ledger.bytes(), row.as_slice()), (12, &[0, 1, 2][..]));
        row.clear();
        row.shrink_to_fit(KERNEL).unwrap();
        assert_eq!(ledger.live(), 0);
    });
}

#[test]
fn places_out_of_bounds_are_an_answer() {
    Ledger::run(|ledger| {
        let mut row = row(ledger, [1, 2, 3]);
        let refused = row.insert(4, 9, KERNEL).unwrap_err();
        assert_eq!((refused.value, refused.error), (9, quarry::mm::alloc::InsertError::OutOfBounds));
        assert_eq!((row.remove(3), row.swap_remove(3)), (None, None));
        row.insert(3, 4, KERNEL).unwrap();
        row.insert(0, 0, KERNEL).unwrap();
        assert_eq!((row.remove(4), row.remove(0)), (Some(4), Some(0)));
        assert_eq!((row.swap_remove(0), row.as_slice()), (Some(1), &[3, 2][..]));
        row.clear();
        assert_eq!((row.pop(), row.remove(0), row.swap_remove(0)), (None, None, None));
    });
}

#[test]
fn a_value_that_panics_in_drop_takes_no_other_with_it() {
    let count = Cell::new(0);
    Ledger::run(|ledger| {
        let values = || row(ledger, (0..5).map(|index| Dropped { count: &count, panics: index == 2 }));
        let one = values();
        assert!(panics(|| drop(one)));
        assert_eq!((ledger.live(), count.get()), (0, 5));
        let mut one = values();
        assert!(panics(|| one.truncate(1)));
        assert_eq!((one.len(), count.get()), (1, 9));
        drop(one);
        assert_eq!(count.get(), 10);
        let mut taken = values().into_iter();
        assert!(taken.next().is_some() && taken.next_back().is_some());
        assert_eq!(count.get(), 12);
        assert!(panics(|| drop(taken)));
        assert_eq!((ledger.live(), count.get()), (0, 15));
        let slice = values().into_boxed_slice(KERNEL).unwrap();
        assert!(panics(|| drop(slice)));
        assert_eq!((ledger.live(), count.get()), (0, 20));
    });
}

#[test]
fn a_clone_that_panics_leaves_what_was_cloned() {
    struct Fragile(u32);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_ne!(self.0, 3, "on purpose");
            Self(self.0)
        }
    }
    Ledger::run(|ledger| {
        let mut row = row(ledger, [Fragile(0)]);
        assert!(panics(|| row.extend_from_slice(&[1, 2, 3, 4].map(Fragile), KERNEL).unwrap()));
        assert!(row.iter().map(|value| value.0).eq(0..3));
        assert!(panics(|| row.retain(|value| value.0 != 1 || panic!("on purpose"))));
        assert_eq!(row.len(), 3);
    });
}

#[test]
fn spare_room_can_be_filled_in_place() {
    Ledger::run(|ledger| {
        let mut row = KVec::with_capacity_in(4, KERNEL, Audited(ledger)).unwrap();
        row.push(1_u8, KERNEL).unwrap();
        assert_eq!(row.spare_capacity_mut().len(), 3);
        for (place, value) in row.spare_capacity_mut().iter_mut().zip(2..) {
            place.write(value);
        }
        // SAFETY: written just now.
        unsafe { row.set_len(4) };
        assert_eq!(row, [1, 2, 3, 4]);
    });
}

#[test]
fn zeroed_room_is_zeroed_however_it_comes() {
    Ledger::run(|ledger| {
        let mut row = KVec::with_capacity_in(4, KERNEL | Gfp::ZERO, Audited(ledger)).unwrap();
        row.extend([9_u8; 4], KERNEL).unwrap();
        row.reserve(60, KERNEL | Gfp::ZERO).unwrap();
        // SAFETY: zeroes are numbers.
        unsafe { row.set_len(row.capacity()) };
        assert!(row.starts_with(&[9; 4]) && row.get(4..).unwrap().iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_row_goes_through_parts_and_boxes() {
    Ledger::run(|ledger| {
        let (at, len, capacity, allocator) = row(ledger, [1, 2, 3]).into_raw_parts_with_allocator();
        // SAFETY: given up just now.
        let row = unsafe { KVec::from_raw_parts_in(at, len, capacity, allocator) };
        let slice = row.into_boxed_slice(KERNEL).unwrap();
        assert_eq!((&*slice, ledger.bytes()), (&[1, 2, 3][..], 12));
        let mut row = KVec::from_boxed_slice(slice);
        assert_eq!((row.len(), row.capacity()), (3, 3));
        row.push(4, KERNEL).unwrap();
        assert_eq!(row, [1, 2, 3, 4]);
    });
}

// Room that nobody has asked for is worth no reclaim: only the attempt for what is needed may wait.
#[test]
fn growth_beyond_what_is_needed_does_not_reclaim() {
    Ledger::run(|ledger| {
        let mut row = row(ledger, 0..8_u32);
        row.shrink_to_fit(KERNEL).unwrap();
        ledger.waited.set(0);
        row.push(8, KERNEL).unwrap();
        assert_eq!((ledger.waited.get(), row.capacity()), (0, 16));
        row.shrink_to_fit(KERNEL).unwrap();
        ledger.waited.set(0);
        ledger.limit.set(Some(40));
        row.push(9, KERNEL | Gfp::RETRY_MAYFAIL).unwrap();
        assert_eq!((ledger.waited.get(), row.capacity()), (1, 10));
    });
}
