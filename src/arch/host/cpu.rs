//! A simulated CPU as page-table code drives it, and the frames that its tables are made of: the bodies of the `hal`
//! traits.

use super::machine::{Machine, State};
use super::memory::{FrameUse, word_of};
use super::op::TlbOp;
use crate::addr::{CpuId, PAGE_SIZE, PhysAddr, to_usize};
use crate::arch::aarch64::desc::Stage1;
use crate::arch::aarch64::tlbi::{RangeStep, asid_operand, page_operands, range_steps};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::frame::{FrameSource, NoFrame};
use crate::hal::level::Slot;
use crate::hal::mmu::{Asid, BbmLevel, Invalidation, Mmu};
use std::sync::MutexGuard;

/// One CPU of a [`Machine`].
#[derive(Clone)]
pub struct SimCpu {
    machine: Machine,
    index: usize,
}

impl SimCpu {
    pub(super) const fn new(machine: Machine, index: usize) -> Self {
        Self { machine, index }
    }

    /// The machine that the CPU belongs to.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) const fn index(&self) -> usize {
        self.index
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.machine.lock()
    }

    /// `TLBI VMALLE1; DSB NSH; ISB`: this CPU drops everything that it holds, and the others nothing.
    pub fn invalidate_local(&self) {
        self.lock().drop_local(self.index);
    }

    /// Puts `root` and `asid` into TTBR0 of this CPU (`MSR TTBR0_EL1; ISB`).
    pub fn set_ttbr0(&self, root: PhysAddr, asid: Asid) {
        self.machine.set_ttbr0(CpuId::new(u32::try_from(self.index).unwrap_or(u32::MAX)), root, asid);
    }

    /// The root and ASID in TTBR0 of this CPU; `None` if it has none.
    #[must_use]
    pub fn ttbr0(&self) -> Option<(PhysAddr, Asid)> {
        let root = self.lock().cpus.get(self.index)?.ttbr0?;
        Some((root.table, root.asid?))
    }

    fn issue(&self, op: TlbOp, count: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        count(&mut state);
        if let Some(cpu) = state.cpus.get_mut(self.index) {
            cpu.outstanding.push(op);
        }
    }

    /// The table is one that the source gave out.
    fn assert_table(state: &mut State, table: PhysAddr) {
        if state.memory.used_for(table) != FrameUse::Table {
            state.complain(format!("software accesses {table:?}, which is no table now"));
        }
    }
}

// SAFETY: the machine is a model; there is no memory behind its addresses that could be harmed. Its functions have the
// stated effect on the model's CPUs.
unsafe impl Mmu for SimCpu {
    type Format = Stage1;

    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry {
        let mut state = self.lock();
        Self::assert_table(&mut state, table);
        RawEntry::new(state.memory.newest(word_of(table, slot)))
    }

    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        let mut state = self.lock();
        Self::assert_table(&mut state, table);
        state.store(self.index, word_of(table, slot), entry.get());
    }

    unsafe fn annotate(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        let mut state = self.lock();
        Self::assert_table(&mut state, table);
        let word = word_of(table, slot);
        let found = RawEntry::new(state.memory.newest(word));
        let plain = |entry| Stage1::with_fewer(entry, Stage1::live(entry));
        if Stage1::next_table(found).is_none() || plain(entry) != plain(found) {
            state.complain(format!("{entry:?} is no note on {found:?}"));
        }
        state.memory.annotate(word, entry.get());
    }

    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry> {
        let mut state = self.lock();
        Self::assert_table(&mut state, table);
        let word = word_of(table, slot);
        match RawEntry::new(state.memory.newest(word)) {
            found if found == current => {
                state.store(self.index, word, new.get());
                Ok(())
            }
            found => Err(found),
        }
    }

    fn publish_table(&self) {
        self.lock().barrier(self.index);
    }

    fn publish(&self) {
        let mut state = self.lock();
        state.barrier(self.index);
        state.synchronise(self.index);
    }

    fn order_before_invalidate(&self) {
        self.lock().barrier(self.index);
    }

    fn invalidate(&self, what: Invalidation) {
        let ttl = self.lock().config.ttl;
        page_operands(what, ttl).each(|operand| {
            let op = TlbOp::by_address(operand, what.scope.asid().is_some(), what.depth);
            self.issue(op, |state| state.counts.by_address += 1);
        });
    }

    fn invalidate_range(&self, what: Invalidation) {
        let one_asid = what.scope.asid().is_some();
        for step in range_steps(what) {
            match step {
                RangeStep::Page(operand) => {
                    let op = TlbOp::by_address(operand, one_asid, what.depth);
                    self.issue(op, |state| state.counts.by_address += 1);
                }
                RangeStep::Range(operand) => {
                    if let Some(op) = TlbOp::by_range(operand, one_asid, what.depth) {
                        self.issue(op, |state| state.counts.by_range += 1);
                    }
                }
            }
        }
    }

    fn invalidate_all(&self) {
        self.issue(TlbOp::EVERYTHING, |state| state.counts.everything += 1);
    }

    fn invalidate_asid(&self, asid: Asid) {
        self.issue(TlbOp::by_asid(asid_operand(asid)), |state| state.counts.by_asid += 1);
    }

    fn complete(&self) {
        self.lock().complete(self.index);
    }

    fn has_range_invalidation(&self) -> bool {
        self.lock().config.range_invalidation
    }

    fn bbm_level(&self) -> BbmLevel {
        self.lock().config.bbm
    }
}

/// The machine's source of table frames. A frame comes filled with bytes that a walker would take for valid entries, and the
/// one freed last comes first.
#[derive(Clone)]
pub struct SimFrames {
    machine: Machine,
}

impl SimFrames {
    pub(super) const fn new(machine: Machine) -> Self {
        Self { machine }
    }
}

// SAFETY: each frame is handed out once until it comes back, as `out` records; the model treats it as RAM.
unsafe impl FrameSource for SimFrames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        let mut state = self.machine.lock();
        match &mut state.frames.until_failure {
            Some(0) => return Err(NoFrame),
            Some(left) => *left -= 1,
            None => {}
        }
        let frame = match state.frames.free.pop() {
            Some(frame) => frame,
            None => {
                let frame = state.frames.next;
                if frame >= state.frames.end {
                    return Err(NoFrame);
                }
                state.frames.next = PhysAddr::new(frame.get() + PAGE_SIZE);
                frame
            }
        };
        state.frames.out.insert(frame.get());
        state.memory.reuse(frame, FrameUse::Table);
        Ok(frame)
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        let mut state = self.machine.lock();
        if !state.frames.out.remove(&table.get()) {
            state.complain(format!("{table:?} is freed, but is not out"));
            return;
        }
        state.judge_freed_table(table);
        state.memory.reuse(table, FrameUse::FreedTable);
        state.frames.free.push(table);
    }
}

impl Machine {
    /// The machine as `cpu` drives it.
    #[must_use]
    pub fn cpu(&self, cpu: CpuId) -> SimCpu {
        SimCpu::new(self.clone(), to_usize(u64::from(cpu.get())))
    }

    /// The source of table frames.
    #[must_use]
    pub fn frames(&self) -> SimFrames {
        SimFrames::new(self.clone())
    }
}
