//! A change of permissions, and the reasons why one is refused.
#![forbid(unsafe_code)]

use super::{AreaError, AreaInfo};
use crate::addr::VirtAddr;
use crate::hal::prot::Access;
use crate::mm::pgtable::PgtableError;
use core::fmt;

/// Requested change of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Not writable; executable pages stay executable.
    ReadOnly,
    /// Writable.
    ReadWrite,
    /// Executable.
    Execute,
    /// Not executable; writable pages stay writable.
    NoExecute,
}

/// Reason why permissions were not changed. They are unchanged then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SetMemoryError {
    /// The number of pages is 0.
    Empty,
    /// The address is not a multiple of the page size.
    Unaligned(VirtAddr),
    /// No area is there, or one without pages of its own.
    Area(AreaError),
    /// The pages extend beyond the area.
    Outside(AreaInfo),
    /// Writable memory is to become executable, or executable memory writable: the old permission must be removed first.
    WritableExecutable(VirtAddr),
    /// An interrupt handler may not split blocks.
    InInterrupt,
    /// A block may have to be split, this CPU cannot do that while others use it, and the other CPUs cannot be held, for
    /// example because waiting is not legal here.
    OtherCpus,
    /// Error of the tables.
    Tables(PgtableError),
}

impl From<AreaError> for SetMemoryError {
    fn from(error: AreaError) -> Self {
        Self::Area(error)
    }
}

impl From<PgtableError> for SetMemoryError {
    fn from(error: PgtableError) -> Self {
        Self::Tables(error)
    }
}

impl fmt::Display for SetMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the permissions of no pages"),
            Self::Unaligned(addr) => write!(f, "{addr} is no multiple of the page size"),
            Self::Area(error) => error.fmt(f),
            Self::Outside(area) => write!(f, "pages beyond the area {area}"),
            Self::WritableExecutable(addr) => write!(f, "{addr} would be writable and executable"),
            Self::InInterrupt => f.write_str("permissions are not changed in an interrupt handler"),
            Self::OtherCpus => f.write_str("no block can be split while other CPUs run, and they cannot be held"),
            Self::Tables(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetMemoryError {}

impl Permission {
    /// The changed `access`; `None` if it would be writable and executable.
    pub(super) const fn apply(self, access: Access) -> Option<Access> {
        match (self, access) {
            (Self::ReadOnly, Access::ReadWrite) | (Self::NoExecute, Access::Execute) => Some(Access::ReadOnly),
            (Self::ReadWrite, Access::ReadOnly) => Some(Access::ReadWrite),
            (Self::Execute, Access::ReadOnly) => Some(Access::Execute),
            (Self::ReadWrite, Access::Execute) | (Self::Execute, Access::ReadWrite) => None,
            (_, same) => Some(same),
        }
    }
}
