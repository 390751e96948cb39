//! The strict check that stands before everything else: what passes it cannot make the `fdt` crate panic, recurse
//! deeply or read outside the blob. One pass, iterative, without memory of its own.

use super::error::FdtError;
use super::header::{Counts, Header};
use super::limits::{MAX_DEPTH, MAX_PROPERTY_NAME};
use super::token::{Token, be32, end_of_string};

/// The most cells that any `#address-cells` or `#size-cells` may state (Linux: `OF_MAX_ADDR_CELLS`).
const MAX_CELLS: u32 = 4;
/// Names that are kept as checked.
const NAMES: usize = 32;

/// Checks the whole of a device tree: header, blocks, and every token of the structure block.
///
/// `blob` may be longer than the tree. Reads nothing outside `blob`; takes time linear in the tree's size.
///
/// # Errors
///
/// The rule that is broken and where: any variant of [`FdtError`] from `NoHeader` to `BadCells`.
pub fn precheck(blob: &[u8]) -> Result<Header, FdtError> {
    let mut header = Header::read(blob)?;
    // INVARIANT: FDT-1 by `Header::read`, FDT-2 by the walk.
    header.counts = Walk::new(blob, &header)?.run()?;
    Ok(header)
}

struct Walk<'b> {
    /// The blob up to the end of the structure block.
    bytes: &'b [u8],
    strings: &'b [u8],
    offset: usize,
    /// Nodes that are open: the depth of the innermost one is one less.
    open: u32,
    /// Whether a property may stand here: after a node's beginning, until its first child.
    properties_allowed: bool,
    counts: Counts,
    /// Names of properties that were checked already, by their place in the strings block: a tree has some hundred
    /// properties, and a handful of names.
    names: [Option<u32>; NAMES],
}

impl<'b> Walk<'b> {
    fn new(blob: &'b [u8], header: &Header) -> Result<Self, FdtError> {
        let structure = header.structure_range();
        let outside = FdtError::UnexpectedEnd { offset: structure.start };
        Ok(Self {
            bytes: blob.get(..structure.end).ok_or(outside)?,
            strings: blob.get(header.strings_range()).ok_or(outside)?,
            offset: structure.start,
            open: 0,
            properties_allowed: false,
            counts: Counts::default(),
            names: [None; NAMES],
        })
    }

    fn run(mut self) -> Result<Counts, FdtError> {
        loop {
            let offset = self.offset;
            let (token, next) = Token::read(self.bytes, offset)?;
            let misplaced = FdtError::MisplacedToken { offset, found: token.number() };
            match token {
                Token::BeginNode { name } => self.begin_node(name, misplaced)?,
                Token::EndNode => {
                    self.open = self.open.checked_sub(1).ok_or(misplaced)?;
                    self.properties_allowed = false;
                }
                Token::Property { .. } if !self.properties_allowed => return Err(misplaced),
                Token::Property { name, value } => self.property(name, value)?,
                Token::Nop => self.counts.nops += 1,
                Token::End if self.open > 0 || self.counts.nodes == 0 => return Err(misplaced),
                Token::End => return Ok(self.counts),
            }
            self.offset = next;
        }
    }

    fn begin_node(&mut self, name: &[u8], misplaced: FdtError) -> Result<(), FdtError> {
        let is_root = self.counts.nodes == 0;
        if self.open == 0 && !is_root {
            return Err(misplaced);
        }
        if self.open > MAX_DEPTH {
            return Err(FdtError::TooDeep { offset: self.offset });
        }
        let printable = name.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'/');
        if !printable || name.is_empty() != is_root {
            return Err(FdtError::BadNodeName { offset: self.offset });
        }
        self.counts.depth = self.counts.depth.max(self.open);
        self.counts.nodes += 1;
        self.open += 1;
        self.properties_allowed = true;
        Ok(())
    }

    fn property(&mut self, name: u32, value: &[u8]) -> Result<(), FdtError> {
        self.counts.properties += 1;
        let bad_name = FdtError::BadPropertyName { offset: self.offset, name };
        let known = self.names.get_mut((name ^ name >> 5) as usize % NAMES).ok_or(bad_name)?;
        if *known == Some(name) {
            return Ok(());
        }
        let place = name;
        let tail = self.strings.get(name as usize..).ok_or(bad_name)?;
        let len = end_of_string(tail).filter(|len| *len <= MAX_PROPERTY_NAME).ok_or(bad_name)?;
        let name = tail.get(..len).ok_or(bad_name)?;
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(bad_name);
        }
        let at_root = self.open == 1;
        let legal = match name {
            b"#address-cells" if at_root => 1..=2,
            b"#size-cells" if at_root => 1..=2,
            b"#address-cells" | b"#size-cells" => 0..=MAX_CELLS,
            _ => {
                // Nothing depends on its value.
                *known = Some(place);
                return Ok(());
            }
        };
        match be32(value, 0) {
            Some(cells) if value.len() == 4 && legal.contains(&cells) => Ok(()),
            _ => Err(FdtError::BadCells { offset: self.offset }),
        }
    }
}
