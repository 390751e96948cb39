//! The header: where the parts of the blob lie, and how long it is.

use super::error::{Block, FdtError};
use super::token::be32;
use core::ops::Range;

/// First word of every device tree.
pub const MAGIC: u32 = 0xd00d_feed;
/// Bytes in the header of a version 17 tree.
pub const HEADER_SIZE: u32 = 40;
/// The longest tree that the arm64 boot protocol allows (Linux: `MAX_FDT_SIZE`, Documentation/arch/arm64/booting.rst).
pub const MAX_TOTALSIZE: u32 = 2 << 20;
/// The version whose layout we read.
const VERSION: u32 = 17;
/// Offset of `size_dt_struct` in the header, which compaction rewrites.
pub(super) const SIZE_DT_STRUCT: usize = 36;
/// Bytes in an entry of the memory reservation block.
pub(super) const RESERVE_ENTRY: usize = 16;

/// The length of the blob whose first eight bytes are `first`, so that a boot stub can map those, learn how much there
/// is, and map the whole before anything else reads it.
///
/// # Errors
///
/// [`FdtError::BadMagic`], [`FdtError::BadTotalSize`].
pub fn totalsize(first: &[u8; 8]) -> Result<u64, FdtError> {
    let [a, b, c, d, e, f, g, h] = *first;
    let found = u32::from_be_bytes([a, b, c, d]);
    if found != MAGIC {
        return Err(FdtError::BadMagic { found });
    }
    let totalsize = u32::from_be_bytes([e, f, g, h]);
    if !(HEADER_SIZE..=MAX_TOTALSIZE).contains(&totalsize) {
        return Err(FdtError::BadTotalSize { totalsize });
    }
    Ok(u64::from(totalsize))
}

/// A checked header, with the counts of the walk over the structure block.
///
/// # Invariants
///
/// - `FDT-1`: the four blocks lie inside `totalsize`, which lies inside the blob, and are disjoint.
/// - `FDT-2`: the structure block is well-formed: one root, every begin ended, names printable and terminated, values
///   inside the block, properties before children, at most [`MAX_DEPTH`](super::MAX_DEPTH) levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub(super) totalsize: u32,
    pub(super) boot_cpu: u32,
    pub(super) reserve_map: u32,
    pub(super) structure: (u32, u32),
    pub(super) strings: (u32, u32),
    pub(super) counts: Counts,
}

/// Counts of the walk over the structure block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Nodes, the root among them.
    pub nodes: u32,
    /// Properties of all nodes.
    pub properties: u32,
    /// `FDT_NOP` tokens.
    pub nops: u32,
    /// Depth of the deepest node; a child of the root has depth 1.
    pub depth: u32,
}

impl Header {
    /// Reads the header and checks where the blocks lie. The structure block is not yet looked at.
    pub(super) fn read(blob: &[u8]) -> Result<Self, FdtError> {
        let len = blob.len();
        let (Some(first), Some(header)) = (blob.first_chunk::<8>(), blob.get(..HEADER_SIZE as usize)) else {
            return Err(FdtError::NoHeader { len });
        };
        totalsize(first)?;
        let word = |index: usize| be32(header, index * 4).ok_or(FdtError::NoHeader { len });
        let (totalsize, version, last_compatible) = (word(1)?, word(5)?, word(6)?);
        if totalsize as usize > len {
            return Err(FdtError::Truncated { totalsize, len });
        }
        if version < VERSION || last_compatible > VERSION {
            return Err(FdtError::BadVersion { version, last_compatible });
        }
        let header = Self {
            totalsize,
            boot_cpu: word(7)?,
            reserve_map: word(4)?,
            structure: (word(2)?, word(9)?),
            strings: (word(3)?, word(8)?),
            counts: Counts::default(),
        };
        header.check_blocks(blob)?;
        Ok(header)
    }

    fn check_blocks(&self, blob: &[u8]) -> Result<(), FdtError> {
        for (block, offset, align) in
            [(Block::Structure, self.structure.0, 4), (Block::ReserveMap, self.reserve_map, 8)]
        {
            if offset % align != 0 {
                return Err(FdtError::BlockMisaligned { block, offset });
            }
        }
        let inside = |block: Block, offset: u32, size: u32| match offset.checked_add(size) {
            Some(end) if end <= self.totalsize => Ok((block, offset, end)),
            _ => Err(FdtError::BlockOutside { block, offset }),
        };
        let blocks = [
            inside(Block::Header, 0, HEADER_SIZE)?,
            inside(Block::ReserveMap, self.reserve_map, self.reserve_map_size(blob)?)?,
            inside(Block::Structure, self.structure.0, self.structure.1)?,
            inside(Block::Strings, self.strings.0, self.strings.1)?,
        ];
        for (index, &(first, start, end)) in blocks.iter().enumerate() {
            for &(second, other_start, other_end) in blocks.iter().skip(index + 1) {
                if start < other_end && other_start < end {
                    return Err(FdtError::BlocksOverlap { first, second });
                }
            }
        }
        Ok(())
    }

    /// Bytes in the memory reservation block with its terminator: an entry of size 0, as libfdt and Linux read it.
    fn reserve_map_size(&self, blob: &[u8]) -> Result<u32, FdtError> {
        let outside = FdtError::BlockOutside { block: Block::ReserveMap, offset: self.reserve_map };
        let map = blob.get(self.reserve_map as usize..self.totalsize as usize).ok_or(outside)?;
        let entries = map.chunks_exact(RESERVE_ENTRY);
        let index = entries.clone().position(|entry| entry.ends_with(&[0; 8])).ok_or(outside)?;
        u32::try_from((index + 1) * RESERVE_ENTRY).map_err(|_| outside)
    }

    /// Bytes in the blob, padding included: the kernel must map and reserve them all.
    #[must_use]
    pub fn totalsize(&self) -> u64 {
        u64::from(self.totalsize)
    }

    /// The `reg` of the CPU that booted, low 32 bits.
    #[must_use]
    pub fn boot_cpu(&self) -> u32 {
        self.boot_cpu
    }

    /// Counts of the walk over the structure block.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Place of the structure block in the blob.
    pub(super) fn structure_range(&self) -> Range<usize> {
        self.structure.0 as usize..self.structure.0 as usize + self.structure.1 as usize
    }

    /// Place of the strings block in the blob.
    pub(super) fn strings_range(&self) -> Range<usize> {
        self.strings.0 as usize..self.strings.0 as usize + self.strings.1 as usize
    }
}
