//! Changing what may be done with memory (Linux: `do_mprotect_pkey`).
#![forbid(unsafe_code)]

use super::change::Extent;
use super::munmap::whole_pages;
use super::translations::{MapHal, Translations};
use super::vma::Vma;
use super::{AddressMap, MapError, VmFlags};
use crate::addr::UserAddr;

impl<'a> AddressMap<'a> {
    /// Permits `access` (of [`VmFlags::ACCESS`]) to `size` bytes from `addr`, rounded up to whole pages. No bytes are no
    /// error.
    ///
    /// # Errors
    ///
    /// - [`MapError::BadFlags`], [`MapError::WriteExec`], [`MapError::Unaligned`], [`MapError::BadRange`]: the request.
    /// - [`MapError::MapCount`], [`MapError::NoMemory`]: an area has to be cut.
    ///
    /// Nothing has changed then. As in Linux, the range up to there has changed where the answer is
    ///
    /// - [`MapError::NotMapped`]: nothing is mapped there, with the address;
    /// - [`MapError::Access`], [`MapError::Sealed`], [`MapError::DataLimit`]: an area does not permit it.
    pub fn mprotect<H: MapHal<'a>>(
        &mut self,
        with: &H,
        addr: UserAddr,
        size: u64,
        access: VmFlags,
    ) -> Result<(), MapError> {
        if !VmFlags::ACCESS.contains(access) {
            return Err(MapError::BadFlags(access));
        }
        if access.is_write_exec() {
            return Err(MapError::WriteExec);
        }
        let range = match whole_pages(addr, size, self.layout.task_size) {
            Err(MapError::Empty) => return Ok(()),
            range => range?,
        };
        let rule = |area: &Vma| {
            let flags = area.flags();
            let new = (flags - VmFlags::ACCESS) | access;
            if flags.contains(VmFlags::SEALED) {
                Err(MapError::Sealed(area.range()))
            } else if !new.access_is_allowed() {
                Err(MapError::Access(new))
            } else {
                Ok(new)
            }
        };
        self.change_flags(with, range, Extent::UpToRefusal, rule, Translations::protect)
    }
}
