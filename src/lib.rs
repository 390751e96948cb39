//! Quarry: the memory subsystem of a kernel for 64-bit Arm.
//!
//! From the first instruction after the boot loader to the allocators that a kernel lives on, in layers that import
//! only downwards (a test reads every `use` and fails on an upward edge):
//!
//! | layer | modules | what lives there |
//! |---|---|---|
//! | L6 | `kernel` | the reference kernel's policy: order of boot, prompt, panic, tests |
//! | L5 | `instance` | the statics, and free functions over them |
//! | L4 | [`arch`], `board`, `driver` | the machine: bodies of the L1 traits |
//! | L3 | [`mm`] | algorithms and policy, generic over L1 |
//! | L2 | [`sync`], [`ds`], [`fdt`] | locks, containers, device-tree reading |
//! | L1 | [`hal`] | what `mm` asks of a machine |
//! | L0 | [`addr`], [`error`], [`gfp`] | vocabulary |
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(all(test, target_os = "none"), no_main)]

#[cfg(any(feature = "host", feature = "global-allocator"))]
extern crate alloc;

pub mod addr;
pub mod arch;
pub mod ds;
pub mod error;
pub mod fdt;
pub mod gfp;
pub mod hal;
pub mod mm;
pub mod sync;

#[cfg(all(feature = "kernel", target_os = "none"))]
pub mod board;
#[cfg(all(feature = "kernel", target_os = "none"))]
pub mod driver;
#[cfg(all(feature = "kernel", target_os = "none"))]
pub mod instance;
#[cfg(any(feature = "host", all(feature = "kernel", target_os = "none")))]
pub mod kernel;

/// `cargo test` builds the library as a test target of its own even though it holds no tests; on the host that needs a
/// `main`.
#[cfg(all(test, not(target_os = "none")))]
fn main() {}
