//! L4: AArch64, EL1. What is pure arithmetic (descriptors, TLBI operands, register values) builds on every machine and
//! is tested on the host; what needs the instructions builds for the target alone.

pub mod desc;
pub mod mair;
pub mod tlbi;

#[cfg(target_arch = "aarch64")]
pub mod fixmap;
#[cfg(target_arch = "aarch64")]
pub mod mmu;
#[cfg(target_arch = "aarch64")]
pub mod tlb;
