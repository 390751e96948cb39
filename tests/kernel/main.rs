//! Kernel tests: one image, booted in QEMU by the runner (docs/testing.md).
#![no_std]
#![no_main]
#![expect(clippy::expect_used, reason = "a test fails by panicking; clippy knows only #[test] for one")]

mod boot;
mod console;
mod faults;
mod harness;
mod interrupts;
mod memory_routines;
mod pagetable;
mod planted;
mod slab;
