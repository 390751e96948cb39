//! L1: the interface of `mm` to a machine: page-table entries, TLB, caches, CPU, waiting, device registers.

mod boot_memory;
pub mod cache;
pub mod cpu;
mod internal;

pub use boot_memory::{BootMemory, Unreachable};
pub use internal::Internal;
pub mod entry;
pub mod frame;
pub mod io;
pub mod level;
pub mod mmu;
pub mod patience;
pub mod prot;
pub mod tags;
pub mod user;
pub mod wait;
