//! Page tables: map, unmap, protect, split and collapse, over any machine ([`Mmu`]) and any source of frames
//! ([`FrameSource`]).
//!
//! A [`PageTable`] is one root and what hangs below it. It takes frames for tables from the source that each call names
//! and gives them back only after the TLB flush; the memory that leaves map is the caller's.
//!
//! # Who may call what, when
//!
//! All calls take `&self`, because CPUs edit the kernel's tables side by side, each in an address range of its own (two
//! `vmalloc` areas, a stack and a device). Entries are 64-bit atoms, a missing table is installed by compare-exchange,
//! and a table is removed only by a caller whose range covers everything the table translates. So nothing is locked, and
//! readers never wait. [`PageTable::translate`], [`PageTable::walk`], [`PageTable::dump`], [`PageTable::check`] and
//! [`wx::check`] may read any range while others change it: they look at a few entries at a time, and a table is freed when
//! no look is under way that may have met it (`WALK-1`); what they tell of entries that change meanwhile is one of the states
//! that the tables were in. In return the maker of a page table promises:
//!
//! - two calls that run at the same time have disjoint ranges;
//! - `carve`, `protect` and `collapse` may rewrite the whole block or contiguous group that their range touches: that
//!   whole unit counts as their range.
//!
//! No call sleeps unless the frame source does. None allocates anything but tables.
//!
//! # Invariants
//!
//! [`PageTable::check`] tests:
//!
//! - `PT-1`: no malformed entry: nothing writable and executable, no hierarchical permissions, no reserved bits.
//! - `PT-2`: a contiguous group has all its 16 entries, of one protection, over memory aligned and in order.
//! - `PT-3`: kernel tables hold kernel leaves; user tables hold user leaves, none of them global.
//! - `PT-4`: tables reached from the root, the root included, are as many as were taken from the frame source and not
//!   given back.
//! - `PT-5`: in the tables of a user space that `mm::user` made, an entry that points to a table has the number of entries there
//!   that are not absent, in bits that walkers ignore; in others nothing is counted.

mod check;
mod collapse;
mod count;
mod cursor;
mod dump;
mod entries;
mod error;
mod gather;
mod listed;
mod map;
mod pinned;
mod place;
mod protect;
mod raw_calls;
mod rewrite;
mod scatter;
mod split;
mod table;
mod unit;
mod unmap;
mod walk;
mod walkers;
pub mod wx;

pub use check::{CheckError, TableCensus};
pub use collapse::Collapsed;
pub(in crate::mm) use count::Count;
pub use dump::Marker;
pub use error::PgtableError;
pub use gather::Gather;
pub use map::MapFlags;
pub use pinned::PinnedTable;
pub use protect::Change;
pub use rewrite::LivePolicy;
pub(in crate::mm) use table::{Last, Table};
pub use unmap::UnmapFlags;
pub use walk::{Translation, Visit};

use crate::addr::{PAGE_SIZE, PMD_SHIFT, PMD_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::hal::frame::FrameSource;
use crate::hal::level::{ENTRIES, Level, Run};
use crate::hal::mmu::{Asid, AsidScope, Invalidation, Mmu};
use crate::hal::prot::{Privilege, Prot};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use table::{FreshTable, Root};
use walkers::Walkers;

/// First address of the upper half, which TTBR1 translates.
const KERNEL_START: u64 = 0xffff_0000_0000_0000;
/// One past the last address of the lower half, which TTBR0 translates.
const USER_END: u64 = 0x0001_0000_0000_0000;

/// Addresses that a root translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// The upper half: global, for EL1 alone.
    Kernel,
    /// The lower half for one address space: for EL0, under its number in the TLB.
    User(Asid),
    /// The lower half for EL1: the range that the MMU is switched on in. Kernel leaves, never in use beside user tables.
    Identity,
}

impl Space {
    /// The first address.
    const fn start(self) -> u64 {
        match self {
            Self::Kernel => KERNEL_START,
            Self::User(_) | Self::Identity => 0,
        }
    }

    /// The last address.
    const fn last(self) -> u64 {
        match self {
            Self::Kernel => u64::MAX,
            Self::User(_) | Self::Identity => USER_END - 1,
        }
    }

    /// The number to begin with.
    const fn asid(self) -> AtomicU16 {
        match self {
            Self::Kernel | Self::Identity => AtomicU16::new(0),
            Self::User(asid) => AtomicU16::new(asid.get()),
        }
    }

    /// Whether a leaf with this protection may be in such tables (`PT-3`).
    const fn admits(self, prot: Prot) -> bool {
        match (self, prot.privilege()) {
            (Self::Kernel | Self::Identity, Privilege::Kernel) => true,
            (Self::User(_), Privilege::User) => !prot.is_global(),
            _ => false,
        }
    }
}

/// One root table and everything below it. See the module for who may call what.
#[derive(Debug)]
pub struct PageTable<M> {
    mmu: M,
    root: Root,
    space: Space,
    /// The number of a user space in the TLB as it is now.
    asid: AtomicU16,
    /// Tables taken and not given back: `PT-4`.
    tables: AtomicU64,
    /// Software that reads the tables, whosever range it is.
    walkers: Walkers,
    /// Entries are counted: `PT-5`.
    counted: bool,
}

impl<M: Mmu> PageTable<M> {
    /// New tables: an empty root, published but in no TTBR.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NoFrame`].
    ///
    /// # Safety
    ///
    /// The caller answers for every later call on this value: that it keeps the module's contract, maps no frame whose
    /// owner does not agree, and unmaps or changes nothing that somebody still relies on.
    pub unsafe fn new<F: FrameSource>(mmu: M, frames: &F, space: Space) -> Result<Self, PgtableError> {
        Self::with_root(mmu, frames, space, false)
    }

    /// New tables, for code of this crate that keeps the module's contract.
    fn with_root<F: FrameSource>(mmu: M, frames: &F, space: Space, counted: bool) -> Result<Self, PgtableError> {
        let root = FreshTable::new(&mmu, frames, Level::Pgd)?.into_root(&mmu);
        let (asid, tables) = (space.asid(), AtomicU64::new(1));
        Ok(Self { mmu, root, space, asid, tables, walkers: Walkers::new(), counted })
    }

    /// Takes over tables that exist: those that boot built through a fixmap slot, now to be edited through the linear
    /// map. Counts them; cost O(entries).
    ///
    /// # Safety
    ///
    /// As for [`PageTable::new`]; and `root` is a root table made by this code for the same format, which no other
    /// value edits any more. Every table below it lies in a frame that the sources of later calls will take back.
    pub unsafe fn adopt(mmu: M, root: PhysAddr, space: Space) -> Self {
        // SAFETY: by this function's `# Safety`, `root` is a root table that no other value edits any more.
        let root = unsafe { Root::new(root) };
        let (asid, tables) = (space.asid(), AtomicU64::new(1));
        let table = Self { mmu, root, space, asid, tables, walkers: Walkers::new(), counted: false };
        let mut found = 1;
        let _ = table.walk_all(|visit| {
            found += u64::from(visit.is_table());
            ControlFlow::<()>::Continue(())
        });
        table.tables.store(found, Ordering::Relaxed);
        table
    }

    /// The same tables, to be edited through another window from now on: those that boot built through fixmap slots, now
    /// through the linear map.
    ///
    /// # Safety
    ///
    /// As for [`PageTable::new`]; and `mmu` reaches every frame of these tables.
    pub unsafe fn with_mmu<N: Mmu<Format = M::Format>>(self, mmu: N) -> PageTable<N> {
        let Self { root, space, asid, tables, walkers, counted, .. } = self;
        PageTable { mmu, root, space, asid, tables, walkers, counted }
    }

    /// The root's address, as TTBR0 or TTBR1 wants it.
    pub const fn root(&self) -> PhysAddr {
        self.root.table().phys()
    }

    /// The space that the root translates; a user space with its present number.
    pub fn space(&self) -> Space {
        match self.space {
            Space::User(_) => Space::User(Asid::new(self.asid.load(Ordering::Relaxed))),
            other => other,
        }
    }

    /// The ASIDs that an invalidation must reach.
    #[inline]
    fn scope(&self) -> AsidScope {
        match self.space() {
            Space::Kernel | Space::Identity => AsidScope::All,
            Space::User(asid) => AsidScope::One(asid),
        }
    }

    /// The invalidation under the number that a user space has now. After the barrier that makes the change of the entries
    /// visible: a CPU that runs the space under a newer number has found the changed entries.
    #[inline]
    fn scoped(&self, what: Invalidation) -> Invalidation {
        match self.space {
            Space::Kernel | Space::Identity => what,
            Space::User(_) => Invalidation { scope: self.scope(), ..what },
        }
    }

    /// The machine.
    pub const fn mmu(&self) -> &M {
        &self.mmu
    }

    /// Frames that the tables occupy, the root included.
    pub fn table_frames(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    fn count_taken(&self, tables: u64) {
        self.tables.fetch_add(tables, Ordering::Relaxed);
    }

    fn count_given_back(&self, tables: u64) {
        self.tables.fetch_sub(tables, Ordering::Relaxed);
    }

    /// Refuses a range that these tables cannot hold.
    #[inline]
    fn admit(&self, range: VirtRange) -> Result<(), PgtableError> {
        let (start, end) = (range.start().get(), range.end().get());
        if (start | end) & (PAGE_SIZE - 1) != 0 {
            return Err(PgtableError::Unaligned);
        }
        if start == end {
            return Err(PgtableError::Empty);
        }
        if start < self.space.start() || end - 1 > self.space.last() {
            return Err(PgtableError::OutsideSpace);
        }
        Ok(())
    }
}

/// The entries of `bytes` from `at` on, if those are blocks of 2 MiB of one table, and not all of it, for which there is a
/// larger block.
fn blocks_of_one_table(at: VirtAddr, bytes: u64) -> Option<Run> {
    let count = bytes >> PMD_SHIFT;
    let run = Run::from_slot(Level::Pmd.slot(at), count);
    let whole = (at.get() | bytes) & (PMD_SIZE - 1) == 0 && run.count() as u64 == count && run.count() != ENTRIES;
    whole.then_some(run)
}

/// One past the last address of the entry of `size` bytes that holds `at`, but at most `end`.
const fn entry_end(at: VirtAddr, size: u64, end: VirtAddr) -> VirtAddr {
    match at.align_down(size).checked_add(size) {
        Some(next) if next.get() < end.get() => next,
        _ => end,
    }
}
