//! Whether a process may have more.
#![forbid(unsafe_code)]

use super::limits::Usage;
use super::{AddressMap, MapError, VmFlags};

impl AddressMap<'_> {
    /// Whether `pages` more with `flags` are within the limits.
    ///
    /// # Errors
    ///
    /// [`MapError::AddressSpaceLimit`], [`MapError::DataLimit`].
    #[inline(always)]
    pub(super) fn may_expand(&self, flags: VmFlags, pages: u64) -> Result<(), MapError> {
        self.may_replace(flags, pages, &Usage::NONE)
    }

    /// As [`Self::may_expand`], if what `less` counts goes for them.
    ///
    /// # Errors
    ///
    /// As [`Self::may_expand`].
    #[inline(always)]
    pub(super) fn may_replace(&self, flags: VmFlags, pages: u64, less: &Usage) -> Result<(), MapError> {
        if self.usage.total.wrapping_sub(less.total).saturating_add(pages) > self.limits.address_space {
            return Err(MapError::AddressSpaceLimit(self.limits.address_space));
        }
        let data = self.usage.data.wrapping_sub(less.data).saturating_add(pages);
        if flags.is_data() && data > self.limits.data {
            return Err(MapError::DataLimit(self.limits.data));
        }
        Ok(())
    }

    /// Whether `pages` more may be locked, if `flags` say that they will be.
    ///
    /// # Errors
    ///
    /// [`MapError::LockedLimit`].
    #[inline(always)]
    pub(super) fn may_lock(&self, flags: VmFlags, pages: u64) -> Result<(), MapError> {
        let locked = self.usage.locked.saturating_add(pages);
        if flags.contains(VmFlags::LOCKED) && locked > self.limits.locked {
            return Err(MapError::LockedLimit(self.limits.locked));
        }
        Ok(())
    }

    /// Whether there may be `more` areas.
    ///
    /// # Errors
    ///
    /// [`MapError::MapCount`].
    #[inline(always)]
    pub(super) fn may_add_areas(&self, more: usize) -> Result<(), MapError> {
        if more > 0 && self.tree.len() + more > self.limits.map_count as usize {
            return Err(MapError::MapCount(self.limits.map_count));
        }
        Ok(())
    }

    /// Counts `pages` pages as pinned for a device (Linux: `account_locked_vm`). They may be as many as may be locked.
    ///
    /// # Errors
    ///
    /// [`MapError::LockedLimit`]; nothing is counted.
    pub fn account_pinned(&mut self, pages: u64) -> Result<(), MapError> {
        let pinned = self.pinned.saturating_add(pages);
        if pinned > self.limits.locked {
            return Err(MapError::LockedLimit(self.limits.locked));
        }
        self.pinned = pinned;
        Ok(())
    }

    /// Counts `pages` pages as pinned no longer.
    pub fn unaccount_pinned(&mut self, pages: u64) {
        self.pinned = self.pinned.saturating_sub(pages);
    }
}
