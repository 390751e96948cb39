//! Every process makes children until the kernel refuses.
#![no_std]
#![no_main]

use quarry_user::call::{self, Errno};
use quarry_user::{Arguments, println};

quarry_user::program!(main);

fn main(_: Arguments) -> i32 {
    let first = call::getpid();
    let mut mine = 0;
    let error = loop {
        match call::fork() {
            Ok(0) => mine = 0,
            Ok(_) => mine += 1,
            Err(error) => break error,
        }
    };
    if call::getpid() == first {
        println!("fork refused with {error:?} after {mine} children of the first");
    }
    while call::wait(None).is_ok() {}
    i32::from(error != Errno::AGAIN && error != Errno::NOMEM)
}
