//! Description of a device that accesses memory by itself: where it finds memory, how far its addresses reach, whether its
//! accesses are coherent.
#![forbid(unsafe_code)]

use super::DmaError;
use super::pool_id::{PoolId, RestrictedPool};
use crate::addr::{DmaAddr, PHYS_SIZE_MAX, PhysAddr, PhysRange};
use crate::fdt::{FdtError, Node};
use crate::mm::zone::CmaArea;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// Windows that a device can have.
pub const MAX_WINDOWS: usize = 4;
/// Bytes of a name that are kept.
const NAME: usize = 24;

/// A stretch of memory as a device finds it: an entry of `dma-ranges`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DmaWindow {
    /// Where the device finds it.
    pub bus: DmaAddr,
    /// Where the CPU does.
    pub cpu: PhysRange,
}

impl DmaWindow {
    /// Where the device finds the byte that the CPU finds at 0, modulo 2^64.
    const fn offset(self) -> u64 {
        self.bus.get().wrapping_sub(self.cpu.start().get())
    }

    /// The part of the window, in CPU addresses, that a device with this mask reaches.
    fn within(self, mask: u64) -> Option<PhysRange> {
        let bytes = self.cpu.size().min(mask.checked_sub(self.bus.get())?.saturating_add(1));
        PhysRange::from_size(self.cpu.start(), bytes)
    }
}

/// Description from which a device is made.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSpec<'n> {
    /// Name in reports.
    pub name: &'n str,
    /// Whether its accesses are coherent with the data caches (`dma-coherent`).
    pub coherent: bool,
    windows: [DmaWindow; MAX_WINDOWS],
    count: usize,
}

impl<'n> DeviceSpec<'n> {
    /// A device that finds memory where the CPU does, all of it, and is not coherent.
    #[must_use]
    pub fn new(name: &'n str) -> Self {
        Self { name, coherent: false, windows: [DmaWindow::default(); MAX_WINDOWS], count: 0 }
    }

    /// The same, coherent or not.
    #[must_use]
    pub const fn with_coherent(self, coherent: bool) -> Self {
        Self { coherent, ..self }
    }

    /// The same with one more window. With the first the device reaches nothing outside of its windows. One that goes on
    /// where the last one ends, on both sides, lengthens it.
    ///
    /// # Errors
    ///
    /// [`DmaError::BadWindow`], [`DmaError::TooManyWindows`].
    pub fn with_window(mut self, window: DmaWindow) -> Result<Self, DmaError> {
        if window.cpu.is_empty() || window.bus.get().checked_add(window.cpu.size() - 1).is_none() {
            return Err(DmaError::BadWindow(window.bus));
        }
        let last = self.count.checked_sub(1).and_then(|last| self.windows.get_mut(last));
        if let Some(last) = last
            && last.cpu.end() == window.cpu.start()
            && last.offset() == window.offset()
            && let Some(both) = PhysRange::new(last.cpu.start(), window.cpu.end())
        {
            last.cpu = both;
            return Ok(self);
        }
        *self.windows.get_mut(self.count).ok_or(DmaError::TooManyWindows)? = window;
        self.count += 1;
        Ok(self)
    }

    /// The device that a node of the device tree stands for: coherent if it or a bus above says so, with the windows of the
    /// nearest bus above whose `dma-ranges` has any, seen through the buses above that one (Linux: `of_dma_configure`).
    ///
    /// # Errors
    ///
    /// [`SpecError`].
    pub fn from_node(node: Node<'_, 'n>) -> Result<Self, SpecError> {
        let mut spec = Self::new(node.name()).with_coherent(node.is_dma_coherent());
        for range in node.dma_windows() {
            let range = range?;
            spec = spec.with_window(DmaWindow { bus: range.device, cpu: range.cpu })?;
        }
        Ok(spec)
    }
}

/// Reason why a node is no device that can be described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpecError {
    /// The tree.
    Tree(FdtError),
    /// The windows.
    Windows(DmaError),
}

impl From<FdtError> for SpecError {
    fn from(error: FdtError) -> Self {
        Self::Tree(error)
    }
}

impl From<DmaError> for SpecError {
    fn from(error: DmaError) -> Self {
        Self::Windows(error)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Windows(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SpecError {}

/// The largest part of a window that a device reaches with its mask, as a value. The device itself, in which others may note
/// something meanwhile, would be read again for each buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    start: u64,
    size: u64,
    /// From a physical address to that of the bus.
    offset: u64,
}

impl Near {
    /// Where the device finds memory that lies in it: a range check and an addition.
    #[inline(always)]
    pub(super) const fn reach(self, phys: PhysAddr, size: u64) -> Option<DmaAddr> {
        let offset = phys.get().wrapping_sub(self.start);
        // No bytes are none of them: the subtraction wraps.
        if offset < self.size && size.wrapping_sub(1) < self.size - offset {
            return Some(DmaAddr::new(phys.get().wrapping_add(self.offset)));
        }
        None
    }
}

/// A device that accesses memory by itself. The fields that mapping a buffer reads are in its first cache line.
///
/// # Invariants
///
/// - `DEV-1`: `start`, `size` and `offset` are those of the largest part of a window below the streaming mask; of a device with a
///   restricted pool `size` is 0, so that every mapping takes the slow path and is bounced.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Device {
    /// The memory that the device reaches through its largest window: first byte, bytes, and what is to be added.
    start: u64,
    size: u64,
    offset: u64,
    coherent: bool,
    /// Whether anything was ever bounced for it.
    bounced: AtomicBool,
    pub(super) id: u32,
    mask: u64,
    coherent_mask: u64,
    boundary: u64,
    max_segment: u32,
    min_align: u32,
    windows: [DmaWindow; MAX_WINDOWS],
    count: usize,
    name: [u8; NAME],
    length: usize,
    pool: Option<PoolId>,
    area: Option<CmaArea>,
    restricted: Option<RestrictedPool>,
}

/// The addresses of 32-bit devices: the mask that a device begins with (Linux: `DMA_BIT_MASK(32)`).
const FIRST_MASK: u64 = u32::MAX as u64;
/// Bytes of a segment at most, unless the driver says otherwise (Linux: 64 KiB).
const FIRST_SEGMENT: u32 = 64 << 10;

impl Device {
    pub(super) fn new(spec: &DeviceSpec<'_>, id: u32) -> Self {
        let mut name = [0; NAME];
        let mut length = spec.name.len().min(NAME);
        while !spec.name.is_char_boundary(length) {
            length -= 1;
        }
        name.iter_mut().zip(spec.name.bytes().take(length)).for_each(|(to, from)| *to = from);
        let mut windows = spec.windows;
        let all = DmaWindow {
            bus: DmaAddr::ZERO,
            cpu: PhysRange::from_size(PhysAddr::ZERO, PHYS_SIZE_MAX).unwrap_or_default(),
        };
        if let Some(first) = windows.first_mut().filter(|_| spec.count == 0) {
            *first = all;
        }
        let mut device = Self {
            start: 0,
            size: 0,
            offset: 0,
            coherent: spec.coherent,
            bounced: AtomicBool::new(false),
            id,
            mask: FIRST_MASK,
            coherent_mask: FIRST_MASK,
            boundary: u64::MAX,
            max_segment: FIRST_SEGMENT,
            min_align: 0,
            windows,
            count: spec.count.max(1),
            name,
            length,
            pool: None,
            area: None,
            restricted: None,
        };
        device.look_again();
        device
    }

    /// Finds the largest part of a window again.
    fn look_again(&mut self) {
        let reached = self.windows().filter_map(|window| Some((window.within(self.mask)?, window.offset())));
        let (range, offset) = reached.max_by_key(|(range, _)| range.size()).unwrap_or_default();
        // INVARIANT: DEV-1.
        let size = if self.is_restricted() { 0 } else { range.size() };
        (self.start, self.size, self.offset) = (range.start().get(), size, offset);
    }

    fn windows(&self) -> impl Iterator<Item = DmaWindow> {
        self.windows.iter().take(self.count).copied()
    }

    /// A second value of the same device, which frees the device's memory when the first value may be gone. It has bounced nothing.
    #[cfg(all(feature = "global", target_os = "none"))]
    pub(crate) fn twin(&self) -> Self {
        Self { bounced: AtomicBool::new(false), ..*self }
    }

    /// Name in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get(..self.length).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// Whether its accesses are coherent with the data caches.
    #[must_use]
    #[inline(always)]
    pub const fn is_coherent(&self) -> bool {
        self.coherent
    }

    /// The pool that its coherent memory is from, and no other, if it has one (Linux: `dev->dma_mem`).
    #[must_use]
    #[inline(always)]
    pub const fn pool(&self) -> Option<PoolId> {
        self.pool
    }

    /// Gives the device a pool of its machine, or takes it away; a restricted pool is taken away with it. The caller frees its
    /// allocations from the old pool first, and ends mappings that a restricted pool bounced.
    pub fn set_pool(&mut self, pool: Option<PoolId>) {
        (self.pool, self.restricted) = (pool, None);
        self.look_again();
    }

    /// The restricted pool of its machine that it has, if it has one (Linux: `restricted-dma-pool`).
    #[must_use]
    #[inline(always)]
    pub const fn restricted_pool(&self) -> Option<RestrictedPool> {
        self.restricted
    }

    /// Whether it has a restricted pool.
    #[inline(always)]
    pub(super) const fn is_restricted(&self) -> bool {
        self.restricted.is_some()
    }

    /// Restricts the device to a pool of its machine: all that it maps is copied there, its coherent memory is from there, and no
    /// other memory is told to it. [`Device::set_pool`] takes the restriction away. The caller ends the device's mappings first.
    pub fn set_restricted_pool(&mut self, pool: RestrictedPool) {
        (self.pool, self.restricted) = (Some(pool.coherent()), Some(pool));
        self.look_again();
    }

    /// Its own contiguous area, if it has one (Linux: `dev->cma_area`).
    #[must_use]
    #[inline(always)]
    pub const fn area(&self) -> Option<CmaArea> {
        self.area
    }

    /// Gives the device a contiguous area of its machine, or takes it away.
    pub const fn set_area(&mut self, area: Option<CmaArea>) {
        self.area = area;
    }

    /// The highest address that it can say for a streaming mapping.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        self.mask
    }

    /// The same for coherent memory.
    #[must_use]
    pub const fn coherent_mask(&self) -> u64 {
        self.coherent_mask
    }

    /// Bytes of a segment of a list, at most (Linux: `dma_get_max_seg_size`).
    #[must_use]
    pub const fn max_segment(&self) -> u32 {
        self.max_segment
    }

    /// The bits of an address that are the same throughout a segment are those that this mask does not have (Linux:
    /// `dma_get_seg_boundary`).
    #[must_use]
    pub const fn boundary(&self) -> u64 {
        self.boundary
    }

    /// The low bits of an address that a bounced buffer keeps (Linux: `dma_get_min_align_mask`).
    #[must_use]
    pub const fn min_align_mask(&self) -> u32 {
        self.min_align
    }

    /// Sets the longest segment (Linux: `dma_set_max_seg_size`).
    ///
    /// # Errors
    ///
    /// [`DmaError::BadLimit`] for zero.
    pub const fn set_max_segment(&mut self, bytes: u32) -> Result<(), DmaError> {
        if bytes == 0 {
            return Err(DmaError::BadLimit(0));
        }
        self.max_segment = bytes;
        Ok(())
    }

    /// Sets the boundary that no segment crosses, as a mask of low bits (Linux: `dma_set_seg_boundary`).
    ///
    /// # Errors
    ///
    /// [`DmaError::BadLimit`] if it is none, or less than a bounce slot.
    pub const fn set_boundary(&mut self, mask: u64) -> Result<(), DmaError> {
        if mask & mask.wrapping_add(1) != 0 || mask < super::SLOT_SIZE - 1 {
            return Err(DmaError::BadLimit(mask));
        }
        self.boundary = mask;
        Ok(())
    }

    /// Sets the low bits that bouncing keeps (Linux: `dma_set_min_align_mask`).
    ///
    /// # Errors
    ///
    /// [`DmaError::BadLimit`] if it is no mask of low bits, or of more than 64 KiB.
    pub const fn set_min_align_mask(&mut self, mask: u32) -> Result<(), DmaError> {
        if mask & mask.wrapping_add(1) != 0 || mask >= 1 << 16 {
            return Err(DmaError::BadLimit(mask as u64));
        }
        self.min_align = mask;
        Ok(())
    }

    /// The physical range that the device reaches with this mask.
    pub(super) fn reached(&self, mask: u64) -> impl Iterator<Item = PhysRange> {
        self.windows().filter_map(move |window| window.within(mask))
    }

    /// The highest address that the device can say with the mask that it has, and would have.
    pub(super) fn set_mask(&mut self, mask: u64) {
        self.mask = mask;
        self.look_again();
    }

    pub(super) const fn set_coherent_mask(&mut self, mask: u64) {
        self.coherent_mask = mask;
    }

    /// The largest part of a window, by itself.
    #[inline(always)]
    pub(super) const fn near(&self) -> Near {
        Near { start: self.start, size: self.size, offset: self.offset }
    }

    /// Where the device finds memory that lies in its largest window: a range check and an addition.
    #[inline(always)]
    pub(super) const fn reach(&self, phys: PhysAddr, size: u64) -> Option<DmaAddr> {
        self.near().reach(phys, size)
    }

    /// Where the device finds memory with this mask, through whichever window; all of it by one.
    pub(super) fn translate(&self, range: PhysRange, mask: u64) -> Option<DmaAddr> {
        let covers = |window: &DmaWindow| window.within(mask).is_some_and(|reached| reached.contains_range(range));
        let window = self.windows().find(covers)?;
        Some(DmaAddr::new(range.start().get().wrapping_add(window.offset())))
    }

    /// The memory behind a bus address, if it lies in the largest window: a range check and a subtraction.
    #[inline(always)]
    pub(super) const fn reached_at(&self, bus: DmaAddr, size: u64) -> Option<PhysAddr> {
        let phys = bus.get().wrapping_sub(self.offset);
        let offset = phys.wrapping_sub(self.start);
        if offset < self.size && size.wrapping_sub(1) < self.size - offset {
            return Some(PhysAddr::new(phys));
        }
        None
    }

    /// The memory behind a bus address, through whichever window.
    pub(super) fn phys(&self, bus: DmaAddr, size: u64) -> Option<PhysAddr> {
        self.reached_at(bus, size).or_else(|| self.phys_slow(bus, size))
    }

    /// Where the device finds memory with its coherent mask.
    #[inline]
    pub(super) fn translate_coherent(&self, range: PhysRange) -> Option<DmaAddr> {
        // Mostly the masks are alike.
        let near = if self.mask == self.coherent_mask { self.reach(range.start(), range.size()) } else { None };
        near.or_else(|| self.translate(range, self.coherent_mask))
    }

    #[cold]
    #[inline(never)]
    fn phys_slow(&self, bus: DmaAddr, size: u64) -> Option<PhysAddr> {
        let place = |window: DmaWindow| {
            let phys = PhysAddr::new(bus.get().checked_sub(window.bus.get())?.checked_add(window.cpu.start().get())?);
            window.cpu.contains_range(PhysRange::from_size(phys, size)?).then_some(phys)
        };
        self.windows().filter(|_| size != 0).find_map(place)
    }

    /// Whether a bus address may be a bounce slot.
    #[inline(always)]
    pub(super) fn has_bounced(&self) -> bool {
        self.bounced.load(Ordering::Relaxed)
    }

    pub(super) fn note_bounce(&self) {
        self.bounced.store(true, Ordering::Relaxed);
    }
}
