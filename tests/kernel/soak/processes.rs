//! Processes of the soak: spaces that live for a moment, fork, and get their memory by faults at EL0, beside everything else.

use crate::address_space::{Process, Program};
use crate::smp::Random;
use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::PAGE_SIZE;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Limits, MapError, MmapRequest, VmFlags};

static FORKS: AtomicU64 = AtomicU64::new(0);
static SHORT: AtomicU64 = AtomicU64::new(0);

/// Makes what all spaces share, before anything is counted.
pub(super) fn prepare() {
    drop(Process::limited(Limits::DEFAULT).expect("memory"));
}

/// Forks, and processes that ended for lack of memory.
pub(super) fn counts() -> (u64, u64) {
    (FORKS.load(Ordering::Relaxed), SHORT.load(Ordering::Relaxed))
}

/// There was no memory: the only reason for which a process of the soak ends early.
struct NoMemory;

impl From<MapError> for NoMemory {
    fn from(error: MapError) -> Self {
        assert_eq!(error, MapError::NoMemory);
        Self
    }
}

impl From<SpaceFault> for NoMemory {
    fn from(error: SpaceFault) -> Self {
        assert_eq!(error, SpaceFault::OutOfMemory);
        Self
    }
}

/// A process writes, forks, and writes again, and so does its child: each finds its own bytes.
pub(super) fn fork_and_fault(random: &mut Random) {
    if try_it(random).is_err() {
        SHORT.fetch_add(1, Ordering::Relaxed);
    }
}

fn try_it(random: &mut Random) -> Result<(), NoMemory> {
    let parent = Process::limited(Limits::DEFAULT)?;
    let pages = 1 + random.below(80);
    let access = VmFlags::READ | VmFlags::WRITE;
    let at = parent.space.mmap(&MmapRequest::anonymous(pages * PAGE_SIZE, access))?;
    let first = at.get();
    assert_eq!(parent.run(Program::Touch, [first, pages, 3])?, 0, "new memory is zero");
    let child = parent.fork()?;
    FORKS.fetch_add(1, Ordering::Relaxed);
    let part = 1 + random.below(pages);
    assert_eq!(child.run(Program::Touch, [first, part, 5])?, 3 * part);
    assert_eq!(parent.run(Program::Touch, [first, part, 4])?, 3 * part, "what the child wrote is the child's");
    assert_eq!(child.run(Program::Sum, [first, pages, 0])?, 5 * part + 3 * (pages - part));
    child.space.munmap(at, part * PAGE_SIZE)?;
    parent.space.check().expect("sound");
    child.space.check().expect("sound");
    drop(child);
    assert_eq!(parent.run(Program::Sum, [first, pages, 0])?, 4 * part + 3 * (pages - part));
    Ok(())
}
