//! A node: its name, properties, children and parent.

use super::reg::Cells;
use super::token::Token;
use super::tree::{Path, Tree};
use super::value::{Property, Strings};
use ::fdt::node::FdtNode;
use core::fmt;

/// A node of a [`Tree`]. A handle of a few words: copy it freely.
#[derive(Clone, Copy)]
pub struct Node<'t, 'a> {
    raw: FdtNode<'t, 'a>,
    tree: &'t Tree<'a>,
    place: Place,
}

/// What is known of where a node lies, so that most nodes find their parent without a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    ChildOfRoot,
    Anywhere,
}

impl<'t, 'a> Node<'t, 'a> {
    pub(super) fn root(raw: FdtNode<'t, 'a>, tree: &'t Tree<'a>) -> Self {
        Self { raw, tree, place: Place::Root }
    }

    pub(super) fn anywhere(raw: FdtNode<'t, 'a>, tree: &'t Tree<'a>) -> Self {
        Self { raw, tree, place: Place::Anywhere }
    }

    /// The tree that the node belongs to.
    #[must_use]
    pub fn tree(self) -> &'t Tree<'a> {
        self.tree
    }

    /// The name with its unit address, as in `serial@7e201000`. Empty for the root.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.raw.name
    }

    /// The name without its unit address.
    #[must_use]
    pub fn base_name(self) -> &'a str {
        self.name().split_once('@').map_or(self.name(), |(base, _)| base)
    }

    /// Where the node's name lies in the blob, in bytes: the node's identity, and what errors name.
    #[must_use]
    pub fn offset(self) -> usize {
        self.name().as_ptr().addr().wrapping_sub(self.tree.blob().as_ptr().addr())
    }

    /// The path from the root, to print.
    #[must_use]
    pub fn path(self) -> Path<'t, 'a> {
        Path::new(self)
    }

    /// The properties in the order of the blob.
    pub fn properties(self) -> impl Iterator<Item = Property<'a>> + 't {
        self.raw.properties().map(|raw| Property { name: raw.name, value: raw.value })
    }

    /// The first property called `name`.
    #[must_use]
    pub fn property(self, name: &str) -> Option<Property<'a>> {
        // Booting asks for some hundred properties, most of which are not there: so names are compared where they lie, and
        // no list of them is made.
        let strings = self.tree.strings();
        let mut at = self.offset() + self.name().len() + 1;
        loop {
            // The precheck has seen the same tokens.
            let (token, next) = Token::read(self.tree.blob(), at.next_multiple_of(4)).ok()?;
            at = next;
            match token {
                Token::Property { name: start, value } => {
                    let found = strings.get(start as usize..)?;
                    if found.starts_with(name.as_bytes()) && found.get(name.len()) == Some(&0) {
                        let name = core::str::from_utf8(found.get(..name.len())?).ok()?;
                        return Some(Property { name, value });
                    }
                }
                Token::Nop => {}
                _ => return None,
            }
        }
    }

    /// Whether there is a property called `name`, whatever its value.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// The property `name` as a string; `None` if it is absent or is none.
    #[must_use]
    pub fn str(self, name: &str) -> Option<&'a str> {
        self.property(name)?.str()
    }

    /// The property `name` as one cell; `None` if it is absent or is none.
    #[must_use]
    pub fn u32(self, name: &str) -> Option<u32> {
        self.property(name)?.u32()
    }

    /// The children in the order of the blob.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let place = if self.place == Place::Root { Place::ChildOfRoot } else { Place::Anywhere };
        self.raw.children().map(move |raw| Self { raw, tree: self.tree, place })
    }

    /// The first child called `name`; without a unit address in `name`, whatever the child's.
    #[must_use]
    pub fn child(self, name: &str) -> Option<Self> {
        let exact = name.contains('@');
        self.children().find(|child| child.name() == name || (!exact && child.base_name() == name))
    }

    /// The child whose name lies at `offset` of the blob or whose body holds that offset; `None` if `offset` lies
    /// before the first child.
    pub(super) fn child_around(self, offset: usize) -> Option<Self> {
        self.children().take_while(|child| child.offset() <= offset).last()
    }

    /// The node above; `None` for the root. The blob holds no way up: except for a child of the root that was reached
    /// from there, this walks down from the root, in time linear in the part of the tree before the node.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        match self.place {
            Place::Root => return None,
            Place::ChildOfRoot => return Some(self.tree.root()),
            Place::Anywhere => {}
        }
        let target = self.offset();
        let mut node = self.tree.root();
        while let Some(child) = node.child_around(target) {
            if child.offset() == target {
                return Some(node);
            }
            node = child;
        }
        None
    }

    /// The node, its parent, and so on up to the root. Each step costs as much as [`parent`](Self::parent).
    pub(super) fn upwards(self) -> impl Iterator<Item = Self> + Clone {
        core::iter::successors(Some(self), |node| node.parent())
    }

    /// Whether `status` lets the node be used: absent, `okay` or `ok`. Says nothing of the nodes above.
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.property("status").is_none_or(|status| matches!(status.str(), Some("okay" | "ok")))
    }

    /// Whether the node and all nodes above it are enabled.
    #[must_use]
    pub fn is_available(self) -> bool {
        self.upwards().all(Node::is_enabled)
    }

    /// The strings of `compatible`, the most specific first; none if it is absent.
    #[must_use]
    pub fn compatible(self) -> Strings<'a> {
        self.property("compatible").map(Property::strings).unwrap_or_default()
    }

    /// Whether `compatible` names `with`.
    #[must_use]
    pub fn is_compatible(self, with: &str) -> bool {
        self.compatible().any(|name| name == with)
    }

    /// The number by which other nodes refer to this one.
    #[must_use]
    pub fn phandle(self) -> Option<u32> {
        self.u32("phandle").or_else(|| self.u32("linux,phandle"))
    }

    /// Widths of the addresses and sizes in the properties of this node's children. The defaults are the
    /// specification's: 2 and 1 (Devicetree Specification 2.3.5).
    #[must_use]
    pub fn cells(self) -> Cells {
        Cells { address: self.u32("#address-cells").unwrap_or(2), size: self.u32("#size-cells").unwrap_or(1) }
    }
}

impl PartialEq for Node<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.tree.blob(), other.tree.blob()) && self.offset() == other.offset()
    }
}

impl Eq for Node<'_, '_> {}

impl fmt::Debug for Node<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path())
    }
}
