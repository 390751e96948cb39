//! An entry of a table, with its place.
#![forbid(unsafe_code)]

use super::table::Table;
use crate::addr::VirtAddr;
use crate::hal::entry::RawEntry;
use crate::hal::level::Slot;

/// Where an entry stands, for the code that changes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) start: VirtAddr,
    pub(super) table: Table,
    pub(super) slot: Slot,
    pub(super) raw: RawEntry,
}
