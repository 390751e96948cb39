//! The kernel tests whose subject is `kmalloc`'s smallest size or a stack's, on an image with other sizes: `kmalloc` from 128
//! bytes on, stacks of 4 KiB. The rest of the tests would take a minute to build and show nothing new.
#![no_std]
#![no_main]
#![expect(clippy::expect_used, reason = "a test fails by panicking; clippy knows only #[test] for one")]

extern crate alloc;

#[macro_use]
mod raw;

mod boot;
mod devres;
mod faults;
mod interrupts;
mod kmalloc;
mod stacks;
