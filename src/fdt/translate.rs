//! Addresses on a bus, as the CPU sees them, and the other way about: `ranges` and `dma-ranges`.

use super::cells::Cells;
use super::error::FdtError;
use super::memory::flatten;
use super::node::Node;
use super::reg::{entries, take_number};
use super::tree::Tree;
use super::value::{Property, wrapping_range};
use crate::addr::{DmaAddr, PhysAddr, PhysRange};

/// Which of a bus's two lists of windows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// `ranges`: how the CPU reaches devices.
    ToDevice,
    /// `dma-ranges`: how devices reach memory.
    ToMemory,
}

impl Direction {
    fn property(self) -> &'static str {
        match self {
            Self::ToDevice => "ranges",
            Self::ToMemory => "dma-ranges",
        }
    }
}

/// One entry of `ranges` or `dma-ranges`.
#[derive(Clone, Copy)]
struct Window {
    /// Address on the bus.
    child: u64,
    /// Address on the bus above.
    parent: u64,
    size: u64,
}

impl Window {
    /// Address on the bus above of `size` bytes at `address` of the bus, if the window holds all of them.
    fn map(self, address: u64, size: u64) -> Option<u64> {
        let offset = address.checked_sub(self.child)?;
        if offset >= self.size || size > self.size - offset {
            return None;
        }
        self.parent.checked_add(offset)
    }
}

/// A stretch of memory that the devices of a bus can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRange<'t, 'a> {
    /// The bus whose `dma-ranges` states it.
    pub bus: Node<'t, 'a>,
    /// Its address for a device of the bus.
    pub device: DmaAddr,
    /// Its address for the CPU.
    pub cpu: PhysRange,
}

impl<'a> Tree<'a> {
    /// Memory that the devices behind each bus can reach: every entry of the `dma-ranges` of every bus that is enabled and lies
    /// below enabled nodes. A bus without entries has no limit of its own.
    ///
    /// Items as for [`Node::dma_ranges`].
    pub fn dma_ranges(&self) -> impl Iterator<Item = Result<DmaRange<'_, 'a>, FdtError>> {
        let limited = |node: &Node<'_, '_>| node.has(Direction::ToMemory.property()) && node.is_available();
        self.nodes().filter(limited).flat_map(Node::dma_ranges)
    }
}

impl<'t, 'a> Node<'t, 'a> {
    /// The ranges of `reg` as the CPU sees them: translated through the `ranges` of every bus above.
    ///
    /// An item is [`FdtError::NotTranslatable`] where a bus above has no window for it, [`FdtError::WideCells`] below
    /// buses with wider addresses than 64 bits (PCI), [`FdtError::BadValue`] for a value of the wrong length,
    /// [`FdtError::Wraps`] for one that wraps.
    pub fn phys_ranges(self) -> impl Iterator<Item = Result<PhysRange, FdtError>> {
        let node = self.offset();
        let list = self.reg().map(move |list| {
            list.map(move |entry| {
                let base = translate(self, entry.address, entry.size, Direction::ToDevice)?;
                wrapping_range(node, base, entry.size)
            })
        });
        flatten(list)
    }

    /// The entries of this bus's `dma-ranges`, CPU side translated through the buses above. An address of three cells
    /// (PCI) is taken without its first, which holds flags.
    ///
    /// Items as for [`phys_ranges`](Self::phys_ranges).
    pub fn dma_ranges(self) -> impl Iterator<Item = Result<DmaRange<'t, 'a>, FdtError>> {
        let node = self.offset();
        // The root's bus is the CPU's own: nothing lies above it.
        let above = self.parent().unwrap_or(self);
        let list = windows(self, above, Direction::ToMemory).map(move |windows| {
            windows.map(move |window| {
                let base = translate(self, window.parent, window.size, Direction::ToMemory)?;
                let cpu = wrapping_range(node, base, window.size)?;
                Ok(DmaRange { bus: self, device: DmaAddr::new(window.child), cpu })
            })
        });
        flatten(list)
    }
}

/// A bus, and those above it.
struct Bus<'c, 't, 'a> {
    node: Node<'t, 'a>,
    above: Option<&'c Self>,
}

impl<'t, 'a> Tree<'a> {
    /// Calls `visit` with every range of `reg` as the CPU sees it, of every node that is enabled below enabled ones, in the
    /// order of the blob: with the bus, the node, and what [`Node::phys_ranges`] has. In one pass: linear in the tree times
    /// its depth, where a search for each node's parent would make it quadratic. At most
    /// [`MAX_DEPTH`](super::MAX_DEPTH) calls deep.
    pub fn for_each_range(&'t self, visit: &mut impl FnMut(Node<'t, 'a>, Node<'t, 'a>, Result<PhysRange, FdtError>)) {
        visit_below(&Bus { node: self.root(), above: None }, visit);
    }
}

fn visit_below<'t, 'a>(
    bus: &Bus<'_, 't, 'a>,
    visit: &mut impl FnMut(Node<'t, 'a>, Node<'t, 'a>, Result<PhysRange, FdtError>),
) {
    // Most nodes are no buses.
    let mut cells = None;
    for node in bus.node.children().filter(|node| node.is_enabled()) {
        if let Some(reg) = node.property("reg") {
            let buses = core::iter::successors(Some(bus), |bus| bus.above).map(|bus| bus.node);
            let cells = *cells.get_or_insert_with(|| bus.node.cells());
            let list = entries(node.offset(), reg, "reg", cells).map(|list| {
                list.map(|entry| {
                    let base = translate_through(node, buses.clone(), entry.address, entry.size, Direction::ToDevice)?;
                    wrapping_range(node.offset(), base, entry.size)
                })
            });
            flatten(list).for_each(|range| visit(bus.node, node, range));
        }
        visit_below(&Bus { node, above: Some(bus) }, visit);
    }
}

/// Translates `size` bytes at `address` of the bus that `device` lies on, up to the root.
fn translate(device: Node<'_, '_>, address: u64, size: u64, way: Direction) -> Result<PhysAddr, FdtError> {
    translate_through(device, device.upwards().skip(1), address, size, way)
}

/// The same where the buses above `device` are known, the nearest first.
fn translate_through<'t, 'a>(
    device: Node<'t, 'a>,
    buses: impl Iterator<Item = Node<'t, 'a>> + Clone,
    mut address: u64,
    size: u64,
    way: Direction,
) -> Result<PhysAddr, FdtError>
where
    'a: 't,
{
    let node = device.offset();
    for (bus, above) in buses.clone().zip(buses.skip(1)) {
        let blocked = FdtError::NotTranslatable { node, address };
        match bus.property(way.property()) {
            // Without `ranges` the CPU cannot reach the bus; without `dma-ranges` nothing is limited (Linux:
            // __of_translate_address).
            None if way == Direction::ToDevice => return Err(blocked),
            None => {}
            Some(list) if list.value.is_empty() => {}
            Some(_) => {
                let mut windows = windows(bus, above, way)?;
                address = windows.find_map(|window| window.map(address, size)).ok_or(blocked)?;
            }
        }
    }
    Ok(PhysAddr::new(address))
}

/// The windows of `bus`, which lies on the bus `above`; none if the property is absent or empty.
fn windows<'a>(
    bus: Node<'_, 'a>,
    above: Node<'_, 'a>,
    way: Direction,
) -> Result<impl Iterator<Item = Window> + use<'a>, FdtError> {
    let (node, name) = (bus.offset(), way.property());
    let (Cells { address: child, size }, Cells { address: parent, .. }) = (bus.cells(), above.cells());
    if child > 3 || parent > 2 || size > 2 {
        return Err(FdtError::WideCells { node });
    }
    let value = bus.property(name).map_or(&[][..], |property| property.value);
    if !value.len().is_multiple_of((child + parent + size) as usize * 4) {
        return Err(FdtError::BadValue { node, property: name });
    }
    let mut list = Property { name, value }.cells();
    Ok(core::iter::from_fn(move || {
        // Nothing left: also what ends a list whose entries have no width.
        list.clone().next()?;
        if child == 3 {
            list.next()?;
        }
        let child = take_number(&mut list, child.min(2))?;
        let parent = take_number(&mut list, parent)?;
        Some(Window { child, parent, size: take_number(&mut list, size)? })
    }))
}
