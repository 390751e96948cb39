//! Device memory: mapping it with the right memory type, and accessing registers in it (Linux: `mm/ioremap.c`,
//! `arch/arm64/include/asm/io.h`).
//!
//! An [`IoSpace`] maps physical ranges outside RAM in areas of the vmalloc region, and records every live mapping by its
//! physical range (`claim.rs`): two mappings of one frame must agree in their memory type (Arm ARM B2.12, mismatched
//! attributes), so a call that disagrees is refused. An [`Mmio`] gives access to a mapping: with barriers or without, checked
//! at compile time if offset and size are known then, and otherwise at each access. Memory that the device tree marks `no-map`
//! is mapped only in the name of a device that owns it ([`ReservedRegion`]). [`resource`] records the owner of each physical
//! address range; a [`Devres`] holds the resources of a device's driver, to be released in reverse order.
//!
//! # Locks and contexts
//!
//! One lock around the live mappings, with interrupts masked, never held while tables or areas are worked on. All functions may
//! be called in any context.

mod claim;
mod devres;
mod early;
mod error;
mod mmio;
mod ram;
mod raw_calls;
mod reserved;
pub mod resource;
mod space;

pub use claim::{Claim, Mapping};
pub use devres::{Devres, Group, Key, Mark, NoKey, NotKept};
pub use early::{EARLY_SLOT_PAGES, EARLY_SLOTS, EarlyError, EarlyMapping, EarlySlots};
pub use error::{AccessError, IoError};
pub use mmio::{Mmio, RegisterBlock};
pub use reserved::{RegionError, ReservedMap, ReservedRange, ReservedRegion};
pub use space::{IoHal, IoSpace};
