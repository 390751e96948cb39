//! Boxes: their values are dropped and their blocks freed in time, for every type.

use super::*;
use std::fmt::Display;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;

type SystemBox<T> = KBox<T, TheSystem>;

#[test]
fn a_box_drops_its_value_and_then_frees_its_block() {
    let count = Cell::new(0);
    Ledger::run(|ledger| {
        let one = boxed(ledger, Dropped::new(&count));
        assert_eq!((ledger.live(), count.get()), (1, 0));
        drop(one);
        assert_eq!((ledger.live(), count.get()), (0, 1));
    });
}

#[test]
fn a_value_without_bytes_needs_no_block() {
    struct Nothing;
    thread_local!(static DROPPED: Cell<usize> = const { Cell::new(0) });
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    #[repr(align(256))]
    struct Aligned;
    Ledger::run(|ledger| {
        ledger.fail_after(0);
        drop(boxed(ledger, Nothing));
        assert_eq!((ledger.made.get(), DROPPED.get()), (0, 1));
        assert!((&raw const *boxed(ledger, Aligned)).addr().is_multiple_of(256));
    });
}

#[test]
fn alignments_are_kept() {
    #[repr(align(16))]
    struct A16(u8);
    #[repr(align(4096))]
    struct A4096(u8);
    Ledger::run(|ledger| {
        let (small, large) = (boxed(ledger, A16(1)), boxed(ledger, A4096(2)));
        assert!((&raw const *small).addr().is_multiple_of(16) && (&raw const *large).addr().is_multiple_of(4096));
        assert_eq!((small.0, large.0), (1, 2));
    });
}

#[test]
fn without_memory_the_value_is_dropped_or_kept_as_one_likes() {
    let count = Cell::new(0);
    Ledger::run(|ledger| {
        ledger.fail_after(0);
        let refused = KBox::new_in(Dropped::new(&count), KERNEL, Audited(ledger));
        assert_eq!((refused.err(), count.get()), (Some(SlabAllocError::OutOfMemory), 1));
        let value = Dropped::new(&count);
        let room = KBox::<Dropped<'_>, _>::uninit_in(KERNEL, Audited(ledger));
        assert_eq!((room.err(), count.get()), (Some(SlabAllocError::OutOfMemory), 1));
        ledger.never_fail();
        let room = KBox::uninit_in(KERNEL, Audited(ledger)).unwrap();
        drop(room.write(value));
        assert_eq!(count.get(), 2);
        // Room that nobody wrote to has nothing to drop.
        drop(KBox::<Dropped<'_>, _>::uninit_in(KERNEL, Audited(ledger)).unwrap());
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn a_panic_in_drop_does_not_lose_the_block() {
    let count = Cell::new(0);
    Ledger::run(|ledger| {
        let one = boxed(ledger, Dropped { count: &count, panics: true });
        assert!(panics(|| drop(one)));
        assert_eq!((ledger.live(), count.get()), (0, 1));
    });
}

#[test]
fn a_value_comes_out_of_its_box_undropped() {
    let count = Cell::new(0);
    Ledger::run(|ledger| {
        let value = boxed(ledger, Dropped::new(&count)).into_inner();
        assert_eq!((ledger.live(), count.get()), (0, 0));
        drop(value);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn zeroed_room_is_a_value_of_zeroes() {
    let room: SystemBox<MaybeUninit<[u64; 100]>> = SystemBox::zeroed(KERNEL).unwrap();
    // SAFETY: zeroes are numbers.
    assert_eq!(*unsafe { room.assume_init() }, [0; 100]);
}

#[test]
fn a_box_of_a_sized_value_becomes_one_of_a_trait_or_a_slice() {
    let count = Cell::new(0);
    trait Counts {
        fn count(&self) -> usize;
    }
    impl Counts for Dropped<'_> {
        fn count(&self) -> usize {
            self.count.get()
        }
    }
    Ledger::run(|ledger| {
        let (raw, allocator) = KBox::into_raw_with_allocator(boxed(ledger, Dropped::new(&count)));
        // SAFETY: given up just now.
        let object: KBox<dyn Counts + '_, _> = unsafe { KBox::from_raw_in(raw, allocator) };
        assert_eq!(object.count(), 0);
        drop(object);
        assert_eq!((ledger.live(), count.get()), (0, 1));
        let (raw, allocator) = KBox::into_raw_with_allocator(boxed(ledger, [1_u16, 2, 3]));
        // SAFETY: `into_raw` gave it up, with this allocator.
        let slice: KBox<[u16], _> = unsafe { KBox::from_raw_in(raw, allocator) };
        assert_eq!(*slice, [1, 2, 3]);
    });
    let raw: *mut u32 = SystemBox::into_raw(SystemBox::new(5_u32, KERNEL).unwrap());
    // SAFETY: `into_raw` gave it up; it has been unsized since.
    let shown: SystemBox<dyn Display> = unsafe { SystemBox::from_raw(raw) };
    assert_eq!(shown.to_string(), "5");
}

#[test]
fn a_leaked_value_stays() {
    Ledger::run(|ledger| {
        let value = KBox::leak(boxed(ledger, 5_u32));
        *value += 1;
        assert_eq!((*value, ledger.live()), (6, 1));
        // SAFETY: it came out of a box of this allocator.
        drop(unsafe { KBox::from_raw_in(value, Audited(ledger)) });
    });
}

#[test]
fn a_pinned_value_stays_where_it_is() {
    let pinned: Pin<SystemBox<u32>> = SystemBox::pin(5, KERNEL).unwrap();
    let at = &raw const *pinned;
    let moved = [pinned];
    assert_eq!((&raw const *moved[0], *moved[0]), (at, 5));
}

#[test]
fn a_box_is_a_pointer_that_is_never_null() {
    assert_eq!(size_of::<SystemBox<u64>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<SystemBox<u64>>>(), size_of::<usize>());
    assert_eq!(size_of::<KVec<u64, TheSystem>>(), 3 * size_of::<usize>());
}

/// Compiles if and only if `T` is not what the second implementation wants.
macro_rules! is_not {
    ($type:ty: $bound:ident) => {{
        trait Ambiguous<M> {
            fn told() {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        impl<T: ?Sized + $bound> Ambiguous<u8> for T {}
        <$type as Ambiguous<_>>::told();
    }};
}

#[test]
fn boxes_and_rows_cross_threads_as_their_values_do() {
    const fn crosses<T: Send + Sync>() {}
    crosses::<SystemBox<u32>>();
    crosses::<KVec<u32, TheSystem>>();
    is_not!(SystemBox<Rc<u32>>: Send);
    is_not!(SystemBox<Cell<u32>>: Sync);
    is_not!(KVec<Rc<u32>, TheSystem>: Send);
    is_not!(KVec<Cell<u32>, TheSystem>: Sync);
    is_not!(<KVec<Rc<u32>, TheSystem> as IntoIterator>::IntoIter: Send);
    // And their allocator, which frees wherever they end.
    is_not!(KBox<u32, Audited<'static>>: Send);
}

#[test]
fn boxes_and_rows_are_covariant() {
    fn shorter<'a>(
        one: SystemBox<&'static str>,
        row: KVec<&'static str, TheSystem>,
        _: &'a str,
    ) -> (SystemBox<&'a str>, KVec<&'a str, TheSystem>) {
        (one, row)
    }
    let text = String::from("short");
    let (one, row) = shorter(SystemBox::new("long", KERNEL).unwrap(), KVec::new(), &text);
    assert_eq!((*one, row.len()), ("long", 0));
}
