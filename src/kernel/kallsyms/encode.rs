//! Making the table, on the host.

use super::format::{HEADER_WORDS, MAGIC, STRIDE};
use std::collections::BTreeMap;
use std::fmt;

/// Reason why there is no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EncodeError {
    /// The table or an offset in it does not fit a 32-bit number.
    TooLarge,
    /// A symbol begins at or behind the stated end of the last one.
    BehindEnd {
        /// The symbol's offset.
        offset: u64,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the symbol table needs more than 32-bit offsets"),
            Self::BehindEnd { offset } => write!(f, "the symbol at {offset:#x} lies behind the end of the symbols"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// The table of `symbols`, each an offset from the image's start and a name, in any order; `end` is the offset behind
/// the last symbol's code. Of several names for one offset the table keeps the first by length, then by alphabet.
///
/// # Errors
///
/// See [`EncodeError`].
pub fn encode(symbols: &[(u64, String)], end: u64) -> Result<Vec<u8>, EncodeError> {
    let end_word = u32::try_from(end).map_err(|_| EncodeError::TooLarge)?;
    let mut by_offset: BTreeMap<u32, &str> = BTreeMap::new();
    for (offset, name) in symbols {
        let word = u32::try_from(*offset).ok().filter(|&word| word < end_word);
        let word = word.ok_or(EncodeError::BehindEnd { offset: *offset })?;
        let kept = by_offset.entry(word).or_insert(name);
        if (name.len(), name.as_str()) < (kept.len(), *kept) {
            *kept = name;
        }
    }
    let tokens = number_tokens(by_offset.values().copied());
    let names = by_offset.values().map(|name| {
        let numbers = split(name).filter_map(|piece| tokens.get(piece));
        numbers.fold(Vec::new(), |mut entry, &number| {
            write_leb128(&mut entry, number);
            entry
        })
    });
    let names = pool(names)?;
    let mut texts: Vec<(u32, &str)> = tokens.iter().map(|(text, number)| (*number, *text)).collect();
    texts.sort_unstable();
    let token_pool = pool(texts.iter().map(|(_, text)| text.as_bytes().to_vec()))?;

    let offsets_at = HEADER_WORDS * 4;
    let names_at = offsets_at + by_offset.len() * 4;
    let tokens_at = names_at + names.len();
    let mut table = Vec::new();
    for number in [by_offset.len(), tokens.len()] {
        table.extend(word(number)?);
    }
    table.extend(end_word.to_le_bytes());
    for number in [offsets_at, names_at, tokens_at] {
        table.extend(word(number)?);
    }
    table.splice(0..0, MAGIC.to_le_bytes());
    table.extend(by_offset.keys().flat_map(|offset| offset.to_le_bytes()));
    table.extend(names);
    table.extend(token_pool);
    Ok(table)
}

/// The pieces of a name: each identifier with the punctuation before it, and what punctuation is left at the end.
fn split(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    core::iter::from_fn(move || {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word_at = rest.find(is_word).unwrap_or(rest.len());
        let after = rest.get(word_at..)?;
        let len = word_at + after.find(|c| !is_word(c)).unwrap_or(after.len());
        let (piece, tail) = rest.split_at_checked(len)?;
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Every piece of the names, numbered from the most frequent on.
fn number_tokens<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u32> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for piece in names.flat_map(split) {
        *uses.entry(piece).or_default() += 1;
    }
    let mut by_use: Vec<(&str, usize)> = uses.into_iter().collect();
    by_use.sort_by_key(|&(piece, count)| (core::cmp::Reverse(count), piece));
    by_use.into_iter().map(|(piece, _)| piece).zip(0..).collect()
}

fn pool(entries: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u8>, EncodeError> {
    let mut index = Vec::new();
    let mut bytes = Vec::new();
    for (at, entry) in entries.enumerate() {
        if at % STRIDE == 0 {
            index.extend(word(bytes.len())?);
        }
        write_leb128(&mut bytes, u32::try_from(entry.len()).map_err(|_| EncodeError::TooLarge)?);
        bytes.extend(entry);
    }
    index.extend(bytes);
    Ok(index)
}

fn write_leb128(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

fn word(number: usize) -> Result<[u8; 4], EncodeError> {
    u32::try_from(number).map(u32::to_le_bytes).map_err(|_| EncodeError::TooLarge)
}
