//! Reason why memory of a process could not be accessed.

use core::fmt;

/// An error of an access to memory of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserAccessError {
    /// A byte cannot be accessed (Linux: `-EFAULT`).
    Fault {
        /// The bytes that were not accessed: that one, and all behind it.
        left: usize,
    },
    /// The address of an atomic access is not a multiple of its size (Linux: `-EINVAL`).
    Misaligned,
    /// Other CPUs changed the word each time (Linux: `-EAGAIN`).
    Contended,
    /// The process has a newer version of a structure, and uses what this kernel does not know (Linux: `-E2BIG`).
    UnknownTail,
    /// More was asked of a slice than it has left; nothing was accessed.
    BeyondEnd {
        /// The bytes that it has left.
        available: usize,
    },
}

impl fmt::Display for UserAccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { left } => write!(f, "user memory is not accessible, {left} bytes left"),
            Self::Misaligned => f.write_str("an atomic access to user memory is not aligned"),
            Self::Contended => f.write_str("a word of user memory changed each time"),
            Self::UnknownTail => f.write_str("a structure is longer than this kernel knows, and not zero there"),
            Self::BeyondEnd { available } => write!(f, "user slice has only {available} bytes left"),
        }
    }
}

impl core::error::Error for UserAccessError {}

/// The result of a call that left `left` bytes.
#[inline(always)]
pub(super) const fn all_but(left: usize) -> Result<(), UserAccessError> {
    match left {
        0 => Ok(()),
        left => Err(UserAccessError::Fault { left }),
    }
}
