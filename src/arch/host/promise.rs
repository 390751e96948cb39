//! Mappings that CPUs may rely on between two changes, and those that they may not: a mapping that is promised to be live translates on every
//! CPU at every step, while one that is new may fault once on a CPU that has not synchronised since it became visible.
#![forbid(unsafe_code)]

use super::machine::{Machine, State};
use super::memory::{FrameUse, Word, table_of, word_of};
use super::promised::Promised;
use super::tlb::{Loc, TableKey};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::arch::aarch64::desc::Stage1;
use crate::hal::entry::{Entry, EntryFormat, RawEntry};
use crate::hal::level::Level;

impl State {
    /// Each store that became visible just now: `valid` says whether it made an entry valid.
    pub(super) fn has_become_visible(&mut self, word: Word, valid: bool) {
        if valid && self.config.stale_faults && self.memory.used_for(table_of(word).0) == FrameUse::Table {
            self.cpus.iter_mut().for_each(|cpu| _ = cpu.missed.insert(word));
        }
        self.speculate_word(word);
    }

    /// An ISB, or an exception, of a CPU.
    pub(super) fn synchronise(&mut self, cpu: usize) {
        if let Some(cpu) = self.cpus.get_mut(cpu) {
            cpu.missed.clear();
        }
    }

    /// The fault of an access whose translation is one that its CPU has missed, at the level of the entry. Taking it
    /// synchronises.
    pub(super) fn stale_fault(&mut self, cpu: usize, path: &[Loc]) -> Option<Level> {
        let missed = &self.cpus.get(cpu)?.missed;
        let place = path.iter().position(|loc| missed.contains(&word_of(loc.table, loc.slot)))?;
        self.synchronise(cpu);
        [Level::Pgd, Level::Pud, Level::Pmd, Level::Pte].get(place).copied()
    }

    /// Each CPU still translates each page that it was promised, by a walk from the root, from the tables that it has cached,
    /// and by its TLB.
    pub(super) fn judge_promises(&mut self) {
        let mut found = Vec::new();
        for promised in &self.promised {
            for cpu in 0..self.cpus.len() {
                let Some(root) = self.root_for(cpu, promised.addr) else { continue };
                let walks = [false, true].map(|cached| self.walk(cpu, root, promised.addr, cached).end);
                let by_walk = walks.map(|end| {
                    end.ok().map(|leaf| PhysAddr::new(leaf.phys.get() + promised.addr.offset_in(leaf.level.size())))
                });
                let tlb = self.cpus.get(cpu).map(|cpu| &cpu.tlb);
                let hits = tlb.into_iter().flat_map(|tlb| tlb.hits(promised.addr, root.asid));
                let by_tlb = hits.map(|cached| Some(cached.phys_at(promised.addr)));
                if let Some(other) = by_walk.into_iter().chain(by_tlb).find(|phys| *phys != Some(promised.phys)) {
                    found.push(format!("CPU {cpu} was promised {promised:?}, and comes to {other:?}"));
                }
            }
        }
        found.into_iter().for_each(|text| self.complain(text));
    }

    /// A valid entry is written to a table that a CPU still has cached for addresses for which it is not linked any more: until the invalidation that CPU translates them by what is written now.
    pub(super) fn judge_unlinked(&mut self, table: PhysAddr) {
        let walked = self.cpus.iter().enumerate().find_map(|(index, cpu)| {
            let stale = |key: &TableKey| {
                let root = [cpu.ttbr0, cpu.ttbr1].into_iter().flatten().find(|root| root.asid == key.tag);
                root.is_some_and(|root| !self.is_linked(root.table, key, table))
            };
            let key = cpu.tlb.tables.iter().find(|(key, cached)| cached.table == table && stale(key))?.0;
            Some((index, key.start))
        });
        if let Some((cpu, start)) = walked {
            self.complain(format!(
                "an entry is made valid in {table:?}, which is not linked any more, and CPU {cpu} still walks it for {start:#x}"
            ));
        }
    }

    /// Whether `table` is linked, by the newest entries from `root` on, as the one that `key` names.
    fn is_linked(&self, root: PhysAddr, key: &TableKey, table: PhysAddr) -> bool {
        let (mut at, mut level) = (root, Level::Pgd);
        while level != key.level {
            let raw = self.memory.newest(word_of(at, level.slot(VirtAddr::new(key.start))));
            match (Stage1::decode(level, RawEntry::new(raw)), level.below()) {
                (Entry::Table(next), Some(below)) => (at, level) = (next, below),
                _ => return false,
            }
        }
        at == table
    }
}

impl Machine {
    /// Promises every CPU that the pages of `range` stay mapped to the memory that they are mapped to now: from here on each step
    /// at which one of them could find something else is a violation. Pages that are not mapped now are not promised.
    pub fn promise(&self, range: VirtRange) {
        let mut state = self.lock();
        let mut addr = range.start().align_down(PAGE_SIZE);
        while addr < range.end() {
            let walk = state.root_for(0, addr).map(|root| state.walk(0, root, addr, false).end);
            if let Some(Ok(leaf)) = walk {
                let phys = PhysAddr::new(leaf.phys.get() + addr.offset_in(leaf.level.size()));
                state.promised.push(Promised { addr, phys });
            }
            addr = VirtAddr::new(addr.get() + PAGE_SIZE);
        }
        state.judge_promises();
    }

    /// Takes all promises back.
    pub fn withdraw_promises(&self) {
        self.lock().promised.clear();
    }
}
