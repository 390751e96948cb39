//! Stacks that grow when an address below them is touched (Linux: `expand_downwards`).
#![forbid(unsafe_code)]

use super::summary::STACK_GUARD_GAP;
use super::vma::Vma;
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};

impl AddressMap<'_> {
    /// Grows the stack above `addr` down to the page of `addr`, for a fault at an address that is in no area: the area that
    /// has it now. O(log n); no memory is needed.
    ///
    /// # Errors
    ///
    /// - [`MapError::NotMapped`]: what lies above is no stack.
    /// - [`MapError::StackLimit`], [`MapError::AddressSpaceLimit`], [`MapError::LockedLimit`]: it may not be so large.
    /// - [`MapError::GuardGap`]: it would come too close to what lies below.
    /// - [`MapError::BelowMinimum`]: no address that may be mapped.
    ///
    /// Nothing has changed then, and the process has made a bad access.
    pub fn expand_stack(&mut self, addr: UserAddr) -> Result<&Vma, MapError> {
        let low = addr.align_down(PAGE_SIZE).get();
        if low < self.layout.mmap_min.get() {
            return Err(MapError::BelowMinimum(addr));
        }
        let area = self.tree.find(low).ok_or(MapError::NotMapped(addr))?;
        if area.low() <= low {
            return Ok(area);
        }
        let flags = area.flags();
        if !flags.contains(VmFlags::GROWSDOWN) {
            return Err(MapError::NotMapped(addr));
        }
        if (area.high() - low) >> PAGE_SHIFT > self.limits.stack {
            return Err(MapError::StackLimit(self.limits.stack));
        }
        let below = self.tree.prev(area).filter(|prev| {
            let flags = prev.flags();
            // Another stack below grows away from this one; what cannot be accessed is a guard of the process's own.
            !flags.contains(VmFlags::GROWSDOWN) && flags.intersects(VmFlags::ACCESS)
        });
        if let Some(below) = below.filter(|below| low.saturating_sub(below.high()) < STACK_GUARD_GAP) {
            return Err(MapError::GuardGap(below.range()));
        }
        let pages = (area.low() - low) >> PAGE_SHIFT;
        self.may_lock(flags, pages)?;
        self.may_expand(flags, pages)?;
        self.tree.set_start(area, low);
        // INVARIANT: VMA-5.
        self.usage.add(flags, pages);
        Ok(area)
    }
}
