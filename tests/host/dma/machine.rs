//! A machine for DMA: RAM behind a data cache, the page allocator, and maintenance that can be left out, call by call.

use crate::vmalloc::kernel::{PagesOf, RAM, Vmalloc, free_pages, with_reserved};
use quarry::addr::{DmaAddr, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::host::{CacheConfig, CachedRam, Config, SimDevice, Window};
use quarry::hal::Internal;
use quarry::hal::cache::DataCache;
use quarry::hal::cpu::Interrupts;
use quarry::hal::prot::Prot;
use quarry::mm::dma::{BounceSlot, Device, DeviceSpec, Dma, DmaHal, DmaWindow, Entry, Misuse, Report};
use quarry::mm::vmalloc::{SetMemoryError, Uncached};
use quarry::mm::zone::{CmaArea, PageAllocator};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) const MIB: u64 = 1 << 20;
/// Bytes of RAM, from [`RAM`] on.
pub(super) const SIZE: u64 = 64 * MIB;
/// Where the devices of the tests find RAM, as those of a Pi do.
pub(super) const BUS: u64 = 0xc000_0000;

std::thread_local! {
    static MASKED: Cell<bool> = const { Cell::new(false) };
}

/// The caches, with one call that is left out.
pub(super) struct Caches {
    pub(super) ram: CachedRam,
    pub(super) calls: AtomicU64,
    /// The call that has no effect, counted from 0 on.
    pub(super) left_out: AtomicU64,
    /// Calls are neither counted nor left out.
    pub(super) paused: AtomicBool,
}

impl Caches {
    fn counts(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
            || self.calls.fetch_add(1, Ordering::Relaxed) != self.left_out.load(Ordering::Relaxed)
    }
}

// SAFETY: a model; being wrong on demand is the purpose.
unsafe impl DataCache for Caches {
    fn granule(&self) -> u64 {
        self.ram.granule()
    }

    fn clean(&self, internal: Internal, range: VirtRange) {
        if self.counts() {
            self.ram.clean(internal, range);
        }
    }

    fn invalidate(&self, internal: Internal, range: VirtRange) {
        if self.counts() {
            self.ram.invalidate(internal, range);
        }
    }

    fn clean_and_invalidate(&self, internal: Internal, range: VirtRange) {
        if self.counts() {
            self.ram.clean_and_invalidate(internal, range);
        }
    }

    fn complete(&self) {
        if self.counts() {
            self.ram.complete();
        }
    }
}

/// The machine as DMA sees it.
pub(super) struct Rig<'k, 'm> {
    pub(super) caches: Caches,
    pub(super) space: &'k Vmalloc<'m>,
    pub(super) reports: Mutex<Vec<Misuse>>,
    pub(super) printed: Mutex<Vec<String>>,
    /// No records can be had.
    pub(super) no_records: AtomicBool,
    /// The linear map cannot be changed.
    pub(super) no_uncache: AtomicBool,
    /// The contiguous area of every device.
    pub(super) area: Mutex<Option<CmaArea>>,
    /// The records that were given away, to be damaged.
    pub(super) given: Mutex<Vec<(usize, usize)>>,
    /// Blocks of pools that were written to while they were free.
    pub(super) overwritten: AtomicU64,
}

impl Interrupts for Rig<'_, '_> {
    type Saved = bool;

    fn save(&self) -> bool {
        MASKED.replace(true)
    }

    fn restore(&self, saved: bool) {
        MASKED.set(saved);
    }
}

fn unlocked() {
    assert!(!MASKED.get(), "no lock is held meanwhile");
}

// SAFETY: HAL-13: the model's copies are where it says; records are leaked once.
unsafe impl<'a, 'm> DmaHal<'a> for Rig<'_, 'm> {
    type Cache = Caches;
    type Pages = PagesOf<'m>;
    type Relax = quarry::arch::host::Spin;

    fn cache(&self) -> &Caches {
        &self.caches
    }

    fn pages(&self) -> &PageAllocator<PagesOf<'m>> {
        &self.space.hal().pages
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        self.caches.ram.linear(phys)
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        self.caches.ram.phys(virt)
    }

    fn slots(&self, count: usize) -> Option<&'a mut [BounceSlot]> {
        (!self.no_records.load(Ordering::Relaxed)).then(|| self.give(BounceSlot::FREE, count))
    }

    fn words(&self, count: usize) -> Option<&'a mut [u64]> {
        (!self.no_records.load(Ordering::Relaxed)).then(|| self.give(0, count))
    }

    fn contiguous_area(&self) -> Option<CmaArea> {
        *self.area.lock().unwrap()
    }

    fn entries(&self, count: usize) -> Option<&'a mut [Entry]> {
        (!self.no_records.load(Ordering::Relaxed)).then(|| self.give(Entry::NONE, count))
    }

    fn copy(&self, _: Internal, to: VirtAddr, from: VirtAddr, bytes: u64) {
        unlocked();
        raw!(to.as_ptr::<u8>().copy_from_nonoverlapping(from.as_ptr(), bytes as usize));
    }

    fn zero(&self, _: Internal, at: VirtAddr, bytes: u64) {
        unlocked();
        raw!(at.as_ptr::<u8>().write_bytes(0, bytes as usize));
    }

    fn fill(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) {
        unlocked();
        raw!(at.as_ptr::<u8>().write_bytes(byte, bytes as usize));
    }

    fn find_other(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) -> Option<(u64, u8)> {
        unlocked();
        let read = |offset| raw!(at.as_ptr::<u8>().wrapping_add(offset as usize).read_volatile());
        let found = (0..bytes).map(|offset| (offset, read(offset))).find(|(_, found)| *found != byte);
        self.overwritten.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }

    fn report(&self, report: &Report<'_>) {
        unlocked();
        self.printed.lock().unwrap().push(report.to_string());
        self.reports.lock().unwrap().push(report.misuse);
    }

    fn uncache(&self, _: Internal, block: PhysRange) -> Result<Uncached, SetMemoryError> {
        unlocked();
        if self.no_uncache.load(Ordering::Relaxed) {
            return Err(SetMemoryError::OtherCpus);
        }
        self.caches.ram.set_cacheable(block, false);
        Ok(Uncached { at: self.caches.ram.uncached(block.start()), linear: Prot::KERNEL_RW })
    }

    fn recache(&self, _: Internal, block: PhysRange, _: Uncached) -> Result<(), SetMemoryError> {
        unlocked();
        self.caches.ram.set_cacheable(block, true);
        Ok(())
    }
}

impl Rig<'_, '_> {
    /// Records for good, noted.
    fn give<'a, T: Copy>(&self, none: T, count: usize) -> &'a mut [T] {
        let records = vec![none; count].leak();
        self.given.lock().unwrap().push((records.as_mut_ptr().expose_provenance(), size_of_val(records)));
        records
    }
}

pub(super) type Machine<'k, 'm> = Dma<'k, Rig<'k, 'm>>;

/// Runs `f` on a machine whose cache lines have `line` bytes, and sees that everything is as before in the end.
pub(super) fn on_a_machine(line: u64, seed: u64, f: impl FnOnce(&Machine<'_, '_>)) {
    on_a_machine_with(PhysRange::EMPTY, line, seed, f);
}

/// The same with memory that is reserved.
pub(super) fn on_a_machine_with(reserved: PhysRange, line: u64, seed: u64, f: impl FnOnce(&Machine<'_, '_>)) {
    with_reserved(Config::CORTEX_A72, reserved, |space| {
        let free = free_pages(space);
        let range = PhysRange::from_size(PhysAddr::new(RAM), SIZE).unwrap();
        let ram = CachedRam::new(range, CacheConfig { line, seed, events: 2 });
        let dma = Dma::new(Rig {
            caches: Caches {
                ram,
                calls: AtomicU64::new(0),
                left_out: AtomicU64::new(u64::MAX),
                paused: AtomicBool::new(false),
            },
            space,
            reports: Mutex::default(),
            printed: Mutex::default(),
            area: Mutex::default(),
            given: Mutex::default(),
            no_records: AtomicBool::new(false),
            no_uncache: AtomicBool::new(false),
            overwritten: AtomicU64::new(0),
        });
        f(&dma);
        dma.check().unwrap();
        assert_eq!(dma.bounce_stats().used, 0, "no slot is lost");
        dma.trim_reserves();
        assert_eq!(dma.reserved_pages().1, 0, "no coherent memory is lost");
        assert_eq!(dma.hal().caches.ram.violations(), Vec::<String>::new());
        let kept = dma.bounce_stats().slots / 2 + dma.reserved_pages().0;
        // Reserved memory that is lent now counts as free.
        let lent = dma.hal().area.lock().unwrap().map_or(0, |area| u64::from(area.pages()));
        assert_eq!(free_pages(space) + kept, free + lent, "pages are back");
        space.hal().pages.check().unwrap();
    });
}

/// A device that finds all RAM at [`BUS`].
pub(super) fn device(dma: &Machine<'_, '_>, coherent: bool) -> Device {
    let window = DmaWindow { bus: DmaAddr::new(BUS), cpu: ram(dma).range() };
    dma.device(&DeviceSpec::new("nic@0").with_coherent(coherent).with_window(window).unwrap())
}

/// The hardware of such a device, with its mask.
pub(super) fn hardware(dma: &Machine<'_, '_>, device: &Device) -> SimDevice {
    let window = Window { bus: DmaAddr::new(BUS), cpu: ram(dma).range() };
    SimDevice { windows: vec![window], mask: device.mask(), snoops: device.is_coherent() }
}

pub(super) fn ram<'x>(dma: &'x Machine<'_, '_>) -> &'x CachedRam {
    &dma.hal().caches.ram
}

/// Bytes of RAM that the tests use as buffers, never handed out: the last 8 MiB are taken from the allocator at first.
pub(super) struct Buffer {
    pub(super) start: PhysAddr,
    pub(super) size: u64,
}

impl Buffer {
    pub(super) fn addr(&self, dma: &Machine<'_, '_>) -> VirtAddr {
        ram(dma).linear(self.start)
    }

    pub(super) fn fill(&self, dma: &Machine<'_, '_>, value: impl Fn(u64) -> u8) {
        let start = self.addr(dma).as_ptr::<u8>();
        (0..self.size).for_each(|index| raw!(start.wrapping_add(index as usize).write_volatile(value(index))));
    }

    pub(super) fn read(&self, dma: &Machine<'_, '_>) -> Vec<u8> {
        let start = self.addr(dma).as_ptr::<u8>();
        (0..self.size).map(|index| raw!(start.wrapping_add(index as usize).read_volatile())).collect()
    }

    pub(super) fn stir(&self, dma: &Machine<'_, '_>) {
        ram(dma).stir_range(PhysRange::from_size(self.start, self.size).unwrap());
    }

    /// The same, and of the memory that the device accesses for it, which is another where it is bounced.
    pub(super) fn stir_both(&self, dma: &Machine<'_, '_>, bus: DmaAddr) {
        self.stir(dma);
        Self { start: PhysAddr::new(bus.get() - BUS + RAM), size: self.size }.stir(dma);
    }

    pub(super) fn part(&self, from: u64, size: u64) -> Self {
        Self { start: PhysAddr::new(self.start.get() + from), size }
    }
}

/// Pages of the caller's, and a buffer inside.
pub(super) fn with_buffer<R>(
    dma: &Machine<'_, '_>,
    (offset, size): (u64, u64),
    f: impl FnOnce(&Buffer, &Buffer) -> R,
) -> R {
    use quarry::mm::page::PageMap;
    use quarry::mm::zone::PageHal;
    let pages = dma.hal().pages();
    let order = quarry::addr::Order::for_bytes(offset + size + 4096).unwrap();
    let page = pages.alloc_pages(quarry::gfp::Gfp::KERNEL, order).unwrap();
    let whole = Buffer { start: pages.hal().map().phys(page), size: order.bytes() };
    let result = f(&whole, &whole.part(offset, size));
    raw!(pages.free_pages(page, order)).unwrap();
    result
}
