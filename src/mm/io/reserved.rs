//! The memory that the device tree reserves for devices (`/reserved-memory`), and its owners: only a device whose
//! `memory-region` names a `no-map` region may map it (Linux: `drivers/of/of_reserved_mem.c`).
#![forbid(unsafe_code)]

use crate::addr::PhysRange;
use crate::fdt::{FdtError, Node, Tree};
use core::fmt;

/// A range of a region: one entry of its `reg`, or its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedRange {
    /// Its addresses, to the byte.
    pub range: PhysRange,
    /// The name of the region's node.
    pub name: &'static str,
    /// The region's node, by [`Node::offset`].
    pub node: usize,
    /// Whether the kernel has no mapping of it.
    pub no_map: bool,
}

impl fmt::Display for ReservedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.no_map { "no-map" } else { "reserved" };
        write!(f, "the {kind} region {} {}", self.name, self.range)
    }
}

/// All of it.
///
/// # Invariants
///
/// - `RSV-1`: the ranges of a region follow each other, and none is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReservedMap<'a> {
    /// The tree's bytes: a node of another tree names nothing here.
    blob: &'static [u8],
    ranges: &'a [ReservedRange],
}

impl<'a> ReservedMap<'a> {
    /// No region, of no tree.
    pub const NONE: Self = Self { blob: &[], ranges: &[] };

    /// The reserved ranges of `tree`. For a region that is only a size, `placed` returns its place by its node's
    /// [`Node::offset`], if it found one. A `no-map` region of which the linear map holds a byte, as `is_mapped` says, does not
    /// count. The result is to be kept for [`ReservedMap::new`]. Linear in the size of `/reserved-memory`.
    pub fn ranges_of(
        tree: &Tree<'static>,
        placed: impl Fn(usize) -> Option<PhysRange>,
        is_mapped: impl Fn(PhysRange) -> bool + Clone,
    ) -> impl Iterator<Item = ReservedRange> {
        // INVARIANT: RSV-1: a region has either entries or a place.
        tree.reserved_memory().filter(|region| region.is_enabled()).flat_map(move |region| {
            let (name, node, no_map) = (region.name(), region.node().offset(), region.is_no_map());
            // Booting ends at an entry that cannot be read.
            let stated = region.ranges().flatten().filter(|range| !range.is_empty());
            let place = if region.is_dynamic() { placed(node) } else { None };
            let is_mapped = is_mapped.clone();
            stated.chain(place).map(move |range| ReservedRange {
                range,
                name,
                node,
                no_map: no_map && !is_mapped(range),
            })
        })
    }

    /// The map of `tree`, from the result of [`ReservedMap::ranges_of`].
    #[must_use]
    pub fn new(tree: &Tree<'static>, ranges: &'a [ReservedRange]) -> Self {
        Self { blob: tree.blob(), ranges }
    }

    /// Every range of every region.
    #[must_use]
    pub const fn ranges(&self) -> &'a [ReservedRange] {
        self.ranges
    }

    /// A `no-map` range that has some of `pages`, which are whole, since a page is mapped or it is not. O(ranges).
    #[must_use]
    pub fn no_map_in(&self, pages: PhysRange) -> Option<ReservedRange> {
        self.no_maps().find(|reserved| reserved.range.overlaps(pages))
    }

    /// The `no-map` ranges.
    pub(super) fn no_maps(&self) -> impl Iterator<Item = ReservedRange> + use<'a> {
        self.ranges.iter().filter(|reserved| reserved.no_map).copied()
    }

    /// The region that the `index`-th reference in the `memory-region` of `device` names. Only [`IoSpace`](super::IoSpace)
    /// returns one, so that every holder of a region got it by the node of a device that owns it.
    pub(super) fn region(&self, device: Node<'_, 'static>, index: usize) -> Result<ReservedRegion<'a>, RegionError> {
        if !core::ptr::eq(device.tree().blob(), self.blob) {
            return Err(RegionError::AnotherTree);
        }
        let name = match device.name() {
            // The root has none.
            "" => "/",
            name => name,
        };
        let region = device.memory_region(index).ok_or(RegionError::NoIndex { device: name, index })?;
        let region = region.map_err(|error| RegionError::LeadsNowhere { device: name, index, error })?;
        if !region.is_enabled() {
            return Err(RegionError::Disabled { region: region.name() });
        }
        self.region_of(region.node().offset(), name).ok_or(RegionError::NoPlace { region: region.name() })
    }

    /// The region of a node, in the name of `device`.
    pub(super) fn region_of(&self, node: usize, device: &'static str) -> Option<ReservedRegion<'a>> {
        let is_its = |reserved: &ReservedRange| reserved.node == node;
        let start = self.ranges.iter().position(is_its);
        let ranges =
            start.and_then(|start| self.ranges.get(start..)?.chunk_by(|one, next| one.node == next.node).next());
        // INVARIANT: RSV-2 by RSV-1.
        match ranges {
            Some(ranges @ [first, ..]) => Some(ReservedRegion { device, first: *first, ranges }),
            _ => None,
        }
    }
}

/// A region of `/reserved-memory`, as a handle for a device whose `memory-region` names it: its holder may map the region.
/// Returned by [`IoSpace::memory_region`](super::IoSpace::memory_region).
///
/// # Invariants
///
/// - `RSV-2`: the ranges are the region's, and `first` is the first of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedRegion<'a> {
    device: &'static str,
    first: ReservedRange,
    ranges: &'a [ReservedRange],
}

impl<'a> ReservedRegion<'a> {
    /// The name of the device's node.
    #[must_use]
    pub const fn device(&self) -> &'static str {
        self.device
    }

    /// Addresses and name of the region; the first entry, if it has several.
    #[must_use]
    pub const fn first(&self) -> ReservedRange {
        self.first
    }

    /// Addresses of the region, to the byte; the first entry, if it has several.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.first.range
    }

    /// All its ranges; rarely more than one.
    #[must_use]
    pub const fn ranges(&self) -> &'a [ReservedRange] {
        self.ranges
    }

    /// Whether one of its ranges contains all of `range`.
    #[must_use]
    pub fn contains_range(&self, range: PhysRange) -> bool {
        self.ranges.iter().any(|reserved| reserved.range.contains_range(range))
    }
}

impl fmt::Display for ReservedRegion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.first, self.device)
    }
}

/// Reason why a device has no such region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegionError {
    /// Device memory has not been set up yet.
    NotReady,
    /// The node is of another tree than this machine was booted with.
    AnotherTree,
    /// The device's `memory-region` has fewer references; none, if there is no such property.
    NoIndex {
        /// The device's node.
        device: &'static str,
        /// Index of the reference.
        index: usize,
    },
    /// The reference names no child of `/reserved-memory`.
    LeadsNowhere {
        /// The device's node.
        device: &'static str,
        /// Index of the reference.
        index: usize,
        /// The error in the tree.
        error: FdtError,
    },
    /// The region's `status` disables it: it is ordinary memory.
    Disabled {
        /// The region's node.
        region: &'static str,
    },
    /// The region is a contiguous area, which the page allocator lends to others, or a pool: its devices allocate from it
    /// (`dma_alloc_coherent`), and nobody maps it.
    Lent {
        /// The region's node.
        region: &'static str,
    },
    /// The region is only a size, for which there was no room.
    NoPlace {
        /// The region's node.
        region: &'static str,
    },
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("device memory cannot be mapped yet"),
            Self::AnotherTree => f.write_str("the node is of another device tree than this machine's"),
            Self::NoIndex { device, index } => write!(f, "{device} has no memory-region {index}"),
            Self::LeadsNowhere { device, index, error } => write!(f, "memory-region {index} of {device}: {error}"),
            Self::Disabled { region } => write!(f, "the reserved region {region} is disabled"),
            Self::Lent { region } => {
                write!(f, "the reserved region {region} is the page allocator's: devices allocate from it")
            }
            Self::NoPlace { region } => write!(f, "there was no room for the reserved region {region}"),
        }
    }
}

impl core::error::Error for RegionError {}
