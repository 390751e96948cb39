//! The AArch64 machine: registers, descriptors, MMU, TLB, traps.

pub mod features;

#[cfg(all(feature = "boot", target_arch = "aarch64"))]
pub mod boot;
#[cfg(all(feature = "mem", target_arch = "aarch64"))]
pub mod mem;
