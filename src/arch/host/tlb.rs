//! A CPU's TLB: leaves and cached tables, kept until they are invalidated, however long they have been stale.
#![forbid(unsafe_code)]

use super::op::{Reach, TlbOp};
use crate::addr::{PhysAddr, VirtAddr};
use crate::hal::entry::Leaf;
use crate::hal::level::{LeafLevel, Level, Slot};
use crate::hal::mmu::{Asid, WalkDepth};
use rustc_hash::FxHashMap;

/// An entry's place in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Loc {
    pub(super) table: PhysAddr,
    pub(super) slot: Slot,
}

/// Key of a cached leaf: the address space it belongs to (`None`: global), first address, size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) tag: Option<Asid>,
    pub(super) start: u64,
    pub(super) size: u64,
}

/// A cached leaf, or contiguous group held as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cached {
    pub(super) key: Key,
    /// The leaf as read; for a group, its first member.
    pub(super) leaf: Leaf,
    /// Every entry that was read on the way, the leaf's last.
    pub(super) path: Vec<Loc>,
}

impl Cached {
    pub(super) fn covers(&self, addr: VirtAddr) -> bool {
        self.key.start <= addr.get() && addr.get() - self.key.start < self.key.size
    }

    pub(super) fn phys_at(&self, addr: VirtAddr) -> PhysAddr {
        PhysAddr::new(self.leaf.phys.get() + (addr.get() - self.key.start))
    }

    /// Whether the entry came through the one at `loc`; a group held as one came through each of its members.
    pub(super) fn came_through(&self, loc: Loc) -> bool {
        let grouped = self.key.size > self.leaf.level.size();
        let group = |slot: Slot| if grouped { slot.group_start() } else { slot };
        let last = self.path.last().is_some_and(|last| last.table == loc.table && group(last.slot) == group(loc.slot));
        last || self.path.contains(&loc)
    }
}

/// Key of a cached table: the address space whose root it hangs from, its level, its first address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct TableKey {
    pub(super) tag: Option<Asid>,
    pub(super) level: Level,
    pub(super) start: u64,
}

impl TableKey {
    pub(super) const fn new(tag: Option<Asid>, level: Level, addr: VirtAddr) -> Self {
        Self { tag, level, start: addr.get() & !(table_span(level) - 1) }
    }
}

/// Bytes that a whole table of `level` translates.
pub(super) const fn table_span(level: Level) -> u64 {
    level.size() << 9
}

/// A cached table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CachedTable {
    pub(super) table: PhysAddr,
    /// The entries on the walk to it; the last one names it.
    pub(super) path: Vec<Loc>,
}

/// Every size that a cached leaf can have.
const SIZES: [u64; 5] = [
    LeafLevel::Pte.size(),
    LeafLevel::Pte.contiguous_size(),
    LeafLevel::Pmd.size(),
    LeafLevel::Pmd.contiguous_size(),
    LeafLevel::Pud.size(),
];

#[derive(Default)]
pub(super) struct Tlb {
    pub(super) leaves: FxHashMap<Key, Cached>,
    pub(super) tables: FxHashMap<TableKey, CachedTable>,
}

impl Tlb {
    /// Every cached leaf for `addr` that a CPU running with `asid` may hit.
    pub(super) fn hits(&self, addr: VirtAddr, asid: Option<Asid>) -> impl Iterator<Item = &Cached> {
        let tags = if asid.is_some() { [None, asid] } else { [None, None] };
        let tags = tags.into_iter().take(if asid.is_some() { 2 } else { 1 });
        tags.flat_map(move |tag| {
            SIZES.iter().filter_map(move |&size| self.leaves.get(&Key { tag, start: addr.get() & !(size - 1), size }))
        })
    }

    /// Place of the table at `table` in the address space, if it is cached.
    pub(super) fn place_of(&self, table: PhysAddr) -> Option<TableKey> {
        self.tables.iter().find(|(_, cached)| cached.table == table).map(|(&key, _)| key)
    }

    /// Drops what `op` reaches. Returns an address under each entry dropped.
    pub(super) fn apply(&mut self, op: &TlbOp) -> Vec<VirtAddr> {
        let mut dropped = Vec::new();
        // By address, an operation with an ASID reaches global entries too; by ASID alone it does not.
        let in_scope = |tag: Option<Asid>| match (op.asid, tag, op.what) {
            (None, _, _) => true,
            (Some(_), None, what) => what != Reach::Everything,
            (Some(asid), Some(tag), _) => asid == tag,
        };
        self.leaves.retain(|key, cached| {
            let reached = match op.what {
                Reach::Everything => true,
                Reach::Address(addr, level) => {
                    cached.covers(addr) && level.is_none_or(|level| level == cached.leaf.level.level())
                }
                Reach::Span(first, last) => key.start <= last.get() && first.get() <= key.start + (key.size - 1),
            };
            let drop = reached && in_scope(key.tag);
            if drop {
                dropped.push(VirtAddr::new(key.start));
            }
            !drop
        });
        if op.depth == WalkDepth::AnyLevel {
            self.tables.retain(|key, _| {
                let last = key.start + (table_span(key.level) - 1);
                let reached = match op.what {
                    Reach::Everything => true,
                    Reach::Address(addr, _) => key.start <= addr.get() && addr.get() <= last,
                    Reach::Span(from, to) => key.start <= to.get() && from.get() <= last,
                };
                let in_scope = op.asid.is_none() || op.asid == key.tag;
                let drop = reached && in_scope;
                if drop {
                    dropped.push(VirtAddr::new(key.start));
                }
                !drop
            });
        }
        dropped
    }
}
