//! User address spaces: what the memory subsystem owes to processes.
//!
//! - [`map`]: which addresses a process may use and how; policy over an augmented tree of areas, without page tables.
//! - [`pages`]: the page tables of one space and the frames behind them: faults, copy-on-write, fork, unmapping, pinning.
//! - [`asid`]: the numbers that mark the entries of a space in the TLB.
//! - [`access`]: how the kernel reads and writes memory of a process.

pub mod access;
pub mod asid;
mod file_fault;
pub mod map;
mod map_lock;
mod over;
pub mod pages;
mod space;
mod terms;

pub use map_lock::Busy;
pub use over::Over;
pub use space::{AddressSpace, SpaceFault, SpaceHal};
