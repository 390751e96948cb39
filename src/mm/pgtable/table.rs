//! Tables and their entries: the only file of the page-table code that uses `unsafe`. A [`Table`] cannot be made from a
//! number, only found by descent from a root or taken from a [`FrameSource`]; and it goes back to its source only
//! unlinked ([`FreshTable`]) or flushed ([`RemovedTables`]).

use crate::addr::PhysAddr;
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::{FrameSource, NoFrame};
use crate::hal::level::{ENTRIES, Level, Run, Slot};
use crate::hal::mmu::{Invalidation, Mmu};

/// Bit 1 of a link between removed tables. Bit 0 stays clear, so that a walker that still has the table cached finds
/// an invalid entry there.
const LINK: u64 = 1 << 1;

/// All that a link has beside the address of the next table, a frame's.
const LINK_BITS: u64 = !0x0000_ffff_ffff_f000;

/// Word that freed tables are filled with in checking builds: an invalid entry that is easy to recognise.
const POISON: u64 = 0xdead_7ab1_e000_0000;

/// A table of a known level, linked or about to be.
///
/// # Invariants
///
/// - `TAB-1`: the frame is a table that the machine reaches, and stays one while the value is in use. A table is freed
///   only after its flush, never in a range that somebody else works on (the contract of the page table's maker), and never
///   while a look of somebody else's may be in it (`WALK-1`).
/// - `TAB-2`: an entry above the last level that reads as a table entry points to a table of the next level: only
///   [`Table::link`] writes such entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm) struct Table {
    phys: PhysAddr,
    level: Level,
}

/// A table of the first level: its level is known without looking, so that the descent from it is straight-line code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Root(PhysAddr);

impl Root {
    /// The root at `phys`.
    ///
    /// # Safety
    ///
    /// There is a root table at `phys`, and every table entry below it points to a table.
    pub(super) const unsafe fn new(phys: PhysAddr) -> Self {
        Self(phys)
    }

    #[inline]
    pub(super) const fn table(self) -> Table {
        // INVARIANT: TAB-1 and TAB-2 are the promise that `Root::new` was given.
        Table { phys: self.0, level: Level::Pgd }
    }

    /// Gives back a root below which nothing is linked, nor was since the last flush. The value is not used again.
    pub(super) fn free<F: FrameSource>(self, frames: &F) {
        // SAFETY: TAB-1: the frame came from a source; no TTBR has it, and nothing cached leads through it.
        unsafe { frames.free_table(self.0) };
    }

    /// Gives back the `tables` tables below the root, all of whose entries are counted, after it has shown `each` the tables of
    /// last entries and the blocks. The root is empty then. Returns how many tables that were. Nobody uses the tables any more:
    /// no TTBR has the root, nobody looks, and `_flushed` was waited for since. Cost: some two instructions an entry where there
    /// is nothing, until all there is has been found.
    pub(super) fn raze<M: Mmu, F: FrameSource>(
        self,
        mmu: &M,
        frames: &F,
        tables: u64,
        _flushed: &Flushed,
        each: &mut impl FnMut(Last),
    ) -> u64 {
        let (root, mut freed) = (self.table(), 0);
        for run in from_both_ends() {
            if freed == tables {
                break;
            }
            if !root.is_empty(mmu, run) {
                freed += root.raze_run(mmu, run, frames, each).1;
                root.clear(mmu, run);
            }
        }
        freed
    }
}

/// The entries of a table in runs to be looked at together, from its ends: processes have most of their memory at the lowest
/// and the highest addresses.
fn from_both_ends() -> impl Iterator<Item = Run> {
    const RUNS: u64 = ENTRIES as u64 / LOOK;
    (0..RUNS).map(|number| {
        let run = if number % 2 == 0 { number / 2 } else { RUNS - 1 - number / 2 };
        Run::from_slot(Slot::wrapping(run * LOOK), LOOK)
    })
}

/// Contents that the tables of a space have in the end.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) enum Last {
    /// A table of last entries, and how many are not absent.
    Entries(Table, usize),
    /// A leaf of a higher level.
    Block(Level, RawEntry),
}

/// Entries that are looked at together, to be passed over if nothing is in them.
const LOOK: u64 = 32;

impl Table {
    /// Whether the entry is a link between removed tables. No leaf that is broken for a moment is one: it keeps its
    /// attributes.
    pub(super) const fn is_link(raw: RawEntry) -> bool {
        raw.get() & LINK_BITS == LINK
    }

    pub(super) const fn phys(self) -> PhysAddr {
        self.phys
    }

    pub(in crate::mm) const fn level(self) -> Level {
        self.level
    }

    #[inline]
    pub(in crate::mm) fn read<M: Mmu>(self, mmu: &M, slot: Slot) -> RawEntry {
        // SAFETY: TAB-1.
        unsafe { mmu.read(self.phys, slot) }
    }

    /// Whether a boundary before `slot` would cut a contiguous group.
    #[inline]
    pub(super) fn is_in_group<M: Mmu>(self, mmu: &M, slot: Slot) -> bool {
        slot != slot.group_start() && M::Format::is_contiguous(self.read(mmu, slot))
    }

    #[inline]
    pub(in crate::mm) fn is_empty<M: Mmu>(self, mmu: &M, run: Run) -> bool {
        // SAFETY: TAB-1.
        unsafe { mmu.any(self.phys, run) }.is_absent()
    }

    /// The table that the entry at `slot` points to, or the entry if it points to none.
    #[inline]
    pub(in crate::mm) fn descend<M: Mmu>(self, mmu: &M, slot: Slot) -> Result<Self, RawEntry> {
        let entry = self.read(mmu, slot);
        match (self.level.below(), M::Format::next_table(entry)) {
            // INVARIANT: TAB-1 and TAB-2 by TAB-2 of this table.
            (Some(level), Some(phys)) => Ok(Self { phys, level }),
            _ => Err(entry),
        }
    }

    /// Writes a leaf or an absent entry.
    #[inline]
    pub(in crate::mm) fn write<M: Mmu>(self, mmu: &M, slot: Slot, entry: RawEntry) {
        // INVARIANT: TAB-2.
        debug_assert!(self.is_no_link::<M>(entry), "table entries are written by `link`");
        // SAFETY: TAB-1; that the translation may change is the contract of the page table's maker.
        unsafe { mmu.write(self.phys, slot, entry) };
    }

    /// Writes an entry that points to the same table as before and differs where no walker looks. Nobody else writes it
    /// meanwhile.
    #[inline]
    pub(super) fn annotate<M: Mmu>(self, mmu: &M, slot: Slot, entry: RawEntry) {
        // SAFETY: as for `write`. INVARIANT: TAB-2: the table stays the same.
        unsafe { mmu.annotate(self.phys, slot, entry) };
    }

    /// Changes a leaf, whatever the hardware does to its flags meanwhile. Returns what it was.
    pub(super) fn update<M: Mmu>(self, mmu: &M, slot: Slot, change: impl Fn(RawEntry) -> RawEntry) -> RawEntry {
        let mut current = self.read(mmu, slot);
        loop {
            match self.replace(mmu, slot, current, change(current)) {
                Ok(()) => return current,
                Err(found) => current = found,
            }
        }
    }

    /// Writes a leaf or an absent entry if the entry still is `current`, else returns what it is.
    pub(in crate::mm) fn replace<M: Mmu>(
        self,
        mmu: &M,
        slot: Slot,
        current: RawEntry,
        entry: RawEntry,
    ) -> Result<(), RawEntry> {
        // INVARIANT: TAB-2.
        debug_assert!(self.is_no_link::<M>(entry), "table entries are written by `link`");
        // SAFETY: as for `write`.
        unsafe { mmu.compare_exchange(self.phys, slot, current, entry) }
    }

    /// Writes leaves for memory that follows on, `step` bytes an entry.
    #[inline]
    pub(in crate::mm) fn fill<M: Mmu>(self, mmu: &M, run: Run, first: RawEntry, step: u64) {
        // INVARIANT: TAB-2.
        debug_assert!(self.is_no_link::<M>(first), "table entries are written by `link`");
        // SAFETY: as for `write`.
        unsafe { mmu.fill(self.phys, run, first, step) };
    }

    /// Writes the leaf that `leaf` makes of each of `list`, which is as long as the run, up to the first of which it makes
    /// none: whether each has one.
    #[inline(always)]
    pub(in crate::mm) fn write_each<M: Mmu, T: Copy>(
        self,
        mmu: &M,
        run: Run,
        list: &[T],
        leaf: impl FnMut(T) -> Option<RawEntry>,
    ) -> bool {
        // INVARIANT: TAB-2.
        debug_assert!(self.level == Level::Pte, "last entries lead to no table");
        // SAFETY: as for `write`.
        unsafe { mmu.write_each(self.phys, run, list, leaf) }
    }

    /// Makes the leaves of `run` invalid; what they map can still be read.
    #[inline(always)]
    pub(in crate::mm) fn invalidate_each<M: Mmu>(self, mmu: &M, run: Run) {
        debug_assert!(self.level == Level::Pte, "last entries lead to no table");
        // SAFETY: as for `write`. INVARIANT: TAB-2: invalid leaves point to no table.
        unsafe { mmu.keep(self.phys, run, M::Format::invalidate(RawEntry::new(u64::MAX))) };
    }

    /// Shows the entries of `run` one by one.
    #[inline(always)]
    pub(in crate::mm) fn read_each<M: Mmu>(self, mmu: &M, run: Run, each: impl FnMut(RawEntry)) {
        // SAFETY: TAB-1.
        unsafe { mmu.read_each(self.phys, run, each) };
    }

    /// Replaces the leaves of `run` that `change` changes, as [`Table::write`] does one.
    #[inline(always)]
    pub(in crate::mm) fn change_each<M: Mmu>(
        self,
        mmu: &M,
        run: Run,
        change: impl FnMut(RawEntry) -> Option<RawEntry>,
    ) {
        // INVARIANT: TAB-2.
        debug_assert!(self.level == Level::Pte, "last entries lead to no table");
        // SAFETY: as for `write`.
        unsafe { mmu.change_each(self.phys, run, change) };
    }

    /// Makes the entries of `run` absent.
    #[inline]
    pub(in crate::mm) fn clear<M: Mmu>(self, mmu: &M, run: Run) {
        // SAFETY: as for `write`.
        unsafe { mmu.clear(self.phys, run) };
    }

    /// Points the entry at `slot` to `child` if it still is `current`; else `child` comes back with the entry found.
    /// The entries of `child` are published first.
    pub(super) fn link<M: Mmu>(
        self,
        mmu: &M,
        slot: Slot,
        current: RawEntry,
        child: FreshTable,
    ) -> Result<Self, (FreshTable, RawEntry)> {
        let table = child.table;
        debug_assert!(self.level.below() == Some(table.level), "a child is one level below");
        mmu.publish_table();
        // INVARIANT: PT-5: the entries of the child, where they are counted.
        let entry = M::Format::with_more(M::Format::table(table.phys), child.live);
        // SAFETY: as for `write`. INVARIANT: TAB-2, as `child` is a table of the next level.
        match unsafe { mmu.compare_exchange(self.phys, slot, current, entry) } {
            Ok(()) => Ok(table),
            Err(found) => Err((child, found)),
        }
    }

    /// Points the entry at `slot`, a kernel block, to `child` by break-before-make; see [`Mmu::rebuild`]. The entries
    /// of `child` are published first. `what` is what the block translated.
    pub(super) fn link_broken<M: Mmu>(self, mmu: &M, slot: Slot, child: FreshTable, what: Invalidation) {
        let table = child.table;
        debug_assert!(self.level.below() == Some(table.level), "a child is one level below");
        mmu.publish_table();
        let (run, entry) = (Run::from_slot(slot, 1), M::Format::table(table.phys));
        // SAFETY: as for `write`; who may be running is the contract of `LivePolicy::BreakBeforeMake`. INVARIANT: TAB-2, as
        // `child` is a table of the next level.
        unsafe { mmu.rebuild(self.phys, run, RawEntry::ABSENT, entry, what) };
    }

    /// Takes the contiguous bit from a group of kernel leaves by break-before-make; see [`Mmu::rebuild`].
    pub(super) fn unfold_broken<M: Mmu>(self, mmu: &M, group: Run, what: Invalidation) {
        let keep = M::Format::with_contiguous(RawEntry::new(u64::MAX), false);
        // SAFETY: as for `link_broken`. INVARIANT: TAB-2: leaves stay leaves.
        unsafe { mmu.rebuild(self.phys, group, keep, M::Format::revalidate(RawEntry::ABSENT), what) };
    }

    /// Writes `entry`, a block or an absent one, in place of the table at `slot`, and puts that table with all tables
    /// below it on the list. Leaves below it go with it; their frames are the caller's affair.
    pub(super) fn supersede<M: Mmu>(self, mmu: &M, slot: Slot, entry: RawEntry, removed: &mut RemovedTables) {
        if let Ok(child) = self.descend(mmu, slot) {
            self.write(mmu, slot, entry);
            removed.push(mmu, child);
        }
    }

    /// Makes `slot` absent if the table behind it has no entry, by their count, and puts that table on the list. Whether it did.
    /// Nobody else changes an entry of it.
    pub(super) fn supersede_empty<M: Mmu>(self, mmu: &M, slot: Slot, removed: &mut RemovedTables) -> bool {
        let raw = self.read(mmu, slot);
        let Some(child) = self.descend(mmu, slot).ok().filter(|_| M::Format::live(raw) == 0) else { return false };
        debug_assert!(child.is_empty(mmu, Run::TABLE), "PT-5: a table without an entry is empty");
        self.write(mmu, slot, RawEntry::ABSENT);
        removed.link(mmu, child);
        true
    }

    /// Writes `entry`, a leaf that says what the table at `slot` says, in place of that table, whose own entries stay as they
    /// are: a walker that has it cached uses them until the flush.
    pub(super) fn supersede_live<M: Mmu>(self, mmu: &M, slot: Slot, entry: RawEntry) -> Option<UnlinkedTable> {
        let (child, live) = (self.descend(mmu, slot).ok()?, M::Format::live(self.read(mmu, slot)));
        self.write(mmu, slot, entry);
        Some(UnlinkedTable { table: child, live })
    }

    /// Frees the tables below this one, of which only the caller knows and which has `live` entries. They stay as they are.
    fn raze_below<M: Mmu, F: FrameSource>(self, mmu: &M, live: usize, frames: &F, each: &mut impl FnMut(Last)) -> u64 {
        let (mut found, mut freed) = (0, 0);
        for run in from_both_ends() {
            if found == live && !cfg!(debug_assertions) {
                break;
            }
            if !self.is_empty(mmu, run) {
                let (more, gone) = self.raze_run(mmu, run, frames, each);
                (found, freed) = (found + more, freed + gone);
            }
        }
        debug_assert!(found == live, "PT-5: {found} entries of a table of which {live} were counted");
        freed
    }

    /// [`Self::raze_below`] for some entries: how many are not absent, and how many tables that were.
    fn raze_run<M: Mmu, F: FrameSource>(
        self,
        mmu: &M,
        run: Run,
        frames: &F,
        each: &mut impl FnMut(Last),
    ) -> (usize, u64) {
        let (mut found, mut freed) = (0, 0);
        for slot in run.slots() {
            let raw = self.read(mmu, slot);
            if raw.is_absent() {
                continue;
            }
            found += 1;
            let Ok(child) = self.descend(mmu, slot) else {
                each(Last::Block(self.level, raw));
                continue;
            };
            let live = M::Format::live(raw);
            match child.level {
                Level::Pte => each(Last::Entries(child, live)),
                _ => freed += child.raze_below(mmu, live, frames, each),
            }
            if cfg!(debug_assertions) {
                child.poison(mmu);
            }
            // SAFETY: as `raze` says nobody reaches the table; the frame came from a source by TAB-1.
            unsafe { frames.free_table(child.phys) };
            freed += 1;
        }
        (found, freed)
    }

    /// Fills a table that nobody reaches any more with entries that are easy to recognise.
    fn poison<M: Mmu>(self, mmu: &M) {
        // SAFETY: TAB-1; the caller alone has the table.
        unsafe { mmu.fill(self.phys, Run::TABLE, RawEntry::new(POISON), 0) };
    }

    fn is_no_link<M: Mmu>(self, entry: RawEntry) -> bool {
        self.level == Level::Pte || M::Format::next_table(entry).is_none()
    }
}

/// A table that nothing points to yet. It is linked or discarded.
#[must_use = "a table that is neither linked nor discarded is lost"]
#[derive(Debug)]
pub(super) struct FreshTable {
    table: Table,
    /// Its entries that are not absent, where they are counted.
    live: usize,
}

impl FreshTable {
    /// An empty table for `level`.
    pub(super) fn new<M: Mmu, F: FrameSource>(mmu: &M, frames: &F, level: Level) -> Result<Self, NoFrame> {
        let phys = frames.alloc_table()?;
        // SAFETY: the frame is ours by the contract of `FrameSource`, and no entry points to it.
        unsafe { mmu.zero_table(phys) };
        // INVARIANT: TAB-1 and TAB-2, as an empty table is a table.
        Ok(Self { table: Table { phys, level }, live: 0 })
    }

    /// The table, to be filled before it is linked.
    pub(super) const fn table(&self) -> Table {
        self.table
    }

    /// The table has so many entries, which are counted.
    pub(super) const fn with_live(self, live: usize) -> Self {
        Self { live, ..self }
    }

    /// Makes it a root.
    pub(super) fn into_root<M: Mmu>(self, mmu: &M) -> Root {
        debug_assert!(self.table.level == Level::Pgd, "a root is of the first level");
        mmu.publish_table();
        Root(self.table.phys)
    }

    /// Gives it back, with the tables that were linked below it. Returns how many that were.
    pub(super) fn discard<M: Mmu, F: FrameSource>(self, mmu: &M, frames: &F) -> u64 {
        let mut list = RemovedTables::new();
        list.push(mmu, self.table);
        // Never linked, so no walker ever saw it.
        list.free(mmu, frames, Flushed(()))
    }
}

/// A table that no entry points to any more, and that walkers may still be in.
#[must_use = "a table that is not freed is lost"]
#[derive(Debug)]
pub(in crate::mm) struct UnlinkedTable {
    table: Table,
    /// As for [`FreshTable`].
    live: usize,
}

impl UnlinkedTable {
    /// The table, to be read.
    pub(in crate::mm) const fn table(&self) -> Table {
        self.table
    }

    /// Links the table at another place of the same level, which is absent, once no walker is in it under its old one.
    pub(super) fn link<M: Mmu>(
        self,
        mmu: &M,
        parent: Table,
        slot: Slot,
        _flushed: &Flushed,
    ) -> Result<(), (Self, RawEntry)> {
        let Self { table, live } = self;
        parent
            .link(mmu, slot, RawEntry::ABSENT, FreshTable { table, live })
            .map(|_| ())
            .map_err(|(fresh, raw)| (Self { table: fresh.table, live: fresh.live }, raw))
    }

    /// Gives it back. `flushed` was waited for after it was unlinked.
    pub(super) fn free<M: Mmu, F: FrameSource>(self, mmu: &M, frames: &F, flushed: Flushed) -> u64 {
        let mut list = RemovedTables::new();
        list.push(mmu, self.table);
        list.free(mmu, frames, flushed)
    }
}

/// Proof that every invalidation issued so far has been completed on every CPU.
#[derive(Debug)]
pub(in crate::mm) struct Flushed(());

impl Flushed {
    /// Waits for the invalidations.
    pub(super) fn wait<M: Mmu>(mmu: &M) -> Self {
        mmu.complete();
        Self(())
    }
}

/// Tables that were taken out and wait for the flush, threaded through their own first entries: the list needs no
/// memory and has no bound.
///
/// # Invariants
///
/// - `REM-1`: no entry in memory that a walker reaches from a root points to a table on the list; cached walks may.
#[must_use = "removed tables are freed after the flush, or lost"]
#[derive(Debug)]
pub(super) struct RemovedTables {
    head: Option<PhysAddr>,
}

impl RemovedTables {
    pub(super) const fn new() -> Self {
        Self { head: None }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Adds an unlinked table and everything below it, the lowest first: a table's first entry is overwritten only when
    /// what it pointed to is on the list already.
    fn push<M: Mmu>(&mut self, mmu: &M, table: Table) {
        if table.level != Level::Pte {
            for first in (0..ENTRIES as u64).step_by(crate::addr::to_usize(LOOK)) {
                let run = Run::from_slot(Slot::wrapping(first), LOOK);
                if table.is_empty(mmu, run) {
                    continue;
                }
                for slot in run.slots() {
                    if let Ok(child) = table.descend(mmu, slot) {
                        self.push(mmu, child);
                    }
                }
            }
        }
        self.link(mmu, table);
    }

    /// Adds an unlinked table that points to no other.
    fn link<M: Mmu>(&mut self, mmu: &M, table: Table) {
        let link = self.head.map_or(RawEntry::ABSENT, |next| RawEntry::new(next.get() | LINK));
        // SAFETY: TAB-1; the translation is already gone.
        unsafe { mmu.write(table.phys, Slot::FIRST, link) };
        // INVARIANT: REM-1, as the caller unlinked the top.
        self.head = Some(table.phys);
    }

    /// Gives all tables back and returns how many there were. `_flushed` was waited for after the last addition.
    pub(super) fn free<M: Mmu, F: FrameSource>(&mut self, mmu: &M, frames: &F, _flushed: Flushed) -> u64 {
        let mut count = 0;
        while let Some(table) = self.head.take() {
            // SAFETY: by REM-1 the table is the list's alone, and not freed yet.
            let link = unsafe { mmu.read(table, Slot::FIRST) };
            self.head = (!link.is_absent()).then_some(PhysAddr::new(link.get() & !LINK));
            if cfg!(debug_assertions) {
                // SAFETY: by REM-1 and the flush nobody else reaches the table.
                unsafe { mmu.fill(table, Run::TABLE, RawEntry::new(POISON), 0) };
            }
            // SAFETY: by REM-1 and the flush nobody else reaches the table; the frame came from a source by TAB-1.
            unsafe { frames.free_table(table) };
            count += 1;
        }
        count
    }
}
