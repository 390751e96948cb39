//! Areas in the terms of pages: addresses, access, sharing, errors.
#![forbid(unsafe_code)]

use super::map::{MapError, NoMemory, VmFlags};
use super::pages::{PagesError, Sharing};
use crate::addr::{PAGE_SIZE, UserAddr, UserRange, VirtAddr, VirtRange};
use crate::hal::prot::Access;

/// A user address as the tables have it.
pub(super) const fn virt(addr: UserAddr) -> VirtAddr {
    VirtAddr::new(addr.get())
}

/// The same of a range.
pub(super) fn virt_range(range: UserRange) -> VirtRange {
    VirtRange::new(virt(range.start()), virt(range.end())).unwrap_or_default()
}

/// Access of an area's pages, `None` where there is none.
pub(super) fn access(flags: VmFlags) -> Option<Access> {
    if flags.contains(VmFlags::WRITE) {
        Some(Access::ReadWrite)
    } else if flags.contains(VmFlags::EXEC) {
        Some(Access::Execute)
    } else {
        flags.contains(VmFlags::READ).then_some(Access::ReadOnly)
    }
}

/// Whether spaces see the writes of each other in an area.
pub(super) const fn share(flags: VmFlags) -> Sharing {
    if flags.contains(VmFlags::SHARED) { Sharing::Shared } else { Sharing::Private }
}

/// Linux's error number for a frame that is not a file's to map.
pub(super) const EINVAL: i32 = 22;

impl From<PagesError> for MapError {
    fn from(error: PagesError) -> Self {
        match error {
            // Areas and pages agree in all else: only frames of a file can be wrong.
            PagesError::BadPage(_)
            | PagesError::MemoryType(..)
            | PagesError::SharedExecutable
            | PagesError::Range(_) => Self::File(EINVAL),
            PagesError::Occupied(at) => {
                Self::Exists(UserRange::from_size(UserAddr::new(at.get()), PAGE_SIZE).unwrap_or_default())
            }
            _ => Self::NoMemory,
        }
    }
}

impl From<PagesError> for NoMemory {
    fn from(_: PagesError) -> Self {
        Self
    }
}
