//! Four threads map, fault, unmap and fork at once, and every byte stays right.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};
use quarry_user::call::{self, Ended, READ, WRITE};
use quarry_user::{Arguments, println, thread};

quarry_user::program!(main);

const THREADS: usize = 4;
const ROUNDS: usize = 40;
const PAGE: usize = 4096;
const OWN: usize = 24;
/// Pages of the common area for each thread.
const SHARE: usize = 64;

static COMMON: AtomicUsize = AtomicUsize::new(0);
static ROUNDS_DONE: AtomicUsize = AtomicUsize::new(0);
static FORKS: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);

fn check(right: bool, what: &str) {
    if !right {
        WRONG.fetch_add(1, Ordering::Relaxed);
        println!("wrong: {what}");
    }
}

/// A word of each page.
fn words(at: *mut u8, pages: usize) -> impl Iterator<Item = *mut u64> {
    (0..pages).map(move |page| at.wrapping_add(page * PAGE + page % 512 * 8).cast())
}

fn fill(at: *mut u8, pages: usize, value: u64) {
    // SAFETY: the caller's memory.
    words(at, pages).for_each(|word| unsafe { word.write_volatile(value) });
}

fn holds(at: *mut u8, pages: usize, value: u64) -> bool {
    // SAFETY: the caller's memory.
    words(at, pages).all(|word| unsafe { word.read_volatile() } == value)
}

extern "C" fn work(number: usize) {
    let mine = core::ptr::with_exposed_provenance_mut::<u8>(COMMON.load(Ordering::Acquire) + number * SHARE * PAGE);
    for round in 1..=ROUNDS {
        let value = (number * 1000 + round) as u64;
        let Ok(own) = call::mmap(OWN * PAGE, READ | WRITE) else { return check(false, "mmap") };
        check(holds(own, OWN, 0), "new memory is zero");
        fill(own, OWN, value);
        let before = if round == 1 { 0 } else { value - 1 };
        check(holds(mine, SHARE, before), "the thread's part of the common area");
        fill(mine, SHARE, value);
        if round % 8 == number {
            match call::fork() {
                Ok(0) => {
                    // The child has this thread alone; what the others wrote is whole words.
                    let right = holds(own, OWN, value) && holds(mine, SHARE, value);
                    fill(mine, SHARE, 7);
                    call::exit_group(if right && holds(mine, SHARE, 7) { 77 } else { 1 });
                }
                Ok(child) => {
                    FORKS.fetch_add(1, Ordering::Relaxed);
                    check(call::wait(Some(child)) == Ok((child, Ended::Exited(77))), "the child's copy");
                }
                Err(_) => check(false, "fork"),
            }
        }
        // SAFETY: half of what is this thread's own.
        let unmapped = unsafe { call::munmap(own.add(OWN / 2 * PAGE), OWN / 2 * PAGE) };
        check(unmapped.is_ok() && holds(own, OWN / 2, value), "half of the thread's own area");
        // SAFETY: its content is given up.
        let advised = unsafe { call::madvise(own, PAGE, call::DONTNEED) };
        check(advised.is_ok() && holds(own, 1, 0), "memory whose content was given up is zero");
        // SAFETY: what is left of it.
        check(unsafe { call::munmap(own, OWN / 2 * PAGE) }.is_ok(), "munmap");
        ROUNDS_DONE.fetch_add(1, Ordering::Relaxed);
    }
}

fn main(_: Arguments) -> i32 {
    let Ok(common) = call::mmap(THREADS * SHARE * PAGE, READ | WRITE) else { return 1 };
    COMMON.store(common.expose_provenance(), Ordering::Release);
    let threads: [_; THREADS] = core::array::from_fn(|number| thread::spawn(work, number));
    for started in threads {
        match started {
            Ok(thread) => thread.join(),
            Err(error) => {
                println!("clone: {error:?}");
                return 2;
            }
        }
    }
    for number in 0..THREADS {
        let at = common.wrapping_add(number * SHARE * PAGE);
        check(holds(at, SHARE, (number * 1000 + ROUNDS) as u64), "the common area at the end");
    }
    let (rounds, forks) = (ROUNDS_DONE.load(Ordering::Relaxed), FORKS.load(Ordering::Relaxed));
    println!("{THREADS} threads, {rounds} rounds, {forks} forks, {} wrong", WRONG.load(Ordering::Relaxed));
    i32::from(WRONG.load(Ordering::Relaxed) != 0 || rounds != THREADS * ROUNDS)
}
