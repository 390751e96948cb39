//! The tables as text, in the manner of Linux's `kernel_page_tables`: one line for each range whose entries are of one
//! level, permission and memory type.
#![forbid(unsafe_code)]

use super::{PageTable, Visit};
use crate::addr::VirtAddr;
use crate::hal::entry::{Defect, Entry};
use crate::hal::level::{LeafLevel, Level};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;
use core::fmt;
use core::ops::ControlFlow;

/// The start of a region of the address map, and its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker<'a> {
    /// The region's first address.
    pub start: VirtAddr,
    /// Text that the dump prints there.
    pub name: &'a str,
}

/// Properties that the entries of one line share.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Leaf { level: LeafLevel, contiguous: bool, prot: Prot },
    Malformed { level: Level, defect: Defect },
}

impl Kind {
    fn of(visit: &Visit) -> Option<Self> {
        match visit.entry {
            Entry::Leaf(leaf) => {
                // Flags that the hardware sets by itself make no line of their own.
                let prot = leaf.prot.with_accessed(true).with_dirty(false);
                Some(Self::Leaf { level: leaf.level, contiguous: leaf.contiguous, prot })
            }
            Entry::Malformed(defect) => Some(Self::Malformed { level: visit.level, defect }),
            Entry::Absent | Entry::Guard | Entry::Parked(_) | Entry::Table(_) => None,
        }
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Pgd => "PGD",
        Level::Pud => "PUD",
        Level::Pmd => "PMD",
        Level::Pte => "PTE",
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Leaf { level, contiguous, prot } => {
                let group = if contiguous { "CON " } else { "" };
                write!(f, "{group:>4}{} {prot}", level_name(level.level()))
            }
            Self::Malformed { level, defect } => write!(f, "    {} MALFORMED: {defect}", level_name(level)),
        }
    }
}

/// Addresses `start..=last` under entries of one kind.
struct Line {
    start: VirtAddr,
    last: VirtAddr,
    kind: Kind,
}

impl Line {
    /// Whether `visit`, of this line's kind, follows on.
    fn precedes(&self, visit: &Visit) -> bool {
        self.last.checked_add(1) == Some(visit.start)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The end of the last page does not fit in 64 bits.
        let end = u128::from(self.last.get()) + 1;
        let size = u128::from(self.last.get() - self.start.get()) + 1;
        let (count, unit) = match size {
            size if size.is_multiple_of(1 << 30) => (size >> 30, 'G'),
            size if size.is_multiple_of(1 << 20) => (size >> 20, 'M'),
            size => (size >> 10, 'K'),
        };
        writeln!(f, "{:#018x}-{end:#018x} {count:>9}{unit} {}", self.start, self.kind)
    }
}

struct Dumper<'a, W> {
    out: &'a mut W,
    markers: &'a [Marker<'a>],
    line: Option<Line>,
}

impl<W: fmt::Write> Dumper<'_, W> {
    fn visit(&mut self, visit: &Visit) -> fmt::Result {
        let Some(kind) = Kind::of(visit) else { return Ok(()) };
        let new_region = self.markers.first().is_some_and(|marker| marker.start <= visit.start);
        match &mut self.line {
            Some(line) if !new_region && line.kind == kind && line.precedes(visit) => line.last = visit.last(),
            _ => {
                self.end_line()?;
                self.print_markers(visit.start)?;
                self.line = Some(Line { start: visit.start, last: visit.last(), kind });
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> fmt::Result {
        self.line.take().map_or(Ok(()), |line| write!(self.out, "{line}"))
    }

    /// Prints the regions that start up to `addr`, those with nothing in them too.
    fn print_markers(&mut self, addr: VirtAddr) -> fmt::Result {
        while let Some((marker, rest)) = self.markers.split_first() {
            if marker.start > addr {
                break;
            }
            writeln!(self.out, "---[ {} ]---", marker.name)?;
            self.markers = rest;
        }
        Ok(())
    }
}

impl<M: Mmu> PageTable<M> {
    /// Writes what is mapped to `out`. `markers` stand in ascending order; a range never runs across one. Nobody may
    /// remove tables meanwhile. Cost: O(entries), and what `out` takes.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn dump<W: fmt::Write>(&self, out: &mut W, markers: &[Marker<'_>]) -> fmt::Result {
        let mut dumper = Dumper { out, markers, line: None };
        let walked = self.walk_all(|visit| match dumper.visit(&visit) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        if let ControlFlow::Break(error) = walked {
            return Err(error);
        }
        dumper.end_line()?;
        dumper.print_markers(VirtAddr::MAX)
    }
}
