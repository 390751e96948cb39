//! The checks of how DMA is used, by request (Linux: `kernel/dma/debug.c`, `dma_debug`): every mapping is noted, and every call
//! compared with what is noted.
#![forbid(unsafe_code)]

use super::{Device, Direction, Dma, DmaDirection, DmaError, DmaHal};
use crate::addr::{DmaAddr, PhysAddr, VirtAddr};
use crate::ds::Broken;
use crate::hal::cache::DataCache as _;
use crate::mm::page::{Kind, PageMap as _};
use crate::mm::zone::PageHal as _;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::Ordering;

/// Call that made a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingKind {
    /// `map_single`, `map_page`.
    Single,
    /// `map_sg`.
    List,
    /// `map_resource`.
    Resource,
    /// `alloc_coherent` and its sisters.
    Coherent,
}

/// The note of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    device: u32,
    /// Entries of its list.
    count: u32,
    bus: DmaAddr,
    phys: PhysAddr,
    /// Zero where there is no mapping.
    size: u64,
    kind: MappingKind,
    direction: DmaDirection,
}

impl Entry {
    /// The note of nothing.
    pub const NONE: Self = Self {
        device: 0,
        count: 0,
        bus: DmaAddr::ZERO,
        phys: PhysAddr::ZERO,
        size: 0,
        kind: MappingKind::Single,
        direction: DmaDirection::Bidirectional,
    };

    const fn is_used(&self) -> bool {
        self.size != 0
    }

    /// Whether `size` bytes at `bus` lie in it.
    fn holds(&self, bus: DmaAddr, size: u64) -> bool {
        let offset = bus.get().wrapping_sub(self.bus.get());
        offset < self.size && size <= self.size - offset
    }
}

/// A misuse of DMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Misuse {
    /// An unmap or free of memory that is not mapped.
    NotMapped,
    /// It is mapped, but for another device.
    OtherDevice,
    /// It was mapped with another size.
    OtherSize(u64),
    /// It was mapped by another call.
    OtherKind(MappingKind),
    /// It was mapped in another direction.
    OtherDirection(DmaDirection),
    /// Its list had another number of entries.
    OtherCount(u32),
    /// A sync of memory in no mapping of the device.
    SyncNotMapped,
    /// A sync that reaches beyond the mapping.
    SyncOutside(u64),
    /// It is synced in a direction that it does not have.
    SyncDirection(DmaDirection),
    /// Another mapping, which a device writes to or this one does, has the same cache line.
    SharedLine(DmaAddr),
    /// The memory is nobody's to give to a device: the kernel image, a free page, a page table.
    NotOwned(Kind),
    /// The address is not in the linear map: of a stack, of vmalloc, of nothing.
    NotLinear(VirtAddr),
    /// The segment is longer than the device takes.
    SegmentTooLong(u32),
    /// The segment crosses a boundary of the device.
    SegmentCrosses(u64),
    /// The device goes, with so many mappings left.
    DeviceGone(u64),
    /// More mappings than can be noted: nothing is checked any more.
    Overflow,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str("device driver tries to free DMA memory it has not allocated"),
            Self::OtherDevice => f.write_str("device driver frees DMA memory of another device"),
            Self::OtherSize(size) => write!(f, "device driver frees DMA memory with different size: mapped {size:#x}"),
            Self::OtherKind(kind) => {
                write!(f, "device driver frees DMA memory with wrong function: mapped as {kind:?}")
            }
            Self::OtherDirection(direction) => {
                write!(f, "device driver frees DMA memory with different direction: mapped {direction:?}")
            }
            Self::OtherCount(count) => {
                write!(f, "device driver frees DMA sg list with different entry count: mapped {count}")
            }
            Self::SyncNotMapped => f.write_str("device driver tries to sync DMA memory it has not allocated"),
            Self::SyncOutside(size) => {
                write!(f, "device driver syncs DMA memory outside allocated range: mapped {size:#x}")
            }
            Self::SyncDirection(direction) => {
                write!(f, "device driver syncs DMA memory with different direction: mapped {direction:?}")
            }
            Self::SharedLine(other) => {
                write!(f, "cacheline tracking: overlapping mappings aren't supported: also mapped at {other}")
            }
            Self::NotOwned(kind) => write!(f, "device driver maps memory from an illegal area: {}", kind.name()),
            Self::NotLinear(addr) => {
                write!(
                    f,
                    "device driver maps memory that is not in the linear map: stack, vmalloc or nothing at {addr}"
                )
            }
            Self::SegmentTooLong(max) => {
                write!(f, "mapping sg segment longer than device claims to support: max {max}")
            }
            Self::SegmentCrosses(mask) => write!(f, "mapping sg segment across boundary: mask {mask:#x}"),
            Self::DeviceGone(left) => write!(f, "device driver has pending DMA allocations while released: {left}"),
            Self::Overflow => f.write_str("out of memory for the notes of mappings: checking ends"),
        }
    }
}

/// A misuse with its circumstances.
#[derive(Clone, Copy, Debug)]
pub struct Report<'d> {
    /// The misuse.
    pub misuse: Misuse,
    /// The device.
    pub device: &'d Device,
    /// Where the device finds the memory.
    pub bus: DmaAddr,
    /// Bytes.
    pub size: u64,
    /// The caller.
    pub caller: &'static Location<'static>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { misuse, device, bus, size, caller } = self;
        write!(f, "{misuse} [device {}, bus address {bus}, {size} bytes, by {caller}]", device.name())
    }
}

/// The notes.
///
/// # Invariants
///
/// - `DDBG-1`: `used` entries are in use, none at or behind `end`.
pub(super) struct Notes<'a> {
    entries: &'a mut [Entry],
    used: usize,
    end: usize,
}

impl Notes<'_> {
    pub(super) const fn new() -> Self {
        Self { entries: &mut [], used: 0, end: 0 }
    }

    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.end).filter(|entry| entry.is_used())
    }

    fn add(&mut self, entry: Entry) -> bool {
        let Some(index) = self.entries.iter().position(|entry| !entry.is_used()) else { return false };
        if let Some(place) = self.entries.get_mut(index) {
            *place = entry;
        }
        // INVARIANT: DDBG-1.
        self.used += 1;
        self.end = self.end.max(index + 1);
        true
    }

    /// Takes out the note of a mapping if the call fits it, or returns the misuse.
    fn remove(&mut self, wanted: &Entry) -> Result<(), Misuse> {
        let here = |entry: &Entry| entry.is_used() && entry.bus == wanted.bus && entry.device == wanted.device;
        let exact = |entry: &Entry| here(entry) && Self::differs(entry, wanted).is_none();
        let found = self.entries.iter().position(exact);
        if let Some(place) = found.and_then(|index| self.entries.get_mut(index)) {
            *place = Entry::NONE;
            // INVARIANT: DDBG-1.
            self.used -= 1;
            return Ok(());
        }
        let like = self.live().find(|entry| here(entry)).and_then(|entry| Self::differs(entry, wanted));
        let foreign = self.live().any(|entry| entry.bus == wanted.bus && entry.device != wanted.device);
        Err(like.unwrap_or(if foreign { Misuse::OtherDevice } else { Misuse::NotMapped }))
    }

    fn differs(entry: &Entry, wanted: &Entry) -> Option<Misuse> {
        match entry {
            _ if entry.kind != wanted.kind => Some(Misuse::OtherKind(entry.kind)),
            _ if entry.size != wanted.size => Some(Misuse::OtherSize(entry.size)),
            _ if entry.direction != wanted.direction => Some(Misuse::OtherDirection(entry.direction)),
            _ if entry.count != wanted.count => Some(Misuse::OtherCount(entry.count)),
            _ => None,
        }
    }
}

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    fn with_notes<R>(&self, f: impl FnOnce(&mut Notes<'a>) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.notes.lock());
        self.hal.restore(saved);
        result
    }

    /// Checks every call from now on, with room for the notes of `mappings` (Linux: `dma_debug_entries=`). Mappings
    /// made before are not known. May wait; once.
    ///
    /// # Errors
    ///
    /// [`DmaError::AlreadySetUp`], [`DmaError::Empty`], [`DmaError::NoRecords`].
    pub fn watch(&self, mappings: usize) -> Result<(), DmaError> {
        if mappings == 0 {
            return Err(DmaError::Empty);
        }
        if self.with_notes(|notes| !notes.entries.is_empty()) {
            return Err(DmaError::AlreadySetUp);
        }
        let entries = self.hal.entries(mappings).ok_or(DmaError::NoRecords)?;
        entries.fill(Entry::NONE);
        self.with_notes(|notes| *notes = Notes { entries, used: 0, end: 0 });
        self.watching.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether calls are checked.
    #[inline(always)]
    pub(super) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// Mappings that are noted.
    #[must_use]
    pub fn watched(&self) -> u64 {
        self.with_notes(|notes| notes.used as u64)
    }

    fn tell(&self, misuse: Misuse, device: &Device, (bus, size): (DmaAddr, u64), caller: &'static Location<'static>) {
        self.hal.report(&Report { misuse, device, bus, size, caller });
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn watch_map<D: Direction>(
        &self,
        device: &Device,
        kind: MappingKind,
        (bus, phys, size): (DmaAddr, PhysAddr, u64),
        count: usize,
    ) {
        if self.is_watching() {
            self.note_map(device, kind, D::DIRECTION, (bus, phys, size), (count, Location::caller()));
        }
    }

    #[cold]
    #[inline(never)]
    fn note_map(
        &self,
        device: &Device,
        kind: MappingKind,
        direction: DmaDirection,
        (bus, phys, size): (DmaAddr, PhysAddr, u64),
        (count, caller): (usize, &'static Location<'static>),
    ) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let entry = Entry { device: device.id, count, bus, phys, size, kind, direction };
        if kind == MappingKind::List {
            if size > u64::from(device.max_segment()) {
                self.tell(Misuse::SegmentTooLong(device.max_segment()), device, (bus, size), caller);
            }
            if (bus.get() ^ bus.get().wrapping_add(size - 1)) & !device.boundary() != 0 {
                self.tell(Misuse::SegmentCrosses(device.boundary()), device, (bus, size), caller);
            }
        }
        if matches!(kind, MappingKind::Single | MappingKind::List)
            && let Some(wrong) = self.wrong_owner(phys)
        {
            self.tell(Misuse::NotOwned(wrong), device, (bus, size), caller);
        }
        let line = self.hal.cache().granule();
        let lines = |entry: &Entry| (entry.phys.get() & !(line - 1), (entry.phys.get() + entry.size - 1) | (line - 1));
        let (start, last) = lines(&entry);
        let streams = |kind| matches!(kind, MappingKind::Single | MappingKind::List);
        let (shared, noted) = self.with_notes(|notes| {
            let other = notes.live().find(|other| {
                let (from, to) = lines(other);
                let written = [direction, other.direction].iter().any(|way| *way != DmaDirection::ToDevice);
                streams(kind) && streams(other.kind) && written && from <= last && start <= to
            });
            (other.map(|other| other.bus), notes.add(entry))
        });
        if let Some(other) = shared {
            self.tell(Misuse::SharedLine(other), device, (bus, size), caller);
        }
        if !noted {
            // A mapping without a note would be reported later.
            self.watching.store(false, Ordering::Release);
            self.tell(Misuse::Overflow, device, (bus, size), caller);
        }
    }

    /// Use of a page, if that forbids giving it to a device.
    fn wrong_owner(&self, phys: PhysAddr) -> Option<Kind> {
        let pages = self.hal.pages();
        let page = pages.hal().map().find(crate::addr::Pfn::containing(phys));
        let Some(page) = page else { return Some(Kind::Hole) };
        let kind = pages.head(page).map_or(Kind::Hole, |(_, state)| state.kind());
        (!kind.is_allocated() || kind == Kind::PageTable).then_some(kind)
    }

    /// Tells of an address that no device is given.
    #[cold]
    #[track_caller]
    pub(super) fn watch_wild(&self, device: &Device, at: VirtAddr, size: u64) {
        if self.is_watching() {
            self.tell(Misuse::NotLinear(at), device, (DmaAddr::ZERO, size), Location::caller());
        }
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn watch_unmap<D: Direction>(
        &self,
        device: &Device,
        kind: MappingKind,
        (bus, size): (DmaAddr, u64),
        count: usize,
    ) -> Result<(), DmaError> {
        if self.is_watching() {
            self.note_unmap(device, kind, D::DIRECTION, (bus, size), (count, Location::caller()))
        } else {
            Ok(())
        }
    }

    #[cold]
    #[inline(never)]
    fn note_unmap(
        &self,
        device: &Device,
        kind: MappingKind,
        direction: DmaDirection,
        (bus, size): (DmaAddr, u64),
        (count, caller): (usize, &'static Location<'static>),
    ) -> Result<(), DmaError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let wanted = Entry { device: device.id, count, bus, phys: PhysAddr::ZERO, size, kind, direction };
        self.with_notes(|notes| notes.remove(&wanted)).map_err(|misuse| {
            self.tell(misuse, device, (bus, size), caller);
            DmaError::Misused(misuse)
        })
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn watch_sync<D: Direction>(&self, device: &Device, place: (DmaAddr, u64)) -> Result<(), DmaError> {
        if self.is_watching() { self.note_sync(device, D::DIRECTION, place, Location::caller()) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn note_sync(
        &self,
        device: &Device,
        direction: DmaDirection,
        (bus, size): (DmaAddr, u64),
        caller: &'static Location<'static>,
    ) -> Result<(), DmaError> {
        let misuse = self.with_notes(|notes| {
            let begins = |entry: &&Entry| entry.device == device.id && entry.holds(bus, 1);
            let Some(entry) = notes.live().find(begins) else { return Some(Misuse::SyncNotMapped) };
            if !entry.holds(bus, size) {
                return Some(Misuse::SyncOutside(entry.size));
            }
            let fits = entry.direction == DmaDirection::Bidirectional || entry.direction == direction;
            (!fits).then_some(Misuse::SyncDirection(entry.direction))
        });
        let Some(misuse) = misuse else { return Ok(()) };
        self.tell(misuse, device, (bus, size), caller);
        Err(DmaError::Misused(misuse))
    }

    /// The device goes (Linux: `dma_debug_device_change`): reports what it has left mapped, and how much that is. Without
    /// checks, zero.
    #[track_caller]
    pub fn device_gone(&self, device: &Device) -> u64 {
        let left = self.with_notes(|notes| notes.live().filter(|entry| entry.device == device.id).count()) as u64;
        if left != 0 {
            self.tell(Misuse::DeviceGone(left), device, (DmaAddr::ZERO, 0), Location::caller());
        }
        left
    }

    pub(super) fn check_notes(&self) -> Result<(), Broken> {
        self.with_notes(|notes| {
            let used = notes.entries.iter().filter(|entry| entry.is_used()).count();
            if used == notes.used && used == notes.live().count() {
                return Ok(());
            }
            Err(Broken { tag: "DDBG-1", what: "notes of mappings are miscounted" })
        })
    }
}
