//! Constants of the table that its reader and its writer share.
#![forbid(unsafe_code)]

/// The first word of a table.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"QSY1");
/// Words in the header.
pub(super) const HEADER_WORDS: usize = 7;
/// Entries of a pool between two words of its index.
pub(super) const STRIDE: usize = 16;
