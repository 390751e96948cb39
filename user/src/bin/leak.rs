//! Takes memory until there is no more: from mappings, from the heap, and as areas.
#![no_std]
#![no_main]

use quarry_user::call::{self, Errno, READ, WRITE};
use quarry_user::{Arguments, heap, println};

quarry_user::program!(main);

const CHUNK: usize = 1 << 20;

fn main(_: Arguments) -> i32 {
    let mut mapped = 0;
    let error = loop {
        match call::mmap(CHUNK, READ | WRITE) {
            Ok(at) => {
                for page in 0..CHUNK / 4096 {
                    // SAFETY: inside of the mapping.
                    unsafe { at.add(page * 4096).write_volatile(1) };
                }
                mapped += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::NOMEM);
    let mut blocks = 0;
    while !heap::malloc(1000).is_null() {
        blocks += 1;
    }
    println!("{mapped} MiB mapped and {blocks} blocks until {error:?}");
    i32::from(mapped == 0)
}
