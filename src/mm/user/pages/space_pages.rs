//! [`UserPages`]: one space's tables, its locks and its counters.
#![forbid(unsafe_code)]

use super::frame::Dropped;
use super::hal::Format;
use super::leaving::Leaving;
use super::spare::Spare;
use super::{FaultError, PagesError, UserHal, class};
use crate::addr::{Order, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat};
use crate::hal::level::{LeafLevel, Run};
use crate::hal::mmu::{Asid, Mmu};
use crate::mm::pgtable::{Last, PageTable, PgtableError, Space};
use crate::sync::{OrderedGuard, OrderedLock};
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Tables that are unlinked with one flush, before others may link some.
const REAPED: usize = 64;

/// Locks for entries.
const STRIPES: usize = 32;

/// No place whose tables are kept.
const NOWHERE: u64 = u64::MAX;

/// One past the last user address, which is at most this.
pub(super) const USER_END: u64 = 0x0001_0000_0000_0000;

/// The lock of the entries for some addresses, held.
pub(super) type Entries<'s, H> = OrderedGuard<'s, (), class::UserEntries, <H as UserHal>::Relax>;

/// Memory of a space, in bytes (Linux: `RssAnon`, `VmRSS`, `VmPTE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Anonymous memory mapped.
    pub anon: u64,
    /// Memory of drivers and devices mapped.
    pub mapped: u64,
    /// Page tables, the root included.
    pub tables: u64,
}

impl Usage {
    /// The memory that its end would give back, at most: shared pages count in full (what an OOM hook compares).
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.anon.saturating_add(self.tables)
    }

    /// Memory that the space maps (Linux: `VmRSS`).
    #[must_use]
    pub const fn resident(&self) -> u64 {
        self.anon.saturating_add(self.mapped)
    }
}

/// The page tables of one address space and the frames behind them. See the module for who may call what.
///
/// Dropping it frees everything: frames, tables and root. No CPU has the root in a TTBR then (`HAL-14`).
pub struct UserPages<H: UserHal> {
    hal: H,
    tables: PageTable<H::Mmu>,
    structure: OrderedLock<(), class::UserTables, H::Relax>,
    entries: [OrderedLock<(), class::UserEntries, H::Relax>; STRIPES],
    anon: AtomicU64,
    mapped: AtomicU64,
    /// [`UserHal::zero_page`], known to each fault without a call.
    zero: Pfn,
    /// The 2 MiB whose tables may stay although nothing is in them, or [`NOWHERE`]: see [`UserPages::unmap_keeping`].
    kept: AtomicU64,
    /// A guess at what the next write fault needs: what the last one needed.
    pub(super) expected: AtomicU8,
}

impl<H: UserHal> UserPages<H> {
    /// An empty space: a root. `asid` is its number in the TLB until [`UserPages::set_asid`]. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`PagesError::OutOfMemory`].
    pub fn new(hal: H, asid: Asid, gfp: Gfp) -> Result<Self, PagesError> {
        let tables = PageTable::new_user(hal.mmu(), &hal.frames(gfp), asid)?;
        hal.count_space(true);
        Ok(Self {
            zero: hal.zero_page(),
            hal,
            tables,
            structure: OrderedLock::new(()),
            entries: [const { OrderedLock::new(()) }; STRIPES],
            anon: AtomicU64::new(0),
            mapped: AtomicU64::new(0),
            kept: AtomicU64::new(NOWHERE),
            expected: AtomicU8::new(0),
        })
    }

    /// Frees everything: frames after their flush, tables, root. The same as dropping it.
    pub fn destroy(self) {
        drop(self);
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        &self.hal
    }

    /// The page that is mapped read-only where memory was read and never written.
    #[inline(always)]
    pub(super) const fn zero_page(&self) -> Pfn {
        self.zero
    }

    /// The tables, to be looked at.
    pub const fn tables(&self) -> &PageTable<H::Mmu> {
        &self.tables
    }

    /// The root's address, as TTBR0 wants it.
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        self.tables.root()
    }

    /// The number in the TLB.
    #[must_use]
    pub fn asid(&self) -> Asid {
        match self.tables.space() {
            Space::User(asid) => asid,
            Space::Kernel | Space::Identity => Asid::new(0),
        }
    }

    /// [`Self::set_asid`], with a number that this crate knows to be right, or that its caller promises to be.
    pub(crate) fn do_set_asid(&self, asid: Asid) {
        self.tables.set_asid(asid);
    }

    /// The space's current usage. Any context.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            anon: self.anon.load(Ordering::Relaxed) * PAGE_SIZE,
            mapped: self.mapped.load(Ordering::Relaxed) * PAGE_SIZE,
            tables: self.tables.table_frames() * PAGE_SIZE,
        }
    }

    #[inline]
    pub(super) fn count_anon(&self, pages: u64) {
        self.anon.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn count_mapped(&self, pages: u64) {
        self.mapped.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, dropped: Dropped) {
        if dropped.anon != 0 {
            self.anon.fetch_sub(dropped.anon, Ordering::Relaxed);
        }
        if dropped.mapped != 0 {
            self.mapped.fetch_sub(dropped.mapped, Ordering::Relaxed);
        }
    }

    /// Keeps others from the entries for `at`, and keeps their table in place.
    #[inline]
    #[track_caller]
    #[expect(clippy::indexing_slicing, reason = "a remainder by the number of locks")]
    pub(super) fn lock_entries(&self, at: VirtAddr) -> Entries<'_, H> {
        const MASK: u64 = STRIPES as u64 - 1;
        self.entries[crate::addr::to_usize(at.get() >> PMD_SHIFT & MASK)].lock()
    }

    /// Keeps others from linking and unlinking tables.
    pub(super) fn lock_structure(&self) -> OrderedGuard<'_, (), class::UserTables, H::Relax> {
        self.structure.lock()
    }

    /// Links the tables that are missing on the way to the entry of `level` for `at`, from the spare ones; gets more
    /// of those until it can. A leaf that is in the way stays.
    pub(super) fn grow(&self, at: VirtAddr, level: LeafLevel, spare: &Spare<'_, H>) -> Result<(), FaultError> {
        let (found, raw) = self.tables.look(|| self.tables.lowest(at));
        let missing = (level.level() as usize).saturating_sub(found.level() as usize);
        if missing == 0 || Format::<H>::is_valid(raw) || Format::<H>::is_parked(raw) {
            return Ok(());
        }
        spare.get_tables(missing)?;
        loop {
            let grown = {
                let _structure = self.lock_structure();
                let grown = self.tables.table_for(&spare.tables, at, level);
                // Before the lock is given back: see `wait_for_links`.
                self.tables.mmu().publish();
                grown
            };
            match grown {
                Err(PgtableError::NoFrame) => spare.get_table()?,
                _ => return Ok(()),
            }
        }
    }

    /// [`Self::grow`] down to the last level, for a caller who has found that a table is missing: mostly the last one.
    #[inline(always)]
    pub(super) fn grow_last(&self, at: VirtAddr, gfp: Gfp) -> Result<(), FaultError> {
        let frames = self.hal.frames(gfp.difference(Gfp::ACCOUNT | Gfp::COMP | Gfp::ZERO));
        // Another table is missing for one in 512, so that nobody looks before this one is there.
        if self.tables.add_last_table(&frames, at, || self.lock_structure())? {
            return Ok(());
        }
        self.grow(at, LeafLevel::Pte, &Spare::new(&self.hal, gfp, Order::ZERO))
    }

    /// Refuses what is no range of whole pages in user space.
    pub(super) fn admit(&self, range: VirtRange) -> Result<(), PagesError> {
        let (start, end) = (range.start().get(), range.end().get());
        if (start | end) & (PAGE_SIZE - 1) != 0 {
            Err(PagesError::Range(PgtableError::Unaligned))
        } else if range.is_empty() {
            Err(PagesError::Range(PgtableError::Empty))
        } else if end > USER_END {
            Err(PagesError::Range(PgtableError::OutsideSpace))
        } else {
            Ok(())
        }
    }

    /// Returns when walkers see each table that this CPU has met: the barrier of a CPU that links one comes before it gives the lock
    /// back, and until then an access by way of the table faults although the entry is right.
    pub(super) fn wait_for_links(&self) {
        drop(self.lock_structure());
    }

    /// Returns when nobody reads an upper table any more that was unlinked before: each descent is under a lock of entries.
    fn wait_for_descents(&self) {
        for entries in &self.entries {
            drop(entries.lock());
        }
    }

    /// Keeps the tables of the 2 MiB from `place` on, where nothing is any more, in place of those that were kept before.
    #[inline]
    pub(super) fn keep_tables(&self, place: VirtAddr) {
        if self.kept.load(Ordering::Relaxed) != place.get() {
            self.keep_others(place);
        }
    }

    #[cold]
    fn keep_others(&self, place: VirtAddr) {
        let before = VirtAddr::new(self.kept.swap(place.get(), Ordering::AcqRel));
        // Not the tables that both need.
        let beside = if before < place {
            VirtRange::new(VirtAddr::ZERO, place)
        } else {
            place.checked_add(PMD_SIZE).and_then(|behind| VirtRange::new(behind, VirtAddr::new(USER_END)))
        };
        self.reap_kept(before, beside.unwrap_or_default());
    }

    /// Frees the tables that are kept for what is mapped next although nothing is in them ([`UserPages::unmap_keeping`]). Returns
    /// how many. Nobody relies on tables that they made and in which nothing is yet: faults look again, but a caller that moves
    /// pages or fills ranges holds the areas of the space for itself. Inside a reclaimer too.
    pub(in crate::mm::user) fn trim(&self) -> u64 {
        let before = VirtAddr::new(self.kept.swap(NOWHERE, Ordering::AcqRel));
        let tables = self.tables.table_frames();
        self.reap_kept(before, VirtRange::new(VirtAddr::ZERO, VirtAddr::new(USER_END)).unwrap_or_default());
        tables.saturating_sub(self.tables.table_frames())
    }

    /// Whether tables may be kept in which nothing is.
    pub(in crate::mm::user) fn keeps_tables(&self) -> bool {
        self.kept.load(Ordering::Relaxed) != NOWHERE
    }

    /// Frees tables that were kept, as far as they lie in `hole`, if still nothing is in them.
    fn reap_kept(&self, place: VirtAddr, hole: VirtRange) {
        if place.get() != NOWHERE {
            self.reap_around(VirtRange::from_size(place, PMD_SIZE).unwrap_or_default(), hole);
        }
    }

    /// Unlinks and frees the tables all of whose addresses lie in `range`, if nothing is in them.
    pub(super) fn reap(&self, range: VirtRange) {
        self.reap_around(range, range);
    }

    /// The same for tables that translate an address of `emptied` and lie in `hole`: others have not become empty.
    pub(super) fn reap_around(&self, emptied: VirtRange, hole: VirtRange) {
        let room = hole.start().align_up(PMD_SIZE).and_then(|start| start.checked_add(PMD_SIZE));
        if room.is_none_or(|end| end > hole.end()) {
            // Not one table lies in it.
            return;
        }
        let frames = self.hal.frames(Gfp::ATOMIC);
        let mut gather = self.tables.gather(&frames);
        let mut upper = false;
        let mut at = emptied.start().align_down(PMD_SIZE).max(hole.start());
        let end = emptied.end().align_up(PMD_SIZE).unwrap_or(hole.end()).min(hole.end());
        while at < end {
            let _structure = self.lock_structure();
            for _ in 0..REAPED {
                let unlinked = self.tables.unlink_emptied((at, end), hole, &mut gather, || self.lock_entries(at));
                upper |= unlinked.upper;
                at = unlinked.next.unwrap_or(end);
                if at >= end {
                    break;
                }
            }
            // Before another table can be linked in the same place: a CPU may have this one cached.
            gather.complete();
        }
        if upper {
            self.wait_for_descents();
        }
        gather.flush();
    }
}

impl<H: UserHal> UserPages<H> {
    /// Frees everything but the root, for the end of a space: no CPU has it in a TTBR any more (`HAL-14`), nor ever will. One
    /// flush, whatever there is; no entry is changed, and no lock taken.
    pub(in crate::mm::user) fn raze(&mut self) {
        let Self { hal, tables, .. } = self;
        let source = hal.frames(Gfp::ATOMIC);
        let mut leaving = Leaving::new(&*hal);
        let mmu = hal.mmu();
        tables.raze(&source, |last| match last {
            Last::Entries(table, live) => {
                leaving.add_entries(table, &mmu, Run::TABLE, live);
            }
            Last::Block(level, raw) => {
                if let Entry::Leaf(leaf) | Entry::Parked(leaf) = Format::<H>::decode(level, raw) {
                    leaving.add_block(Pfn::containing(leaf.phys), leaf.level.size() / PAGE_SIZE);
                }
            }
        });
        let dropped = leaving.finish();
        self.count_dropped(dropped);
    }
}

impl<H: UserHal> Drop for UserPages<H> {
    fn drop(&mut self) {
        self.raze();
        self.hal.count_space(false);
        self.tables.free_root(&self.hal.frames(Gfp::ATOMIC));
    }
}

impl<H: UserHal> fmt::Debug for UserPages<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserPages").field("root", &self.root()).field("usage", &self.usage()).finish_non_exhaustive()
    }
}
