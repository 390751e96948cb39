//! Memory in the tree: memory nodes, and the children of `/reserved-memory`.

use super::cells::Cells;
use super::chosen::{CHOSEN, Chosen};
use super::cpu::CPUS;
use super::error::FdtError;
use super::node::Node;
use super::tree::Tree;
use super::value::Property;
use crate::addr::PhysRange;

impl<'a> Tree<'a> {
    /// The ranges of RAM: every entry of every child of the root with `device_type = "memory"` that is enabled, as it
    /// stands: in any order, possibly overlapping or touching. Where a node has `linux,usable-memory`, that counts instead
    /// of its `reg` (a boot loader leaves the rest to other owners). Entries of size 0 are left out. There may be none: many
    /// trees rely on the boot loader to fill them in.
    ///
    /// An item is [`FdtError::BadValue`] or [`FdtError::Wraps`] where an entry cannot be read: memory that is misread
    /// is worse than memory refused.
    pub fn memory(&self) -> impl Iterator<Item = Result<PhysRange, FdtError>> + use<'_, 'a> {
        let cells = self.root().cells();
        self.root().children().flat_map(move |node| node.memory_ranges(cells))
    }

    /// The children of `/reserved-memory` in the order of the blob, disabled ones too.
    pub fn reserved_memory(&self) -> impl Iterator<Item = ReservedMemory<'_, 'a>> {
        self.root().child(RESERVED_MEMORY).into_iter().flat_map(ReservedMemory::children_of)
    }

    /// Collects the properties that memory discovery needs of the root's children, in one pass over the tree: calls `range` for
    /// [`memory`](Self::memory), and returns the places of the others.
    ///
    /// # Errors
    ///
    /// The first that `range` returns.
    pub fn survey<E>(
        &self,
        mut range: impl FnMut(Result<PhysRange, FdtError>) -> Result<(), E>,
    ) -> Result<Survey<'_, 'a>, E> {
        let cells = self.root().cells();
        let mut survey = Survey { chosen: None, reserved_memory: None, cpus: None };
        for node in self.root().children() {
            match node.base_name() {
                CPUS => survey.cpus = survey.cpus.or(Some(node)),
                CHOSEN => survey.chosen = survey.chosen.or(Some(Chosen::of(node))),
                RESERVED_MEMORY => survey.reserved_memory = survey.reserved_memory.or(Some(node)),
                _ => node.memory_ranges(cells).try_for_each(&mut range)?,
            }
        }
        Ok(survey)
    }
}

const USABLE_MEMORY: &str = "linux,usable-memory";
const RESERVED_MEMORY: &str = "reserved-memory";

/// Result of [`Tree::survey`].
#[derive(Clone, Copy, Debug)]
pub struct Survey<'t, 'a> {
    /// `/chosen`.
    pub chosen: Option<Chosen<'t, 'a>>,
    /// `/reserved-memory`.
    pub reserved_memory: Option<Node<'t, 'a>>,
    /// `/cpus`.
    pub cpus: Option<Node<'t, 'a>>,
}

impl<'t> Node<'t, '_> {
    /// The RAM that this child of the root states; nothing for one that is no memory. `cells` are the root's.
    fn memory_ranges(self, cells: Cells) -> impl Iterator<Item = Result<PhysRange, FdtError>> + use<'t> {
        let is_memory = self.str("device_type") == Some("memory") && self.is_enabled();
        is_memory
            .then_some(self)
            .into_iter()
            .flat_map(move |node| {
                let usable = node.has(USABLE_MEMORY);
                flatten(node.ranges_of(if usable { USABLE_MEMORY } else { "reg" }, cells))
            })
            .filter(|range| !matches!(range, Ok(range) if range.is_empty()))
    }
}

/// A list, or the error in place of it, as one list.
pub(super) fn flatten<T>(
    list: Result<impl Iterator<Item = Result<T, FdtError>>, FdtError>,
) -> impl Iterator<Item = Result<T, FdtError>> {
    let (list, error) = match list {
        Ok(list) => (Some(list), None),
        Err(error) => (None, Some(Err(error))),
    };
    error.into_iter().chain(list.into_iter().flatten())
}

/// A child of `/reserved-memory`: memory with a purpose, either at fixed ranges or to be placed by the kernel
/// (Devicetree Specification 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedMemory<'t, 'a> {
    node: Node<'t, 'a>,
    cells: Cells,
}

impl<'t, 'a> ReservedMemory<'t, 'a> {
    /// The regions below `parent`, which is `/reserved-memory`, in the order of the blob, disabled ones too.
    pub fn children_of(parent: Node<'t, 'a>) -> impl Iterator<Item = Self> {
        let cells = parent.cells();
        parent.children().map(move |node| Self { node, cells })
    }

    /// The region that `node` stands for; `None` if it is no child of `/reserved-memory`.
    #[must_use]
    pub fn from_node(node: Node<'t, 'a>) -> Option<Self> {
        let parent = node.parent()?;
        let home = node.tree().root().child(RESERVED_MEMORY)?;
        (parent == home).then(|| Self { node, cells: parent.cells() })
    }

    /// The node.
    #[must_use]
    pub fn node(self) -> Node<'t, 'a> {
        self.node
    }

    /// The name with its unit address.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.node.name()
    }

    /// Whether the reservation is in force.
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.node.is_enabled()
    }

    /// Whether the kernel must not map the memory, not even where nobody reads it.
    #[must_use]
    pub fn is_no_map(self) -> bool {
        self.node.has("no-map")
    }

    /// Whether the kernel may use the memory until the owner asks for it.
    #[must_use]
    pub fn is_reusable(self) -> bool {
        self.node.has("reusable")
    }

    /// Whether this is the pool for contiguous allocations of devices without a pool of their own.
    #[must_use]
    pub fn is_cma_default(self) -> bool {
        self.node.has("linux,cma-default")
    }

    /// Whether this is memory that devices allocate from (`shared-dma-pool`).
    #[must_use]
    pub fn is_dma_pool(self) -> bool {
        self.is_compatible("shared-dma-pool")
    }

    /// Whether all that the device maps is to be copied into this memory (`restricted-dma-pool`).
    #[must_use]
    pub fn is_restricted_pool(self) -> bool {
        self.is_compatible("restricted-dma-pool")
    }

    /// Whether this is the pool of coherent memory for devices that have none of their own.
    #[must_use]
    pub fn is_dma_default(self) -> bool {
        self.node.has("linux,dma-default")
    }

    /// Whether this is a pool that the kernel lends to movable pages until a device wants some of it: `reusable`, and mapped.
    #[must_use]
    pub fn is_contiguous_area(self) -> bool {
        self.is_dma_pool() && self.is_reusable() && !self.is_no_map()
    }

    fn is_compatible(self, with: &str) -> bool {
        self.node.compatible().any(|name| name == with)
    }

    /// Whether the kernel is to find a place: there is a `size` and no `reg`.
    #[must_use]
    pub fn is_dynamic(self) -> bool {
        !self.node.has("reg") && self.node.has("size")
    }

    /// The fixed ranges, as they stand: they need not be aligned, and may overlap others or lie outside all memory.
    /// Nothing for a dynamic region.
    ///
    /// An item is [`FdtError::WideCells`], [`FdtError::BadValue`] or [`FdtError::Wraps`] where it cannot be read.
    pub fn ranges(self) -> impl Iterator<Item = Result<PhysRange, FdtError>> {
        flatten(self.node.ranges_of("reg", self.cells))
    }

    /// Ranges in which a dynamic region may be placed; none means anywhere. Items as for [`ranges`](Self::ranges).
    pub fn alloc_ranges(self) -> impl Iterator<Item = Result<PhysRange, FdtError>> {
        flatten(self.node.ranges_of("alloc-ranges", self.cells))
    }

    /// Bytes that a dynamic region needs.
    ///
    /// # Errors
    ///
    /// [`FdtError::BadValue`] if the property is neither one nor two cells long.
    pub fn size(self) -> Result<Option<u64>, FdtError> {
        self.number("size")
    }

    /// The alignment in bytes that a dynamic region needs; not checked to be a power of two.
    ///
    /// # Errors
    ///
    /// As for [`size`](Self::size).
    pub fn alignment(self) -> Result<Option<u64>, FdtError> {
        self.number("alignment")
    }

    /// Its owners: the nodes whose `memory-region` refers to it, enabled or not, in the order of the blob. Linear in the size
    /// of the tree.
    pub fn owners(self) -> impl Iterator<Item = Node<'t, 'a>> {
        let wanted = self.node.phandle();
        let names_it = move |node: &Node<'t, 'a>| node.region_references().any(|phandle| Some(phandle) == wanted);
        self.node.tree().nodes().filter(names_it)
    }

    fn number(self, name: &'static str) -> Result<Option<u64>, FdtError> {
        let bad = FdtError::BadValue { node: self.node.offset(), property: name };
        self.node.property(name).map(|property| Property::number(property).ok_or(bad)).transpose()
    }
}

impl<'t, 'a> Node<'t, 'a> {
    /// The nodes that `memory-region` refers to: the device's own memory, children of `/reserved-memory`.
    ///
    /// An item is [`FdtError::NoSuchPhandle`] for a reference to no node.
    pub fn memory_regions(self) -> impl Iterator<Item = Result<ReservedMemory<'t, 'a>, FdtError>> {
        self.region_references().map(move |phandle| self.region_behind(phandle))
    }

    /// The `index`-th of [`memory_regions`](Self::memory_regions), of which only this one is looked for; `None` if there
    /// are not so many.
    #[must_use]
    pub fn memory_region(self, index: usize) -> Option<Result<ReservedMemory<'t, 'a>, FdtError>> {
        self.region_references().nth(index).map(|phandle| self.region_behind(phandle))
    }

    /// Which of [`memory_regions`](Self::memory_regions) is called `name` in `memory-region-names`.
    #[must_use]
    pub fn memory_region_index(self, name: &str) -> Option<usize> {
        let names = self.property("memory-region-names").map(Property::strings).unwrap_or_default();
        names.into_iter().position(|found| found == name)
    }

    fn region_references(self) -> impl Iterator<Item = u32> + use<'a> {
        self.property("memory-region").into_iter().flat_map(Property::cells)
    }

    fn region_behind(self, phandle: u32) -> Result<ReservedMemory<'t, 'a>, FdtError> {
        let region = self.tree().find_phandle(phandle).and_then(ReservedMemory::from_node);
        region.ok_or(FdtError::NoSuchPhandle { node: self.offset(), phandle })
    }
}
