//! L1: what `mm` asks of a machine: page-table entries, TLB, caches, CPU.

mod boot_memory;

pub use boot_memory::{BootMemory, Unreachable};
