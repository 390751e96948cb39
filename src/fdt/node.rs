//! A node: its name, properties, children and parent.

use super::cells::Cells;
use super::token::{Token, be32};
use super::tree::{Path, Tree};
use super::value::{Property, Strings, string, strings};
use core::fmt;

/// A node of a [`Tree`]. A handle of a few words: copy it freely.
#[derive(Clone, Copy)]
pub struct Node<'t, 'a> {
    name: &'a [u8],
    tree: &'t Tree<'a>,
    place: Place,
}

/// Known position of a node, so that most nodes find their parent without a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    ChildOfRoot,
    Anywhere,
}

impl<'t, 'a> Node<'t, 'a> {
    pub(super) fn root(name: &'a [u8], tree: &'t Tree<'a>) -> Self {
        Self { name, tree, place: Place::Root }
    }

    /// The names of the children of the root, by a walk.
    pub(super) fn children_of_root(tree: &'t Tree<'a>) -> impl Iterator<Item = &'a [u8]> {
        children_from(tree.blob(), tree.root().body(), 0)
    }

    /// Every node below the root, each before its children.
    pub(super) fn below_root(tree: &'t Tree<'a>) -> impl Iterator<Item = Self> {
        let mut at = tree.root().body();
        core::iter::from_fn(move || {
            loop {
                let (edge, next) = Token::edge(tree.blob(), at)?;
                at = next;
                if let Token::BeginNode { name } = edge {
                    return Some(Self { name, tree, place: Place::Anywhere });
                }
            }
        })
    }

    /// The tree that the node belongs to.
    #[must_use]
    pub fn tree(self) -> &'t Tree<'a> {
        self.tree
    }

    /// The name with its unit address, as in `serial@7e201000`. Empty for the root.
    #[must_use]
    pub fn name(self) -> &'a str {
        // The precheck refuses other than graphic ASCII.
        core::str::from_utf8(self.name).unwrap_or_default()
    }

    /// The name without its unit address.
    #[must_use]
    pub fn base_name(self) -> &'a str {
        let len = self.name.iter().position(|&byte| byte == b'@').unwrap_or(self.name.len());
        self.name.get(..len).and_then(|base| core::str::from_utf8(base).ok()).unwrap_or_default()
    }

    /// Offset of the node's name in the blob, in bytes: the node's identity, and the place that errors name.
    #[must_use]
    pub fn offset(self) -> usize {
        self.name.as_ptr().addr().wrapping_sub(self.tree.blob().as_ptr().addr())
    }

    /// Start of the node's contents in the blob.
    fn body(self) -> usize {
        (self.offset() + self.name.len() + 1).next_multiple_of(4)
    }

    /// The path from the root, to print.
    #[must_use]
    pub fn path(self) -> Path<'t, 'a> {
        Path::new(self)
    }

    /// The properties in the order of the blob.
    pub fn properties(self) -> impl Iterator<Item = Property<'a>> + 't {
        let mut at = self.body();
        core::iter::from_fn(move || {
            let (start, value, next) = Token::property(self.tree.blob(), at)?;
            at = next;
            let rest = self.tree.strings().get(start as usize..)?;
            let name = rest.get(..rest.iter().position(|&byte| byte == 0)?)?;
            Some(Property { name: core::str::from_utf8(name).ok()?, value })
        })
    }

    /// The first property called `name`.
    #[must_use]
    pub fn property(self, name: &str) -> Option<Property<'a>> {
        let (name, value) =
            Token::property_called(self.tree.blob(), self.tree.strings(), name.as_bytes(), self.body())?;
        Some(Property { name: core::str::from_utf8(name).ok()?, value })
    }

    /// The value of the first property called `name`.
    fn value(self, name: &str) -> Option<&'a [u8]> {
        Token::property_called(self.tree.blob(), self.tree.strings(), name.as_bytes(), self.body())
            .map(|(_, value)| value)
    }

    /// Whether there is a property called `name`, with any value.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The property `name` as a string; `None` if it is absent or not a string.
    #[must_use]
    pub fn str(self, name: &str) -> Option<&'a str> {
        string(self.value(name)?)
    }

    /// The property `name` as one cell; `None` if it is absent or not one cell.
    #[must_use]
    pub fn u32(self, name: &str) -> Option<u32> {
        be32(self.value(name).filter(|value| value.len() == 4)?, 0)
    }

    /// The children in the order of the blob. Costs a step for each token below the node: not the names of properties,
    /// which a walk has no use for. The root's first children are known, and cost a step each.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let tree = self.tree;
        let (place, known) = match self.place {
            Place::Root => (Place::ChildOfRoot, tree.top()),
            _ => (Place::Anywhere, &[][..]),
        };
        let child = move |name| Self { name, tree, place };
        // Behind the last that is known, inside of it.
        let (at, depth) = known.last().map_or((self.body(), 0), |last| (child(last).body(), 1));
        known.iter().copied().chain(children_from(tree.blob(), at, depth)).map(child)
    }

    /// The first child called `name`; if `name` has no unit address, the child may have any.
    #[must_use]
    pub fn child(self, name: &str) -> Option<Self> {
        let name = name.as_bytes();
        let exact = name.contains(&b'@');
        self.children().find(|child| {
            // Behind the name, its end or a unit address.
            child.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || (!exact && rest.starts_with(b"@")))
        })
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
        self.value("status").is_none_or(|status| {
            let string = status.split(|&byte| byte == 0).next().filter(|string| string.len() < status.len());
            matches!(string, Some(b"okay" | b"ok"))
        })
    }

    /// Whether the node and all nodes above it are enabled.
    #[must_use]
    pub fn is_available(self) -> bool {
        self.upwards().all(Node::is_enabled)
    }

    /// The strings of `compatible`, the most specific first; none if it is absent.
    #[must_use]
    pub fn compatible(self) -> Strings<'a> {
        self.value("compatible").map(Strings::of).unwrap_or_default()
    }

    /// Whether `compatible` names `with`.
    #[must_use]
    pub fn is_compatible(self, with: &str) -> bool {
        self.value("compatible").is_some_and(|list| strings(list).any(|name| name == with.as_bytes()))
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

/// The names of the children of a node from `at` on, which lies `depth` levels below the node.
fn children_from(blob: &[u8], mut at: usize, mut depth: u32) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        loop {
            let (edge, next) = Token::edge(blob, at)?;
            let Token::BeginNode { name } = edge else {
                // The node's own end is not passed, so that the list has ended for good.
                depth = depth.checked_sub(1)?;
                at = next;
                continue;
            };
            at = next;
            depth += 1;
            if depth == 1 {
                return Some(name);
            }
        }
    })
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
