//! The AArch64 machine: registers, descriptors, MMU, TLB, traps.

pub mod backtrace;
pub mod esr;
pub mod features;

#[cfg(all(feature = "boot", target_arch = "aarch64"))]
pub mod boot;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod irq;
#[cfg(all(feature = "mem", target_arch = "aarch64"))]
pub mod mem;
#[cfg(target_os = "none")]
pub mod stack;
#[cfg(all(feature = "boot", target_os = "none"))]
pub mod trap;
