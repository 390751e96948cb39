//! Computes for ever: an interrupt alone takes the CPU from it.
#![no_std]
#![no_main]

use quarry_user::Arguments;

quarry_user::program!(main);

fn main(_: Arguments) -> i32 {
    let mut sum: u64 = 0;
    loop {
        sum = core::hint::black_box(sum.wrapping_add(1));
    }
}
