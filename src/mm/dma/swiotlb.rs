//! Bounce buffers: memory that every device reaches, whose cache lines nobody else has (Linux: `kernel/dma/swiotlb.c`).
//!
//! One piece of memory in slots of 2 KiB, and one more for each restricted pool. A buffer gets as many slots in a row as it
//! needs, its bytes are copied by the direction of the mapping, and the device is told of the slots.
#![forbid(unsafe_code)]

use super::{Device, Direction, Dma, DmaError, DmaHal};
use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtRange, to_usize};
use crate::ds::Broken;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::cache::DataCache as _;
use crate::mm::page::{Kind, PageMap as _};
use crate::mm::zone::PageHal as _;
use crate::sync::{OrderedLock, class};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a slot (Linux: `IO_TLB_SIZE`). No cache line is longer (`CTR_EL0` states 2048 at most), so no two slots share one.
pub const SLOT_SIZE: u64 = 2 << 10;
/// Bytes that are bounced as one, at most: 128 slots (Linux: `IO_TLB_SEGSIZE`).
pub const MAX_BOUNCE: u64 = 128 * SLOT_SIZE;

/// The record of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BounceSlot {
    /// Of a slot in use: where the bytes of its mapping belong, and how many they are.
    original: PhysAddr,
    size: u32,
    /// The first slot of its mapping, or [`BounceSlot::FREE`]'s.
    first: u32,
    /// How far into the first slot the bytes begin.
    lead: u32,
    device: u32,
}

const NONE: u32 = u32::MAX;

impl BounceSlot {
    /// A slot that nobody uses.
    pub const FREE: Self = Self { original: PhysAddr::ZERO, size: 0, first: NONE, lead: 0, device: 0 };
}

/// A mapping that is bounced.
#[derive(Clone, Copy)]
struct Bounced {
    /// Where the device finds its first byte, as the CPU does.
    start: PhysAddr,
    /// Where the bytes belong.
    original: PhysAddr,
    size: u64,
    first: usize,
    count: usize,
    device: u32,
}

/// The slots and their memory.
///
/// # Invariants
///
/// - `BNC-1`: a slot in use lies in the slots of the mapping that its `first` starts, which are as many as its bytes need.
/// - `BNC-2`: `used` slots are in use.
pub(super) struct Slots<'a> {
    memory: PhysRange,
    records: &'a mut [BounceSlot],
    used: usize,
    /// Where the next search begins.
    next: usize,
    most: usize,
}

/// How the bounce slots are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BounceStats {
    /// Slots of [`SLOT_SIZE`] bytes.
    pub slots: u64,
    /// Slots in use.
    pub used: u64,
    /// As many as were ever in use at one time.
    pub most: u64,
}

impl<'a> Slots<'a> {
    const fn new() -> Self {
        Self { memory: PhysRange::EMPTY, records: &mut [], used: 0, next: 0, most: 0 }
    }

    const fn stats(&self) -> BounceStats {
        BounceStats { slots: self.records.len() as u64, used: self.used as u64, most: self.most as u64 }
    }

    fn place(&self, slot: usize) -> PhysAddr {
        PhysAddr::new(self.memory.start().get() + slot as u64 * SLOT_SIZE)
    }

    /// Takes slots in a row for a mapping: `None` if there are not so many.
    fn take(&mut self, device: &Device, original: PhysAddr, size: u64) -> Option<PhysAddr> {
        let mask = u64::from(device.min_align_mask());
        let lead = original.get() & mask;
        let count = to_usize((lead + size).div_ceil(SLOT_SIZE));
        // Aligned so that the low bits can be what they were, and that what fits inside the boundary does not cross it.
        // Whole pages go to whole pages, which are copied faster.
        let whole = (original.get() | size) & (PAGE_SIZE - 1) == 0;
        let unit = (mask + 1).max(if whole { PAGE_SIZE } else { SLOT_SIZE });
        let total = self.records.len();
        let mut at = self.next;
        let mut wrapped = false;
        loop {
            let start = self.place(at).align_up(unit)?.get() - self.memory.start().get();
            let first = to_usize(start / SLOT_SIZE);
            if first.checked_add(count).is_none_or(|end| end > total) {
                if wrapped {
                    return None;
                }
                (at, wrapped) = (0, true);
                continue;
            }
            let begin = self.place(first).get() + lead;
            let crosses = (begin ^ (begin + size - 1)) & !device.boundary() != 0;
            let run = self.records.get(first..first + count)?;
            // A slot in use ends the search here, and the next one begins behind it.
            match run.iter().rposition(|slot| slot.first != NONE) {
                None if !crosses => return self.occupy(device, original, size, (first, count, lead)),
                None => at = first + 1,
                Some(busy) => at = first + busy + 1,
            }
            if wrapped && at > self.next {
                return None;
            }
        }
    }

    fn occupy(
        &mut self,
        device: &Device,
        original: PhysAddr,
        size: u64,
        (first, count, lead): (usize, usize, u64),
    ) -> Option<PhysAddr> {
        let number = u32::try_from(first).ok()?;
        let (bytes, lead) = (u32::try_from(size).ok()?, u32::try_from(lead).ok()?);
        // INVARIANT: BNC-1.
        self.records.get_mut(first..first + count)?.fill(BounceSlot {
            original,
            size: bytes,
            first: number,
            lead,
            device: device.id,
        });
        // INVARIANT: BNC-2.
        self.used += count;
        self.most = self.most.max(self.used);
        self.next = first + count;
        Some(PhysAddr::new(self.place(first).get() + u64::from(lead)))
    }

    /// The mapping that bytes in the slots belong to.
    fn find(&self, at: PhysAddr, size: u64) -> Option<Bounced> {
        let index = to_usize(at.offset_from(self.memory.start())? / SLOT_SIZE);
        let slot = self.records.get(index).filter(|slot| slot.first != NONE)?;
        let first = slot.first as usize;
        let start = PhysAddr::new(self.place(first).get() + u64::from(slot.lead));
        let offset = at.offset_from(start)?;
        let fits = size != 0 && offset < u64::from(slot.size) && size <= u64::from(slot.size) - offset;
        let count = to_usize((u64::from(slot.lead) + u64::from(slot.size)).div_ceil(SLOT_SIZE));
        fits.then_some(Bounced {
            start,
            original: slot.original,
            size: u64::from(slot.size),
            first,
            count,
            device: slot.device,
        })
    }

    fn free(&mut self, bounced: Bounced) {
        if let Some(run) = self.records.get_mut(bounced.first..bounced.first + bounced.count) {
            run.fill(BounceSlot::FREE);
            // INVARIANT: BNC-2.
            self.used -= bounced.count;
            // The cache has them.
            self.next = bounced.first;
        }
    }

    fn check(&self) -> Result<(), Broken> {
        let mut used = 0;
        for (index, slot) in self.records.iter().enumerate().filter(|(_, slot)| slot.first != NONE) {
            used += 1;
            let first = slot.first as usize;
            let count = to_usize((u64::from(slot.lead) + u64::from(slot.size)).div_ceil(SLOT_SIZE));
            let whole = self.records.get(first..first + count).is_some_and(|run| run.iter().all(|other| other == slot));
            if slot.size == 0 || !(first..first + count).contains(&index) || !whole {
                return Err(Broken { tag: "BNC-1", what: "a bounce slot outside of its mapping" });
            }
        }
        if used != self.used || used > self.records.len() {
            return Err(Broken { tag: "BNC-2", what: "bounce slots are miscounted" });
        }
        Ok(())
    }
}

/// Where the slots are, to be asked without a lock.
#[derive(Debug, Default)]
pub(super) struct BounceRange {
    start: AtomicU64,
    size: AtomicU64,
}

impl BounceRange {
    pub(super) const fn new() -> Self {
        Self { start: AtomicU64::new(0), size: AtomicU64::new(0) }
    }

    #[inline(always)]
    pub(super) fn contains(&self, phys: PhysAddr) -> bool {
        let size = self.size.load(Ordering::Acquire);
        phys.get().wrapping_sub(self.start.load(Ordering::Relaxed)) < size
    }
}

/// Bounce slots, and where they are.
pub(super) struct Bounce<'a, H: DmaHal<'a>> {
    range: BounceRange,
    slots: OrderedLock<Slots<'a>, class::BounceSlots, H::Relax>,
}

impl<'a, H: DmaHal<'a>> Bounce<'a, H> {
    pub(super) const fn new() -> Self {
        Self { range: BounceRange::new(), slots: OrderedLock::new(Slots::new()) }
    }

    #[inline(always)]
    pub(super) fn contains(&self, phys: PhysAddr) -> bool {
        self.range.contains(phys)
    }

    fn with<R>(&self, hal: &H, f: impl FnOnce(&mut Slots<'a>) -> R) -> R {
        let saved = hal.save();
        let result = f(&mut self.slots.lock());
        hal.restore(saved);
        result
    }

    /// Makes slots of memory that every caller may use from then on; whether there were none.
    pub(super) fn install(&self, hal: &H, memory: PhysRange, records: &'a mut [BounceSlot]) -> bool {
        records.fill(BounceSlot::FREE);
        self.with(hal, |slots| {
            let won = slots.records.is_empty();
            if won {
                *slots = Slots { memory, records, used: 0, next: 0, most: 0 };
                self.range.start.store(memory.start().get(), Ordering::Relaxed);
                self.range.size.store(memory.size(), Ordering::Release);
            }
            won
        })
    }

    /// Where the slots are: no bytes without any.
    pub(super) fn memory(&self, hal: &H) -> PhysRange {
        self.with(hal, |slots| slots.memory)
    }

    pub(super) fn stats(&self, hal: &H) -> BounceStats {
        self.with(hal, |slots| slots.stats())
    }
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// The bounce slots of a device: those of its restricted pool, or those for everybody.
    #[inline(always)]
    pub(super) fn bounce_of(&self, device: &Device) -> &Bounce<'a, H> {
        let [common, restricted @ ..] = &self.bounce;
        device.restricted_pool().and_then(|pool| restricted.get(pool.index())).unwrap_or(common)
    }

    fn with_slots<R>(&self, device: &Device, f: impl FnOnce(&mut Slots<'a>) -> R) -> R {
        self.bounce_of(device).with(&self.hal, f)
    }

    /// Makes `slots` bounce slots, rounded up to whole pages, of memory that every device reaches (Linux: `swiotlb=`). May
    /// wait; once.
    ///
    /// # Errors
    ///
    /// [`DmaError::AlreadySetUp`], [`DmaError::Empty`], [`DmaError::TooLarge`], [`DmaError::Contiguous`],
    /// [`DmaError::NoRecords`].
    pub fn set_up_bounce(&self, slots: u64) -> Result<(), DmaError> {
        if self.bounce_stats().slots != 0 {
            return Err(DmaError::AlreadySetUp);
        }
        let bytes = slots.checked_mul(SLOT_SIZE).and_then(|bytes| bytes.checked_next_multiple_of(PAGE_SIZE));
        let bytes = bytes.ok_or(DmaError::TooLarge(slots))?;
        let pages = u32::try_from(bytes / PAGE_SIZE).map_err(|_| DmaError::TooLarge(bytes))?;
        if pages == 0 {
            return Err(DmaError::Empty);
        }
        let allocator = self.hal.pages();
        // Aligned for the largest mask that a device may have, of 64 KiB.
        let first = allocator.alloc_contig_pages(pages, 16, Gfp::KERNEL | Gfp::DMA).map_err(DmaError::Contiguous)?;
        let give_back = || {
            // Fresh pages, which nobody has.
            let _ = allocator.do_free_contig_range(first, pages);
        };
        let Some(records) = self.hal.slots(to_usize(bytes / SLOT_SIZE)) else {
            give_back();
            return Err(DmaError::NoRecords);
        };
        let map = allocator.hal().map();
        let Some(memory) = PhysRange::from_size(map.phys(first), bytes) else { return Err(DmaError::TooLarge(bytes)) };
        for index in 0..pages {
            // Fresh, so that it is unclaimed.
            let _ = allocator.do_claim(first.offset(index), Kind::Dma, 0);
        }
        let [common, ..] = &self.bounce;
        if !common.install(&self.hal, memory, records) {
            for index in 0..pages {
                let _ = allocator.do_disown(first.offset(index), Kind::Dma);
            }
            give_back();
            return Err(DmaError::AlreadySetUp);
        }
        Ok(())
    }

    /// How the bounce slots for everybody are used. Any context.
    #[must_use]
    pub fn bounce_stats(&self) -> BounceStats {
        let [common, ..] = &self.bounce;
        common.stats(&self.hal)
    }

    /// The linear map's addresses of bytes.
    pub(super) fn bytes(&self, phys: PhysAddr, size: u64) -> VirtRange {
        VirtRange::from_size(self.hal.to_virt(phys), size).unwrap_or_default()
    }

    /// Maps a buffer by a copy of it, but for the barrier that completes the maintenance.
    pub(super) fn bounce_in<D: Direction>(
        &self,
        device: &Device,
        phys: PhysAddr,
        size: u64,
    ) -> Result<DmaAddr, DmaError> {
        if size > MAX_BOUNCE || size > device.boundary().saturating_add(1) {
            return Err(DmaError::BounceTooLarge(size));
        }
        let (memory, taken) = self.with_slots(device, |slots| (slots.memory, slots.take(device, phys, size)));
        if memory.is_empty() {
            return Err(DmaError::NoBounceSlots);
        }
        let slot = taken.ok_or(DmaError::BounceFull(size))?;
        let far = || PhysRange::from_size(slot, size).and_then(|range| device.translate(range, device.mask()));
        let reached = device.reach(slot, size).or_else(far);
        let Some(bus) = reached else {
            self.with_slots(device, |slots| slots.find(slot, size).into_iter().for_each(|bounced| slots.free(bounced)));
            return Err(DmaError::BounceUnreachable(memory));
        };
        let to = self.bytes(slot, size);
        if D::TO_DEVICE {
            self.hal.copy(Internal::CALL, to.start(), self.hal.to_virt(phys), size);
        } else {
            // Nothing of the last owner's is copied out where the device writes nothing.
            self.hal.zero(Internal::CALL, to.start(), size);
        }
        if !device.is_coherent() {
            self.hal.cache().clean(Internal::CALL, to);
        }
        device.note_bounce();
        Ok(bus)
    }

    /// Ends a mapping that was bounced: `slot` is where the device found it.
    #[cold]
    #[inline(never)]
    pub(super) fn bounce_out<D: Direction>(
        &self,
        device: &Device,
        slot: PhysAddr,
        (bus, size): (DmaAddr, u64),
    ) -> Result<(), DmaError> {
        let exact = |bounced: &Bounced| bounced.start == slot && bounced.size == size && bounced.device == device.id;
        let found = self.with_slots(device, |slots| {
            let bounced = slots.find(slot, size).filter(exact)?;
            if !D::FROM_DEVICE {
                slots.free(bounced);
            }
            Some(bounced)
        });
        let bounced = found.ok_or(DmaError::NotBounced(bus, size))?;
        if D::FROM_DEVICE {
            self.copy_out(device, bounced.original, slot, size);
            self.with_slots(device, |slots| slots.free(bounced));
        }
        Ok(())
    }

    fn copy_out(&self, device: &Device, original: PhysAddr, slot: PhysAddr, size: u64) {
        let from = self.bytes(slot, size);
        if !device.is_coherent() {
            self.hal.cache().invalidate(Internal::CALL, from);
            self.hal.cache().complete();
        }
        self.hal.copy(Internal::CALL, self.hal.to_virt(original), from.start(), size);
    }

    /// Where bytes of a mapping that was bounced belong.
    fn bounced_bytes(
        &self,
        device: &Device,
        slot: PhysAddr,
        (bus, size): (DmaAddr, u64),
    ) -> Result<PhysAddr, DmaError> {
        let found =
            self.with_slots(device, |slots| slots.find(slot, size)).filter(|bounced| bounced.device == device.id);
        let bounced = found.ok_or(DmaError::NotBounced(bus, size))?;
        let offset = slot.get() - bounced.start.get();
        Ok(PhysAddr::new(bounced.original.get() + offset))
    }

    /// The CPU has bytes of a mapping that was bounced.
    #[cold]
    #[inline(never)]
    pub(super) fn bounce_for_cpu<D: Direction>(
        &self,
        device: &Device,
        slot: PhysAddr,
        (bus, size): (DmaAddr, u64),
    ) -> Result<(), DmaError> {
        let original = self.bounced_bytes(device, slot, (bus, size))?;
        if D::FROM_DEVICE {
            self.copy_out(device, original, slot, size);
        }
        Ok(())
    }

    /// The device has bytes of a mapping that was bounced, but for the barrier that completes the maintenance.
    #[cold]
    #[inline(never)]
    pub(super) fn bounce_for_device<D: Direction>(
        &self,
        device: &Device,
        slot: PhysAddr,
        (bus, size): (DmaAddr, u64),
    ) -> Result<(), DmaError> {
        let original = self.bounced_bytes(device, slot, (bus, size))?;
        if D::TO_DEVICE {
            let to = self.bytes(slot, size);
            self.hal.copy(Internal::CALL, to.start(), self.hal.to_virt(original), size);
            if !device.is_coherent() {
                self.hal.cache().clean(Internal::CALL, to);
            }
        }
        Ok(())
    }

    /// Tests `BNC-1` and `BNC-2`.
    pub(super) fn check_bounce(&self) -> Result<(), Broken> {
        self.bounce.iter().try_for_each(|bounce| bounce.with(&self.hal, |slots| slots.check()))
    }
}
