//! The tree: made from a checked blob, searched by path, phandle and `compatible`.

use super::compact::compact;
use super::error::FdtError;
use super::header::{Header, RESERVE_ENTRY};
use super::locate::Located;
use super::node::Node;
use super::precheck::precheck;
use crate::addr::{PhysAddr, PhysRange};
use ::fdt::Fdt;
use core::fmt;

/// Children of the root that are found without a walk; boards have thirty, `virt` has sixty. A walk finds the others.
const INDEXED: usize = 64;

/// A device tree that passed the check and has no `FDT_NOP` left.
///
/// Holds no memory of its own but a few words; every answer points into the blob. May be read from any context and any
/// CPU. Searches take time linear in the size of the tree.
///
/// # Invariants
///
/// - `FDT-3`: the blob passed [`precheck`](super::precheck()) (`FDT-1`, `FDT-2`) and has no NOP tokens. On this rests
///   that the `fdt` crate, which asserts where it should return errors, cannot panic. We ask it once, for the root: its
///   `find_node` recurses without end over an alias that names itself, `memory`, `chosen`, `cpus`, `reg` and their like
///   panic or give wrong answers on legal trees, and its walk reads every property's name as a string, which was two
///   fifths of booting.
/// - `FDT-4`: `root` is the root's name where it lies in the blob, and `top` are those of its first children, in their order: all
///   of them, or as many as there is room for.
pub struct Tree<'a> {
    blob: &'a [u8],
    header: Header,
    root: &'a [u8],
    top: [&'a [u8]; INDEXED],
    indexed: usize,
}

impl<'a> Tree<'a> {
    /// Checks the tree at the start of `blob` and squeezes out its NOP tokens in place. `blob` may be longer than the
    /// tree; what follows it is not touched.
    ///
    /// # Errors
    ///
    /// The errors of [`precheck`](super::precheck()); the blob is then unchanged.
    pub fn new(blob: &'a mut [u8]) -> Result<Self, FdtError> {
        Self::new_or_located(blob).map_err(|located| located.error())
    }

    /// [`new`](Self::new), with errors that name the node.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn new_or_located(blob: &'a mut [u8]) -> Result<Self, Located<'a>> {
        let checked = precheck(blob).and_then(|mut header| compact(blob, &mut header).map(|()| header));
        let blob: &'a [u8] = blob;
        checked.and_then(|header| Self::checked(blob, header)).map_err(|error| error.located(blob))
    }

    /// The same for a blob that may not be written to.
    ///
    /// # Errors
    ///
    /// The errors of [`precheck`](super::precheck()); [`FdtError::HasNops`] if there is something to squeeze out.
    pub fn from_read_only(blob: &'a [u8]) -> Result<Self, FdtError> {
        let header = precheck(blob)?;
        match header.counts.nops {
            0 => Self::checked(blob, header),
            count => Err(FdtError::HasNops { count }),
        }
    }

    fn checked(blob: &'a [u8], header: Header) -> Result<Self, FdtError> {
        let len = blob.len();
        let blob = blob.get(..header.totalsize as usize).ok_or(FdtError::NoHeader { len })?;
        // INVARIANT: FDT-3 by the callers.
        let fdt = Fdt::new(blob).map_err(|_| FdtError::NoHeader { len })?;
        // The crate finds "/" at the first token by FDT-3, and so never asks the aliases.
        let root = fdt.find_node("/").ok_or(FdtError::NoHeader { len })?.name.as_bytes();
        // INVARIANT: FDT-4: nothing is in the index yet, so that the walk finds all children.
        let mut tree = Self { blob, header, root, top: [&[]; INDEXED], indexed: 0 };
        let mut found = [&[][..]; INDEXED];
        let places = found.iter_mut().zip(Node::children_of_root(&tree));
        let indexed = places.map(|(place, name)| *place = name).count();
        (tree.top, tree.indexed) = (found, indexed);
        Ok(tree)
    }

    /// The names of the root's first children.
    pub(super) fn top(&self) -> &[&'a [u8]] {
        self.top.get(..self.indexed).unwrap_or_default()
    }

    /// The header, after the NOPs were removed.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The blob, `totalsize` bytes of it.
    #[must_use]
    pub fn blob(&self) -> &'a [u8] {
        self.blob
    }

    /// The names of properties.
    pub(super) fn strings(&self) -> &'a [u8] {
        self.blob.get(self.header.strings_range()).unwrap_or_default()
    }

    /// The root node.
    #[must_use]
    pub fn root(&self) -> Node<'_, 'a> {
        Node::root(self.root, self)
    }

    /// Every node, the root first, each before its children, in the order of the blob.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_, 'a>> {
        core::iter::once(self.root()).chain(Node::below_root(self))
    }

    /// A node that `wanted` accepts: the root's first such child, where a kernel almost always finds it, and where it is cheap
    /// to see, or else the first anywhere.
    pub fn find_by(&self, wanted: impl Fn(Node<'_, 'a>) -> bool) -> Option<Node<'_, 'a>> {
        self.root().children().find(|node| wanted(*node)).or_else(|| self.nodes().find(|node| wanted(*node)))
    }

    /// The node at `path`, which begins with a slash. As in libfdt, a component without a unit address matches the first child
    /// of that name with any unit address. Empty components are skipped.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node<'_, 'a>> {
        let components = path.strip_prefix('/')?.split('/').filter(|component| !component.is_empty());
        let mut node = self.root();
        for component in components {
            node = node.child(component)?;
        }
        Some(node)
    }

    /// The node that `path` means where a path may begin with an alias, as in `/chosen/stdout-path`: `/soc/serial@0`,
    /// `serial0` or `serial0/child`. An alias stands for an absolute path, never for another alias.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<Node<'_, 'a>> {
        if path.starts_with('/') {
            return self.find(path);
        }
        let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
        let mut node = self.find(self.find("/aliases")?.str(alias)?)?;
        for component in rest.split('/').filter(|component| !component.is_empty()) {
            node = node.child(component)?;
        }
        Some(node)
    }

    /// The nodes whose `compatible` names `with`, in the order of the blob, disabled ones too.
    pub fn compatible_nodes<'n>(&'n self, with: &'n str) -> impl Iterator<Item = Node<'n, 'a>> {
        self.nodes().filter(move |node| node.is_compatible(with))
    }

    /// The node with the phandle `phandle`.
    #[must_use]
    pub fn find_phandle(&self, phandle: u32) -> Option<Node<'_, 'a>> {
        self.nodes().find(|node| node.phandle() == Some(phandle))
    }

    /// The node whose name lies at `offset` of the blob, or whose contents include `offset`: the place that an [`FdtError`]
    /// points at. `None` outside the structure block.
    #[must_use]
    pub fn node_at(&self, offset: usize) -> Option<Node<'_, 'a>> {
        if !self.header.structure_range().contains(&offset) {
            return None;
        }
        let mut node = self.root();
        while let Some(child) = node.child_around(offset) {
            node = child;
        }
        Some(node)
    }

    /// The path of [`node_at`](Self::node_at), to print.
    #[must_use]
    pub fn path_at(&self, offset: usize) -> Option<Path<'_, 'a>> {
        self.node_at(offset).map(|node| node.path())
    }

    /// An error of this tree, to print with the path of the node.
    #[must_use]
    pub fn locate(&self, error: FdtError) -> Located<'a> {
        error.located(self.blob)
    }

    /// The memory reservation block: ranges that are not to be used as memory. As in libfdt and Linux it ends at the
    /// first entry of size 0.
    ///
    /// An item is [`FdtError::ReservationWraps`] for a range that has no end in 64 bits.
    pub fn reservations(&self) -> impl Iterator<Item = Result<PhysRange, FdtError>> + use<'a> {
        let map = self.blob.get(self.header.reserve_map as usize..).unwrap_or_default();
        let entries = map.as_chunks::<RESERVE_ENTRY>().0.iter().map(|entry| {
            let entry = u128::from_be_bytes(*entry);
            #[expect(clippy::cast_possible_truncation, reason = "the high half is shifted down, the low half is meant")]
            ((entry >> 64) as u64, entry as u64)
        });
        entries.enumerate().take_while(|(_, (_, size))| *size != 0).map(|(entry, (base, size))| {
            PhysRange::from_size(PhysAddr::new(base), size).ok_or(FdtError::ReservationWraps { entry, base, size })
        })
    }

    /// The board's name for people, from `/model`.
    #[must_use]
    pub fn model(&self) -> Option<&'a str> {
        self.root().str("model")
    }
}

impl fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The path of a node, to print or to compare with a string.
#[derive(Clone, Copy)]
pub struct Path<'t, 'a> {
    node: Node<'t, 'a>,
}

impl<'t, 'a> Path<'t, 'a> {
    pub(super) fn new(node: Node<'t, 'a>) -> Self {
        Self { node }
    }
}

impl fmt::Display for Path<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.node.offset();
        let mut node = self.node.tree().root();
        if node.offset() == target {
            return f.write_str("/");
        }
        while node.offset() != target {
            let Some(child) = node.child_around(target) else { break };
            write!(f, "/{}", child.name())?;
            node = child;
        }
        Ok(())
    }
}

impl fmt::Debug for Path<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
