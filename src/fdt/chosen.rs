//! `/chosen`: the boot loader's parameters for the kernel.

use super::error::FdtError;
use super::node::Node;
use super::tree::Tree;
use crate::addr::{PhysAddr, PhysRange};

impl<'a> Tree<'a> {
    /// The `/chosen` node, if present.
    #[must_use]
    pub fn chosen(&self) -> Option<Chosen<'_, 'a>> {
        self.root().child(CHOSEN).map(Chosen::of)
    }
}

/// The `/chosen` node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen<'t, 'a> {
    node: Node<'t, 'a>,
}

/// The console that the boot loader chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stdout<'t, 'a> {
    /// The device.
    pub node: Node<'t, 'a>,
    /// The part behind the colon, such as `115200n8`.
    pub options: Option<&'a str>,
}

pub(super) const CHOSEN: &str = "chosen";

impl<'t, 'a> Chosen<'t, 'a> {
    pub(super) fn of(node: Node<'t, 'a>) -> Self {
        Self { node }
    }

    /// The node.
    #[must_use]
    pub fn node(self) -> Node<'t, 'a> {
        self.node
    }

    /// The console: `stdout-path` with its alias resolved and its options cut off. `None` if the property is absent or names no
    /// node.
    #[must_use]
    pub fn stdout(self) -> Option<Stdout<'t, 'a>> {
        let value = self.node.str("stdout-path").or_else(|| self.node.str("linux,stdout-path"))?;
        let (path, options) = match value.split_once(':') {
            Some((path, options)) => (path, Some(options)),
            None => (value, None),
        };
        Some(Stdout { node: self.node.tree().resolve(path)?, options })
    }

    /// The kernel's command line as it stands: in what encoding the boot loader likes, and as a rule with a NUL at the end.
    #[must_use]
    pub fn bootargs(self) -> Option<&'a [u8]> {
        self.node.property("bootargs").map(|property| property.value)
    }

    /// Address range of the initial RAM disk; neither end need be aligned. `None` if the tree names none, or an empty one.
    ///
    /// # Errors
    ///
    /// [`FdtError::Missing`] if only one end is stated, [`FdtError::BadValue`] if an end is neither one nor two cells
    /// long, [`FdtError::Reversed`] if the end lies before the start.
    pub fn initrd(self) -> Result<Option<PhysRange>, FdtError> {
        const START: &str = "linux,initrd-start";
        const END: &str = "linux,initrd-end";
        let node = self.node.offset();
        let end = |name: &'static str| {
            let bad = FdtError::BadValue { node, property: name };
            self.node.property(name).map(|property| property.number().map(PhysAddr::new).ok_or(bad)).transpose()
        };
        match (end(START)?, end(END)?) {
            (None, None) => Ok(None),
            (Some(start), Some(end)) => {
                let range = PhysRange::new(start, end).ok_or(FdtError::Reversed { node, property: END })?;
                Ok(Some(range).filter(|range| !range.is_empty()))
            }
            (start, _) => Err(FdtError::Missing { node, property: if start.is_none() { START } else { END } }),
        }
    }

    /// The only memory that the kernel may use, if the boot loader says so: `linux,usable-memory-range`, in any order. A
    /// kernel that was started beside a crashed one gets its part by it. Entries of size 0 are left out; no entry means no
    /// limit.
    ///
    /// An item is [`FdtError::BadValue`] or [`FdtError::Wraps`] where an entry cannot be read.
    pub fn usable_memory(self) -> impl Iterator<Item = Result<PhysRange, FdtError>> + Clone {
        let list = match self.node.ranges_of("linux,usable-memory-range", self.node.tree().root().cells()) {
            Ok(list) => (Some(list), None),
            Err(error) => (None, Some(Err(error))),
        };
        let ranges = list.1.into_iter().chain(list.0.into_iter().flatten());
        ranges.filter(|range| !matches!(range, Ok(range) if range.is_empty()))
    }

    /// The seed for address randomisation, if the boot loader passed one.
    #[must_use]
    pub fn kaslr_seed(self) -> Option<u64> {
        self.node.property("kaslr-seed")?.number()
    }

    /// Random bytes for the kernel's generator, if the boot loader passed some.
    #[must_use]
    pub fn rng_seed(self) -> Option<&'a [u8]> {
        self.node.property("rng-seed").map(|property| property.value)
    }
}
