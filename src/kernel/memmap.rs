//! Who has each byte of RAM: a map without gaps or overlaps whose sum is checked against what the device tree states.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange, Range};
use alloc::vec::Vec;
use core::fmt;

/// What a stretch of RAM is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody: the page allocators may have it.
    Free,
    /// The boot loader, the firmware or a device, by the name of the node or block that says so.
    Reserved(&'static str),
    /// As [`Owner::Reserved`], and the kernel may not even map it.
    NoMap(&'static str),
    /// A part of the kernel image.
    Kernel(&'static str),
    /// Memory taken while booting: tables, the early heap.
    Boot(&'static str),
}

impl Owner {
    const fn kind(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Reserved(_) => "reserved",
            Self::NoMap(_) => "no-map",
            Self::Kernel(_) => "kernel",
            Self::Boot(_) => "boot",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Free => "",
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
    /// Where it lies.
    pub range: PhysRange,
    /// Who has it.
    pub owner: Owner,
}

/// The map.
///
/// # Invariants
///
/// - `MAP-1`: rows are not empty, sorted, and do not overlap.
/// - `MAP-2`: their sizes add up to the RAM that the map was made of.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    rows: Vec<Row>,
    total: u64,
}

/// The map broke one of its own rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which.
    pub tag: &'static str,
}

impl MemoryMap {
    /// A map in which all of `ram` (sorted, disjoint) is free.
    pub fn new(ram: impl Iterator<Item = PhysRange>) -> Self {
        // INVARIANT: MAP-1 by the caller's order, MAP-2 by the sum.
        let rows: Vec<Row> = ram.filter(|r| !r.is_empty()).map(|range| Row { range, owner: Owner::Free }).collect();
        let total = rows.iter().map(|row| row.range.size()).sum();
        Self { rows, total }
    }

    /// Gives the RAM in `range` to `owner`. What of the range is no RAM is left out.
    pub fn paint(&mut self, range: PhysRange, owner: Owner) {
        let mut rows = Vec::with_capacity(self.rows.len() + 2);
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
                    // INVARIANT: MAP-1, MAP-2: the three parts cover the row exactly, in order.
                    push(row.range.start(), common.start(), row.owner);
                    push(common.start(), common.end(), owner);
                    push(common.end(), row.range.end(), row.owner);
                }
            }
        }
        self.rows = rows;
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

    /// Walks the map.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        let sorted = self.rows.windows(2).all(|pair| match pair {
            [below, above] => below.range.end() <= above.range.start(),
            _ => true,
        });
        if !sorted || self.rows.iter().any(|row| row.range.is_empty()) {
            return Err(Broken { tag: "MAP-1" });
        }
        if self.sum(|_| true) != self.total {
            return Err(Broken { tag: "MAP-2" });
        }
        Ok(())
    }
}

impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(
                f,
                "  {:#014x}-{:#014x} {:>10} KiB  {}",
                row.range.start(),
                row.range.end(),
                row.range.size() >> 10,
                row.owner
            )?;
        }
        let kind = |kind: &str| self.sum(|owner| owner.kind() == kind) >> 10;
        write!(
            f,
            "  sum {} KiB = kernel {} + boot {} + reserved {} + no-map {} + free {}",
            self.total >> 10,
            kind("kernel"),
            kind("boot"),
            kind("reserved"),
            kind("no-map"),
            kind("free")
        )
    }
}
