//! Restartable sequences, and loads that may fault: the part of the kernel's exception return that knows certain instructions.
//!
//! A **restartable sequence** works on data of the CPU that executes it, without masking interrupts and without an atomic: it
//! reads the address of the data, computes, and ends in one store that commits its work. If an exception is taken in between,
//! the handler may have changed the data, or the code may continue on another CPU; so every return from an exception at EL1
//! checks its return address, and if that is inside a sequence it returns to the sequence's resumption point instead, usually
//! its start ([`rewind`]). An aborted sequence must leave no trace: it may write only to memory that nobody reads yet, and to
//! registers that it sets itself.
//!
//! A **load that may fault** resumes elsewhere if it does ([`fix_up`]).
//!
//! Such code adds three words to a section, `quarry_rseq` or `quarry_extable`: first address, address behind the last
//! instruction, where to resume. The sections are marked as retained ("R"), as nothing refers to them, and the linker itself
//! makes the symbols around sections with such names, so that a kernel's linker script need not know of them. It keeps
//! their order by object file, which need not be that of the code; so [`init`] makes an index by address.

use super::exception::Exception;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// A stretch of code that is not returned to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Stretch {
    start: VirtAddr,
    end: VirtAddr,
    resume: VirtAddr,
}

unsafe extern "C" {
    static __start_quarry_rseq: Stretch;
    static __stop_quarry_rseq: Stretch;
    static __start_quarry_extable: Stretch;
    static __stop_quarry_extable: Stretch;
}

/// Entries that an index has room for; a longer table is searched entry by entry.
const INDEXED: usize = 2048;

/// The entries of a table in the order of their addresses.
struct Index {
    places: [AtomicU16; INDEXED],
    /// Whether the places have been filled in.
    is_made: AtomicBool,
}

static SEQUENCES: Index = Index::new();
static LOADS: Index = Index::new();

impl Index {
    const fn new() -> Self {
        Self { places: [const { AtomicU16::new(0) }; INDEXED], is_made: AtomicBool::new(false) }
    }

    fn place(&self, number: usize) -> usize {
        self.places.get(number).map_or(0, |place| place.load(Ordering::Relaxed).into())
    }

    /// Sorts by insertion: the tables are a few sorted stretches behind each other.
    fn make(&self, table: &[Stretch]) {
        if table.len() > INDEXED {
            return;
        }
        let start = |place: usize| table.get(place).map(|stretch| stretch.start);
        for (number, own) in (0..table.len()).zip(0_u16..) {
            let mut at = number;
            while let Some(before) = at.checked_sub(1)
                && start(self.place(before)) > start(own.into())
            {
                if let (Some(to), Some(from)) = (self.places.get(at), self.places.get(before)) {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                at = before;
            }
            if let Some(to) = self.places.get(at) {
                to.store(own, Ordering::Relaxed);
            }
        }
        self.is_made.store(true, Ordering::Release);
    }

    /// The entry with the highest start that is not above `at`.
    fn last_from<'t>(&self, table: &'t [Stretch], at: VirtAddr) -> Option<&'t Stretch> {
        let (mut low, mut high) = (0, table.len());
        while low < high {
            let middle = low.midpoint(high);
            match table.get(self.place(middle)) {
                Some(stretch) if stretch.start <= at => low = middle + 1,
                _ => high = middle,
            }
        }
        table.get(self.place(low.checked_sub(1)?))
    }
}

fn sequences() -> &'static [Stretch] {
    // SAFETY: the linker puts both symbols around the section, which consists of whole entries, read-only and there for good.
    unsafe { table(&raw const __start_quarry_rseq, &raw const __stop_quarry_rseq) }
}

fn loads() -> &'static [Stretch] {
    // SAFETY: the linker puts both symbols around the section, which consists of whole entries, read-only and there for good.
    unsafe { table(&raw const __start_quarry_extable, &raw const __stop_quarry_extable) }
}

/// The entries between two symbols.
///
/// # Safety
///
/// There are whole entries between them, for good.
unsafe fn table(start: *const Stretch, end: *const Stretch) -> &'static [Stretch] {
    let count = (end.addr() - start.addr()) / size_of::<Stretch>();
    // SAFETY: by this function's `# Safety`, there are whole entries from `start` to `end`, for good.
    unsafe { core::slice::from_raw_parts(start, count) }
}

/// Makes the tables quick to search. Returns the number of sequences and loads. Boot CPU, once; until then each search looks at
/// every entry.
pub fn init() -> (usize, usize) {
    SEQUENCES.make(sequences());
    LOADS.make(loads());
    (sequences().len(), loads().len())
}

fn find(table: &[Stretch], index: &Index, at: VirtAddr) -> Option<VirtAddr> {
    let holds = |stretch: &&Stretch| stretch.start <= at && at < stretch.end;
    let found = if index.is_made.load(Ordering::Acquire) {
        index.last_from(table, at).filter(holds)
    } else {
        table.iter().find(holds)
    };
    found.map(|stretch| stretch.resume)
}

/// Address at which the interrupted code continues: the resumption point of its sequence, if it was in one. Before every return
/// from an exception that was taken at EL1.
pub fn rewind(elr: &mut VirtAddr) {
    if let Some(resume) = resumption(*elr) {
        *elr = resume;
    }
}

/// Resumption point of code that is interrupted at `at`, if that is in a sequence.
pub fn resumption(at: VirtAddr) -> Option<VirtAddr> {
    find(sequences(), &SEQUENCES, at)
}

/// If this is a data abort of a load that may fault, makes it resume at its expected address. Returns whether it was one. For
/// the handler of synchronous exceptions.
pub fn fix_up(exception: &mut Exception<'_>) -> bool {
    match find(loads(), &LOADS, *exception.elr) {
        Some(resume) => {
            *exception.elr = resume;
            true
        }
        None => false,
    }
}
