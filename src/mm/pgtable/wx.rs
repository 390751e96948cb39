//! The W^X checker: nothing is both writable and executable, neither by one entry nor by two mappings of a frame.
#![forbid(unsafe_code)]

use super::walk::Stretch;
use super::{PageTable, Visit};
use crate::addr::{PhysRange, VirtAddr};
use crate::hal::entry::{Defect, Entry, Leaf};
use crate::hal::mmu::Mmu;
use crate::hal::prot::Privilege;
use core::fmt;
use core::ops::ControlFlow;

/// Executable ranges that are held at a time. A kernel has a handful; if there are more, the walks are repeated.
const BATCH: usize = 32;

/// Counts of a walk that found no violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WxReport {
    /// Entries walked, tables among them, absent ones not.
    pub entries: u64,
    /// Bytes of address space that are executable.
    pub executable: u64,
}

/// Rules of W^X that an entry can break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WxProblem {
    /// An entry that no code of ours writes; among them writable and executable, kernel entries without `UXN`, and
    /// hierarchical permissions.
    Entry(Defect),
    /// Memory that is executable at this address is writable through the reported mapping.
    WritableAlias(VirtAddr),
    /// Memory that is executable by user space at this address is executable by the kernel in the reported mapping.
    KernelAlias(VirtAddr),
}

/// A violation, and the addresses `start..=last` of the mapping at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WxViolation {
    /// First address of the mapping.
    pub start: VirtAddr,
    /// Last address of the mapping.
    pub last: VirtAddr,
    /// The rule that it breaks.
    pub problem: WxProblem,
}

impl fmt::Display for WxViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}: ", self.start, self.last)?;
        match self.problem {
            WxProblem::Entry(defect) => defect.fmt(f),
            WxProblem::WritableAlias(at) => write!(f, "writable alias of memory that is executable at {at:#x}"),
            WxProblem::KernelAlias(at) => {
                write!(f, "kernel-executable alias of memory that user space executes at {at:#x}")
            }
        }
    }
}

impl core::error::Error for WxViolation {}

/// Physical memory that is executable, and the address where.
#[derive(Clone, Copy)]
struct Executable {
    phys: PhysRange,
    at: VirtAddr,
    privilege: Privilege,
}

/// As many executable ranges as fit.
struct Batch {
    ranges: [Option<Executable>; BATCH],
    used: usize,
}

impl Batch {
    /// Adds memory, to the last range if it follows on. Returns whether there was room.
    fn add(&mut self, next: Executable) -> bool {
        if let Some(last) = self.used.checked_sub(1).and_then(|index| self.ranges.get_mut(index)?.as_mut())
            && last.privilege == next.privilege
            && last.phys.end() == next.phys.start()
            && let Some(joined) = PhysRange::new(last.phys.start(), next.phys.end())
        {
            last.phys = joined;
            return true;
        }
        let Some(place) = self.ranges.get_mut(self.used) else { return false };
        *place = Some(next);
        self.used += 1;
        true
    }

    /// The first of these leaves that conflicts with these ranges, and the rule that it breaks.
    fn conflict(&self, leaves: &Stretch, leaf: &Leaf) -> Option<(u64, WxProblem)> {
        // Only a writable or executable mapping can conflict: most mappings can neither be written nor executed.
        let (writable, executable) = (leaf.prot.is_writable(), kernel_executable(leaf));
        if !writable && !executable {
            return None;
        }
        let phys = extent(leaves, leaf)?;
        let overlapping = self.ranges.iter().take(self.used).flatten().filter_map(|range| {
            let problem = match range.privilege {
                _ if writable => WxProblem::WritableAlias(range.at),
                Privilege::User => WxProblem::KernelAlias(range.at),
                Privilege::Kernel => return None,
            };
            let common = range.phys.intersection(phys).filter(|common| !common.is_empty())?;
            Some(((common.start().get() - phys.start().get()) / leaf.level.size(), problem))
        });
        overlapping.min_by_key(|(index, _)| *index)
    }
}

/// The memory behind these leaves, of which `first` is the first.
fn extent(leaves: &Stretch, first: &Leaf) -> Option<PhysRange> {
    PhysRange::from_size(first.phys, leaves.count * first.level.size())
}

fn kernel_executable(leaf: &Leaf) -> bool {
    leaf.prot.is_executable() && leaf.prot.privilege() == Privilege::Kernel
}

/// Checks the tables under `roots` together: the kernel's, the identity map's, each user's.
///
/// Nobody may edit them meanwhile. Cost: one walk over all entries, and another for each 32 executable ranges.
///
/// # Errors
///
/// The first [`WxViolation`]; entries that are wrong by themselves come before aliases.
pub fn check<M: Mmu>(roots: &[&PageTable<M>]) -> Result<WxReport, WxViolation> {
    let mut report = WxReport::default();
    // Executable stretches that earlier rounds took in.
    let mut done = 0;
    loop {
        let mut batch = Batch { ranges: [None; BATCH], used: 0 };
        let first_round = done == 0;
        let (mut seen, mut full) = (0, false);
        let walked = each_stretch(roots, |stretch| {
            if let Some(defect) = stretch.first.defect() {
                return ControlFlow::Break(violation(&stretch.first, WxProblem::Entry(defect)));
            }
            report.entries += if first_round { stretch.count } else { 0 };
            if let Entry::Leaf(leaf) = stretch.first.entry
                && leaf.prot.is_executable()
                && let Some(phys) = extent(stretch, &leaf)
            {
                seen += 1;
                let at = stretch.first.start;
                full |= seen > done && !batch.add(Executable { phys, at, privilege: leaf.prot.privilege() });
                if seen > done && !full {
                    done = seen;
                    report.executable += phys.size();
                }
            }
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(violation) = walked {
            return Err(violation);
        }
        check_aliases(roots, &batch)?;
        if !full {
            return Ok(report);
        }
    }
}

fn check_aliases<M: Mmu>(roots: &[&PageTable<M>], batch: &Batch) -> Result<(), WxViolation> {
    let walked = each_stretch(roots, |stretch| match &stretch.first.entry {
        Entry::Leaf(leaf) => match batch.conflict(stretch, leaf) {
            Some((index, problem)) => ControlFlow::Break(violation(&stretch.nth(index), problem)),
            None => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match walked {
        ControlFlow::Break(violation) => Err(violation),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn each_stretch<M: Mmu, B>(roots: &[&PageTable<M>], mut f: impl FnMut(&Stretch) -> ControlFlow<B>) -> ControlFlow<B> {
    for root in roots {
        root.walk_stretches(root.space.start(), root.space.last(), &mut |stretch| f(&stretch))?;
    }
    ControlFlow::Continue(())
}

const fn violation(visit: &Visit, problem: WxProblem) -> WxViolation {
    WxViolation { start: visit.start, last: visit.last(), problem }
}
