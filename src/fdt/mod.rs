//! L2: reading the device tree: everything that memory discovery and the first drivers need, and nothing else.
//!
//! A device tree comes from a boot loader: real ones are odd, and damaged ones must end in a message. So a blob goes
//! through three doors. [`precheck()`] walks it once and refuses what breaks a rule; NOP tokens are then squeezed out;
//! the result is a [`Tree`], over which the `fdt` crate walks nodes and properties without a case that it panics on. The
//! questions ([`Tree::memory`], [`Tree::reserved_memory`], [`Tree::chosen`], [`Tree::cpus`], …) are ours: they take no memory,
//! recurse nowhere, and answer with iterators over the blob.
#![forbid(unsafe_code)]

mod cells;
mod chosen;
mod compact;
mod cpu;
mod dma;
mod error;
mod header;
mod interrupt;
mod limits;
mod locate;
mod memory;
mod node;
mod precheck;
mod psci;
mod reg;
mod report;
mod token;
mod translate;
mod tree;
mod value;

pub use cells::Cells;
pub use chosen::{Chosen, Stdout};
pub use cpu::{Cpu, EnableMethod};
pub use error::{Block, FdtError};
pub use header::{Counts, HEADER_SIZE, Header, MAGIC, MAX_TOTALSIZE, totalsize};
pub use interrupt::Interrupt;
pub use limits::{MAX_DEPTH, MAX_PROPERTY_NAME};
pub use locate::Located;
pub use memory::{ReservedMemory, Survey};
pub use node::Node;
pub use precheck::precheck;
pub use psci::{Conduit, Psci};
pub use reg::RegEntry;
pub use report::{Description, Report};
pub use translate::DmaRange;
pub use tree::{Path, Tree};
pub use value::{Property, Strings};
