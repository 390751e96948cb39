//! Addresses and sizes of one to three cells, and the `reg` lists made of them.

use super::cells::Cells;
use super::error::FdtError;
use super::node::Node;
use super::value::{Property, wrapping_range};
use crate::addr::{PhysAddr, PhysRange};

/// An entry of a `reg` property, as it stands: an address on the bus of the node's parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegEntry {
    /// Its start.
    pub address: u64,
    /// Bytes in it; 0 on a bus without sizes.
    pub size: u64,
}

/// Takes a number of `cells` cells from the front of a list. `None` where the list ends, or beyond two cells.
pub(super) fn take_number(list: &mut impl Iterator<Item = u32>, cells: u32) -> Option<u64> {
    match cells {
        0 => Some(0),
        1 => list.next().map(u64::from),
        2 => Some(u64::from(list.next()?) << 32 | u64::from(list.next()?)),
        _ => None,
    }
}

/// The entries of `property` (a value of `node`), each an address and a size of the given widths.
///
/// A last entry that is cut short makes the whole value bad: to leave it out would be to guess.
pub(super) fn entries<'a>(
    node: usize,
    property: Property<'a>,
    name: &'static str,
    cells: Cells,
) -> Result<impl Iterator<Item = RegEntry> + Clone + 'a, FdtError> {
    // An absent list is empty for all widths.
    if !property.value.is_empty() && (cells.address > 2 || cells.size > 2) {
        return Err(FdtError::WideCells { node });
    }
    let width = (cells.address + cells.size) as usize * 4;
    if !property.value.len().is_multiple_of(width) {
        return Err(FdtError::BadValue { node, property: name });
    }
    let mut list = property.cells();
    let count = property.value.len().checked_div(width).unwrap_or(0);
    Ok((0..count).map_while(move |_| {
        let address = take_number(&mut list, cells.address)?;
        Some(RegEntry { address, size: take_number(&mut list, cells.size)? })
    }))
}

impl<'a> Node<'_, 'a> {
    /// The entries of `reg` as they stand, addresses on the bus of the node's parent; nothing if there is no `reg`.
    ///
    /// # Errors
    ///
    /// [`FdtError::WideCells`] on a bus with wider addresses (PCI), [`FdtError::BadValue`] if the length does not fit.
    pub fn reg(self) -> Result<impl Iterator<Item = RegEntry> + Clone + 'a, FdtError> {
        let cells = self.parent().map(Node::cells);
        self.list("reg", cells.unwrap_or(Cells { address: 2, size: 1 }))
    }

    /// The property `name` as a list of addresses and sizes of the given widths; nothing if it is absent.
    pub(super) fn list(
        self,
        name: &'static str,
        cells: Cells,
    ) -> Result<impl Iterator<Item = RegEntry> + Clone + 'a, FdtError> {
        let property = self.property(name).unwrap_or(Property { name, value: &[] });
        entries(self.offset(), property, name, cells)
    }

    /// The same as ranges of physical addresses, for nodes whose parent's bus is the CPU's.
    pub(super) fn ranges_of(
        self,
        name: &'static str,
        cells: Cells,
    ) -> Result<impl Iterator<Item = Result<PhysRange, FdtError>> + Clone + 'a, FdtError> {
        let node = self.offset();
        let list = self.list(name, cells)?;
        Ok(list.map(move |entry| wrapping_range(node, PhysAddr::new(entry.address), entry.size)))
    }
}
