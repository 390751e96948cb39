//! One address with other contents in each process: parent and children write to it and find what they wrote.
#![no_std]
#![no_main]

use quarry_user::call::{self, READ, WRITE};
use quarry_user::{Arguments, children, println};

quarry_user::program!(main);

const AT: usize = 0x5000_0000;
const WORDS: usize = 16 * 512;
const CHILDREN: u8 = 4;

fn word(at: *mut u64, number: usize) -> *mut u64 {
    at.wrapping_add(number)
}

fn fill(at: *mut u64, value: u64) {
    for number in 0..WORDS {
        // SAFETY: the mapping has so many words.
        unsafe { word(at, number).write_volatile(value ^ number as u64) };
    }
}

fn holds(at: *mut u64, value: u64) -> bool {
    // SAFETY: the mapping has so many words.
    (0..WORDS).all(|number| unsafe { word(at, number).read_volatile() } == value ^ number as u64)
}

fn main(_: Arguments) -> i32 {
    // SAFETY: nothing is there.
    let Ok(at) = (unsafe { call::mmap_fixed(AT, WORDS * 8, READ | WRITE) }) else { return 1 };
    let at = at.cast::<u64>();
    fill(at, 1000);
    let rewrite = |child: u8| {
        assert!(holds(at, 1000), "a child begins with what its parent had");
        for round in 0..20 {
            let value = u64::from(child) << 32 | round;
            fill(at, value);
            call::sched_yield();
            assert!(holds(at, value), "child {child} finds what it wrote");
        }
    };
    let unchanged = || assert!(holds(at, 1000), "the parent keeps its own");
    if let Err(status) = children::run(CHILDREN, rewrite, unchanged) {
        return status;
    }
    unchanged();
    println!("one address, {} contents", CHILDREN + 1);
    0
}
