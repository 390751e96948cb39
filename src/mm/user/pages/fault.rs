//! Page faults: what an entry lacks for an access, and how it gets it.
#![forbid(unsafe_code)]

use super::hal::Format;
use super::space_pages::UserPages;
use super::spare::Spare;
use super::{Backing, FaultAccess, FaultError, Handled, Sharing, UserHal};
use crate::addr::{Order, PAGE_SIZE, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{LeafLevel, Level, Slot};
use crate::hal::mmu::Mmu;
use crate::hal::prot::{Access, Prot};
use crate::mm::pgtable::Table;

/// Reason why a fault cannot go on under the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Tables down to the entries of this level.
    Tables(LeafLevel),
    /// A frame for the table that a block is split into.
    SplitTable,
    /// A zeroed page.
    Zeroed,
    /// A zeroed run or block.
    Unit(Order),
    /// A page to copy to.
    Page,
    /// Another look: something was split.
    Again,
    /// It cannot be done.
    Never(FaultError),
}

/// The entry for an address, and what is wanted of it.
#[derive(Clone, Copy)]
pub(super) struct At<'b> {
    pub(super) addr: VirtAddr,
    pub(super) table: Table,
    pub(super) slot: Slot,
    pub(super) area: &'b Backing,
    pub(super) access: FaultAccess,
    /// The page must be of this space alone, whatever the access.
    pub(super) own: bool,
}

impl<H: UserHal> UserPages<H> {
    /// Resolves a fault at `addr`, which lies in the area that `area` describes, for `access` (Linux: `handle_mm_fault`).
    /// When it returns `Ok`, the access may be tried again. May sleep if `gfp` says so; with [`Gfp::NOWAIT`] in any context
    /// that may take locks.
    ///
    /// Cost: a page that is missing or copied is found before any lock is taken. Two walks, one lock, one barrier; a
    /// change of a live entry is one TLBI and two barriers more.
    ///
    /// # Errors
    ///
    /// [`FaultError::Outside`], [`FaultError::Denied`], [`FaultError::Guard`] for an access that cannot be;
    /// [`FaultError::OutOfMemory`]. Nothing has changed then, but tables may have been added.
    pub fn fault(&self, addr: VirtAddr, access: FaultAccess, area: &Backing, gfp: Gfp) -> Result<Handled, FaultError> {
        let at = addr.align_down(PAGE_SIZE);
        if !area.range.contains(at) || area.range.end().get() > super::space_pages::USER_END {
            return Err(FaultError::Outside(addr));
        }
        if !area.permits(access) || area.is_shared_code() {
            return Err(FaultError::Denied(addr));
        }
        let usual = match access {
            _ if area.sharing != Sharing::Private => None,
            FaultAccess::Write if area.unit(at, Backing::RUN, area.largest).is_none() => self.fault_write(at, gfp)?,
            FaultAccess::Read => self.fault_read(at, area.access == Access::Execute),
            FaultAccess::Write | FaultAccess::Execute => None,
        };
        if let Some(handled) = usual {
            return Ok(handled);
        }
        self.fault_slow(at, access, area, false, gfp)
    }

    /// The slow path of a fault: all cases but the usual ones.
    #[inline(never)]
    pub(super) fn fault_slow(
        &self,
        at: VirtAddr,
        access: FaultAccess,
        area: &Backing,
        own: bool,
        gfp: Gfp,
    ) -> Result<Handled, FaultError> {
        let mut spare = Spare::new(self.hal(), gfp, area.largest).movable(area.mobility(Order::ZERO));
        loop {
            let need = match self.attempt(at, access, area, own, &mut spare) {
                Ok(handled) => {
                    if handled == Handled::Spurious {
                        self.wait_for_links();
                    }
                    return Ok(handled);
                }
                Err(need) => need,
            };
            match need {
                Need::Tables(level) => self.grow(at, level, &spare)?,
                Need::SplitTable => spare.get_table()?,
                Need::Zeroed => spare.get_page(true)?,
                Need::Page => spare.get_page(false)?,
                Need::Unit(Backing::BLOCK) => {
                    if let Some(handled) = self.fault_block(at, area, &mut spare)? {
                        return Ok(handled);
                    }
                }
                Need::Unit(order) => spare.get_block(order),
                Need::Again => {}
                Need::Never(error) => return Err(error),
            }
        }
    }

    /// One look at the entry, under its lock: done, or what is needed.
    fn attempt(
        &self,
        addr: VirtAddr,
        access: FaultAccess,
        area: &Backing,
        own: bool,
        spare: &mut Spare<'_, H>,
    ) -> Result<Handled, Need> {
        let _entries = self.lock_entries(addr);
        let (table, raw, count) = match self.tables().last_entry(addr) {
            Some((table, raw, count)) => (table, raw, Some(count)),
            None => {
                let (table, raw) = self.tables().lowest(addr);
                (table, raw, None)
            }
        };
        let slot = table.level().slot(addr);
        let at = At { addr, table, slot, area, access, own };
        match (table.level(), count) {
            (_, Some(count)) if raw.is_absent() => self.fault_absent(&at, count, spare),
            (Level::Pte, _) if raw == Format::<H>::GUARD => Err(Need::Never(FaultError::Guard(addr))),
            _ if raw.is_absent() => match area.unit(addr, Backing::BLOCK, spare.largest) {
                Some(_) if access == FaultAccess::Write || area.sharing == Sharing::Shared => {
                    Err(Need::Unit(Backing::BLOCK))
                }
                _ => Err(Need::Tables(LeafLevel::Pte)),
            },
            (level, _) => match Format::<H>::decode(level, raw) {
                Entry::Leaf(leaf) => self.fault_present(&at, &leaf, spare),
                Entry::Parked(_) => Err(Need::Never(FaultError::Denied(addr))),
                // An upper table that has just been unlinked: the next look does not find it.
                _ => Err(Need::Again),
            },
        }
    }

    /// A leaf that is there.
    fn fault_present(&self, at: &At<'_>, leaf: &Leaf, spare: &mut Spare<'_, H>) -> Result<Handled, Need> {
        let permitted = match at.access {
            FaultAccess::Read => true,
            FaultAccess::Write => leaf.prot.is_writable(),
            FaultAccess::Execute => leaf.prot.is_executable(),
        };
        if !permitted || (at.own && at.area.sharing == Sharing::Private) {
            return self.fault_forbidden(at, leaf, spare);
        }
        let prot = leaf.prot.with_accessed(true);
        let prot = if at.access == FaultAccess::Write { prot.with_dirty(true) } else { prot };
        let handled = if prot == leaf.prot { Handled::Spurious } else { Handled::Updated };
        if handled == Handled::Updated {
            self.write_leaf(at, leaf, prot);
        }
        // Also if nothing has changed: this CPU may have an older translation that faults.
        self.tables().flush_leaf(at.addr.align_down(leaf.level.size()), leaf.level);
        Ok(handled)
    }

    /// Replaces what a leaf permits; what it maps stays. Nothing is invalidated.
    #[inline]
    pub(super) fn write_leaf(&self, at: &At<'_>, leaf: &Leaf, prot: Prot) {
        let entry = Format::<H>::leaf(leaf.level, leaf.phys, prot, leaf.contiguous);
        at.table.write(self.tables().mmu(), at.slot, entry);
    }

    /// Replaces a live leaf of the last level by one that maps another frame: break, flush, make.
    pub(super) fn replace_leaf(&self, at: &At<'_>, entry: RawEntry) {
        let mmu = self.tables().mmu();
        at.table.write(mmu, at.slot, RawEntry::ABSENT);
        self.tables().flush_leaf(at.addr, LeafLevel::Pte);
        at.table.write(mmu, at.slot, entry);
        mmu.publish();
    }
}
