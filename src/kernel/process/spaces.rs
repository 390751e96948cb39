//! The memory of each process, and which process's memory each CPU sees.

use super::table::{MAX_PROCESSES, Name, Pid, Place};
use super::{Ended, Signal, processes, wake_somebody};
use crate::addr::{PhysAddr, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::global::{self, AddressSpace, Spaces, Victim};
use ::log::warn;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::{RwLock, RwLockReadGuard};

/// The spaces by the places of their processes. A CPU reads a place as long as it sees the space, and its last thread writes it
/// to take the space out; readers never wait for a writer that waits, so that a CPU may read what it reads already.
static SPACES: [RwLock<Option<AddressSpace>>; MAX_PROCESSES] = [const { RwLock::new(None) }; MAX_PROCESSES];

/// The place of the process whose memory each CPU sees, plus one; zero for none.
static CURRENT: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

fn current() -> Option<&'static AtomicUsize> {
    CURRENT.get(to_usize(u64::from(global::this_cpu().get())))
}

/// This CPU sees the memory of a process, as long as this exists.
pub(super) struct Seen {
    guard: RwLockReadGuard<'static, Option<AddressSpace>>,
}

impl Seen {
    /// From now on this CPU sees the memory of the process at `place`; `None` if it has none, or this machine no numbers for
    /// spaces. The caller stays on its CPU, as all code of this kernel does, and sees no other.
    pub(super) fn new(place: Place) -> Option<Self> {
        let guard = SPACES.get(place.0)?.read();
        let seen = Self { guard };
        let space = seen.guard.as_ref()?;
        current()?.store(place.0 + 1, Ordering::Relaxed);
        // SAFETY: a space is taken out of its place, and so dropped, with the lock held for writing: not while this guard
        // exists, which ends with this CPU's change to no space.
        unsafe { global::activate(space) }.ok()?;
        Some(seen)
    }

    /// The space.
    pub(super) fn space(&self) -> Option<&AddressSpace> {
        self.guard.as_ref()
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // Before the guard is gone: fields are dropped after this.
        global::leave_mm();
        if let Some(current) = current() {
            current.store(0, Ordering::Relaxed);
        }
    }
}

/// Calls `f` with the space of the process at `place`, if it has one and nobody is taking it away. Never waits.
pub(super) fn with<R>(place: Place, f: impl FnOnce(&AddressSpace) -> R) -> Option<R> {
    SPACES.get(place.0)?.try_read()?.as_ref().map(f)
}

/// Calls `f` with the space that this CPU sees.
pub(super) fn with_current<R>(f: impl FnOnce(&AddressSpace) -> R) -> Option<R> {
    let place = current()?.load(Ordering::Relaxed).checked_sub(1)?;
    with(Place(place), f)
}

/// Puts a space into its place, or takes it out: the one that was there. Waits for CPUs that see it.
pub(super) fn exchange(place: Place, space: Option<AddressSpace>) -> Option<AddressSpace> {
    let lock = SPACES.get(place.0)?;
    let mut guard = loop {
        if let Some(guard) = lock.try_write() {
            break guard;
        }
        // Its reader may wait for this CPU's answer.
        global::idle();
        cpu::relax();
    };
    core::mem::replace(&mut *guard, space)
}

/// The spaces of all processes, as the library asks for them: to find the largest when memory is used up, and to move pages out
/// of a contiguous area.
struct OfProcesses;

impl Spaces for OfProcesses {
    fn each(&self, f: &mut dyn FnMut(&AddressSpace)) {
        for place in (0..MAX_PROCESSES).map(Place) {
            let _ = with(place, &mut *f);
        }
    }

    fn killed(&self, space: &AddressSpace, _: &Victim) {
        if let Some(place) = place_of(space.root()) {
            processes().condemn(place, Ended::Killed(Signal::Kill));
            wake_somebody();
        }
    }
}

/// Registers the spaces of processes. Boot CPU, once, when there is a page allocator.
pub(crate) fn init() {
    if let Err(error) = global::register_spaces(&OfProcesses) {
        warn!("no process is killed when memory is used up: {error}");
    }
}

/// The place whose space has the tables at `root`.
fn place_of(root: PhysAddr) -> Option<Place> {
    (0..MAX_PROCESSES).map(Place).find(|place| with(*place, AddressSpace::root) == Some(root))
}

/// The process whose space has the tables at `root`; `None` if its space is gone, or being put in or taken out.
pub(crate) fn process_of(root: PhysAddr) -> Option<(Pid, Name)> {
    let place = place_of(root)?;
    processes().at(place).map(|process| (process.pid, process.name))
}
