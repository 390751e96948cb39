//! Changing the permissions of areas: `set_memory_ro`, `set_memory_rw`, `set_memory_x`, `set_memory_nx` (Linux:
//! arch/arm64/mm/pageattr.c).
//!
//! The pages of an area have a second mapping, in the linear map. It follows: it is writable where the area is, and read-only
//! elsewhere; it is never executable. So at no time is a frame both writable and executable, through any mappings. When the
//! area is freed, the linear map is writable again before the pages go.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::node::VmapNode;
use super::pages::Blocks;
use super::permission::{Permission, SetMemoryError};
use super::{AreaError, Removed, SetMemoryHal, VmFlags, VmallocHal, VmapSpace};
use crate::addr::{PAGE_SIZE, PhysRange, VirtAddr, VirtRange};
use crate::hal::Internal;
use crate::hal::entry::Entry;
use crate::hal::mmu::{BbmLevel, Mmu};
use crate::hal::prot::Access;
use crate::mm::pgtable::{Change, LivePolicy, PgtableError, Visit};
use crate::mm::zone::PageHal as _;
use core::ops::ControlFlow;

impl<'a, H: VmallocHal<'a>> VmapSpace<'a, H> {
    /// Calls `f` for every leaf of `range` in order, as long as it returns `Ok`.
    fn each_part(
        &self,
        range: VirtRange,
        mut f: impl FnMut(VirtRange, PhysRange, Access) -> Result<(), SetMemoryError>,
    ) -> Result<(), SetMemoryError> {
        let walked = self.hal().tables().do_walk(range, |visit| match part_of(visit, range) {
            Some((part, frames, access)) => {
                f(part, frames, access).map_or_else(ControlFlow::Break, ControlFlow::Continue)
            }
            None => ControlFlow::Continue(()),
        });
        walked.break_value().map_or(Ok(()), Err)
    }

    /// The next part of `range` that `wanted` accepts; adjacent leaves are merged.
    fn next_part(&self, range: VirtRange, wanted: impl Fn(Access) -> bool) -> Option<VirtRange> {
        let mut found: Option<VirtRange> = None;
        let _ = self.hal().tables().do_walk(range, |visit| {
            let Some((part, _, access)) = part_of(visit, range) else { return ControlFlow::Continue(()) };
            found = match found {
                None => wanted(access).then_some(part),
                Some(run) if wanted(access) && run.end() == part.start() => VirtRange::new(run.start(), part.end()),
                Some(_) => return ControlFlow::Break(()),
            };
            ControlFlow::Continue(())
        });
        found
    }

    /// Gives every part of `range` that `wanted` accepts the access `to`. The edges of those parts are edges of leaves.
    fn protect_parts(
        &self,
        range: VirtRange,
        wanted: impl Fn(Access) -> bool,
        to: Access,
        policy: LivePolicy,
    ) -> Result<(), PgtableError> {
        let mut rest = Some(range);
        while let Some(part) = rest.and_then(|rest| self.next_part(rest, &wanted)) {
            self.hal().tables().do_protect(part, Change::access(to), policy)?;
            rest = VirtRange::new(part.end(), range.end()).filter(|rest| !rest.is_empty());
        }
        Ok(())
    }

    /// Linear-map addresses of frames.
    fn alias_of(&self, frames: PhysRange) -> Result<VirtRange, PgtableError> {
        self.hal().pages().hal().range_to_virt(frames).ok_or(PgtableError::OutsideSpace)
    }

    /// Makes the linear map writable wherever it is not, for frames to which no other mapping points any more.
    #[cold]
    fn reset_alias(&self, frames: PhysRange) -> Result<(), PgtableError> {
        let alias = self.alias_of(frames)?;
        let tables = self.hal().tables();
        // Only pages that were split before are read-only, so that nothing is split here.
        let policy = match tables.mmu().bbm_level() {
            BbmLevel::Two => LivePolicy::BbmLevel2,
            _ => LivePolicy::BreakBeforeMake,
        };
        self.protect_parts(alias, |access| access == Access::ReadOnly, Access::ReadWrite, policy)
    }

    /// Frees an area some of whose pages may be read-only in the linear map: at once, not by a purge (Linux: `vm_reset_perms`).
    #[cold]
    pub(super) fn reset_permissions(&self, area: Removed<'a>) {
        let hal = self.hal();
        self.unmap(area.mapped().start(), area.mapped().end());
        // No CPU translates them any more.
        let area = area.into_inner();
        let pages = area.take_pages();
        let reset = Blocks::from_pages(&pages).runs(hal.pages()).try_for_each(|(start, bytes)| {
            PhysRange::from_size(start, bytes).map_or(Ok(()), |frames| self.reset_alias(frames))
        });
        match reset {
            Ok(()) if pages.count() == 0 => {}
            Ok(()) => super::AreaHal::release(hal, Internal::CALL, pages),
            // Their next owner could not write to them.
            Err(error) => log::error!("{} pages that stay read-only are lost: {error}", pages.count()),
        }
        self.do_recycle(Removed::new(area));
    }
}

impl<'a, H: SetMemoryHal<'a>> VmapSpace<'a, H> {
    /// [`Self::set_memory`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_set_memory(&self, addr: VirtAddr, pages: u64, to: Permission) -> Result<(), SetMemoryError> {
        let (range, area) = self.range_of(addr, pages)?;
        self.each_part(range, |part, _, access| match to.apply(access) {
            Some(_) => Ok(()),
            None => Err(SetMemoryError::WritableExecutable(part.start())),
        })?;
        let tables = self.hal().tables();
        self.hal().change_live(&mut |policy| {
            // Steps that can fail come first; a split changes no permission. Other CPUs may be held meanwhile, so nothing here
            // may wait for them.
            let frames = self.hal().frames(TABLE_GFP);
            tables.do_carve(&frames, range, policy)?;
            self.each_alias(range, to, |alias, _| Ok(tables.do_carve(&frames, alias, policy)?))?;
            self.mark(area);
            match to {
                Permission::ReadOnly => {
                    self.protect_parts(range, |access| access == Access::ReadWrite, Access::ReadOnly, policy)?;
                    self.follow(range, policy)?;
                }
                Permission::ReadWrite => {
                    self.protect_parts(range, |access| access == Access::ReadOnly, Access::ReadWrite, policy)?;
                    self.follow(range, policy)?;
                }
                Permission::Execute => {
                    // The area may have been read-only from the start, while its alias is not.
                    self.follow(range, policy)?;
                    self.hal().sync_instructions(range);
                    self.protect_parts(range, |access| access == Access::ReadOnly, Access::Execute, policy)?;
                }
                Permission::NoExecute => {
                    self.protect_parts(range, |access| access == Access::Execute, Access::ReadOnly, policy)?;
                }
            }
            Ok(())
        })
    }

    /// The addresses, if they are pages of an area that owns its pages, and the start of the area.
    fn range_of(&self, addr: VirtAddr, pages: u64) -> Result<(VirtRange, VirtAddr), SetMemoryError> {
        if pages == 0 {
            return Err(SetMemoryError::Empty);
        }
        if !addr.is_aligned(PAGE_SIZE) {
            return Err(SetMemoryError::Unaligned(addr));
        }
        let area = self.find(addr).ok_or(AreaError::NoArea(addr))?;
        if area.flags.contains(VmFlags::UNINITIALIZED) {
            return Err(AreaError::Uninitialized(area).into());
        }
        if !area.flags.contains(VmFlags::ALLOC) {
            return Err(AreaError::WrongKind(area).into());
        }
        let range = pages.checked_mul(PAGE_SIZE).and_then(|bytes| VirtRange::from_size(addr, bytes));
        let range = range.filter(|range| area.mapped().contains_range(*range)).ok_or(SetMemoryError::Outside(area))?;
        Ok((range, area.range.start()))
    }

    /// Calls `f` for the linear map's alias of each part of `range`, with the access that the area will have there.
    fn each_alias(
        &self,
        range: VirtRange,
        to: Permission,
        mut f: impl FnMut(VirtRange, Access) -> Result<(), SetMemoryError>,
    ) -> Result<(), SetMemoryError> {
        if to == Permission::NoExecute {
            return Ok(());
        }
        self.each_part(range, |_, frames, access| {
            let alias = self.alias_of(frames)?;
            f(alias, access)
        })
    }

    /// Makes the linear map writable where the area is, and read-only elsewhere.
    fn follow(&self, range: VirtRange, policy: LivePolicy) -> Result<(), SetMemoryError> {
        self.each_alias(range, Permission::ReadOnly, |alias, access| {
            let writable = access == Access::ReadWrite;
            let (from, to) = match writable {
                true => (Access::ReadOnly, Access::ReadWrite),
                false => (Access::ReadWrite, Access::ReadOnly),
            };
            Ok(self.protect_parts(alias, |access| access == from, to, policy)?)
        })
    }

    /// Records that the linear map must be writable again before the pages are freed.
    fn mark(&self, area: VirtAddr) {
        let nodes = self.layout.get().map_or(1, |layout| layout.nodes);
        self.with_node(VmapNode::of_address(area.get(), nodes), |node| {
            if let Some(area) = node.busy.find(area.get()) {
                area.add_flags(VmFlags::FLUSH_RESET_PERMS);
            }
        });
    }
}

/// The part of a leaf that lies in `range`: its addresses, the frames behind, and the access permitted there.
fn part_of(visit: Visit, range: VirtRange) -> Option<(VirtRange, PhysRange, Access)> {
    let Entry::Leaf(leaf) = visit.entry else { return None };
    let part = VirtRange::from_size(visit.start, visit.level.size())?.intersection(range)?;
    let first = leaf.phys.checked_add(part.start().offset_from(visit.start)?)?;
    Some((part, PhysRange::from_size(first, part.size())?, leaf.prot.access()))
}
