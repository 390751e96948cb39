//! The tokens of the structure block, read with every bound checked.

use super::error::FdtError;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The big-endian word at `offset`, if all of it lies in `bytes`.
pub(super) fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

/// Three big-endian words.
#[inline]
fn three_words(words: &[u8; 12]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *words;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes)
}

/// Two of them.
fn two_words(bytes: &[u8], offset: usize) -> Option<[u32; 2]> {
    let words = u64::from_be_bytes(*bytes.get(offset..)?.first_chunk::<8>()?);
    #[expect(clippy::cast_possible_truncation, reason = "the high half is shifted down, the low half is meant")]
    Some([(words >> 32) as u32, words as u32])
}

/// One token with what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'b> {
    /// A node begins.
    BeginNode {
        /// Its name, without the terminator.
        name: &'b [u8],
    },
    /// The innermost node ends.
    EndNode,
    /// A property of the innermost node.
    Property {
        /// Offset of its name in the strings block.
        name: u32,
        /// Its value.
        value: &'b [u8],
    },
    /// Nothing: something was blanked here.
    Nop,
    /// The structure block ends.
    End,
}

impl<'b> Token<'b> {
    /// The token at `offset` of `bytes`, and the offset of the next. `bytes` ends where the structure block ends.
    pub(super) fn read(bytes: &'b [u8], offset: usize) -> Result<(Self, usize), FdtError> {
        let found = be32(bytes, offset).ok_or(FdtError::UnexpectedEnd { offset })?;
        let body = offset + 4;
        match found {
            BEGIN_NODE => {
                let rest = bytes.get(body..).ok_or(FdtError::UnexpectedEnd { offset })?;
                let len = end_of_string(rest).ok_or(FdtError::BadNodeName { offset })?;
                let name = rest.get(..len).ok_or(FdtError::BadNodeName { offset })?;
                Ok((Self::BeginNode { name }, next(bytes, body + len + 1).ok_or(FdtError::BadNodeName { offset })?))
            }
            PROP => {
                let unfinished = FdtError::UnexpectedEnd { offset };
                let len = be32(bytes, body).ok_or(unfinished)?;
                let name = be32(bytes, body + 4).ok_or(unfinished)?;
                let outside = FdtError::ValueOutside { offset, len };
                // Neither sum wraps: the length has 32 bits and an offset is at most 2 MiB.
                let start = body + 8;
                let value = bytes.get(start..start + len as usize).ok_or(outside)?;
                Ok((Self::Property { name, value }, next(bytes, start + value.len()).ok_or(outside)?))
            }
            END_NODE => Ok((Self::EndNode, body)),
            NOP => Ok((Self::Nop, body)),
            END => Ok((Self::End, body)),
            _ => Err(FdtError::BadToken { offset, found }),
        }
    }

    /// The first property called `wanted`, from `offset` in the body of a node on: its name in `strings`, and its value. For a
    /// blob that passed the precheck. Booting asks for some hundred properties, most of which are not there: so names are
    /// compared where they lie, and no list of them is made.
    pub(super) fn property_called<'s>(
        bytes: &'b [u8],
        strings: &'s [u8],
        wanted: &[u8],
        mut offset: usize,
    ) -> Option<(&'s [u8], &'b [u8])> {
        loop {
            // Fewer bytes than a property has are the end of the tree.
            let words = bytes.get(offset..)?.first_chunk::<12>()?;
            let [token, len, name] = three_words(words);
            if token == PROP {
                let (start, at) = (name as usize, offset + 12);
                // Its end first: it tells most names apart by one byte.
                let end = start + wanted.len();
                if strings.get(end) == Some(&0) && strings.get(start..end) == Some(wanted) {
                    return Some((strings.get(start..end)?, bytes.get(at..at + len as usize)?));
                }
                offset = (at + len as usize).next_multiple_of(4);
            } else if token == NOP {
                offset += 4;
            } else {
                return None;
            }
        }
    }

    /// The first property of a node whose body begins at `offset`, or the next behind another: where its name lies in the
    /// strings block, its value, and what follows. `None` behind the last. For a blob that passed the precheck: cheaper
    /// than [`read`](Self::read), since booting walks over thousands.
    #[inline]
    pub(super) fn property(bytes: &'b [u8], mut offset: usize) -> Option<(u32, &'b [u8], usize)> {
        loop {
            match be32(bytes, offset)? {
                PROP => {
                    let [len, name] = two_words(bytes, offset + 4)?;
                    let start = offset + 12;
                    let end = start + len as usize;
                    return Some((name, bytes.get(start..end)?, end.next_multiple_of(4)));
                }
                NOP => offset += 4,
                _ => return None,
            }
        }
    }

    /// The next beginning or end of a node from `offset` on, with what follows; properties are passed over. `None` at the
    /// end. For a blob that passed the precheck, as [`property`](Self::property).
    #[inline]
    pub(super) fn edge(bytes: &'b [u8], mut offset: usize) -> Option<(Self, usize)> {
        loop {
            match be32(bytes, offset)? {
                PROP => offset = (offset + 12 + be32(bytes, offset + 4)? as usize).next_multiple_of(4),
                NOP => offset += 4,
                BEGIN_NODE => {
                    let rest = bytes.get(offset + 4..)?;
                    let name = rest.get(..end_of_string(rest)?)?;
                    return Some((Self::BeginNode { name }, (offset + 4 + name.len() + 1).next_multiple_of(4)));
                }
                END_NODE => return Some((Self::EndNode, offset + 4)),
                _ => return None,
            }
        }
    }

    /// The token's number, for an error.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::BeginNode { .. } => BEGIN_NODE,
            Self::EndNode => END_NODE,
            Self::Property { .. } => PROP,
            Self::Nop => NOP,
            Self::End => END,
        }
    }
}

/// Bytes before the first NUL; eight are looked at at a time.
#[inline]
pub(super) fn end_of_string(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut before = 0;
    for chunk in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*chunk);
        // A byte that is zero borrows; the lowest such is the first.
        let zeros = word.wrapping_sub(ONES) & !word & ONES << 7;
        if zeros != 0 {
            return Some(before + zeros.trailing_zeros() as usize / 8);
        }
        before += 8;
    }
    bytes.get(before..)?.iter().position(|&byte| byte == 0).map(|rest| before + rest)
}

/// The offset of the word behind what ends at `end`, if that padding still lies in `bytes`.
fn next(bytes: &[u8], end: usize) -> Option<usize> {
    let next = end.next_multiple_of(4);
    (next <= bytes.len()).then_some(next)
}
