//! One CPU without tables: a range of memory in, pages, `kmalloc` and the allocator of `alloc` out. For firmware, UEFI, other
//! architectures, tests on the host: for any machine whose memory has one address and that has one CPU.
//!
//! ```
//! use quarry::single::{Heap, OneCpu, Pages};
//!
//! static PAGES: Pages = Pages::new(OneCpu::new());
//! static HEAP: Heap = Heap::new(&PAGES);
//!
//! # let memory = Box::leak(vec![0_u64; 1 << 20].into_boxed_slice());
//! # let (memory, size) = (memory.as_mut_ptr().cast::<u8>(), memory.len() * 8);
//! // SAFETY: memory that nobody else uses, and one thread.
//! unsafe { HEAP.start(memory, size) }.unwrap();
//! let block = HEAP.slabs().kmalloc(100, quarry::gfp::Gfp::KERNEL).unwrap();
//! # // SAFETY: allocated above.
//! # unsafe { HEAP.slabs().kfree(block) }.unwrap();
//! ```
//!
//! As the allocator of `alloc` (feature `global-allocator`), `HEAP` is declared with `#[global_allocator]`.
//!
//! Of the memory that it is given it keeps 32 bytes for each page, for whole stretches of 4 MiB. Its statics are 75 KiB, most of
//! them the lists of pages and the arrays of objects of its CPU.

use crate::addr::{CpuId, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, to_usize};
#[cfg(feature = "global-allocator")]
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::cpu::{Interrupts, PerCpu};
#[cfg(feature = "global-allocator")]
use crate::mm::page::PageMap as _;
use crate::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, PageDescriptor, Section, sections_of};
use crate::mm::slab::{
    ArrayHeader, ArrayOffset, CpuSlabs, CreateError, MAX_CACHES, SlabAllocator, SlabHal, SlabOptions,
};
use crate::mm::zone::{CpuPages, FreeError, PageAllocator, PageHal, Pressure, SetupError, WatermarkTuning, ZoneLimits};
use crate::sync::LockHal;
use crate::sync::Once;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;

/// Its page allocator.
pub type Pages = PageAllocator<OneCpu>;
/// Its slab allocator.
pub type Slabs = SlabAllocator<'static, OneCpu>;

/// How it waits for a lock: it never has to.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

impl LockHal for Relax {
    fn relax() {
        core::hint::spin_loop();
    }
}

/// How a CPU masks interrupts, and undoes it.
#[derive(Clone, Copy, Debug)]
pub struct Masking {
    /// Masks them. Returns the previous mask.
    pub save: fn() -> usize,
    /// Restores what `save` returned.
    pub restore: fn(usize),
}

/// A machine of one CPU whose memory is used at one address.
#[derive(Debug)]
pub struct OneCpu {
    local: Local,
    masking: Option<Masking>,
    /// Bits that nobody outside knows.
    seed: u64,
}

/// The data of its CPU.
#[derive(Debug)]
pub struct Local {
    arrays: [ArrayHeader; MAX_CACHES],
    slabs: CpuSlabs,
    pages: CpuPages,
    map: Once<BankMap<'static>, Relax>,
}

impl OneCpu {
    /// A machine without interrupts, or whose handlers allocate nothing.
    #[must_use]
    #[expect(clippy::large_stack_arrays, reason = "constant, for a static")]
    pub const fn new() -> Self {
        let local = Local {
            arrays: [const { ArrayHeader::new() }; MAX_CACHES],
            slabs: CpuSlabs::new(),
            pages: CpuPages::new(),
            map: Once::new(),
        };
        Self { local, masking: None, seed: 0 }
    }

    /// The same with handlers that allocate and free: they are masked meanwhile.
    #[must_use]
    pub const fn with_masking(mut self, masking: Masking) -> Self {
        self.masking = Some(masking);
        self
    }

    /// The same with bits that nobody outside knows, from which the secrets of caches are made.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

impl Default for OneCpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Interrupts for OneCpu {
    type Saved = usize;

    #[inline]
    fn save(&self) -> usize {
        self.masking.map_or(0, |masking| (masking.save)())
    }

    #[inline]
    fn restore(&self, saved: usize) {
        if let Some(masking) = self.masking {
            (masking.restore)(saved);
        }
    }
}

impl PerCpu for OneCpu {
    type Local = Local;

    #[inline]
    fn local(&self) -> &Local {
        &self.local
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local> {
        (cpu == CpuId::BOOT).then_some(&self.local)
    }

    fn cpu(&self) -> CpuId {
        CpuId::BOOT
    }

    fn cpus(&self) -> u32 {
        1
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        cpu == CpuId::BOOT
    }

    fn kick(&self, _: CpuId) {}
}

// There is nothing to reclaim: an allocation that finds no memory says so.
impl Pressure for OneCpu {}

// SAFETY: HAL-1, HAL-2: there is one CPU, and the promise of `Heap::start` says that nothing interrupts it unmasked; HAL-3: the
// map is made once; HAL-4: memory is used where it is; HAL-5 by the body that is there.
unsafe impl PageHal for OneCpu {
    type Map = BankMap<'static>;
    type Relax = Relax;

    #[inline]
    fn map(&self) -> BankMap<'static> {
        Self::local_map(&self.local)
    }

    #[inline]
    fn local_map(local: &Local) -> BankMap<'static> {
        local.map.get().copied().unwrap_or(BankMap::NONE)
    }

    #[inline]
    fn pages(local: &Local) -> &CpuPages {
        &local.pages
    }

    fn may_wait(&self, _: &Local, _: usize) -> bool {
        true
    }

    #[inline]
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(phys.get())
    }

    #[inline]
    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        Some(PhysAddr::new(virt.get()))
    }

    fn zero(&self, internal: Internal, start: PhysAddr, pages: u64) {
        self.fill(internal, start, pages, 0);
    }

    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) {
        // SAFETY: pages that the allocator has taken for its caller.
        unsafe { self.to_virt(start).as_ptr::<u8>().write_bytes(byte, to_usize(pages * PAGE_SIZE)) };
    }

    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let first = self.to_virt(start).as_ptr::<u8>();
        // SAFETY: pages that the allocator has taken for its caller.
        let bytes = unsafe { core::slice::from_raw_parts(first, to_usize(pages * PAGE_SIZE)) };
        let (at, found) = bytes.iter().enumerate().find(|(_, found)| **found != byte)?;
        Some((start.checked_add(at as u64)?, *found))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few words")]
const HEADER: u32 = size_of::<ArrayHeader>() as u32;

// SAFETY: HAL-6: each number has a header of its own; HAL-7: the bodies that are there.
unsafe impl SlabHal for OneCpu {
    const FIRST_ARRAYS: u32 = 0;

    #[inline]
    fn array_offset(number: u16) -> ArrayOffset {
        // SAFETY: ARR-3: the place of a number is where `header` looks for it.
        unsafe { ArrayOffset::at(u32::from(number) * HEADER) }
    }

    #[inline]
    fn header(local: &Local, offset: ArrayOffset) -> &ArrayHeader {
        let [first, ..] = &local.arrays;
        local.arrays.get((offset.distance() / HEADER) as usize).unwrap_or(first)
    }

    #[inline]
    fn slabs(local: &Local) -> &CpuSlabs {
        &local.slabs
    }

    fn entropy(&self) -> u64 {
        self.seed
    }

    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize) {
        // SAFETY: an object that is the allocator's or its caller's.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }
}

/// Reason why there is no heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The memory is too small for the descriptors of its pages and one page more.
    TooSmall(PhysRange),
    /// The page allocator.
    Pages(SetupError),
    /// The slab allocator.
    Slabs(CreateError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall(range) => write!(f, "the memory at {range} is too small for a heap"),
            Self::Pages(error) => error.fmt(f),
            Self::Slabs(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}

/// Everything.
pub struct Heap {
    slabs: Slabs,
    #[cfg(feature = "global-allocator")]
    global: Once<crate::mm::alloc::GlobalHeap<&'static Slabs>, Relax>,
}

impl Heap {
    /// A heap without memory.
    #[must_use]
    pub const fn new(pages: &'static Pages) -> Self {
        Self {
            slabs: Slabs::new(pages),
            #[cfg(feature = "global-allocator")]
            global: Once::new(),
        }
    }

    /// Gives it its memory, once. Partial pages at its ends stay unused.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the heap has no memory then.
    ///
    /// # Safety
    ///
    /// The memory may be read and written for good, and nobody else uses it. From here on one thread, or CPU, calls this heap
    /// at a time; handlers that interrupt it and call it are masked by [`OneCpu::with_masking`].
    pub unsafe fn start(&'static self, memory: *mut u8, size: usize) -> Result<(), StartError> {
        let start = PhysAddr::new(memory.expose_provenance() as u64);
        let given = PhysRange::from_size(start, size as u64).unwrap_or_default();
        let too_small = StartError::TooSmall(given);
        let ram = given.align_inwards(PAGE_SIZE).filter(|range| range.size() >= 2 * PAGE_SIZE).ok_or(too_small)?;
        let (mut sections, origin) = sections_of(core::iter::once(ram));
        let section = sections.next().flatten().ok_or(StartError::Pages(SetupError::SpanTooLarge))?;
        let mut carver = Carver { at: ram.start(), end: ram.end() };
        let pages = to_usize(section.pages().into());
        let records = carver.carve::<(Bank<'static>, Section)>(1).ok_or(too_small)?;
        let descriptors = carver.carve::<PageDescriptor>(pages).ok_or(too_small)?;
        let blocks = carver.carve::<AtomicU8>(pages / PAGEBLOCK_PAGES as usize).ok_or(too_small)?;
        // SAFETY: zeroed memory for that many, with no other owner; zeroes are a valid descriptor.
        let descriptors = unsafe { core::slice::from_raw_parts(descriptors.as_ptr(), pages) };
        // SAFETY: zeroed memory for that many, with no other owner; zero is a valid type.
        let blocks = unsafe { core::slice::from_raw_parts(blocks.as_ptr(), pages / PAGEBLOCK_PAGES as usize) };
        // SAFETY: room for one, aligned, nobody else's.
        unsafe { records.write((Bank { section, descriptors, blocks }, section)) };
        // SAFETY: written by the line above, and not changed any more.
        let (bank, section) = unsafe { records.as_ref() };
        let (bank, section) = (core::slice::from_ref(bank), core::slice::from_ref(section));
        let map = BankMap::new(origin, bank, section)
            .ok_or(StartError::Pages(SetupError::NoDescriptor(Pfn::containing(ram.start()))))?;
        let allocator = self.slabs.pages();
        allocator.hal().local.map.call_once(|| map);
        let free =
            PhysRange::new(carver.at, ram.end()).and_then(|rest| rest.align_inwards(PAGE_SIZE)).ok_or(too_small)?;
        let limits = ZoneLimits::new(ram.start(), None, None);
        allocator
            .do_hand_over(core::iter::once(ram), core::iter::once(free), limits, WatermarkTuning::DEFAULT)
            .map_err(StartError::Pages)?;
        self.slabs.start(SlabOptions::default()).map_err(StartError::Slabs)?;
        #[cfg(feature = "global-allocator")]
        self.global.call_once(|| crate::mm::alloc::GlobalHeap::new(&self.slabs)).hand_over();
        Ok(())
    }

    /// `kmalloc`, caches, and by [`SlabAllocator::pages`] whole pages.
    #[must_use]
    pub const fn slabs(&'static self) -> &'static Slabs {
        &self.slabs
    }

    /// The page at an address that `pages` of this heap gave.
    ///
    /// # Errors
    ///
    /// [`FreeError`] for an address that is no page's.
    pub fn page_at(&self, at: VirtAddr) -> Result<crate::mm::page::Page, FreeError> {
        self.slabs.pages().page_at(at)
    }
}

/// Takes zeroed memory off the start of a range.
struct Carver {
    at: PhysAddr,
    end: PhysAddr,
}

impl Carver {
    /// Room for `count` values, aligned, zero.
    fn carve<T>(&mut self, count: usize) -> Option<NonNull<T>> {
        let start = self.at.align_up(align_of::<T>() as u64)?;
        let end = start.checked_add((count * size_of::<T>()) as u64).filter(|end| *end <= self.end)?;
        self.at = end;
        let place = NonNull::new(VirtAddr::new(start.get()).as_ptr::<T>())?;
        // SAFETY: inside the memory that `Heap::start` was given, without an owner yet.
        unsafe { place.write_bytes(0, count) };
        Some(place)
    }
}

/// A heap without memory. It is copied from here, since it is too large for many stacks.
static BLANK: Pages = Pages::new(OneCpu::new());

impl Heap {
    /// A heap that lies inside its own memory, for callers without a static.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Safety
    ///
    /// As for [`Heap::start`].
    pub unsafe fn place(memory: *mut u8, size: usize, seed: u64) -> Result<&'static Self, StartError> {
        let start = PhysAddr::new(memory.expose_provenance() as u64);
        let given = PhysRange::from_size(start, size as u64).unwrap_or_default();
        let too_small = StartError::TooSmall(given);
        let mut carver = Carver { at: given.start(), end: given.end() };
        let pages = carver.carve::<Pages>(1).ok_or(too_small)?;
        let heap = carver.carve::<Self>(1).ok_or(too_small)?;
        // SAFETY: room for one, aligned, nobody else's; the blank one has nothing that a copy would share, as it is never started.
        unsafe { pages.copy_from_nonoverlapping(NonNull::from(&BLANK), 1) };
        // SAFETY: the place that was just written, to which this is the only pointer.
        let pages = unsafe { &mut *pages.as_ptr() };
        pages.hal_mut().seed = seed;
        // SAFETY: room for one, aligned, nobody else's.
        unsafe { heap.write(Self::new(pages)) };
        // SAFETY: written by the line above, and there for good.
        let heap = unsafe { &*heap.as_ptr() };
        let rest = to_usize(given.end().get() - carver.at.get());
        // SAFETY: this function's `# Safety` is that of `start`, for the rest of the memory.
        unsafe { heap.start(VirtAddr::new(carver.at.get()).as_ptr(), rest) }?;
        Ok(heap)
    }
}

/// Pages of a block that is larger than `kmalloc`'s largest, and what their number is a multiple of; `None` for others.
#[cfg(feature = "global-allocator")]
fn large(layout: core::alloc::Layout) -> Option<(u32, u32)> {
    let page = to_usize(PAGE_SIZE);
    let pages = |bytes: usize| u32::try_from(bytes.div_ceil(page)).ok();
    let is_large = layout.size() > crate::mm::slab::KMALLOC_MAX_SIZE;
    pages(layout.size()).zip(pages(layout.align())).filter(|_| is_large)
}

#[cfg(feature = "global-allocator")]
impl Heap {
    /// A block of contiguous pages, each for itself.
    fn get_large(&self, pages: u32, align: u32, gfp: Gfp) -> Option<NonNull<u8>> {
        let allocator = self.slabs.pages();
        let first = allocator.alloc_contig_pages(pages, align, gfp).ok()?;
        NonNull::new(allocator.hal().to_virt(allocator.hal().map().phys(first)).as_ptr())
    }

    /// Gives it back.
    fn give_large(&self, block: *mut u8, pages: u32) {
        let at = VirtAddr::new(block.expose_provenance() as u64);
        let freed = self.page_at(at).and_then(|first| self.slabs.pages().do_free_contig_range(first, pages));
        if let Err(error) = freed {
            log::error!("dealloc({at}): {error}");
        }
    }
}

// SAFETY: as `GlobalHeap`, and blocks of contiguous pages are nobody else's; before memory is added there is no block.
#[cfg(feature = "global-allocator")]
unsafe impl core::alloc::GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: core::alloc::Layout) -> *mut u8 {
        if let Some((pages, align)) = large(layout) {
            return self.get_large(pages, align, Gfp::KERNEL).map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        // SAFETY: `GlobalAlloc::alloc`: the size is not zero.
        self.global.get().map_or(core::ptr::null_mut(), |heap| unsafe { heap.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: core::alloc::Layout) -> *mut u8 {
        if let Some((pages, align)) = large(layout) {
            let block = self.get_large(pages, align, Gfp::KERNEL | Gfp::ZERO);
            return block.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        // SAFETY: `GlobalAlloc::alloc_zeroed`: the size is not zero.
        self.global.get().map_or(core::ptr::null_mut(), |heap| unsafe { heap.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: core::alloc::Layout) {
        if let Some((pages, _)) = large(layout) {
            return self.give_large(block, pages);
        }
        if let Some(heap) = self.global.get() {
            // SAFETY: `GlobalAlloc::dealloc`: the block came from here with this layout, and nobody uses it afterwards.
            unsafe { heap.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, old: core::alloc::Layout, size: usize) -> *mut u8 {
        let Ok(new) = core::alloc::Layout::from_size_align(size, old.align()) else { return core::ptr::null_mut() };
        if large(old).is_none() && large(new).is_none() {
            // SAFETY: `GlobalAlloc::realloc`: the block came from here with the layout `old`, and `size` is not zero.
            return self.global.get().map_or(core::ptr::null_mut(), |heap| unsafe { heap.realloc(block, old, size) });
        }
        // SAFETY: `GlobalAlloc::realloc`: `size` is not zero.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both have that many bytes, and are distinct.
            unsafe { moved.copy_from_nonoverlapping(block, old.size().min(size)) };
            // SAFETY: `GlobalAlloc::realloc`: the block came from here with the layout `old`, and nobody uses it after the move.
            unsafe { self.dealloc(block, old) };
        }
        moved
    }
}
