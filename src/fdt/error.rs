//! Errors in a device tree, with their place.

use core::fmt;

/// One of the parts that the header of a device tree points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// The 40-byte header itself.
    Header,
    /// The memory reservation block.
    ReserveMap,
    /// The structure block: nodes and properties.
    Structure,
    /// The strings block: property names.
    Strings,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::ReserveMap => "memory reservation block",
            Self::Structure => "structure block",
            Self::Strings => "strings block",
        })
    }
}

/// Reason why a device tree, or a value in it, was refused. Every `offset` and `node` is in bytes from the start of the blob;
/// for a node it is the offset of its name. [`FdtError::located`] prints the node's path instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FdtError {
    /// The buffer is shorter than a header.
    NoHeader {
        /// Bytes in the buffer.
        len: usize,
    },
    /// The first word is not `0xd00dfeed`: no device tree lies here (a list of ATAGs, perhaps).
    BadMagic {
        /// The first word, read big-endian.
        found: u32,
    },
    /// `totalsize` is smaller than a header or larger than 2 MiB, the most that the arm64 boot protocol allows.
    BadTotalSize {
        /// The size that the header states.
        totalsize: u32,
    },
    /// `totalsize` exceeds the buffer.
    Truncated {
        /// The size that the header states.
        totalsize: u32,
        /// Bytes in the buffer.
        len: usize,
    },
    /// Neither version 17 nor compatible with it.
    BadVersion {
        /// `version` of the header.
        version: u32,
        /// `last_comp_version` of the header.
        last_compatible: u32,
    },
    /// A block does not lie inside `totalsize`.
    BlockOutside {
        /// Which block.
        block: Block,
        /// Its start, by the header.
        offset: u32,
    },
    /// A block does not begin at a multiple of its alignment (structure: 4, memory reservations: 8).
    BlockMisaligned {
        /// Which block.
        block: Block,
        /// Its start, by the header.
        offset: u32,
    },
    /// Two blocks share bytes.
    BlocksOverlap {
        /// One block.
        first: Block,
        /// The other.
        second: Block,
    },
    /// The structure block ends in the middle of a token, or before `FDT_END`.
    UnexpectedEnd {
        /// Start of the unfinished token.
        offset: usize,
    },
    /// A word is not a token.
    BadToken {
        /// Its place.
        offset: usize,
        /// The word.
        found: u32,
    },
    /// A token stands where the grammar does not allow it: a property after a child or outside a node, a second
    /// root, an end without a beginning.
    MisplacedToken {
        /// Its place.
        offset: usize,
        /// The token.
        found: u32,
    },
    /// A node lies more than [`MAX_DEPTH`](super::MAX_DEPTH) levels deep.
    TooDeep {
        /// Start of the node.
        offset: usize,
    },
    /// A node's name does not end inside the block, holds a slash or something not printable, or is empty (the root's
    /// must be).
    BadNodeName {
        /// Start of the node.
        offset: usize,
    },
    /// A property's value runs out of the structure block.
    ValueOutside {
        /// Start of the property.
        offset: usize,
        /// The length that it states.
        len: u32,
    },
    /// A property's name lies outside the strings block, does not end there, is longer than
    /// [`MAX_PROPERTY_NAME`](super::MAX_PROPERTY_NAME), is empty or not printable.
    BadPropertyName {
        /// Start of the property.
        offset: usize,
        /// The offset in the strings block that it states.
        name: u32,
    },
    /// `#address-cells` or `#size-cells` is not one cell, or more than we can hold (4; for the root node 1 or 2).
    BadCells {
        /// Start of the property.
        offset: usize,
    },
    /// The tree has `FDT_NOP` tokens, which must be squeezed out first, and the buffer is read-only.
    HasNops {
        /// Their number.
        count: u32,
    },
    /// Reading needs addresses or sizes of a width that no 64-bit number holds.
    WideCells {
        /// The node whose property was read.
        node: usize,
    },
    /// A property's value is not of the form that its name demands.
    BadValue {
        /// The node.
        node: usize,
        /// The property.
        property: &'static str,
    },
    /// A node lacks a property that another one of its properties needs.
    Missing {
        /// The node.
        node: usize,
        /// The property.
        property: &'static str,
    },
    /// A range ends before it begins.
    Reversed {
        /// The node.
        node: usize,
        /// The property that states the end.
        property: &'static str,
    },
    /// An entry of the memory reservation block wraps at the end of the address space.
    ReservationWraps {
        /// Which entry.
        entry: usize,
        /// Start of the range.
        base: u64,
        /// Bytes in it.
        size: u64,
    },
    /// A range wraps at the end of the address space.
    Wraps {
        /// The node.
        node: usize,
        /// Start of the range.
        base: u64,
        /// Bytes in it.
        size: u64,
    },
    /// A device's address does not reach the CPU: no `ranges` of a bus above it covers it.
    NotTranslatable {
        /// The node whose address was requested.
        node: usize,
        /// The address at which translation stopped.
        address: u64,
    },
    /// A phandle names no node.
    NoSuchPhandle {
        /// The node that refers to it.
        node: usize,
        /// The phandle.
        phandle: u32,
    },
}

impl FdtError {
    /// The node whose content is at fault; `None` if the structure of the blob is.
    #[must_use]
    pub const fn node(&self) -> Option<usize> {
        match *self {
            Self::WideCells { node }
            | Self::BadValue { node, .. }
            | Self::Missing { node, .. }
            | Self::Reversed { node, .. }
            | Self::Wraps { node, .. }
            | Self::NotTranslatable { node, .. }
            | Self::NoSuchPhandle { node, .. } => Some(node),
            _ => None,
        }
    }

    /// Writes the fault in the node's content; writes nothing for an error of another kind.
    pub(super) fn write_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WideCells { .. } => f.write_str("address or size wider than 64 bits"),
            Self::BadValue { property, .. } => write!(f, "bad value of {property}"),
            Self::Missing { property, .. } => write!(f, "no {property}"),
            Self::Reversed { property, .. } => write!(f, "{property} lies before the start"),
            Self::Wraps { base, size, .. } => write!(f, "base {base:#x} plus size {size:#x} wraps"),
            Self::NotTranslatable { address, .. } => write!(f, "bus address {address:#x} is in no range of the bus"),
            Self::NoSuchPhandle { phandle, .. } => write!(f, "no node has phandle {phandle:#x}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FdtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoHeader { len } => write!(f, "{len} bytes are too few for a device tree's header"),
            Self::BadMagic { found } => write!(f, "no device tree: magic is {found:#010x}, not 0xd00dfeed"),
            Self::BadTotalSize { totalsize } => write!(f, "totalsize {totalsize:#x} is not in 40 bytes..=2 MiB"),
            Self::Truncated { totalsize, len } => {
                write!(f, "totalsize {totalsize:#x} exceeds the {len:#x} bytes given")
            }
            Self::BadVersion { version, last_compatible } => {
                write!(f, "version {version}, compatible down to {last_compatible}: 17 is needed")
            }
            Self::BlockOutside { block, offset } => write!(f, "{block} at {offset:#x} runs out of the tree"),
            Self::BlockMisaligned { block, offset } => write!(f, "{block} at {offset:#x} is misaligned"),
            Self::BlocksOverlap { first, second } => write!(f, "{first} and {second} overlap"),
            Self::UnexpectedEnd { offset } => write!(f, "structure block ends inside the token at {offset:#x}"),
            Self::BadToken { offset, found } => write!(f, "no token: {found:#x} at {offset:#x}"),
            Self::MisplacedToken { offset, found } => write!(f, "token {found:#x} at {offset:#x} is out of place"),
            Self::TooDeep { offset } => write!(f, "node at {offset:#x} is more than {} levels deep", super::MAX_DEPTH),
            Self::BadNodeName { offset } => write!(f, "node at {offset:#x} has a bad name"),
            Self::ValueOutside { offset, len } => {
                write!(f, "property at {offset:#x} states {len:#x} bytes, more than there are")
            }
            Self::BadPropertyName { offset, name } => {
                write!(f, "property at {offset:#x} has a bad name at {name:#x} of the strings block")
            }
            Self::BadCells { offset } => write!(f, "cell count at {offset:#x} is not one that we can hold"),
            Self::HasNops { count } => write!(f, "{count} NOP tokens in a tree that may not be written to"),
            Self::ReservationWraps { entry, base, size } => {
                write!(f, "/memreserve/ number {entry}: base {base:#x} plus size {size:#x} wraps")
            }
            Self::WideCells { node }
            | Self::BadValue { node, .. }
            | Self::Missing { node, .. }
            | Self::Reversed { node, .. }
            | Self::Wraps { node, .. }
            | Self::NotTranslatable { node, .. }
            | Self::NoSuchPhandle { node, .. } => {
                write!(f, "node at {node:#x}: ")?;
                self.write_what(f)
            }
        }
    }
}

impl core::error::Error for FdtError {}
