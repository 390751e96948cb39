//! The kernel's device memory, and Linux's names for it as free functions.

use super::linear::pointer;
use super::misuse::refused;
use super::vmalloc::VMALLOC;
use super::{KernelPages, MemRegion, ReservedRegion, kfree, kmalloc};
use crate::addr::{PhysAddr, Pointer, VirtAddr, VirtRange};
use crate::arch::aarch64::io::Mmio as Bus;
use crate::ds::rbtree::{Node, Owned};
use crate::gfp::Gfp;
use crate::hal::io::IoBus;
use crate::hal::prot::{MemoryType, Prot};
use crate::mm::io::resource::ResourceError;
use crate::mm::io::{AccessError, Claim, IoError, IoHal, IoSpace, Mmio, ReservedMap};
use crate::mm::slab::SlabAllocError;
use core::ops::Deref;
use core::panic::Location;
use core::ptr::NonNull;

/// Flags for allocating descriptors: any context, reclaimable memory.
const CLAIM_GFP: Gfp = Gfp::ATOMIC.union(Gfp::NOWARN).union(Gfp::RECLAIMABLE);

/// All device memory that is mapped.
static IO: IoSpace<'static, 'static, KernelPages> = IoSpace::new(&VMALLOC);

impl IoHal<'static> for KernelPages {
    fn claim(&self) -> Option<Owned<'static, Claim>> {
        let place = kmalloc(size_of::<Node<'static, Claim>>(), CLAIM_GFP).ok()?;
        let place = place.cast::<Node<'static, Claim>>();
        // SAFETY: just allocated, large enough; kmalloc aligns to 8 at least, as asserted below.
        unsafe { place.write(Node::new(Claim::new())) };
        // SAFETY: initialised by the line above, freed below alone, and nobody else knows of it.
        Some(Owned::new(unsafe { &mut *place.as_ptr() }))
    }

    fn free_claim(&self, claim: Owned<'static, Claim>) {
        // SAFETY: allocated above; the holder of the `Owned` has the only pointer to the node.
        unsafe { kfree(claim.into_ptr().cast_mut()) };
    }
}

const _: () = assert!(align_of::<Node<'static, Claim>>() <= 8);

/// The mappings, for reports and checks.
#[must_use]
pub fn io_space() -> &'static IoSpace<'static, 'static, KernelPages> {
    &IO
}

/// Lets device memory be mapped, by a CPU with this number of bits of physical address; the `no-map` ranges of `reserved` only
/// by their owners. Records the devices that are mapped in `early` already. Boot CPU, when there are vmalloc areas.
///
/// # Errors
///
/// Those of [`IoSpace::adopt`].
pub(crate) fn io_init(physical_bits: u8, early: VirtRange, reserved: ReservedMap<'static>) -> Result<(), IoError> {
    IO.set_up(PhysAddr::new(1 << physical_bits.min(63)), reserved);
    IO.adopt(early)
}

/// Maps device registers: Device-nGnRE, a write may be acknowledged before it arrives.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::DeviceNGnRE)
}

/// Maps configuration space: Device-nGnRnE, a write is acknowledged by the device itself.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_np(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::DeviceNGnRnE)
}

/// Maps a device whose registers may be accessed out of order: Device-nGRE.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_ngre(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::DeviceNGRE)
}

/// Maps a device whose accesses may be gathered and reordered: Device-GRE.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_gre(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::DeviceGRE)
}

/// Maps a frame buffer: Normal non-cacheable, writes are combined.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_wc(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::NonCacheable)
}

/// Maps device memory that is read often: Normal, written through.
///
/// See [`IoSpace::ioremap`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_wt(phys: PhysAddr, size: u64) -> Result<VirtAddr, IoError> {
    IO.ioremap(phys, size, MemoryType::WriteThrough)
}

/// Maps device memory with any type and protection; see [`IoSpace::ioremap_prot`]. Any context.
///
/// As a value: [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn ioremap_prot(phys: PhysAddr, size: u64, prot: Prot) -> Result<VirtAddr, IoError> {
    IO.ioremap_prot(phys, size, prot)
}

/// Unmaps a mapping of `ioremap` and its sisters; see [`IoSpace::iounmap`]. A wrong address is reported, and nothing changes.
/// Any context.
///
/// As a value: [`IoMem`].
///
/// # Safety
///
/// The caller owns the area, alone: no owning type ([`IoMem`]) holds it, and after the call nobody uses its addresses,
/// or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn iounmap(addr: impl Pointer) {
    if let Err(error) = IO.do_iounmap(addr.at()) {
        refused("iounmap", addr.at(), &error, Location::caller());
    }
}

/// As [`iounmap`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`IoError`]; nothing has changed then.
///
/// # Safety
///
/// As for [`iounmap`].
#[inline(always)]
pub unsafe fn try_iounmap(addr: impl Pointer) -> Result<(), IoError> {
    IO.do_iounmap(addr.at())
}

/// Maps memory that is not a device's registers; see [`IoSpace::memremap`]. Any context.
///
/// As a value: [`ReservedRegion`], [`IoMem`].
///
/// # Errors
///
/// [`IoError`].
#[track_caller]
#[inline]
pub fn memremap(phys: PhysAddr, size: u64, memory: MemoryType) -> Result<NonNull<u8>, IoError> {
    IO.memremap(phys, size, memory).map(pointer)
}

/// Unmaps a mapping of [`memremap`]; see [`IoSpace::memunmap`]. A wrong address is reported, and nothing changes. Any context.
///
/// As a value: [`ReservedRegion`], [`IoMem`].
///
/// # Safety
///
/// The caller owns the area, alone: no owning type ([`IoMem`], [`ReservedRegion`]) holds it, and after the call nobody uses its addresses,
/// or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn memunmap(addr: impl Pointer) {
    if let Err(error) = IO.do_memunmap(addr.at()) {
        refused("memunmap", addr.at(), &error, Location::caller());
    }
}

/// As [`memunmap`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`IoError`]; nothing has changed then.
///
/// # Safety
///
/// As for [`memunmap`].
#[inline(always)]
pub unsafe fn try_memunmap(addr: impl Pointer) -> Result<(), IoError> {
    IO.do_memunmap(addr.at())
}

/// Device memory that is unmapped when this is dropped, of which at least `SIZE` bytes are known at compile time. Reading and
/// writing: see [`Mmio`].
///
/// Raw: [`ioremap`], [`ioremap_np`], [`ioremap_ngre`],
/// [`ioremap_gre`], [`ioremap_wc`], [`ioremap_wt`],
/// [`ioremap_prot`], [`iounmap`], [`memremap`],
/// [`memunmap`].
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/devices.rs"), "```")]
#[derive(Debug)]
pub struct IoMem<const SIZE: u64 = 0> {
    registers: Mmio<Bus, SIZE>,
    /// Addresses that are released when they are unmapped.
    region: Option<MemRegion>,
}

/// Reason why device memory could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoMemError {
    /// It has another owner.
    Region(ResourceError<'static>),
    /// It could not be mapped.
    Map(IoError),
    /// It has fewer bytes than requested, or its start is not a multiple of 8.
    Size(AccessError),
    /// There is no memory to record that a device has it.
    Memory(SlabAllocError),
}

impl core::fmt::Display for IoMemError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Region(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Size(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoMemError {}

impl<const SIZE: u64> IoMem<SIZE> {
    /// Maps `size` bytes from `phys` on as `memory`. Any context.
    ///
    /// # Errors
    ///
    /// [`IoMemError`]; nothing is mapped then.
    ///
    /// # Safety
    ///
    /// The value's owner is responsible for the effect of the registers: no access to them through it breaks a promise that
    /// others rely on.
    #[track_caller]
    pub unsafe fn new(phys: PhysAddr, size: u64, memory: MemoryType) -> Result<Self, IoMemError> {
        let start = IO.ioremap(phys, size, memory).map_err(IoMemError::Map)?;
        // SAFETY: mapped by the line above; `# Safety` of `new`: the registers' effect is the owner's responsibility.
        unsafe { Self::of_mapping(start, size) }
    }

    /// Wraps the range that has just been mapped at `start`.
    ///
    /// # Safety
    ///
    /// `size` bytes are mapped there until `memunmap(start)`, which nobody else calls; and as for
    /// [`IoMem::new`].
    unsafe fn of_mapping(start: VirtAddr, size: u64) -> Result<Self, IoMemError> {
        let range = VirtRange::from_size(start, size).unwrap_or_default();
        // SAFETY: MMIO-1: by this function's `# Safety` the bytes are mapped until `drop` unmaps them, which nobody else does.
        let registers = unsafe { Mmio::new(Bus, range) };
        let registers = registers.sized::<SIZE>().map_err(|error| {
            // SAFETY: by this function's `# Safety`, the mapping is nobody else's to unmap; nobody has it yet.
            unsafe { memunmap(start) };
            IoMemError::Size(error)
        })?;
        Ok(Self { registers, region: None })
    }

    /// [`IoMem::new`] of addresses without another owner, which it owns until it is dropped: they are requested first (Linux:
    /// `devm_ioremap_resource`). Any context.
    ///
    /// # Errors
    ///
    /// [`IoMemError::Region`] if some of them have an owner; else as for [`IoMem::new`]. Nothing is requested or mapped then.
    ///
    /// # Safety
    ///
    /// As for [`IoMem::new`].
    #[track_caller]
    pub unsafe fn request(
        phys: PhysAddr,
        size: u64,
        memory: MemoryType,
        name: &'static str,
    ) -> Result<Self, IoMemError> {
        let region = MemRegion::request(phys, size, name).map_err(IoMemError::Region)?;
        // SAFETY: this function's `# Safety` is that of `new`.
        let mapped = unsafe { Self::new(phys, size, memory) }?;
        Ok(mapped.with_region(region))
    }

    /// [`IoMem::request`] of memory that the device tree reserves, in the name of the device that owns it: all of the region's
    /// first range. Any context.
    ///
    /// # Errors
    ///
    /// [`IoMemError`]; [`IoMemError::Region`] also if another device that shares the region has it now. Nothing is
    /// requested or mapped then.
    ///
    /// # Safety
    ///
    /// As for [`IoMem::new`].
    #[track_caller]
    pub unsafe fn of_region(
        region: &ReservedRegion,
        memory: MemoryType,
        name: &'static str,
    ) -> Result<Self, IoMemError> {
        let addresses = region.request(name).map_err(IoMemError::Region)?;
        let start = region.map(memory).map_err(IoMemError::Map)?;
        // SAFETY: mapped by the line above; `# Safety` of `new`: the registers' effect is the owner's responsibility.
        let mapped = unsafe { Self::of_mapping(start, region.range().size()) }?;
        Ok(mapped.with_region(addresses))
    }

    fn with_region(mut self, region: MemRegion) -> Self {
        self.region = Some(region);
        self
    }

    /// The addresses, if they were requested.
    #[must_use]
    pub const fn region(&self) -> Option<&MemRegion> {
        self.region.as_ref()
    }
}

impl<const SIZE: u64> Deref for IoMem<SIZE> {
    type Target = Mmio<Bus, SIZE>;

    fn deref(&self) -> &Mmio<Bus, SIZE> {
        &self.registers
    }
}

impl<const SIZE: u64> Drop for IoMem<SIZE> {
    fn drop(&mut self) {
        // SAFETY: MMIO-1: the mapping is this value's alone, which nobody can use any more. Reported if it fails. Memory in the
        // linear map stays mapped.
        unsafe { memunmap(self.registers.start()) };
    }
}

/// Accesses at addresses, by Linux's names.
macro_rules! accesses {
    ($word:ident: $read:ident $read_relaxed:ident $write:ident $write_relaxed:ident) => {
        /// Reads a register; no later access is ordered before it. Any context.
        ///
        /// # Safety
        ///
        /// `at` is a mapped device register and a multiple of the width, and reading it does no harm.
        #[must_use]
        #[inline]
        pub unsafe fn $read(at: VirtAddr) -> $word {
            // SAFETY: by this function's `# Safety`, `at` is a mapped, aligned register, and reading it does no harm.
            let value = unsafe { $read_relaxed(at) };
            Bus.order_after_load(value);
            value
        }

        /// The same without the barrier.
        ///
        /// # Safety
        ///
        /// As for the ordered one.
        #[must_use]
        #[inline]
        pub unsafe fn $read_relaxed(at: VirtAddr) -> $word {
            // SAFETY: by this function's `# Safety`, `at` is a mapped, aligned register, and reading it does no harm.
            unsafe { Bus.load(at) }
        }

        /// Writes a register, after all earlier writes to memory. Any context.
        ///
        /// # Safety
        ///
        /// As for reading it, for writing.
        #[inline]
        pub unsafe fn $write(value: $word, at: VirtAddr) {
            Bus.order_before_store();
            // SAFETY: by this function's `# Safety`, `at` is a mapped, aligned register, and writing it does no harm.
            unsafe { $write_relaxed(value, at) };
        }

        /// The same without the barrier.
        ///
        /// # Safety
        ///
        /// As for the ordered one.
        #[inline]
        pub unsafe fn $write_relaxed(value: $word, at: VirtAddr) {
            // SAFETY: by this function's `# Safety`, `at` is a mapped, aligned register, and writing it does no harm.
            unsafe { Bus.store(at, value) };
        }
    };
}

accesses!(u8: readb readb_relaxed writeb writeb_relaxed);
accesses!(u16: readw readw_relaxed writew writew_relaxed);
accesses!(u32: readl readl_relaxed writel writel_relaxed);
accesses!(u64: readq readq_relaxed writeq writeq_relaxed);
