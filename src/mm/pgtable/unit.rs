//! Ranges that are one page, one contiguous group of pages, or one 2 MiB block, as a device's mostly are: mapped and
//! unmapped straight through. Anything unusual falls back to the general path, with nothing changed.
#![forbid(unsafe_code)]

use super::{MapFlags, PageTable};
use crate::addr::{PAGE_SIZE, PMD_SIZE, PhysAddr, VirtRange};
use crate::hal::entry::{EntryFormat, RawEntry};
use crate::hal::level::{LeafLevel, Level, Run};
use crate::hal::mmu::{Invalidation, Mmu, WalkDepth};

/// Bytes of a contiguous group of pages.
const GROUP_SIZE: u64 = LeafLevel::Pte.contiguous_size();

/// Kinds of whole ranges.
#[derive(Clone, Copy)]
enum Unit {
    Page,
    Group,
    Block,
}

impl Unit {
    /// The kind of `size` bytes whose start has the low bits of `place`.
    #[inline(always)]
    const fn of(size: u64, place: u64) -> Option<Self> {
        match size {
            PAGE_SIZE => Some(Self::Page),
            GROUP_SIZE if place & (GROUP_SIZE - 1) == 0 => Some(Self::Group),
            PMD_SIZE if place & (PMD_SIZE - 1) == 0 => Some(Self::Block),
            _ => None,
        }
    }
}

impl<M: Mmu> PageTable<M> {
    /// Maps and publishes a range that is one unit, where its table is there and has nothing in its place. Returns whether
    /// that was so; if not, nothing has changed.
    #[inline(always)]
    pub(super) fn map_unit(&self, range: VirtRange, phys: PhysAddr, attributes: RawEntry, flags: MapFlags) -> bool {
        let at = range.start();
        match Unit::of(range.size(), at.get() | phys.get()) {
            Some(Unit::Page) => {
                let slot = Level::Pte.slot(at);
                let free = self.last_level(at).filter(|table| table.read(&self.mmu, slot).is_absent());
                let Some(table) = free else { return false };
                table.write(&self.mmu, slot, M::Format::leaf_with(attributes, LeafLevel::Pte, phys, false));
            }
            Some(Unit::Group) if !flags.contains(MapFlags::NO_CONT) => {
                let run = Run::group(Level::Pte.slot(at));
                let free = self.last_level(at).filter(|table| table.is_empty(&self.mmu, run));
                let Some(table) = free else { return false };
                let leaf = M::Format::leaf_with(attributes, LeafLevel::Pte, phys, true);
                table.fill(&self.mmu, run, leaf, PAGE_SIZE);
            }
            Some(Unit::Block) if !flags.contains(MapFlags::NO_HUGE) => {
                let slot = Level::Pmd.slot(at);
                let free = self.block_level(at).filter(|table| table.read(&self.mmu, slot).is_absent());
                let Some(table) = free else { return false };
                table.write(&self.mmu, slot, M::Format::leaf_with(attributes, LeafLevel::Pmd, phys, false));
            }
            _ => return false,
        }
        self.mmu.publish();
        true
    }

    /// Unmaps a range that is one unit, and waits until no CPU reaches what was there. Returns whether it was one, and no
    /// part of a larger one; if not, nothing has changed.
    #[inline(always)]
    pub(super) fn unmap_unit(&self, range: VirtRange) -> bool {
        let at = range.start();
        match Unit::of(range.size(), at.get()) {
            Some(Unit::Page) => {
                let slot = Level::Pte.slot(at);
                let Some(table) = self.last_level(at) else { return false };
                if M::Format::is_contiguous(table.read(&self.mmu, slot)) {
                    return false;
                }
                table.write(&self.mmu, slot, RawEntry::ABSENT);
                self.flush_leaf(at, LeafLevel::Pte);
            }
            // Its edges are edges of a group, so that they cut none.
            Some(Unit::Group) => {
                let run = Run::group(Level::Pte.slot(at));
                let Some(table) = self.last_level(at) else { return false };
                table.clear(&self.mmu, run);
                let (count, scope) = (run.count() as u64, self.scope());
                let (stride, depth) = (LeafLevel::Pte, WalkDepth::LastLevel);
                self.flush_span(Invalidation { start: at, count, stride, depth, scope });
            }
            Some(Unit::Block) => {
                let slot = Level::Pmd.slot(at);
                let Some(table) = self.block_level(at) else { return false };
                let raw = table.read(&self.mmu, slot);
                if raw.is_absent() || M::Format::next_table(raw).is_some() || M::Format::is_contiguous(raw) {
                    return false;
                }
                table.write(&self.mmu, slot, RawEntry::ABSENT);
                self.flush_leaf(at, LeafLevel::Pmd);
            }
            None => return false,
        }
        true
    }
}
