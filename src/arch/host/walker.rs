//! The table walker of a CPU: it uses cached tables where it can, and is eager: it caches everything that may be cached.
#![forbid(unsafe_code)]

use super::machine::State;
use super::memory::{FrameUse, GARBAGE, table_of, word_of};
use super::root::Root;
use super::tlb::{Cached, CachedTable, Key, Loc, TableKey};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::aarch64::desc::Stage1;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{CONTIGUOUS_ENTRIES, Level, Run, Slot};
use crate::hal::mmu::BbmLevel;
use crate::hal::prot::Prot;

/// Result of a walk.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The entries read, in order, the cached ones too.
    pub(super) path: Vec<Loc>,
    /// The tables passed, the root's children first.
    tables: Vec<(Level, CachedTable)>,
    /// The leaf, or the level at which there was none.
    pub(super) end: Result<Leaf, Level>,
    /// Violations found by the walk.
    complaints: Vec<String>,
}

impl State {
    /// The root that translates `addr` on a CPU.
    pub(super) fn root_for(&self, cpu: usize, addr: VirtAddr) -> Option<Root> {
        let cpu = self.cpus.get(cpu)?;
        match addr.get() >> 48 {
            0xffff => cpu.ttbr1,
            0 => cpu.ttbr0,
            _ => None,
        }
    }

    /// Walks the tables that walkers see. With `cached` the walk starts from the deepest table that the CPU has
    /// cached, stale or not, as a CPU may.
    pub(super) fn walk(&self, cpu: usize, root: Root, addr: VirtAddr, cached: bool) -> Walk {
        let mut walk = Walk { path: Vec::new(), tables: Vec::new(), end: Err(Level::Pgd), complaints: Vec::new() };
        let (mut table, mut level) = (root.table, Level::Pgd);
        if cached && let Some(cpu) = self.cpus.get(cpu) {
            for deep in [Level::Pud, Level::Pmd, Level::Pte] {
                if let Some(hit) = cpu.tlb.tables.get(&TableKey::new(root.asid, deep, addr)) {
                    (table, level) = (hit.table, deep);
                    walk.path.clone_from(&hit.path);
                }
            }
        }
        loop {
            let slot = level.slot(addr);
            let loc = Loc { table, slot };
            if self.memory.used_for(table) != FrameUse::Table {
                walk.complaints.push(format!("walks {table:?}, which is no table now, for {addr:?}"));
            }
            let raw = self.memory.visible(word_of(table, slot));
            walk.path.push(loc);
            walk.end = Err(level);
            if raw & 1 == 0 {
                return walk;
            }
            if raw == GARBAGE {
                walk.complaints
                    .push(format!("walks into memory of table {table:?} that was never written, for {addr:?}"));
                return walk;
            }
            match (Stage1::decode(level, RawEntry::new(raw)), level.below()) {
                (Entry::Table(next), Some(below)) => {
                    let path = walk.path.clone();
                    walk.tables.push((below, CachedTable { table: next, path }));
                    (table, level) = (next, below);
                }
                (Entry::Leaf(leaf), _) => {
                    walk.complaints.extend(self.group_complaint(&leaf, loc, addr));
                    walk.end = Ok(leaf);
                    return walk;
                }
                (entry, _) => {
                    walk.complaints.push(format!("meets {entry:?} at {level:?} for {addr:?}"));
                    return walk;
                }
            }
        }
    }

    /// Error in the contiguous group of a leaf (Arm ARM D8.7.1): a valid member that differs. Members that are invalid are
    /// being written or cleared.
    fn group_complaint(&self, leaf: &Leaf, loc: Loc, addr: VirtAddr) -> Option<String> {
        if !leaf.contiguous {
            return None;
        }
        let group = Run::group(loc.slot);
        let offset = (loc.slot.get() - group.first().get()) as u64 * leaf.level.size();
        let first = leaf.phys.checked_sub(offset)?;
        // The hardware sets these two in the one entry that it uses.
        let lasting = |prot: Prot| prot.with_accessed(true).with_dirty(false);
        let fits = |slot: Slot, index: usize| {
            let raw = RawEntry::new(self.memory.visible(word_of(loc.table, slot)));
            match Stage1::decode(leaf.level.level(), raw) {
                _ if !Stage1::is_valid(raw) => true,
                Entry::Leaf(other) => {
                    lasting(other.prot) == lasting(leaf.prot)
                        && other.phys.offset_from(first) == Some(index as u64 * leaf.level.size())
                        && (other.contiguous || self.config.bbm == BbmLevel::Two)
                }
                _ => false,
            }
        };
        let consistent = group.slots().enumerate().all(|(index, slot)| fits(slot, index));
        let aligned = first.is_aligned(leaf.level.contiguous_size());
        (!consistent || !aligned).then(|| format!("meets an inconsistent contiguous group at {addr:?}"))
    }

    /// Walks for `addr` on a CPU and caches what there is. Returns where the walk ended.
    pub(super) fn speculate(&mut self, cpu: usize, addr: VirtAddr) -> Option<Walk> {
        let root = self.root_for(cpu, addr)?;
        let walk = self.walk(cpu, root, addr, true);
        for complaint in &walk.complaints {
            self.complain(format!("CPU {cpu} {complaint}"));
        }
        if walk.end.is_err() && self.walk(cpu, root, addr, false).end.is_ok() {
            self.complain(format!(
                "CPU {cpu} faults at {addr:?}, which is mapped: it walks a table that it has cached"
            ));
        }
        let mut fresh = Vec::new();
        let tlb = &mut self.cpus.get_mut(cpu)?.tlb;
        for (level, table) in &walk.tables {
            let key = TableKey::new(root.asid, *level, addr);
            if tlb.tables.insert(key, table.clone()).is_none() {
                fresh.push((*level, key.start));
            }
        }
        if let Ok(leaf) = walk.end {
            self.cache(cpu, root, addr, leaf, &walk.path);
        }
        // A table just met for the first time: everything in it may be fetched too.
        for (level, start) in fresh {
            if self.config.eager {
                self.speculate_table(cpu, level, start);
            }
        }
        Some(walk)
    }

    /// Walks for every entry of the table of `level` that translates `start`.
    fn speculate_table(&mut self, cpu: usize, level: Level, start: u64) {
        let addr = VirtAddr::new(start);
        let Some(root) = self.root_for(cpu, addr) else { return };
        let cached = self.cpus.get(cpu).and_then(|cpu| cpu.tlb.tables.get(&TableKey::new(root.asid, level, addr)));
        let table = cached.map_or(root.table, |cached| cached.table);
        for slot in Run::TABLE.slots() {
            if self.memory.visible(word_of(table, slot)) & 1 == 1 {
                self.speculate(cpu, VirtAddr::new(start + (slot.get() as u64) * level.size()));
            }
        }
    }

    /// Walks for everything below a CPU's roots.
    pub(super) fn speculate_all(&mut self, cpu: usize) {
        if self.config.eager {
            for start in [0, u64::MAX << 48] {
                if self.root_for(cpu, VirtAddr::new(start)).is_some() {
                    self.speculate_table(cpu, Level::Pgd, start);
                }
            }
        }
    }

    /// Every CPU may at once fetch the entry that has become visible at `word`.
    pub(super) fn speculate_word(&mut self, word: u64) {
        if !self.config.eager {
            return;
        }
        let (table, slot) = table_of(word);
        for cpu in 0..self.cpus.len() {
            let Some(state) = self.cpus.get(cpu) else { continue };
            let roots = [state.ttbr0, state.ttbr1];
            let is_root =
                |half: usize| roots.get(half).is_some_and(|root| root.is_some_and(|root| root.table == table));
            let start = match state.tlb.place_of(table) {
                Some(key) => Some((key.start, key.level)),
                None if is_root(0) => Some((0, Level::Pgd)),
                None if is_root(1) => Some((u64::MAX << 48, Level::Pgd)),
                None => None,
            };
            if let Some((start, level)) = start {
                self.speculate(cpu, VirtAddr::new(start + (slot.get() as u64) * level.size()));
            }
        }
    }

    /// Puts a leaf into a TLB, unless it is there. Even-numbered CPUs hold a contiguous group as one, the others each
    /// member by itself: code must be right on both.
    fn cache(&mut self, cpu: usize, root: Root, addr: VirtAddr, leaf: Leaf, path: &[Loc]) {
        // Arm ARM D8.5: a translation without the access flag is not cached.
        if !leaf.prot.is_accessed() {
            return;
        }
        let tag = if leaf.prot.is_global() { None } else { root.asid };
        let grouped = leaf.contiguous && cpu.is_multiple_of(2);
        let size = leaf.level.size() * if grouped { CONTIGUOUS_ENTRIES as u64 } else { 1 };
        let key = Key { tag, start: addr.get() & !(size - 1), size };
        let leaf = Leaf { phys: leaf.phys.align_down(size), ..leaf };
        let entry = Cached { key, leaf, path: path.to_vec() };
        let Some(state) = self.cpus.get_mut(cpu) else { return };
        if state.tlb.leaves.contains_key(&key) {
            return;
        }
        let bbm = self.config.bbm;
        let around = state.tlb.hits(addr, root.asid).find(|other| Self::conflicts(bbm, other, &entry));
        let inside = || state.tlb.leaves.values().find(|other| Self::conflicts(bbm, other, &entry));
        let conflict = around.or_else(|| if size > PAGE_SIZE { inside() } else { None });
        let text = conflict.map(|other| format!("CPU {cpu} holds {other:?} and {entry:?}: TLB conflict"));
        state.tlb.leaves.insert(key, entry);
        if let Some(text) = text {
            self.complain(text);
        }
    }

    /// Whether a TLB that holds both may answer an access wrongly or with a conflict abort.
    fn conflicts(bbm: BbmLevel, one: &Cached, other: &Cached) -> bool {
        let (first, second) = (one.key, other.key);
        let tags_meet = first.tag.is_none() || second.tag.is_none() || first.tag == second.tag;
        let start = first.start.max(second.start);
        let last = (first.start + (first.size - 1)).min(second.start + (second.size - 1));
        if !tags_meet || start > last {
            return false;
        }
        let at = VirtAddr::new(start);
        let same = one.phys_at(at) == other.phys_at(at) && one.leaf.prot == other.leaf.prot;
        !same || bbm != BbmLevel::Two
    }
}
