//! Kernel tests: one image, booted in QEMU by the runner.
#![no_std]
#![no_main]

mod console;
mod faults;
mod harness;
mod interrupts;
mod planted;
