//! The page-table code's interface to a live machine: entries in table frames, barriers, TLB invalidation.
//!
//! The order that a change of live tables must keep (Arm ARM D8.16, D8.17):
//!
//! ```text
//! absent → valid   store; publish                                        (DSB ISHST; ISB)
//! valid → absent   store; order_before_invalidate; invalidate…; complete  (DSB ISHST; TLBI…IS; DSB ISH; ISB)
//! valid → valid    both in turn, where address, size, memory type or contiguous bit change (break-before-make)
//! new table        zero_table; publish_table; store of the entry that points to it          (DSB ISHST)
//! ```

use super::entry::{EntryFormat, RawEntry};
use super::level::{LeafLevel, Run, Slot};
use crate::addr::{PAGE_SHIFT, PhysAddr, VirtAddr};

/// The number that marks a user address space's entries in the TLB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Asid(u16);

impl Asid {
    /// Names `raw` as an address space number. The CPU decides how many bits count (`ID_AA64MMFR0_EL1.ASIDBits`).
    #[must_use]
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Which address spaces an invalidation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AsidScope {
    /// All of them: kernel mappings are global.
    All,
    /// One address space, and global entries.
    One(Asid),
}

impl AsidScope {
    /// The one address space, if it is one.
    #[must_use]
    pub const fn asid(self) -> Option<Asid> {
        match self {
            Self::All => None,
            Self::One(asid) => Some(asid),
        }
    }
}

/// Which cached levels an invalidation by address reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WalkDepth {
    /// Leaves only. Enough where every table stayed in place.
    LastLevel,
    /// Leaves and cached entries of the tables above. Needed where a table was unlinked or linked anew.
    AnyLevel,
}

/// An invalidation of consecutive addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalidation {
    /// The first address, a multiple of the stride.
    pub start: VirtAddr,
    /// Number of strides; at least one.
    pub count: u64,
    /// The size of the smallest leaf that existed: one TLBI reaches a whole block.
    pub stride: LeafLevel,
    /// Leaves, or tables as well.
    pub depth: WalkDepth,
    /// Which address spaces.
    pub scope: AsidScope,
}

impl Invalidation {
    /// Pages covered.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.count << (self.stride.shift() - PAGE_SHIFT)
    }
}

/// Level of the CPUs' support for changing block size without break-before-make (`ID_AA64MMFR2_EL1.BBM`, Arm ARM D8.17.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BbmLevel {
    /// Not at all.
    Zero = 0,
    /// With the `nT` bit, which this code does not use.
    One = 1,
    /// Freely, as long as only the size changes; and no CPU answers with a TLB conflict abort.
    Two = 2,
}

/// A machine with page tables.
///
/// # Safety
///
/// `mm::pgtable` derives "no CPU reaches this frame any more" from these functions, and the code that frees frames derives
/// "nobody else uses it" from that. The implementer promises that each function has the effect that its text states, on every
/// CPU, for the machine's real tables.
pub unsafe trait Mmu {
    /// Format of the machine's entries.
    type Format: EntryFormat;

    /// Reads an entry, as one 64-bit access.
    ///
    /// # Safety
    ///
    /// `table` is a table frame that this machine reaches and that is not freed during the call.
    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry;

    /// Writes an entry, as one 64-bit access. Walkers may see it at once and must see it only after the next barrier.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::read`]; and the caller may change that translation.
    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry);

    /// Writes an entry that points to the same table as before and differs where no walker looks
    /// ([`EntryFormat::live`]). No barrier follows.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`]; nobody else writes the entry meanwhile.
    #[inline]
    unsafe fn annotate(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: this function's `# Safety` covers that of `write`.
        unsafe { self.write(table, slot, entry) };
    }

    /// Writes `new` if the entry is still `current`, else returns its value.
    ///
    /// # Errors
    ///
    /// The entry found, if it is not `current`.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry>;

    /// The OR of the entries of a run, or of some of them: absent only if all are.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::read`].
    unsafe fn any(&self, table: PhysAddr, run: Run) -> RawEntry {
        let mut any = 0;
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` is that of `read`, for each slot of the run.
            any |= unsafe { self.read(table, slot) }.get();
        }
        RawEntry::new(any)
    }

    /// Writes `first`, `first + step`, `first + 2 × step`, … to a run of entries.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn fill(&self, table: PhysAddr, run: Run, first: RawEntry, step: u64) {
        let mut entry = first.get();
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` is that of `write`, for each slot of the run.
            unsafe { self.write(table, slot, RawEntry::new(entry)) };
            entry = entry.wrapping_add(step);
        }
    }

    /// Writes what `entry` makes of each of `list`, which is as long as the run, to a run of entries, up to the first for which
    /// it returns `None`. Returns whether there was none.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn write_each<T: Copy>(
        &self,
        table: PhysAddr,
        run: Run,
        list: &[T],
        mut entry: impl FnMut(T) -> Option<RawEntry>,
    ) -> bool {
        for (slot, item) in run.slots().zip(list) {
            let Some(entry) = entry(*item) else { return false };
            // SAFETY: this function's `# Safety` is that of `write`, for each slot of the run.
            unsafe { self.write(table, slot, entry) };
        }
        true
    }

    /// Calls `each` for a run of entries.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::read`].
    unsafe fn read_each(&self, table: PhysAddr, run: Run, mut each: impl FnMut(RawEntry)) {
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` is that of `read`, for each slot of the run.
            each(unsafe { self.read(table, slot) });
        }
    }

    /// Replaces each entry of a run by what `change` makes of it, if it makes something. A walker's concurrent changes may be
    /// lost.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn change_each(&self, table: PhysAddr, run: Run, mut change: impl FnMut(RawEntry) -> Option<RawEntry>) {
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` is that of `write`, which covers `read`.
            if let Some(new) = change(unsafe { self.read(table, slot) }) {
                // SAFETY: this function's `# Safety` is that of `write`, for each slot of the run.
                unsafe { self.write(table, slot, new) };
            }
        }
    }

    /// Keeps those bits of a run of entries that are set in `mask`, and clears the others. A walker's concurrent changes may be
    /// lost.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn keep(&self, table: PhysAddr, run: Run, mask: RawEntry) {
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` is that of `write`, which covers `read`.
            let entry = unsafe { self.read(table, slot) };
            // SAFETY: this function's `# Safety` is that of `write`, for each slot of the run.
            unsafe { self.write(table, slot, RawEntry::new(entry.get() & mask.get())) };
        }
    }

    /// Makes a run of entries absent.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`].
    unsafe fn clear(&self, table: PhysAddr, run: Run) {
        // SAFETY: this function's `# Safety` is that of `write`, which `fill` asks for.
        unsafe { self.fill(table, run, RawEntry::ABSENT, 0) };
    }

    /// Makes a frame an empty table. Ordinary stores: [`Mmu::publish_table`] must follow before it is linked.
    ///
    /// # Safety
    ///
    /// The frame is the caller's own, reachable by this machine and by no walker.
    unsafe fn zero_table(&self, table: PhysAddr) {
        // SAFETY: the frame is the caller's.
        unsafe { self.clear(table, Run::TABLE) };
    }

    /// Changes entries of a run that map kernel addresses, each `entry` to `entry & keep | set`, by break-before-make: all are
    /// invalid until no CPU holds `what` they translated. Between break and make, this CPU accesses the entries and nothing
    /// else, and it works for all memory that they may map, the tables themselves included.
    ///
    /// # Safety
    ///
    /// As for [`Mmu::write`]; no other CPU runs, or none uses what the entries map, and this one is not interrupted.
    unsafe fn rebuild(&self, table: PhysAddr, run: Run, keep: RawEntry, set: RawEntry, what: Invalidation) {
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` covers that of `write`, and so that of `read`.
            let entry = unsafe { self.read(table, slot) };
            // SAFETY: this function's `# Safety`: nobody uses what the entries map while they are invalid.
            unsafe { self.write(table, slot, Self::Format::invalidate(entry)) };
        }
        self.order_before_invalidate();
        self.invalidate(what);
        self.complete();
        for slot in run.slots() {
            // SAFETY: this function's `# Safety` covers that of `write`, and so that of `read`.
            let entry = unsafe { self.read(table, slot) };
            // SAFETY: this function's `# Safety` covers that of `write`; every old translation is gone by the flush above.
            unsafe { self.write(table, slot, RawEntry::new(entry.get() & keep.get() | set.get())) };
        }
        self.publish();
    }

    /// Runs `f`, which is short, without an interrupt on this CPU: so no handler here waits for a change that it has begun.
    /// Machines without interrupts keep this body.
    #[inline]
    fn uninterrupted<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// A new table's content is visible to every walker before the entry that points to it can be (DSB ISHST).
    fn publish_table(&self);

    /// New entries are visible to every walker, and this CPU's next instruction can use them (DSB ISHST; ISB).
    fn publish(&self);

    /// Entries made invalid are visible to every walker before any invalidation that follows (DSB ISHST).
    fn order_before_invalidate(&self);

    /// Drops translations by address, one TLBI a stride, on every CPU. Done only when [`Mmu::complete`] returns.
    fn invalidate(&self, what: Invalidation);

    /// Drops translations by address with range instructions. Called only if [`Mmu::has_range_invalidation`], with at
    /// most [`MAX_RANGE_PAGES`] pages.
    fn invalidate_range(&self, what: Invalidation);

    /// Drops everything: every address, every address space, every level.
    fn invalidate_all(&self);

    /// Drops every translation of one address space that is not global.
    fn invalidate_asid(&self, asid: Asid);

    /// Waits until every CPU has finished every invalidation issued before, and every access that used what they
    /// dropped (DSB ISH; ISB).
    fn complete(&self);

    /// Whether the CPUs have FEAT_TLBIRANGE.
    fn has_range_invalidation(&self) -> bool;

    /// Changes that need no break-before-make, on the least able CPU.
    fn bbm_level(&self) -> BbmLevel;
}

/// Pages that one call of [`Mmu::invalidate_range`] may cover: the limit of the largest scale (Arm ARM C5.5, TLBI RVAE1IS).
pub const MAX_RANGE_PAGES: u64 = 1 << 21;
