//! L4: AArch64, EL1. Code that is pure arithmetic (descriptors, TLBI operands, register values, syndromes) builds on every
//! machine and is tested on the host; code that needs the instructions builds for the target alone.

pub mod backtrace;
pub mod cores;
pub mod desc;
pub mod errata;
pub mod esr;
pub mod exception;
pub mod exclusive;
pub mod features;
pub mod mair;
pub mod tlbi;
pub mod translation;
pub mod user_exit;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod alternative;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod at;
#[cfg(all(feature = "boot", target_arch = "aarch64"))]
pub mod boot;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod break_window;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod cache;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod counter;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod cpu;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod dcache;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod early_fixmap;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
mod entries;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod fixmap;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
mod frame;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod held_locks;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod icache;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod io;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod irq;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod linear;
#[cfg(all(feature = "mem", target_arch = "aarch64"))]
pub mod mem;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod mmu;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod monitor;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod mte;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod pmu;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod probe;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod protect;
#[cfg(all(feature = "kernel", target_arch = "aarch64", target_os = "none"))]
pub mod psci;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod rseq;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
pub mod secondary;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod spin_table;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod spurious;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod stack;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
pub mod step;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod stop_machine;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod tlb;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
pub mod trap;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod ttbr0;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod uaccess;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
pub mod user;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
mod window;
