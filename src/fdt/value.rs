//! Types of property values: strings, cells, ranges.

use super::error::FdtError;
use super::token::{be32, end_of_string};
use crate::addr::{PhysAddr, PhysRange};

/// A property: a name and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its bytes; numbers in them are big-endian.
    pub value: &'a [u8],
}

impl<'a> Property<'a> {
    /// The value as one string: up to the first NUL, which must be there. `None` if it is not UTF-8.
    #[must_use]
    pub fn str(self) -> Option<&'a str> {
        string(self.value)
    }

    /// The value as a list of strings.
    #[must_use]
    pub fn strings(self) -> Strings<'a> {
        Strings::of(self.value)
    }

    /// The value as one cell; `None` if it is not four bytes long.
    #[must_use]
    pub fn u32(self) -> Option<u32> {
        if self.value.len() == 4 { be32(self.value, 0) } else { None }
    }

    /// The value as a number of one or two cells, whichever its length says.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self.value.len() {
            4 => self.u32().map(u64::from),
            8 => Some(u64::from_be_bytes(*self.value.first_chunk::<8>()?)),
            _ => None,
        }
    }

    /// The whole cells of the value; a tail shorter than a cell is left out.
    pub fn cells(self) -> impl Iterator<Item = u32> + Clone + 'a {
        self.value.as_chunks::<4>().0.iter().map(|cell| u32::from_be_bytes(*cell))
    }
}

/// The string at the start of a value, which must be terminated. `None` if it is not UTF-8.
pub(super) fn string(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value.get(..end_of_string(value)?)?).ok()
}

/// The strings of a value, each without its terminator, as bytes. Ends at the first that is not terminated.
pub(super) fn strings(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (string, behind) = rest.split_at_checked(end_of_string(rest)?)?;
        rest = behind.get(1..)?;
        Some(string)
    })
}

/// The strings of a property's value, each without its terminator. Ends at the first that is not terminated or not
/// UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    pub(super) fn of(value: &'a [u8]) -> Self {
        Self { rest: value }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let end = end_of_string(self.rest)?;
        let (string, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        core::str::from_utf8(string).ok()
    }
}

/// The range of `size` bytes from `base`, stated at `node`, refused if it wraps.
pub(super) fn wrapping_range(node: usize, base: PhysAddr, size: u64) -> Result<PhysRange, FdtError> {
    PhysRange::from_size(base, size).ok_or(FdtError::Wraps { node, base: base.get(), size })
}
