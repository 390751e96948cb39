//! The interfaces below a map of areas: records, objects, and changes to translations.
#![forbid(unsafe_code)]

use super::vma::{ObjectId, Vma};
use super::{FilePage, Fill, MapError, NewArea, NoFilePage, VmFlags};
use crate::addr::{UserAddr, UserRange};
use crate::ds::rbtree::Owned;
use crate::gfp::Gfp;
use core::fmt;

/// Where records of areas come from and go to.
///
/// A record that is given back is in no tree, and no reference to it is left: a map hands none out for longer than it is
/// borrowed. So its memory may be freed.
pub trait VmaSource<'a> {
    /// A record, or `None` if there is no memory for one; `gfp` says how it may be looked for.
    fn take(&self, gfp: Gfp) -> Option<Owned<'a, Vma>>;

    /// Takes a record back.
    fn give(&self, record: Owned<'a, Vma>);
}

/// There is no memory for page tables. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

impl From<NoMemory> for MapError {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// How the content of a range is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discard {
    /// At once: it reads as zeros afterwards, or as its object has it (`MADV_DONTNEED`).
    Now,
    /// When memory is short, unless it is written to before (`MADV_FREE`).
    Lazily,
}

/// Changes of translations, over the page tables of one space. The space's map of areas is held for writing during
/// every call. Ranges are whole pages, not empty.
///
/// A map makes the calls that can fail first; no call after them fails.
pub trait Translations {
    /// Makes an edge at `at`, so that no block or group of entries spans it. Only called inside an area.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] for the table that the edge needs.
    fn cut(&self, at: UserAddr) -> Result<(), NoMemory> {
        let _ = at;
        Ok(())
    }

    /// Removes all translations of `range`, guard pages too, and gives up the pages behind them, no CPU having a stale
    /// translation. No end is inside an area, unless it was [`cut`](Self::cut) there; so it is for all calls.
    ///
    /// `hole`, which holds `range`, has no area any more: page tables that lie in it as a whole can go.
    fn unmap(&self, range: UserRange, hole: UserRange);

    /// Makes all translations of `range` permit what `flags` permits, or less (a page may be copied at the first write). No
    /// CPU has more than that when it returns.
    fn protect(&self, range: UserRange, flags: VmFlags);

    /// Moves the translations of `from`, guard pages too, to as many bytes at `to`, where translations may be, which are
    /// removed as by [`unmap`](Self::unmap). They do not overlap.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] for tables at `to`: nothing has been moved, and nothing removed.
    fn relocate(&self, from: UserRange, to: UserAddr) -> Result<(), NoMemory>;

    /// Gives up the content of `range`, one area's part; guard pages stay.
    fn discard(&self, range: UserRange, how: Discard);

    /// Puts guard pages into all of `range`, whose content is given up, or takes those that are there away.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] for tables, if guards are put: nothing has changed.
    fn guard(&self, range: UserRange, put: bool) -> Result<(), NoMemory>;

    /// Maps the frames of `fill` to all of `range`, with `flags`, in place of the translations that are there, which are
    /// removed as by [`unmap`](Self::unmap).
    ///
    /// # Errors
    ///
    /// Any: nothing has changed.
    fn fill(&self, range: UserRange, fill: &Fill, flags: VmFlags) -> Result<(), MapError>;
}

/// Files, devices and other objects that areas map.
pub trait Objects {
    /// The file's `mmap` operation: says what `area` may be. Nothing has been made yet, and something may fail later: the
    /// file hears of the area only by [`opened`](Self::opened).
    ///
    /// # Errors
    ///
    /// [`MapError::File`] with the error number for the process.
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError>;

    /// One more area refers to `object`.
    fn get(&self, object: ObjectId);

    /// One area fewer refers to `object`.
    fn put(&self, object: ObjectId);

    /// An area with [`VmFlags::HOOKS`] came to be: by `mmap`, a split, a move or a fork (Linux: `vm_ops->open`).
    fn opened(&self, object: ObjectId, range: UserRange) {
        let _ = (object, range);
    }

    /// An area with [`VmFlags::HOOKS`] is no more; its translations are gone, and something else may be mapped in its place
    /// already (Linux: `vm_ops->close`).
    fn closed(&self, object: ObjectId, range: UserRange) {
        let _ = (object, range);
    }

    /// The page of `object` with the number `index`, for an access to an area that maps it and has nothing there yet (Linux:
    /// `vm_ops->fault`). The areas of the space cannot change meanwhile. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`NoFilePage`], which is what an object says that maps all it has when the area is made.
    fn fault(&self, object: ObjectId, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        let _ = (object, index, gfp);
        Err(NoFilePage::NothingThere)
    }

    /// Major and minor number of the device that `object` is on, and its inode, for `/proc/PID/maps`.
    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        let _ = object;
        (0, 0, 0)
    }

    /// Writes the name of `object`, for `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    fn name(&self, object: ObjectId, to: &mut dyn fmt::Write) -> fmt::Result {
        let _ = (object, to);
        Ok(())
    }
}

/// All that a map of areas asks for.
pub trait MapHal<'a>: VmaSource<'a> + Translations + Objects {}

impl<'a, T: VmaSource<'a> + Translations + Objects> MapHal<'a> for T {}
