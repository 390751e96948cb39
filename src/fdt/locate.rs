//! Location of an error in a device tree: the path of the node, which is found even in a broken tree.

use super::error::FdtError;
use super::limits::MAX_DEPTH;
use super::token::{Token, be32};
use core::fmt;

/// An error with the blob that it was found in, to print: it names the node by its path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Located<'b> {
    error: FdtError,
    blob: &'b [u8],
}

impl FdtError {
    /// The error, printed with the path of the node in `blob`: the one in which it was found, before anything was changed.
    #[must_use]
    pub const fn located(self, blob: &[u8]) -> Located<'_> {
        Located { error: self, blob }
    }

    /// Its offset in the blob; `None` if it belongs to no node.
    const fn place(&self) -> Option<usize> {
        match *self {
            Self::UnexpectedEnd { offset }
            | Self::BadToken { offset, .. }
            | Self::MisplacedToken { offset, .. }
            | Self::TooDeep { offset }
            | Self::BadNodeName { offset }
            | Self::ValueOutside { offset, .. }
            | Self::BadPropertyName { offset, .. }
            | Self::BadCells { offset } => Some(offset),
            _ => self.node(),
        }
    }
}

impl Located<'_> {
    /// The error alone.
    #[must_use]
    pub const fn error(&self) -> FdtError {
        self.error
    }
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = self.error.place().and_then(|place| OpenNodes::at(self.blob, place)) else {
            return self.error.fmt(f);
        };
        match self.error.node() {
            Some(_) => {
                write!(f, "{path}: ")?;
                self.error.write_what(f)
            }
            None if matches!(self.error, FdtError::BadCells { .. }) => {
                write!(f, "{path}: #address-cells or #size-cells is not one that we can hold")
            }
            None => write!(f, "in {path}: {}", self.error),
        }
    }
}

impl fmt::Debug for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({self})", self.error)
    }
}

/// The names of the nodes that are open at a place of the structure block, the root first.
struct OpenNodes<'b> {
    names: [&'b [u8]; MAX_DEPTH as usize + 1],
    open: usize,
}

impl<'b> OpenNodes<'b> {
    /// Nodes that have begun before `place` and do not end before it. `None` if the blob cannot be read so far.
    fn at(blob: &'b [u8], place: usize) -> Option<Self> {
        let word = |index: usize| be32(blob, index * 4).map(|word| word as usize);
        let (start, size) = (word(2)?, word(9)?);
        let bytes = blob.get(..start.checked_add(size)?)?;
        let mut nodes = Self { names: [&[]; MAX_DEPTH as usize + 1], open: 0 };
        let mut at = start;
        while at < place {
            let (token, next) = Token::read(bytes, at).ok()?;
            match token {
                Token::BeginNode { name } => {
                    *nodes.names.get_mut(nodes.open)? = name;
                    nodes.open += 1;
                }
                Token::EndNode => nodes.open = nodes.open.checked_sub(1)?,
                Token::Property { .. } | Token::Nop => {}
                Token::End => return None,
            }
            at = next;
        }
        (nodes.open != 0).then_some(nodes)
    }
}

impl fmt::Display for OpenNodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.get(1..self.open) {
            Some(names @ [_, ..]) => names.iter().try_for_each(|name| write!(f, "/{}", name.escape_ascii())),
            _ => f.write_str("/"),
        }
    }
}
