//! The queue between an interrupt handler and a reader.

use quarry::kernel::ring::Ring;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn bytes_come_out_in_order_and_what_finds_no_room_is_counted() {
    let ring = Ring::<8>::new();
    assert!(ring.is_empty() && ring.pop().is_none());
    for round in 0..100_u8 {
        for byte in 0..8 {
            ring.push(round.wrapping_add(byte));
        }
        assert_eq!(ring.take_lost(), 0);
        ring.push(0xee);
        ring.push(0xef);
        ring.lose(3);
        assert_eq!((ring.take_lost(), ring.take_lost()), (5, 0));
        for byte in 0..8 {
            assert!(!ring.is_empty());
            assert_eq!(ring.pop(), Some(round.wrapping_add(byte)));
        }
        assert!(ring.pop().is_none() && ring.is_empty());
    }
}

#[test]
fn two_threads_lose_nothing_that_is_not_counted() {
    let ring = Ring::<16>::new();
    let done = AtomicBool::new(false);
    let count = if cfg!(miri) { 200_u64 } else { 1_000_000 };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            (0..count).for_each(|_| ring.push(b'x'));
            done.store(true, Ordering::Release);
        });
        let mut taken = 0;
        loop {
            let ended = done.load(Ordering::Acquire);
            match ring.pop() {
                Some(_) => taken += 1,
                None if ended => break,
                None => std::hint::spin_loop(),
            }
        }
        assert_eq!(taken + ring.take_lost(), count);
    });
}
