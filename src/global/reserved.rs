//! Memory that the device tree reserves for a device, for that device's driver.
#![forbid(unsafe_code)]

use super::{MemRegion, io_space};
use crate::addr::{PhysAddr, VirtAddr};
use crate::fdt::Node;
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::mm::io::resource::{ResourceError, Span};
use crate::mm::io::{self, IoError, RegionError};
use core::fmt;
use core::ops::Deref;

/// The region of `/reserved-memory` that the `index`-th reference in the `memory-region` of `device` names, counted from 0
/// (Linux: `of_reserved_mem_lookup`, `of_reserved_mem_region_to_resource`): the device's own, to be mapped and requested in
/// its name. [`Node::memory_region_index`] finds the number by a name of `memory-region-names`. See
/// [`IoSpace::memory_region`](io::IoSpace::memory_region). Any context.
///
/// # Errors
///
/// [`RegionError`].
pub fn memory_region(device: Node<'_, 'static>, index: usize) -> Result<ReservedRegion, RegionError> {
    io_space().memory_region(device, index).map(ReservedRegion)
}

/// A region that a device owns; see [`io::ReservedRegion`]. It holds no resources itself: a mapping of [`map`](Self::map) is
/// undone by `memunmap`, the value of [`request`](Self::request) is released by its drop, and
/// [`IoMem::of_region`](super::IoMem::of_region) combines both.
///
/// Raw: [`memremap`](super::memremap), [`memunmap`](super::memunmap).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedRegion(io::ReservedRegion<'static>);

impl ReservedRegion {
    /// Maps all of the region, readable and writable; of one that has several ranges, the first. See
    /// [`IoSpace::ioremap_region`](io::IoSpace::ioremap_region). Any context.
    ///
    /// # Errors
    ///
    /// [`IoError`].
    #[track_caller]
    pub fn map(&self, memory: MemoryType) -> Result<VirtAddr, IoError> {
        let prot = Prot::kernel(Access::ReadWrite).with_memory(memory).map_err(|_| IoError::BadProt)?;
        self.map_part(self.range().start(), self.range().size(), prot)
    }

    /// Maps `size` bytes from `phys` on, which lie in one of the region's ranges. Any context.
    ///
    /// # Errors
    ///
    /// [`IoError`].
    #[track_caller]
    pub fn map_part(&self, phys: PhysAddr, size: u64, prot: Prot) -> Result<VirtAddr, IoError> {
        io_space().ioremap_region(self, phys, size, prot)
    }

    /// Requests the addresses of the region, so that no other driver has them until this is dropped: devices that share it take
    /// turns. `request_mem_region` refuses them to everybody. Any context. O(ranges of the tree).
    ///
    /// # Errors
    ///
    /// [`ResourceError::Busy`] if some of them have an owner, or the region lies across other ranges;
    /// [`NoMemory`](ResourceError::NoMemory).
    pub fn request(&self, name: &'static str) -> Result<MemRegion, ResourceError<'static>> {
        MemRegion::request_inside(Span::of(self.range()).ok_or(ResourceError::NoSpan)?, self.first().name, name)
    }
}

impl Deref for ReservedRegion {
    type Target = io::ReservedRegion<'static>;

    fn deref(&self) -> &io::ReservedRegion<'static> {
        &self.0
    }
}

impl fmt::Display for ReservedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
