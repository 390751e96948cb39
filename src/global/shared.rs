//! Memory that several processes share, page by page as it is first accessed (Linux: `mm/shmem.c` behind
//! `MAP_SHARED | MAP_ANONYMOUS`).

use super::{KBox, KVec, alloc_page, free_page, page_address, virt_to_page};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::mm::user::map::{FilePage, MapError, NoFilePage};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Pages of a table: those of 2 MiB.
const SLOTS: usize = 512;

/// The addresses of pages in the linear map; zero where there is none yet.
type Table = [AtomicU64; SLOTS];

/// An object of so many pages of zeros, each of which comes to be when it is asked for first. A kernel that lets processes share
/// memory keeps one behind an [`ObjectId`](crate::mm::user::map::ObjectId), and answers [`Objects::fault`] with
/// [`SharedMemory::page`].
///
/// Cost: 8 bytes for each 2 MiB at once, a table of a page for each 2 MiB of which any page is there, and the pages.
///
/// [`Objects::fault`]: crate::mm::user::map::Objects::fault
pub struct SharedMemory {
    /// Each null until a page of it is asked for, and then the same table for good.
    tables: KVec<AtomicPtr<Table>>,
    pages: u64,
}

impl SharedMemory {
    /// An object of `bytes`, rounded up to whole pages. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`MapError::Empty`], [`MapError::NoMemory`].
    pub fn new(bytes: u64, gfp: Gfp) -> Result<Self, MapError> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        if pages == 0 {
            return Err(MapError::Empty);
        }
        let count = to_usize(pages.div_ceil(SLOTS as u64));
        let mut tables = KVec::with_capacity(count, gfp).map_err(|_| MapError::NoMemory)?;
        for _ in 0..count {
            tables.push(AtomicPtr::new(null_mut()), gfp).map_err(|_| MapError::NoMemory)?;
        }
        Ok(Self { tables, pages })
    }

    /// The page with this number. Any number of CPUs at once. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`NoFilePage`].
    ///
    /// # Safety
    ///
    /// The object is dropped only when no area maps it any more: the implementer of
    /// [`Objects`](crate::mm::user::map::Objects) keeps it from the first `get` to the last `put`.
    pub unsafe fn page(&self, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        let slot = self.slot(index, gfp)?;
        let mut address = slot.load(Ordering::Acquire);
        if address == 0 {
            let new = alloc_page(gfp | Gfp::ZERO).map_err(|_| NoFilePage::NoMemory)?;
            let own = page_address(new).get();
            match slot.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => address = own,
                Err(other) => {
                    // SAFETY: allocated above, and nobody has seen it.
                    unsafe { free_page(new) };
                    address = other;
                }
            }
        }
        let page = virt_to_page(VirtAddr::new(address)).map_err(|_| NoFilePage::NothingThere)?;
        // SAFETY: the object's own, which it keeps until it is dropped, when no area maps it by `# Safety`; zeroed when it was
        // allocated, and written by processes alone.
        Ok(unsafe { FilePage::new(page) })
    }

    /// The place of a page's address, in a table that is made if there is none.
    fn slot(&self, index: u64, gfp: Gfp) -> Result<&AtomicU64, NoFilePage> {
        if index >= self.pages {
            return Err(NoFilePage::NothingThere);
        }
        let index = to_usize(index);
        let place = self.tables.get(index / SLOTS).ok_or(NoFilePage::NothingThere)?;
        let mut table = place.load(Ordering::Acquire);
        if table.is_null() {
            let new = KBox::<Table>::zeroed(gfp).map_err(|_| NoFilePage::NoMemory)?;
            let own = KBox::into_raw(new).cast::<Table>();
            match place.compare_exchange(null_mut(), own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => table = own,
                Err(other) => {
                    // SAFETY: made above, and nobody has seen it.
                    drop(unsafe { boxed(own) });
                    table = other;
                }
            }
        }
        // SAFETY: a table that is in its place stays there, and lives, until the object is dropped; its fields are atomics, for
        // which zeros are values.
        let table = unsafe { &*table };
        table.get(index % SLOTS).ok_or(NoFilePage::NothingThere)
    }

    /// Bytes of pages that there are.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let tables = self.tables.iter().filter_map(|place| {
            let table = place.load(Ordering::Acquire);
            // SAFETY: null, or a table that `slot` has made, which lives until the object is dropped.
            unsafe { table.as_ref() }
        });
        let pages = tables.flat_map(|table| table.iter()).filter(|slot| slot.load(Ordering::Relaxed) != 0);
        (pages.count() as u64) << PAGE_SHIFT
    }
}

/// The box of a table.
///
/// # Safety
///
/// `table` came from the box that [`SharedMemory::slot`] makes, and is used by nobody from now on.
unsafe fn boxed(table: *mut Table) -> KBox<MaybeUninit<Table>> {
    // SAFETY: by `# Safety` it is the pointer of such a box, which exists no more.
    unsafe { KBox::from_raw(table.cast()) }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        for place in &mut *self.tables {
            let Some(table) = NonNull::new(*place.get_mut()) else { continue };
            // SAFETY: the object is gone, so this is the only reference to a table that `slot` has made.
            let slots = unsafe { table.as_ref() };
            for address in slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|address| *address != 0) {
                // SAFETY: a page that `page` allocated; no area maps it, by its `# Safety`. Anybody else who holds it has a
                // reference.
                unsafe { free_page(VirtAddr::new(address)) };
            }
            // SAFETY: `slot` made it, the object is gone, and `slots` is used no more.
            drop(unsafe { boxed(table.as_ptr()) });
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared pages, {} KiB of them there", self.pages, self.resident() >> 10)
    }
}
