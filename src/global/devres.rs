//! Resources of a device's driver, under Linux's names: memory, regions, mappings, actions. All are released in reverse order
//! when the device goes or its probe fails. Calls that may wait for memory here use [`Gfp::KERNEL`].

use super::dma::dma;
use super::{IoMem, IoMemError, Kmalloc, MemRegion, iomem_resource, ioremap, ioremap_wc, iounmap};
use crate::addr::{PhysAddr, Pointer, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::prot::MemoryType;
use crate::mm::alloc::Refused;
use crate::mm::dma::{CoherentBlock, Device, DmaError};
use crate::mm::io::{Group, IoError, Key, Mark, NoKey, NotKept};
use crate::mm::slab::SlabAllocError;
use core::ptr::NonNull;

/// Resources of a device's driver, in memory of `kmalloc`; see [`mm::io::Devres`](crate::mm::io::Devres).
pub type Devres = crate::mm::io::Devres<Kmalloc>;

/// Allocates `size` bytes that belong to the device, up to 4 MiB; see [`Devres::memory`]. Context as `gfp` says.
///
/// # Errors
///
/// [`SlabAllocError`].
#[inline]
pub fn devm_kmalloc(device: &Devres, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    device.memory(size, gfp)
}

/// The same, zeroed.
///
/// # Errors
///
/// [`SlabAllocError`].
#[inline]
pub fn devm_kzalloc(device: &Devres, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    device.memory(size, gfp | Gfp::ZERO)
}

/// Allocates zeroed room for `count` elements of `size` bytes that belongs to the device.
///
/// # Errors
///
/// [`SlabAllocError`]; [`SlabAllocError::Overflow`] if the product does not fit.
pub fn devm_kcalloc(device: &Devres, count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
    devm_kzalloc(device, count.checked_mul(size).ok_or(SlabAllocError::Overflow)?, gfp)
}

/// Frees an allocation of [`devm_kmalloc`] and its kin early. O(entries kept since). Any context.
///
/// # Errors
///
/// [`NotKept`], also logged: nothing has changed then.
///
/// # Safety
///
/// The memory is the caller's, and nobody uses it afterwards. An allocation that the device does not have is found and refused.
pub unsafe fn devm_kfree(device: &Devres, memory: impl Pointer) -> Result<(), NotKept> {
    // SAFETY: by this function's `# Safety`, the memory is the caller's, and nobody uses it afterwards.
    unsafe { device.free_memory(memory.at().as_ptr()) }.inspect_err(|error| log::error!("devm_kfree: {error}"))
}

/// Requests addresses for the device; see [`request_mem_region`](super::request_mem_region).
///
/// # Errors
///
/// [`IoMemError::Region`], [`IoMemError::Memory`]; nothing is requested then.
pub fn devm_request_mem_region<'d>(
    device: &'d Devres,
    start: PhysAddr,
    size: u64,
    name: &'static str,
) -> Result<&'d MemRegion, IoMemError> {
    let region = MemRegion::request(start, size, name).map_err(IoMemError::Region)?;
    device.keep_by(Key::Region(start), region, Gfp::KERNEL).map_err(IoMemError::Memory)
}

/// Releases addresses of [`devm_request_mem_region`] before their turn, all of them. O(entries kept since). Any context.
///
/// # Errors
///
/// [`NoKey`], also logged, if this is not exactly a range that the device has requested: nothing has changed then.
pub fn devm_release_mem_region(device: &mut Devres, start: PhysAddr, size: u64) -> Result<(), NoKey> {
    let key = Key::Region(start);
    // Two busy ranges never share an address, so the device's is the one that is here, if it has one.
    let whole =
        iomem_resource().at(start).is_some_and(|info| info.span.start() == start && info.span.size() == Some(size));
    let released = if whole { device.release_key(key) } else { Err(NoKey(key)) };
    released.inspect_err(|error| log::error!("devm_release_mem_region({start}, {size:#x}): {error}"))
}

/// A mapping that is undone when it is dropped.
struct Mapping(VirtAddr);

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped below, and the address was given out as long as the device has it. Logged if it fails.
        unsafe { iounmap(self.0) };
    }
}

/// Undoes a mapping when the device gives it back.
fn keep(device: &Devres, mapped: Result<VirtAddr, IoError>) -> Result<VirtAddr, IoMemError> {
    let start = mapped.map_err(IoMemError::Map)?;
    device.keep_by(Key::Mapping(start), Mapping(start), Gfp::KERNEL).map_err(IoMemError::Memory)?;
    Ok(start)
}

/// Maps registers for the device, Device-nGnRE; see [`ioremap`]. The address is valid until the device releases its resources.
///
/// # Errors
///
/// [`IoMemError::Map`], [`IoMemError::Memory`]; nothing is mapped then.
#[track_caller]
pub fn devm_ioremap(device: &Devres, phys: PhysAddr, size: u64) -> Result<VirtAddr, IoMemError> {
    keep(device, ioremap(phys, size))
}

/// The same for a frame buffer: writes are combined; see [`ioremap_wc`].
///
/// # Errors
///
/// As for [`devm_ioremap`].
#[track_caller]
pub fn devm_ioremap_wc(device: &Devres, phys: PhysAddr, size: u64) -> Result<VirtAddr, IoMemError> {
    keep(device, ioremap_wc(phys, size))
}

/// Undoes a mapping of [`devm_ioremap`] or [`devm_ioremap_wc`] before its turn. O(entries kept since). Context as for
/// [`iounmap`].
///
/// # Errors
///
/// [`NoKey`], also logged: nothing has changed then.
///
/// # Safety
///
/// Nobody uses the address afterwards. An address that the device has not mapped is found and refused.
pub unsafe fn devm_iounmap(device: &mut Devres, at: impl Pointer) -> Result<(), NoKey> {
    let released = device.release_key(Key::Mapping(at.at()));
    released.inspect_err(|error| log::error!("devm_iounmap: {error}"))
}

/// Requests registers and maps them, Device-nGnRE, until the device gives them back; see [`IoMem::request`].
///
/// # Errors
///
/// [`IoMemError`]; nothing is requested or mapped then.
///
/// # Safety
///
/// As for [`IoMem::new`].
#[track_caller]
pub unsafe fn devm_ioremap_resource<'d>(
    device: &'d Devres,
    start: PhysAddr,
    size: u64,
    name: &'static str,
) -> Result<&'d IoMem, IoMemError> {
    // SAFETY: this function's `# Safety` is that of `IoMem::new`, which `request` asks for.
    let registers = unsafe { IoMem::<0>::request(start, size, MemoryType::DeviceNGnRE, name) }?;
    device.keep(registers, Gfp::KERNEL).map_err(IoMemError::Memory)
}

/// Coherent memory that is freed when it is dropped.
struct Coherent {
    device: Device,
    size: u64,
    block: CoherentBlock,
}

impl Drop for Coherent {
    fn drop(&mut self) {
        // Allocated below for this device, and given out as long as `Devres` has it.
        if let Err(error) = dma().do_free_coherent(&self.device, self.size, self.block) {
            log::error!("dmam_alloc_coherent({}): {error}", self.device.name());
        }
    }
}

/// Coherent memory of `device` until `resources` are given back; see
/// [`dma_alloc_coherent`](super::dma_alloc_coherent). The device no longer accesses it by then: keep an action that stops it behind the
/// memory.
///
/// # Errors
///
/// Those of `dma_alloc_coherent`; [`DmaError::NoRecords`] without memory for the entry. Nothing is allocated then.
#[track_caller]
pub fn dmam_alloc_coherent(
    resources: &Devres,
    device: &Device,
    size: u64,
    gfp: Gfp,
) -> Result<CoherentBlock, DmaError> {
    let block = dma().alloc_coherent(device, size, gfp)?;
    // Without memory for the entry the block is dropped with it.
    let kept = resources.keep(Coherent { device: device.twin(), size, block }, Gfp::KERNEL);
    kept.map(|_| block).map_err(|_| DmaError::NoRecords)
}

/// Runs `action` when the device releases its resources, in its turn (Linux: `devm_add_action`).
///
/// # Errors
///
/// The action, which has not run, and [`SlabAllocError`].
pub fn devm_add_action<F: FnOnce() + Send + 'static>(device: &Devres, action: F) -> Result<(), Refused<Option<F>>> {
    device.try_action(action, Gfp::KERNEL)
}

/// The same, but without memory the action runs at once.
///
/// # Errors
///
/// [`SlabAllocError`]; the action has run then.
pub fn devm_add_action_or_reset(device: &Devres, action: impl FnOnce() + Send + 'static) -> Result<(), SlabAllocError> {
    device.action(action, Gfp::KERNEL)
}

/// Opens a group: it takes the resources kept from here on. Any context; takes no memory.
#[must_use]
pub const fn devres_open_group(device: &Devres) -> Mark {
    device.mark()
}

/// Closes `group`: it holds the resources kept since it was opened, and none kept afterwards. Any context; takes no memory.
#[must_use]
pub const fn devres_close_group(device: &Devres, group: Mark) -> Group {
    device.close(group)
}

/// Releases the remaining resources of a group, last kept first.
pub fn devres_release_group(device: &mut Devres, group: Group) {
    device.release_group(group);
}
