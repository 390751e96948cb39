//! The trait of `allocator-api2` over an allocator with flags.

use super::*;
use allocator_api2::alloc::Allocator as _;
use quarry::mm::alloc::WithGfp;

type Bridge<'l> = WithGfp<Audited<'l>>;

#[test]
fn its_collections_live_in_the_allocator() {
    Ledger::run(|ledger| {
        let bridge = Bridge::new(Audited(ledger));
        let mut numbers = allocator_api2::vec::Vec::new_in(bridge);
        for number in 0..1000_u32 {
            numbers.push(number);
        }
        assert!(numbers.iter().copied().eq(0..1000));
        numbers.truncate(3);
        numbers.shrink_to_fit();
        assert_eq!(ledger.bytes(), 12);
        let one = allocator_api2::boxed::Box::new_in([7_u64; 5], bridge);
        assert_eq!((one.iter().sum::<u64>(), ledger.live()), (35, 2));
        let none = allocator_api2::boxed::Box::new_in((), bridge);
        assert_eq!(ledger.live(), 2);
        drop(none);
    });
}

#[test]
fn no_memory_is_an_error_of_the_trait() {
    Ledger::run(|ledger| {
        let bridge = Bridge::new(Audited(ledger));
        let mut numbers = allocator_api2::vec::Vec::new_in(bridge);
        numbers.push(1_u8);
        ledger.fail_after(0);
        assert!(numbers.try_reserve(100).is_err());
        assert!(allocator_api2::boxed::Box::try_new_in(1_u8, bridge).is_err());
        assert_eq!(numbers.as_slice(), [1]);
    });
}

#[test]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one block goes through all of them")]
fn growing_with_zeroes_and_from_and_to_nothing() {
    Ledger::run(|ledger| {
        let bridge = Bridge::new(Audited(ledger));
        let layout = |size| Layout::from_size_align(size, 64).unwrap();
        let none = bridge.allocate(layout(0)).unwrap();
        assert!(none.is_empty() && none.cast::<u8>().addr().get().is_multiple_of(64));
        // SAFETY: each block is used as it was given out, and once.
        unsafe {
            let some = bridge.grow(none.cast(), layout(0), layout(64)).unwrap();
            some.cast::<u8>().write_bytes(0xab, 64);
            let more = bridge.grow_zeroed(some.cast(), layout(64), layout(256)).unwrap();
            assert!(more.cast::<u8>().addr().get().is_multiple_of(64));
            let bytes = more.as_ref();
            assert!(bytes[..64].iter().all(|byte| *byte == 0xab) && bytes[64..].iter().all(|byte| *byte == 0));
            let less = bridge.shrink(more.cast(), layout(256), layout(64)).unwrap();
            assert_eq!(less.as_ref(), [0xab; 64]);
            let none = bridge.shrink(less.cast(), layout(64), layout(0)).unwrap();
            assert_eq!(ledger.live(), 0);
            bridge.deallocate(none.cast(), layout(0));
            let zeroed = bridge.allocate_zeroed(layout(128)).unwrap();
            assert_eq!(zeroed.as_ref(), [0; 128]);
            bridge.deallocate(zeroed.cast(), layout(128));
        }
    });
}
