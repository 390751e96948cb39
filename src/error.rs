//! L0: the errors that cross module boundaries. Each module has an enum of its own that says which rule was broken;
//! [`Error`] gathers them for callers that pass them on.

use core::fmt;

/// Any error of the memory subsystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No memory was left that satisfies the request; everything begun was undone.
    OutOfMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

impl core::error::Error for Error {}
