//! Advice about memory (Linux: `madvise`).
#![forbid(unsafe_code)]

use super::munmap::whole_pages;
use super::translations::{Discard, MapHal};
use super::vma::{Vma, user_range};
use super::{AddressMap, MapError, VmFlags};
use crate::addr::UserAddr;

/// Advice of a process about a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// The content is not needed: it reads as zeros, or as the object has it, from now on.
    DontNeed,
    /// The content is not needed until it is written again; anonymous private memory only.
    Free,
    /// Accesses fault until the guards are removed; the content is given up.
    GuardInstall,
    /// Guards go: what they stood for reads as zeros.
    GuardRemove,
    /// A child does not get the range.
    DontFork,
    /// A child gets the range again.
    DoFork,
}

impl Advice {
    /// Whether the advice applies to an area (Linux: `madvise_dontneed_free_valid_vma`, `is_valid_guard_vma`,
    /// `can_madvise_modify`).
    fn check(self, area: &Vma) -> Result<(), MapError> {
        let flags = area.flags();
        let applies = match self {
            Self::DontNeed => !flags.intersects(VmFlags::PFNMAP | VmFlags::LOCKED),
            Self::Free => area.is_anonymous() && !flags.intersects(VmFlags::PFNMAP | VmFlags::LOCKED),
            Self::GuardInstall => !flags.intersects(VmFlags::SPECIAL | VmFlags::LOCKED),
            Self::GuardRemove | Self::DoFork => !flags.intersects(VmFlags::SPECIAL),
            Self::DontFork => true,
        };
        let discards = matches!(self, Self::DontNeed | Self::Free | Self::GuardInstall);
        let sealed = flags.contains(VmFlags::SEALED) && !flags.contains(VmFlags::WRITE);
        if !applies {
            Err(MapError::WrongKind(area.range()))
        } else if discards && sealed && area.is_anonymous() {
            Err(MapError::Sealed(area.range()))
        } else {
            Ok(())
        }
    }
}

impl<'a> AddressMap<'a> {
    /// Takes `advice` about `size` bytes from `addr`, rounded up to whole pages. No bytes are no error.
    ///
    /// # Errors
    ///
    /// - [`MapError::Unaligned`], [`MapError::BadRange`]: the range.
    /// - [`MapError::WrongKind`], [`MapError::Sealed`]: an area in it to which the advice does not apply.
    /// - [`MapError::NoMemory`], [`MapError::MapCount`].
    ///
    /// Nothing has changed then. The same holds for [`MapError::NotMapped`], where something in the range is not mapped, but
    /// that [`Advice::DontNeed`] and [`Advice::Free`] have been taken for what is mapped, as in Linux.
    pub fn madvise<H: MapHal<'a>>(
        &mut self,
        with: &H,
        addr: UserAddr,
        size: u64,
        advice: Advice,
    ) -> Result<(), MapError> {
        let (low, high) = match whole_pages(addr, size, self.layout.task_size) {
            Err(MapError::Empty) => return Ok(()),
            range => range?,
        };
        match advice {
            Advice::DontFork => {
                return self.change_all(with, addr, size, |area| Ok(area.flags() | VmFlags::DONTCOPY));
            }
            Advice::DoFork => {
                return self.change_all(with, addr, size, |area| {
                    advice.check(area).map(|()| area.flags() - VmFlags::DONTCOPY)
                });
            }
            _ => {}
        }
        let discard = match advice {
            Advice::DontNeed => Some(Discard::Now),
            Advice::Free => Some(Discard::Lazily),
            _ => None,
        };
        // The usual case is a range in one area.
        if let Some(how) = discard
            && let Some(area) = self.tree.find(low).filter(|area| area.low() <= low && area.high() >= high)
        {
            advice.check(area)?;
            if area.low() < low {
                with.cut(UserAddr::new(low))?;
            }
            if area.high() > high {
                with.cut(UserAddr::new(high))?;
            }
            with.discard(user_range(low, high), how);
            return Ok(());
        }
        let hole = self.check_advice((low, high), advice)?;
        if discard.is_none()
            && let Some(hole) = hole
        {
            return Err(MapError::NotMapped(hole));
        }
        self.cut_inside(with, low)?;
        self.cut_inside(with, high)?;
        let install = advice == Advice::GuardInstall;
        if discard.is_none() {
            with.guard(user_range(low, high), install)?;
        }
        let mut at = self.tree.find(low);
        while let Some(area) = at.filter(|area| area.low() < high) {
            match discard {
                Some(how) => with.discard(user_range(area.low().max(low), area.high().min(high)), how),
                None if install => area.set_flags(area.flags() | VmFlags::MAYBE_GUARD),
                None => break,
            }
            at = self.tree.next(area);
        }
        hole.map_or(Ok(()), |hole| Err(MapError::NotMapped(hole)))
    }

    /// Whether `advice` applies to all areas in the range: the first address in it that is not mapped.
    fn check_advice(&self, (low, high): (u64, u64), advice: Advice) -> Result<Option<UserAddr>, MapError> {
        let (mut pos, mut hole) = (low, None);
        let mut at = self.tree.find(low);
        while let Some(area) = at.filter(|area| area.low() < high) {
            advice.check(area)?;
            if area.low() > pos {
                hole = hole.or(Some(UserAddr::new(pos)));
            }
            pos = area.high();
            at = self.tree.next(area);
        }
        Ok(hole.or((pos < high).then_some(UserAddr::new(pos))))
    }

    /// Makes an edge at `at`, if that is inside an area.
    pub(super) fn cut_inside<H: MapHal<'a>>(&self, with: &H, at: u64) -> Result<(), MapError> {
        if self.tree.find(at).is_some_and(|area| area.low() < at) {
            with.cut(UserAddr::new(at))?;
        }
        Ok(())
    }
}
