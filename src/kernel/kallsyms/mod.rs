//! The table of symbol names in the image, by which a backtrace shows functions instead of addresses.
//!
//! The linker leaves room for it in read-only data; a host tool fills the room from the ELF file's own symbol table,
//! since only then the addresses are known. Reading it is safe code over a byte slice: a table that is empty, damaged
//! or cut short gives no names, and never a fault.
//!
//! All numbers are little-endian 32-bit words unless said otherwise:
//!
//! | part | content |
//! |---|---|
//! | header | `MAGIC`; number of symbols; number of tokens; end of the last symbol; where offsets, names and tokens begin |
//! | offsets | one word a symbol, ascending: its address less the image's |
//! | names | a pool; entry `i` is the name of symbol `i`, as a sequence of token numbers |
//! | tokens | a pool; entry `i` is a piece of text, such as `::fmt` or `<core` |
//!
//! A pool is an index of one word for every 16 entries (where the entry begins, counted from the end of the
//! index), then the entries, each a length in bytes and that many bytes. Lengths and token numbers are LEB128: seven
//! bits a byte, low ones first, bit 7 set on all but the last. The most frequent tokens have the lowest numbers.

#[cfg(feature = "host")]
mod encode;
mod format;

#[cfg(feature = "host")]
pub use encode::{EncodeError, encode};

pub(crate) use format::MAGIC;

use core::fmt;
use format::{HEADER_WORDS, STRIDE};

/// A table of symbols in a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct SymbolTable<'a> {
    offsets: &'a [[u8; 4]],
    end: u32,
    names: Pool<'a>,
    tokens: Pool<'a>,
}

impl<'a> SymbolTable<'a> {
    /// The table at the start of `bytes`, or `None` if there is none or its header does not fit the slice. O(1).
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let header: [u32; HEADER_WORDS] =
            core::array::from_fn(|at| words.get(at).map_or(0, |&w| u32::from_le_bytes(w)));
        let [magic, symbols, tokens, end, offsets_at, names_at, tokens_at] = header;
        if magic != MAGIC {
            return None;
        }
        let (offsets, _) = bytes.get(index(offsets_at)..)?.as_chunks::<4>();
        Some(Self {
            offsets: offsets.get(..index(symbols))?,
            end,
            names: Pool::new(bytes.get(index(names_at)..)?, index(symbols))?,
            tokens: Pool::new(bytes.get(index(tokens_at)..)?, index(tokens))?,
        })
    }

    /// Number of symbols.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether it holds no symbol.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Every symbol: its offset from the start of the image, and its name. In the order of the offsets.
    pub fn symbols(&self) -> impl Iterator<Item = (u64, Name<'a>)> {
        let (names, tokens) = (self.names, self.tokens);
        let name = move |at| names.entry(at).map(|pieces| Name { pieces, tokens });
        self.offsets
            .iter()
            .enumerate()
            .filter_map(move |(at, &start)| Some((u64::from(u32::from_le_bytes(start)), name(at)?)))
    }

    /// The offset of the symbol of a name. O(n).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u64> {
        self.symbols().find(|(_, symbol)| symbol.is(name)).map(|(offset, _)| offset)
    }

    /// The symbol at or before `offset` bytes from the start of the image, or `None` before the first and behind the
    /// end of the last. O(log n).
    #[must_use]
    pub fn lookup(&self, offset: u64) -> Option<Found<'a>> {
        let offset = u32::try_from(offset).ok().filter(|&offset| offset < self.end)?;
        let behind = self.offsets.partition_point(|&start| u32::from_le_bytes(start) <= offset);
        let at = behind.checked_sub(1)?;
        let start = u32::from_le_bytes(*self.offsets.get(at)?);
        let next = self.offsets.get(behind).map_or(self.end, |&next| u32::from_le_bytes(next));
        let name = Name { pieces: self.names.entry(at)?, tokens: self.tokens };
        // In a damaged table the search can end anywhere.
        Some(Found { name, offset: offset.checked_sub(start)?, size: next.checked_sub(start)? })
    }
}

/// The symbol that an address lies in.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its name.
    pub name: Name<'a>,
    /// Bytes from its start to the address.
    pub offset: u32,
    /// Bytes from its start to the next symbol's.
    pub size: u32,
}

impl fmt::Display for Found<'_> {
    /// As Linux writes it: `name+0x1c/0x80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.name, self.offset, self.size)
    }
}

/// A symbol's name, spelled out when it is displayed.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pieces: &'a [u8],
    tokens: Pool<'a>,
}

impl Name<'_> {
    /// Whether it is spelled so.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let mut left = Left(text);
        fmt::write(&mut left, format_args!("{self}")).is_ok() && left.0.is_empty()
    }
}

/// The part of a text that has not been written yet; another text is an error.
struct Left<'t>(&'t str);

impl fmt::Write for Left<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pieces = self.pieces;
        while !pieces.is_empty() {
            let text = read_leb128(&mut pieces)
                .and_then(|token| self.tokens.entry(index(token)))
                .and_then(|text| core::str::from_utf8(text).ok());
            f.write_str(text.unwrap_or("?"))?;
        }
        Ok(())
    }
}

/// Byte strings by number.
#[derive(Clone, Copy, Debug)]
struct Pool<'a> {
    index: &'a [[u8; 4]],
    entries: &'a [u8],
    len: usize,
}

impl<'a> Pool<'a> {
    fn new(bytes: &'a [u8], len: usize) -> Option<Self> {
        let words = len.div_ceil(STRIDE);
        let (all, _) = bytes.as_chunks::<4>();
        Some(Self { index: all.get(..words)?, entries: bytes.get(words * 4..)?, len })
    }

    fn entry(&self, at: usize) -> Option<&'a [u8]> {
        if at >= self.len {
            return None;
        }
        let start = u32::from_le_bytes(*self.index.get(at / STRIDE)?);
        let mut rest = self.entries.get(index(start)..)?;
        for _ in 0..at % STRIDE {
            let len = read_leb128(&mut rest)?;
            rest = rest.get(index(len)..)?;
        }
        let len = read_leb128(&mut rest)?;
        rest.get(..index(len))
    }
}

/// Takes a number off the front of `bytes`; what is too large for 32 bits or does not end is none, and empties `bytes`.
fn read_leb128(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    *bytes = &[];
    None
}

/// A stated number as an index.
const fn index(number: u32) -> usize {
    number as usize
}
