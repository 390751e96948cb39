//! L6: from the boot stub to memory: the boot code that a kernel on this crate's stub shares with the reference kernel, and the
//! entry of one that has nothing else (`entry!`).

pub(crate) mod device_tree;
pub(crate) mod discovery;
#[cfg_attr(not(feature = "kernel"), expect(dead_code, reason = "the reference kernel maps its own devices through it"))]
pub(crate) mod early_map;
mod early_regions;
#[cfg(not(feature = "kernel"))]
mod entry;
mod error;
pub(crate) mod init_memory;
pub(crate) mod reserved;
pub(crate) mod switch;
#[cfg_attr(not(feature = "kernel"), expect(dead_code, reason = "the reference kernel prints it"))]
pub(crate) mod tables;

pub use device_tree::NoTree;
#[cfg(not(feature = "kernel"))]
pub use entry::{Booted, booted, set_interrupt_handler};
pub use error::BootError;

use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{dcache, errata, mem, protect, tlb, uaccess};
use crate::global;

/// The first steps of the boot CPU, on the boot stub's tables and before anything else: its features are checked, and its
/// protection and its data are set up. Called by one entry alone, once.
pub(crate) fn prepare_boot_cpu() -> IdRegisters {
    let cpu = IdRegisters::read();
    mem::use_features(&cpu);
    errata::note(cpu.errata());
    tlb::init_cpu(true);
    dcache::init_cpu(true);
    protect::init_cpu(&cpu);
    uaccess::use_features(&cpu);
    // SAFETY: an entry calls this first, once, on the boot CPU, which is alone.
    unsafe { global::start_cpu() };
    cpu
}
