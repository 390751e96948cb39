//! Owner of each byte of RAM: a map without gaps or overlaps whose sum is checked against the device tree's RAM.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, Range};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt;

/// Use of a stretch of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// No owner. In a finished map an error: memory that is lost.
    Unclaimed,
    /// The page allocator, free or allocated.
    Pages,
    /// RAM that is not used: above `mem=`, beyond this CPU's reach, or less than a page at the edge of a bank.
    LeftOut,
    /// The boot loader, the firmware or a device, by the name of the node or block that reserves it.
    Reserved(&'static str),
    /// As [`Owner::Reserved`], and the kernel may not even map it.
    NoMap(&'static str),
    /// A part of the kernel image.
    Kernel(&'static str),
    /// Memory taken while booting: tables, descriptors, the early heap.
    Boot(&'static str),
    /// The remainder of a page that has an owner for another part.
    Remainder,
}

impl Owner {
    /// The kinds of owners, in the order in which sums are printed.
    const KINDS: [&'static str; 7] =
        ["kernel", "boot", "reserved", "no-map", "left out", "page allocator", "unclaimed"];

    const fn kind(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Pages => "page allocator",
            Self::LeftOut => "left out",
            Self::Reserved(_) | Self::Remainder => "reserved",
            Self::NoMap(_) => "no-map",
            Self::Kernel(_) => "kernel",
            Self::Boot(_) => "boot",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Unclaimed | Self::Pages | Self::LeftOut => "",
            Self::Remainder => "rest of partly used pages",
            Self::Reserved(name) | Self::NoMap(name) | Self::Kernel(name) | Self::Boot(name) => name,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => f.write_str(self.kind()),
            name => write!(f, "{}: {name}", self.kind()),
        }
    }
}

/// A stretch of RAM with one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its addresses.
    pub range: PhysRange,
    /// Its owner.
    pub owner: Owner,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, owner } = self;
        let (size, unit) = in_units(range.size());
        write!(f, "  {:#014x}-{:#014x} {size:>10} {unit:<5}  {owner}", range.start(), range.end())
    }
}

/// The map.
///
/// # Invariants
///
/// - `ACCT-1`: rows are not empty, sorted, and do not overlap.
/// - `ACCT-2`: their sizes add up to the RAM that the map was made of.
/// - `ACCT-3`: in a finished map every byte has an owner.
/// - `ACCT-4`: the page allocator has no byte that has another owner.
#[derive(Clone, Debug)]
pub struct OwnerMap {
    rows: Vec<Row>,
    total: u64,
}

/// Reason why there is no map, or error in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OwnerMapError {
    /// No memory for the map itself.
    NoMemory,
    /// An invariant does not hold.
    Broken {
        /// The invariant, by its tag.
        tag: &'static str,
        /// The row of the map at which it was seen, if any.
        row: Option<Row>,
    },
}

impl fmt::Display for OwnerMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory for the memory map"),
            Self::Broken { tag, row: None } => write!(f, "the memory map breaks its rule {tag}"),
            Self::Broken { tag, row: Some(Row { range, owner }) } => {
                write!(f, "the memory map breaks its rule {tag} at {range}, {owner}")
            }
        }
    }
}

impl core::error::Error for OwnerMapError {}

impl From<TryReserveError> for OwnerMapError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl OwnerMap {
    /// A map in which all of `ram`, in any order, is marked as left out.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError::NoMemory`].
    pub fn new(ram: impl Iterator<Item = PhysRange>) -> Result<Self, OwnerMapError> {
        let mut banks: Vec<PhysRange> = Vec::new();
        for bank in ram.filter(|bank| !bank.is_empty()) {
            banks.try_reserve(1)?;
            banks.push(bank);
        }
        banks.sort_unstable_by_key(|bank| bank.start());
        let mut rows: Vec<Row> = Vec::new();
        rows.try_reserve(banks.len())?;
        for bank in banks {
            // INVARIANT: ACCT-1: sorted, and what overlaps or touches becomes one row.
            match rows.last_mut() {
                Some(Row { range, .. }) if bank.start() <= range.end() => {
                    *range = Range::<PhysAddr>::new(range.start(), bank.end().max(range.end())).unwrap_or(*range);
                }
                _ => rows.push(Row { range: bank, owner: Owner::LeftOut }),
            }
        }
        // INVARIANT: ACCT-2 by the sum.
        let total = rows.iter().map(|row| row.range.size()).sum();
        Ok(Self { rows, total })
    }

    /// Gives the RAM in `range` to `owner`. Parts of the range that are not RAM are left out.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError::NoMemory`]; nothing has changed then.
    pub fn paint(&mut self, range: PhysRange, owner: Owner) -> Result<(), OwnerMapError> {
        let mut rows: Vec<Row> = Vec::new();
        rows.try_reserve(self.rows.len() + 2)?;
        let mut push = |start: PhysAddr, end: PhysAddr, owner: Owner| {
            if let Some(range) = Range::<PhysAddr>::new(start, end).filter(|range| !range.is_empty()) {
                match rows.last_mut() {
                    Some(Row { range: last, owner: same }) if *same == owner && last.end() == start => {
                        *last = Range::<PhysAddr>::new(last.start(), end).unwrap_or(*last);
                    }
                    _ => rows.push(Row { range, owner }),
                }
            }
        };
        for row in &self.rows {
            match row.range.intersection(range) {
                None => push(row.range.start(), row.range.end(), row.owner),
                Some(common) => {
                    // INVARIANT: ACCT-1, ACCT-2: the three parts cover the row exactly, in order.
                    push(row.range.start(), common.start(), row.owner);
                    push(common.start(), common.end(), owner);
                    push(common.end(), row.range.end(), row.owner);
                }
            }
        }
        self.rows = rows;
        Ok(())
    }

    /// Gives `range` to the page allocator. No part of it may have another owner, except owners that `gave_up` names: their
    /// memory may have become the allocator's.
    ///
    /// # Errors
    ///
    /// `ACCT-4` and the row that another owner has, [`OwnerMapError::NoMemory`]; nothing has changed then.
    pub fn paint_pages(&mut self, range: PhysRange, gave_up: impl Fn(Owner) -> bool) -> Result<(), OwnerMapError> {
        let free = |owner| owner == Owner::Unclaimed || gave_up(owner);
        match self.rows.iter().find(|row| row.range.overlaps(range) && !free(row.owner)) {
            Some(row) => Err(OwnerMapError::Broken { tag: "ACCT-4", row: Some(*row) }),
            None => self.paint(range, Owner::Pages),
        }
    }

    /// Finishes a map: an unclaimed part of a page with an owner becomes that page's remainder.
    ///
    /// # Errors
    ///
    /// [`OwnerMapError::NoMemory`].
    pub fn finish(&mut self) -> Result<(), OwnerMapError> {
        let mut at = PhysAddr::ZERO;
        while let Some(row) = self.rows.iter().find(|row| row.range.start() >= at && row.owner == Owner::Unclaimed) {
            let range = row.range;
            at = range.end();
            let whole = range.align_inwards(PAGE_SIZE).filter(|whole| !whole.is_empty());
            let (low, high) = whole.map_or((range.end(), range.end()), |whole| (whole.start(), whole.end()));
            for (start, end) in [(range.start(), low), (high, range.end())] {
                if let Some(part) = Range::<PhysAddr>::new(start, end).filter(|part| !part.is_empty()) {
                    self.paint(part, Owner::Remainder)?;
                }
            }
        }
        Ok(())
    }

    /// The rows by address.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Bytes whose owner satisfies `which`.
    pub fn sum(&self, which: impl Fn(Owner) -> bool) -> u64 {
        self.rows.iter().filter(|row| which(row.owner)).map(|row| row.range.size()).sum()
    }

    /// Bytes in the map.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Tests the invariants of a finished map.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), OwnerMapError> {
        let broken = |tag, row: Option<&Row>| Err(OwnerMapError::Broken { tag, row: row.copied() });
        for pair in self.rows.windows(2) {
            if let [below, above] = pair
                && below.range.end() > above.range.start()
            {
                return broken("ACCT-1", Some(above));
            }
        }
        if let Some(row) = self.rows.iter().find(|row| row.range.is_empty()) {
            return broken("ACCT-1", Some(row));
        }
        if self.sum(|_| true) != self.total {
            return broken("ACCT-2", None);
        }
        match self.rows.iter().find(|row| row.owner == Owner::Unclaimed) {
            Some(row) => broken("ACCT-3", Some(row)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for OwnerMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let (size, unit) = in_units(self.total);
        write!(f, "  sum {size} {unit}")?;
        let mut sign = "=";
        for kind in Owner::KINDS {
            let bytes = self.sum(|owner| owner.kind() == kind);
            if bytes != 0 {
                let (size, unit) = in_units(bytes);
                let unit = if unit == "KiB" { "" } else { " bytes" };
                write!(f, " {sign} {kind} {size}{unit}")?;
                sign = "+";
            }
        }
        Ok(())
    }
}

/// A size as printed: never rounded, so that the columns add up.
const fn in_units(bytes: u64) -> (u64, &'static str) {
    if bytes.is_multiple_of(1 << 10) { (bytes >> 10, "KiB") } else { (bytes, "bytes") }
}
