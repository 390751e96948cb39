//! The oracle: the rules that page-table code must keep, each judged at the moment at which it can be broken.
#![forbid(unsafe_code)]

use super::machine::{Cpu, State};
use super::memory::word_of;
use super::tlb::{Cached, CachedTable, Loc, TableKey};
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::arch::aarch64::desc::Stage1;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{Level, Slot};
use crate::hal::mmu::{Asid, BbmLevel};

/// Whether a CPU that runs with `asid` may use an entry with this tag.
fn is_usable(tag: Option<Asid>, asid: Option<Asid>) -> bool {
    tag.is_none() || tag == asid
}

impl Cpu {
    /// Puts aside what it cannot use, since it runs with another ASID.
    fn condemn(&mut self, leaf: impl Fn(&Cached) -> bool, table: impl Fn(&CachedTable) -> bool) {
        let asid = self.ttbr0.and_then(|root| root.asid);
        let leaves = self.tlb.leaves.extract_if(|key, cached| !is_usable(key.tag, asid) && leaf(cached));
        self.condemned.leaves.extend(leaves);
        let tables = self.tlb.tables.extract_if(|key, cached| !is_usable(key.tag, asid) && table(cached));
        self.condemned.tables.extend(tables);
    }
}

impl State {
    /// Break-before-make (Arm ARM D8.17): a valid entry is written while some CPU still holds, through the same place,
    /// a translation that it contradicts. It does not matter whether the place held that entry until now (no break) or
    /// was made invalid meanwhile (no flush).
    pub(super) fn judge_store(&mut self, table: PhysAddr, slot: Slot, value: u64) {
        let new = RawEntry::new(value);
        if !Stage1::is_valid(new) {
            return;
        }
        let loc = Loc { table, slot };
        self.judge_unlinked(table);
        for cpu in 0..self.cpus.len() {
            if let Some(text) = self.contradiction(cpu, loc, new) {
                self.complain(format!(
                    "break-before-make: {new:?} written to {loc:?}, but CPU {cpu} still holds {text}"
                ));
            }
        }
        if self.level_of(table).is_some_and(|level| level != Level::Pte)
            && let Some(child) = Stage1::next_table(new)
            && self.memory.has_pending(child)
        {
            self.complain(format!("table {child:?} is linked before walkers can see what it holds"));
        }
    }

    /// The level of a table that some CPU has met.
    fn level_of(&self, table: PhysAddr) -> Option<Level> {
        self.cpus.iter().find_map(|cpu| {
            let is_root = [cpu.ttbr0, cpu.ttbr1].iter().flatten().any(|root| root.table == table);
            if is_root { Some(Level::Pgd) } else { cpu.tlb.place_of(table).map(|key| key.level) }
        })
    }

    /// Describes a cached entry of a CPU, read through `loc`, that `new` contradicts.
    fn contradiction(&self, cpu: usize, loc: Loc, new: RawEntry) -> Option<String> {
        let tlb = &self.cpus.get(cpu)?.tlb;
        let level = self.level_of(loc.table)?;
        for (key, cached) in &tlb.tables {
            if cached.path.last() == Some(&loc) {
                let same = Stage1::next_table(new) == Some(cached.table) && level != Level::Pte;
                let collapse = self.config.bbm == BbmLevel::Two && matches!(Stage1::decode(level, new), Entry::Leaf(_));
                if !same && !collapse {
                    return Some(format!("the table {:?} for {:#x}", cached.table, key.start));
                }
            }
        }
        // Only entries under the place can have come through it.
        let span = tlb.place_of(loc.table).map(|key| key.start + loc.slot.get() as u64 * level.size());
        let here: Vec<&Cached> = match span {
            Some(start) if level == Level::Pte => {
                let asids = self.cpus.get(cpu).and_then(|cpu| cpu.ttbr0).and_then(|root| root.asid);
                tlb.hits(VirtAddr::new(start), asids).filter(|cached| cached.came_through(loc)).collect()
            }
            _ => tlb.leaves.values().filter(|cached| cached.came_through(loc)).collect(),
        };
        here.into_iter().find_map(|cached| {
            let start = span.unwrap_or(cached.key.start).max(cached.key.start);
            let found = self.leaf_under(level, new, VirtAddr::new(start));
            let why = self.incompatible(cached, VirtAddr::new(start), found)?;
            Some(format!("{cached:?} ({why})"))
        })
    }

    /// The leaf that `entry`, at `level`, gives for `addr`, by what walkers see below it, and its first address.
    fn leaf_under(&self, level: Level, entry: RawEntry, addr: VirtAddr) -> Option<(u64, Leaf)> {
        match (Stage1::decode(level, entry), level.below()) {
            (Entry::Leaf(leaf), _) => Some((addr.get() & !(leaf.level.size() - 1), leaf)),
            (Entry::Table(table), Some(below)) => {
                let next = self.memory.visible(word_of(table, below.slot(addr)));
                self.leaf_under(below, RawEntry::new(next), addr)
            }
            _ => None,
        }
    }

    /// Reason why a cached leaf and the one that replaced it must not coexist.
    fn incompatible(&self, cached: &Cached, addr: VirtAddr, found: Option<(u64, Leaf)>) -> Option<&'static str> {
        let Some((start, leaf)) = found else { return Some("nothing is mapped there now") };
        let old = &cached.leaf;
        let resized = old.level != leaf.level || old.contiguous != leaf.contiguous;
        if cached.phys_at(addr) != PhysAddr::new(leaf.phys.get() + (addr.get() - start)) {
            Some("another output address")
        } else if old.prot.memory() != leaf.prot.memory() {
            Some("another memory type")
        } else if old.prot.is_global() != leaf.prot.is_global() {
            Some("another scope")
        } else if resized && self.config.bbm != BbmLevel::Two {
            Some("another size or contiguous bit")
        } else if resized && old.prot.with_accessed(true) != leaf.prot.with_accessed(true) {
            Some("another size and another permission at once")
        } else {
            None
        }
    }

    /// Promise 3: memory goes to a new owner while a CPU holds a translation to it. The CPU cannot use a translation
    /// under an ASID that it does not run with now: that one is judged when the CPU runs with that ASID again.
    pub(super) fn judge_new_owner(&mut self, memory: PhysRange) {
        let mut found = Vec::new();
        for (cpu, state) in self.cpus.iter_mut().enumerate() {
            let asid = state.ttbr0.and_then(|root| root.asid);
            let reaches = |cached: &Cached| {
                let phys = PhysRange::from_size(cached.leaf.phys, cached.key.size);
                phys.is_some_and(|phys| phys.overlaps(memory))
            };
            for cached in state.tlb.leaves.values().filter(|cached| reaches(cached)) {
                if is_usable(cached.key.tag, asid) {
                    found.push(format!("{memory:?} has a new owner, but CPU {cpu} still holds {cached:?}"));
                }
            }
            state.condemn(reaches, |_| false);
        }
        found.into_iter().for_each(|text| self.complain(text));
    }

    /// Promise 3 for tables: one goes back to its source while a CPU may still walk through it; as for
    /// [`State::judge_new_owner`].
    pub(super) fn judge_freed_table(&mut self, table: PhysAddr) {
        let mut found = Vec::new();
        for (cpu, state) in self.cpus.iter_mut().enumerate() {
            let asid = state.ttbr0.and_then(|root| root.asid);
            let through = |cached: &Cached| cached.path.iter().any(|loc| loc.table == table);
            let is_it = |cached: &CachedTable| cached.table == table;
            let walks = state.tlb.tables.iter().any(|(key, cached)| is_it(cached) && is_usable(key.tag, asid));
            let leaves = state.tlb.leaves.values().any(|cached| through(cached) && is_usable(cached.key.tag, asid));
            let roots = [state.ttbr0, state.ttbr1].iter().flatten().any(|root| root.table == table);
            if walks || leaves || roots {
                found.push(format!("table {table:?} is freed, but CPU {cpu} still translates through it"));
            }
            state.condemn(through, is_it);
        }
        found.into_iter().for_each(|text| self.complain(text));
    }

    /// A CPU runs with `asid` from now on.
    pub(super) fn judge_asid(&mut self, cpu: usize, asid: Asid) {
        let Some(condemned) = self.cpus.get(cpu).map(|cpu| &cpu.condemned) else { return };
        let leaf = condemned.leaves.keys().any(|key| key.tag == Some(asid));
        let table = condemned.tables.keys().any(|key| key.tag == Some(asid));
        if leaf || table {
            self.complain(format!("CPU {cpu} runs with {asid:?} and still holds what it had under that long ago"));
        }
    }

    /// Nothing is under way: stores are visible, invalidations complete, TLBs agree with the tables.
    pub(super) fn judge_quiet(&mut self) {
        let mut found = Vec::new();
        if let Some(word) = self.memory.any_pending() {
            found.push(format!("the store to {word:#x} was never made visible (no DSB)"));
        }
        for (cpu, state) in self.cpus.iter().enumerate() {
            if !state.outstanding.is_empty() {
                found.push(format!("CPU {cpu} never waited for its invalidations (no DSB ISH)"));
            }
            for (key, cached) in &state.tlb.tables {
                if !self.table_still_there(cpu, key, cached.table) {
                    found.push(format!("CPU {cpu} holds a stale table {:?} for {:#x}", cached.table, key.start));
                }
            }
            for cached in state.tlb.leaves.values() {
                if let Some(text) = self.staleness(cpu, cached) {
                    found.push(format!("CPU {cpu} holds a stale translation {cached:?}: {text}"));
                }
            }
        }
        found.into_iter().for_each(|text| self.complain(text));
    }

    fn table_still_there(&self, cpu: usize, key: &TableKey, table: PhysAddr) -> bool {
        let Some(root) = self.root_for(cpu, VirtAddr::new(key.start)) else { return true };
        if root.asid != key.tag {
            return true;
        }
        let walk = self.walk(cpu, root, VirtAddr::new(key.start), false);
        walk.path.iter().any(|loc| loc.table == table)
    }

    /// The difference between a cached leaf and the tables. Address spaces that are not in use now are left alone.
    fn staleness(&self, cpu: usize, cached: &Cached) -> Option<String> {
        let addr = VirtAddr::new(cached.key.start);
        let root = self.root_for(cpu, addr)?;
        if cached.key.tag.is_some() && cached.key.tag != root.asid {
            return None;
        }
        let walk = self.walk(cpu, root, addr, false);
        match walk.end {
            Err(_) => Some("nothing is mapped there now".to_owned()),
            // A young, clean entry may have become dirty by the hardware's own hand.
            Ok(leaf) if self.same_leaf(&cached.leaf, &leaf) => None,
            Ok(leaf) => Some(format!("the tables say {leaf:?}")),
        }
    }

    fn same_leaf(&self, cached: &Leaf, now: &Leaf) -> bool {
        let prot = if self.config.hardware_dirty { now.prot.with_dirty(cached.prot.is_dirty()) } else { now.prot };
        Leaf { prot, ..*now } == *cached
    }
}
