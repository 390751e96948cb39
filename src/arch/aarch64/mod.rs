//! L4: AArch64, EL1. What is pure arithmetic (descriptors, TLBI operands, register values, syndromes) builds on every
//! machine and is tested on the host; what needs the instructions builds for the target alone.

pub mod backtrace;
pub mod desc;
pub mod esr;
pub mod exception;
pub mod exclusive;
pub mod features;
pub mod mair;
pub mod tlbi;

#[cfg(target_os = "none")]
pub mod at;
#[cfg(all(feature = "boot", target_arch = "aarch64"))]
pub mod boot;
#[cfg(target_os = "none")]
pub mod break_window;
#[cfg(target_os = "none")]
pub mod cache;
#[cfg(target_os = "none")]
pub mod counter;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod early_fixmap;
#[cfg(target_os = "none")]
mod entries;
#[cfg(target_os = "none")]
pub mod fixmap;
#[cfg(target_os = "none")]
pub mod held;
#[cfg(target_os = "none")]
pub mod hold;
#[cfg(target_os = "none")]
pub mod icache;
#[cfg(target_os = "none")]
pub mod io;
#[cfg(target_os = "none")]
pub mod irq;
#[cfg(target_os = "none")]
pub mod linear;
#[cfg(all(feature = "mem", target_arch = "aarch64"))]
pub mod mem;
#[cfg(target_os = "none")]
pub mod mmu;
#[cfg(target_os = "none")]
pub mod monitor;
#[cfg(target_os = "none")]
pub mod mte;
#[cfg(target_os = "none")]
pub mod pmu;
#[cfg(target_os = "none")]
pub mod probe;
#[cfg(target_os = "none")]
pub mod protect;
#[cfg(all(feature = "kernel", target_os = "none"))]
pub mod psci;
#[cfg(target_os = "none")]
pub mod rseq;
#[cfg(all(feature = "boot", target_os = "none"))]
pub mod secondary;
#[cfg(target_os = "none")]
pub mod spin_table;
#[cfg(target_os = "none")]
pub mod spurious;
#[cfg(target_os = "none")]
pub mod stack;
#[cfg(all(feature = "boot", target_os = "none"))]
pub mod step;
#[cfg(target_os = "none")]
pub mod tlb;
#[cfg(all(feature = "boot", target_os = "none"))]
pub mod trap;
