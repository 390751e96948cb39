//! L1: what `mm` asks of a machine: page-table entries, TLB, caches, CPU, waiting, device
//! registers.

mod boot_memory;
pub mod cpu;

pub use boot_memory::{BootMemory, Unreachable};
pub mod entry;
pub mod frame;
pub mod io;
pub mod level;
pub mod mmu;
pub mod prot;
pub mod tags;
pub mod wait;
