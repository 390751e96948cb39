//! Linux's error numbers, as system calls answer them (include/uapi/asm-generic/errno-base.h).
#![forbid(unsafe_code)]

use crate::mm::user::access::UserAccessError;
use crate::mm::user::map::MapError;

/// An error of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Errno(pub(super) i32);

impl Errno {
    pub(super) const NOENT: Self = Self(2);
    pub(super) const BADF: Self = Self(9);
    pub(super) const CHILD: Self = Self(10);
    pub(super) const AGAIN: Self = Self(11);
    pub(super) const FAULT: Self = Self(14);
    pub(super) const NODEV: Self = Self(19);
    pub(super) const INVAL: Self = Self(22);
    pub(super) const MFILE: Self = Self(24);
    pub(super) const NOSYS: Self = Self(38);

    /// The value of the register that answers.
    pub(super) const fn answer(self) -> u64 {
        (self.0 as i64).wrapping_neg().cast_unsigned()
    }
}

impl From<MapError> for Errno {
    fn from(error: MapError) -> Self {
        Self(error.errno())
    }
}

impl From<UserAccessError> for Errno {
    fn from(_: UserAccessError) -> Self {
        Self::FAULT
    }
}
