//! Restartable sequences, and loads that may fault: what the kernel's exception return knows of certain instructions.
//!
//! A **restartable sequence** works on data of the CPU that executes it, without masking interrupts and without an atomic:
//! it reads where the data are, computes, and ends in one store that makes its work count. If an exception is taken in
//! between, the handler may have changed the data, or the code may go on, on another CPU; so every return from an exception
//! at EL1 looks where it returns to, and if that is inside a sequence it returns to the sequence's resumption point
//! instead, usually its start ([`rewind`]). What a sequence did before must not matter: it may write where nobody looks,
//! and registers that it sets itself.
//!
//! A **load that may fault** resumes elsewhere if it does ([`fix_up`]).
//!
//! Whoever writes such code adds three words to a section, `.rseq` or `.extable`: first address, address behind the
//! last instruction, where to resume. The linker keeps the order of the code, so a table is sorted; [`init`] sees to it.

use super::trap::TrapFrame;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicBool, Ordering};

/// A stretch of code that is not returned to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Stretch {
    start: VirtAddr,
    end: VirtAddr,
    resume: VirtAddr,
}

unsafe extern "C" {
    static __rseq_start: Stretch;
    static __rseq_end: Stretch;
    static __extable_start: Stretch;
    static __extable_end: Stretch;
}

/// Whether both tables are sorted, so that they may be searched by halves.
static SORTED: AtomicBool = AtomicBool::new(false);

fn sequences() -> &'static [Stretch] {
    // SAFETY: the linker script puts both symbols around whole entries, read-only and there for good.
    unsafe { table(&raw const __rseq_start, &raw const __rseq_end) }
}

fn loads() -> &'static [Stretch] {
    // SAFETY: as above.
    unsafe { table(&raw const __extable_start, &raw const __extable_end) }
}

/// The entries between two symbols.
///
/// # Safety
///
/// There are whole entries between them, for good.
unsafe fn table(start: *const Stretch, end: *const Stretch) -> &'static [Stretch] {
    let count = (end.addr() - start.addr()) / size_of::<Stretch>();
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(start, count) }
}

/// Looks whether the tables are sorted: how many sequences and loads there are. Boot CPU, once; until then, and if they
/// are not, each search looks at every entry.
pub fn init() -> (usize, usize) {
    let sorted = |table: &[Stretch]| table.is_sorted_by_key(|stretch| stretch.start);
    SORTED.store(sorted(sequences()) && sorted(loads()), Ordering::Relaxed);
    (sequences().len(), loads().len())
}

fn find(table: &[Stretch], at: VirtAddr) -> Option<VirtAddr> {
    let holds = |stretch: &&Stretch| stretch.start <= at && at < stretch.end;
    let found = if SORTED.load(Ordering::Relaxed) {
        let after = table.partition_point(|stretch| stretch.start <= at);
        table.get(after.wrapping_sub(1)).filter(holds)
    } else {
        table.iter().find(holds)
    };
    found.map(|stretch| stretch.resume)
}

/// Where the interrupted code goes on: at the resumption point of the sequence that it was in, if it was in one. Before
/// every return from an exception that was taken at EL1.
pub fn rewind(frame: &mut TrapFrame) {
    if let Some(resume) = resumption(frame.elr) {
        frame.elr = resume;
    }
}

/// Where code goes on that is interrupted at `at`, if that is in a sequence.
pub(super) fn resumption(at: VirtAddr) -> Option<VirtAddr> {
    find(sequences(), at)
}

/// If `frame` is a data abort of a load that may fault, makes it resume where that is expected. Whether it was. For the
/// handler of synchronous exceptions.
pub fn fix_up(frame: &mut TrapFrame) -> bool {
    match find(loads(), frame.elr) {
        Some(resume) => {
            frame.elr = resume;
            true
        }
        None => false,
    }
}
