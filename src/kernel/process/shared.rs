//! Memory that processes share: the objects behind `MAP_SHARED | MAP_ANONYMOUS`.

use super::table::MAX_PROCESSES;
use crate::addr::to_usize;
use crate::arch::aarch64::cpu::Relax;
use crate::gfp::Gfp;
use crate::global::{self, SharedMemory, UserError};
use crate::mm::user::map::{FilePage, MapError, NewArea, NoFilePage, ObjectId, Objects};
use crate::sync::Once;
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::RwLock;

/// The most objects that there may be: a process that makes others without end gets an error.
const MAX_OBJECTS: usize = 4 * MAX_PROCESSES;

/// One object. The owner of a reference may read `memory`; the last one takes it out.
struct Slot {
    references: AtomicU32,
    memory: RwLock<Option<SharedMemory>>,
}

static OBJECTS: [Slot; MAX_OBJECTS] =
    [const { Slot { references: AtomicU32::new(0), memory: RwLock::new(None) } }; MAX_OBJECTS];

/// The objects that processes of this kernel can map.
struct OfProcesses;

fn slot(object: ObjectId) -> Option<&'static Slot> {
    OBJECTS.get(to_usize(object.0.get().checked_sub(1)?))
}

/// Whether the objects that processes map are these.
static NAMED: Once<Result<(), UserError>, Relax> = Once::new();

/// A reference to an object that was made for a mapping. The areas have their own.
pub(super) struct Made(ObjectId);

impl Made {
    /// A new object of so many bytes. May sleep.
    ///
    /// # Errors
    ///
    /// [`MapError`]: no bytes, no memory, or as many objects as there may be.
    pub(super) fn new(bytes: u64) -> Result<Self, MapError> {
        // This kernel has no other objects, unless somebody has named his before.
        if NAMED.call_once(|| global::user_init(&OfProcesses)).is_err() {
            return Err(MapError::NoMemory);
        }
        let memory = SharedMemory::new(bytes, Gfp::USER)?;
        let taken = |slot: &&Slot| slot.references.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let (number, slot) = (1..).zip(&OBJECTS).find(|(_, slot)| taken(slot)).ok_or(MapError::NoMemory)?;
        *slot.memory.write() = Some(memory);
        Ok(Self(ObjectId(NonZeroU64::new(number).ok_or(MapError::NoMemory)?)))
    }

    pub(super) const fn id(&self) -> ObjectId {
        self.0
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        OfProcesses.put(self.0);
    }
}

impl Objects for OfProcesses {
    fn mmap(&self, _: ObjectId, _: &mut NewArea) -> Result<(), MapError> {
        // ENODEV: no files.
        Err(MapError::File(19))
    }

    fn get(&self, object: ObjectId) {
        if let Some(slot) = slot(object) {
            slot.references.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, object: ObjectId) {
        let Some(slot) = slot(object) else { return };
        let fewer = |count: u32| count.checked_sub(1).filter(|left| *left != 0);
        if slot.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer).is_err() {
            // The last: nobody else can have one made of it.
            drop(slot.memory.write().take());
            slot.references.store(0, Ordering::Release);
        }
    }

    fn fault(&self, object: ObjectId, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        let slot = slot(object).ok_or(NoFilePage::NothingThere)?;
        let memory = slot.memory.try_read().ok_or(NoFilePage::NothingThere)?;
        let memory = memory.as_ref().ok_or(NoFilePage::NothingThere)?;
        // SAFETY: the object is dropped by the last `put`, when no area is left that maps it.
        unsafe { memory.page(index, gfp) }
    }

    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        (0, 1, object.0.get())
    }

    fn name(&self, _: ObjectId, to: &mut dyn fmt::Write) -> fmt::Result {
        // As Linux names it.
        to.write_str("/dev/zero (deleted)")
    }
}

/// Objects that there are. For tests.
pub fn shared_objects() -> usize {
    OBJECTS.iter().filter(|slot| slot.references.load(Ordering::Relaxed) != 0).count()
}
