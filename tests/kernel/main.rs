//! Kernel tests: one image, booted in QEMU by the runner (`docs/testing.md`).
#![no_std]
#![no_main]

mod harness;
mod planted;
