//! Records the owner of each physical address range of this machine, under Linux's names as free functions.
#![forbid(unsafe_code)]

use super::{KBox, KVec, KernelPages};
use crate::addr::PhysAddr;
use crate::arch::aarch64::cpu::Relax;
use crate::gfp::Gfp;
use crate::mm::io::resource::{
    Request, ResourceError, ResourceFlags, ResourceHal, ResourceId, ResourceRecord, Resources, Span,
};
use core::fmt;

/// The whole address space (Linux: `iomem_resource`).
static IOMEM: Resources<'static, KernelPages> =
    Resources::new(KernelPages(()), Span::ALL, "PCI mem", ResourceFlags::MEM);

impl ResourceHal<'static> for KernelPages {
    type Relax = Relax;

    fn row(&self, count: usize) -> Option<&'static mut [ResourceRecord<'static>]> {
        let gfp = Gfp::ATOMIC | Gfp::NOWARN;
        let row = KVec::from_elem(ResourceRecord::FREE, count, gfp).ok()?;
        Some(KBox::leak(row.into_boxed_slice(gfp).ok()?))
    }
}

/// The tree of this machine's physical addresses.
#[must_use]
pub fn iomem_resource() -> &'static Resources<'static, KernelPages> {
    &IOMEM
}

/// Requests the registers of a device, or other addresses: nobody else gets them until they are released (Linux:
/// `request_mem_region`). Any context. O(ranges) at most.
///
/// As a value: [`MemRegion`].
///
/// # Errors
///
/// [`ResourceError::Busy`] if some of them have an owner, or they lie across a border of a device, of RAM, or of another range;
/// [`Empty`](ResourceError::Empty), [`NoSpan`](ResourceError::NoSpan), [`NoMemory`](ResourceError::NoMemory).
pub fn request_mem_region(
    start: PhysAddr,
    size: u64,
    name: &'static str,
) -> Result<ResourceId, ResourceError<'static>> {
    let span = span_of(start, size)?;
    IOMEM.request_region(&Request { span, name, flags: ResourceFlags::MEM })
}

/// Releases addresses of [`request_mem_region`] (Linux: `release_mem_region`). Any context; needs no memory.
///
/// As a value: [`MemRegion`].
///
/// # Errors
///
/// [`ResourceError::NotThere`], also logged, if this is not exactly a requested range; [`Empty`](ResourceError::Empty),
/// [`NoSpan`](ResourceError::NoSpan).
pub fn release_mem_region(start: PhysAddr, size: u64) -> Result<(), ResourceError<'static>> {
    let span = span_of(start, size)?;
    IOMEM.release_region(span).inspect_err(|error| log::error!("release_mem_region({start}, {size:#x}): {error}"))
}

fn span_of(start: PhysAddr, size: u64) -> Result<Span, ResourceError<'static>> {
    Span::from_size(start, size).ok_or(if size == 0 { ResourceError::Empty } else { ResourceError::NoSpan })
}

/// Addresses that this value owns until it is dropped.
///
/// Raw: [`request_mem_region`], [`release_mem_region`].
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/resources.rs"), "```")]
#[derive(Debug)]
#[must_use = "dropped, it is released"]
pub struct MemRegion {
    id: ResourceId,
    span: Span,
}

impl MemRegion {
    /// Requests `size` bytes from `start` on; see [`request_mem_region`].
    ///
    /// # Errors
    ///
    /// Those of [`request_mem_region`].
    pub fn request(start: PhysAddr, size: u64, name: &'static str) -> Result<Self, ResourceError<'static>> {
        let id = request_mem_region(start, size, name)?;
        Ok(Self { id, span: span_of(start, size)? })
    }

    /// Requests all of the range `span` with the name `outer`, which is busy for everybody else. If there is no such range,
    /// because it would lie across others, those are busy instead.
    pub(super) fn request_inside(span: Span, outer: &str, name: &'static str) -> Result<Self, ResourceError<'static>> {
        let request = Request { span, name, flags: ResourceFlags::MEM };
        let id = IOMEM.enter(|tree| {
            let outer = tree.iter().find(|info| info.span == span && info.name == outer).map(|info| info.id);
            tree.request_region(outer.unwrap_or(tree.root()), &request)
        })?;
        Ok(Self { id, span })
    }

    /// The addresses.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }
}

impl fmt::Display for MemRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span.fmt(f)
    }
}

impl Drop for MemRegion {
    fn drop(&mut self) {
        // By its name, which nobody else's range can have.
        if let Err(error) = IOMEM.release(self.id) {
            log::error!("{} is not released: {error}", self.span);
        }
    }
}
