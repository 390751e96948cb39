//! The account of all RAM: the map by address, the uses of the page allocator's part of it, and whether the two agree (promise:
//! every byte is accounted for).
#![forbid(unsafe_code)]

use super::owner_map::{Owner, OwnerMap, OwnerMapError};
use crate::addr::PAGE_SIZE;
use crate::mm::page::Kind;
use crate::mm::zone::{Census, Miscount, ZoneCensus};
use core::fmt;

/// The map of all RAM with the page allocator's own count.
///
/// # Invariants
///
/// Those of [`OwnerMap`], those of the counters that [`Census::check`] compares, and
///
/// - `ACCT-5`: the map's memory of the page allocator is the allocator's own count, to the byte.
#[derive(Clone, Debug)]
pub struct Account {
    /// Owner of each byte.
    pub map: OwnerMap,
    /// Uses of the page allocator's pages.
    pub census: Census,
}

/// Error in the account of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AccountError {
    /// The map is wrong, or missing.
    Map(OwnerMapError),
    /// The page allocator's pages do not add up.
    Pages(Miscount),
    /// `ACCT-5` does not hold.
    Managed {
        /// Bytes of the page allocator by the map.
        mapped: u64,
        /// Bytes that it has by its own count.
        counted: u64,
    },
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => error.fmt(f),
            Self::Pages(error) => error.fmt(f),
            Self::Managed { mapped, counted } => {
                write!(f, "ACCT-5 broken: the map gives the page allocator {mapped} bytes, and it has {counted}")
            }
        }
    }
}

impl core::error::Error for AccountError {}

impl From<OwnerMapError> for AccountError {
    fn from(error: OwnerMapError) -> Self {
        Self::Map(error)
    }
}

impl From<Miscount> for AccountError {
    fn from(error: Miscount) -> Self {
        Self::Pages(error)
    }
}

impl Account {
    /// Tests every invariant of the account.
    ///
    /// # Errors
    ///
    /// The first sum that is wrong.
    pub fn check(&self) -> Result<(), AccountError> {
        self.map.check()?;
        self.census.check()?;
        let mapped = self.map.sum(|owner| owner == Owner::Pages);
        let counted = self.census.managed() * PAGE_SIZE;
        // Reserved memory that becomes the allocator's does so a page at a time, perhaps between the two counts.
        let slack = self.census.zones().map(|zone| zone.moved).sum::<u64>() * PAGE_SIZE;
        let same = mapped.abs_diff(counted) <= slack;
        if same { Ok(()) } else { Err(AccountError::Managed { mapped, counted }) }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.map)?;
        write!(f, "page allocator: {} KiB", kib(self.census.managed()))?;
        self.census.zones().try_for_each(|zone| write_zone(zone, f))
    }
}

fn write_zone(zone: &ZoneCensus, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = zone.zone.kind.name();
    write!(f, "\n  zone {name:<8} {:>10} KiB", kib(zone.usage.managed()))?;
    let mut sign = "=";
    for kind in Kind::ALL {
        let pages = zone.usage.of(kind);
        let is_managed = !matches!(kind, Kind::Inside | Kind::Tail | Kind::Reserved | Kind::Hole);
        if pages != 0 && is_managed {
            let name = if kind == Kind::Pcp { "per-CPU lists" } else { kind.name() };
            write!(f, " {sign} {name} {}", kib(pages))?;
            sign = "+";
        }
    }
    match zone.moved {
        0 => Ok(()),
        moved => write!(f, " (up to {} KiB moved meanwhile)", kib(moved)),
    }
}

const fn kib(pages: u64) -> u64 {
    pages * (PAGE_SIZE >> 10)
}
