//! Host only: this kernel's slab allocator on a machine whose CPUs are threads. It has memory of its own, for good, as a
//! kernel has; a new heap is the same one, with empty caches.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::{self, NonNull};
use quarry::addr::{CpuId, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, PageDescriptor, Section};
use quarry::mm::slab::{ArrayHeader, ArrayOffset, CpuSlabs, MAX_CACHES, SlabAllocator, SlabHal, SlabOptions};
use quarry::mm::zone::{CpuPages, PageAllocator, PageHal, Pressure, WatermarkTuning, ZoneLimits};
use std::sync::atomic::AtomicU8;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of memory.
const SIZE: usize = 64 << 20;
/// Threads at a time: two that run, and two that are not quite gone.
const CPUS: u32 = 4;
#[expect(clippy::cast_possible_truncation, reason = "a few words")]
const HEADER: u32 = size_of::<ArrayHeader>() as u32;

/// Data of a thread while it plays a CPU, in cache lines of its own.
#[repr(align(128))]
struct Local {
    arrays: [ArrayHeader; MAX_CACHES],
    slabs: CpuSlabs,
    pages: CpuPages,
    map: BankMap<'static>,
    cpu: u32,
}

/// A machine whose memory is at the same addresses, physical and virtual. Nothing interrupts a thread to do something
/// else on its CPU.
struct Machine {
    locals: [Local; CPUS as usize],
    /// Which CPUs are threads.
    online: Mutex<[bool; CPUS as usize]>,
}

type Slabs = SlabAllocator<'static, Machine>;

/// This thread's place, given up when the thread ends.
struct Place(u32);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(online) = slabs().hal().online().get_mut(self.0 as usize) {
            *online = false;
        }
    }
}

thread_local! {
    /// The thread's data as a CPU, or null.
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

/// The allocator, made by its first user.
fn slabs() -> &'static Slabs {
    static SLABS: OnceLock<Slabs> = OnceLock::new();
    SLABS.get_or_init(|| make().unwrap_or_else(|| panic!("no memory for a machine")))
}

#[expect(clippy::large_stack_arrays, reason = "once, before anything is measured")]
fn make() -> Option<Slabs> {
    let layout = Layout::from_size_align(SIZE, 4 << 20).ok()?;
    // SAFETY: the layout is not empty.
    let arena = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
    let start = PhysAddr::new(arena.as_ptr().expose_provenance() as u64);
    let pages = SIZE / usize::try_from(PAGE_SIZE).ok()?;
    let section = Section { first: 0, end: u32::try_from(pages).ok()? };
    let descriptors: Vec<_> = (0..pages).map(|_| PageDescriptor::default()).collect();
    let blocks: Vec<_> = (0..pages / PAGEBLOCK_PAGES as usize).map(|_| AtomicU8::new(0)).collect();
    let banks = Vec::leak(vec![Bank { section, descriptors: descriptors.leak(), blocks: blocks.leak() }]);
    let map = BankMap::new(Pfn::containing(start), banks, Vec::leak(vec![section]))?;
    let local = |cpu| Local {
        arrays: [const { ArrayHeader::new() }; MAX_CACHES],
        slabs: CpuSlabs::new(),
        pages: CpuPages::new(),
        map,
        cpu,
    };
    let machine = Machine { locals: [local(0), local(1), local(2), local(3)], online: Mutex::default() };
    let allocator = Box::leak(Box::new(PageAllocator::new(machine)));
    // The thread that makes it is the first CPU.
    allocator.hal().join();
    let ram = PhysRange::from_size(start, SIZE as u64)?;
    let limits = ZoneLimits::new(start, None, None);
    let once = std::iter::once(ram);
    // SAFETY: memory that was mapped for this, and that nobody else has.
    unsafe { allocator.hand_over(once.clone(), once, limits, WatermarkTuning::DEFAULT) }.ok()?;
    let slabs = SlabAllocator::new(allocator);
    slabs.start(SlabOptions::default()).ok()?;
    Some(slabs)
}

impl Machine {
    fn online(&self) -> MutexGuard<'_, [bool; CPUS as usize]> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this thread a CPU.
    #[cold]
    fn join(&self) -> &Local {
        let mut online = self.online();
        let free = online.iter_mut().zip(&self.locals).find(|(online, _)| !**online);
        let Some((taken, local)) = free else { panic!("more threads than CPUs") };
        *taken = true;
        LOCAL.set(local);
        PLACE.set(Some(Place(local.cpu)));
        local
    }
}

impl Interrupts for Machine {
    type Saved = ();

    #[inline(always)]
    fn save(&self) {}

    #[inline(always)]
    fn restore(&self, (): ()) {}
}

impl PerCpu for Machine {
    type Local = Local;

    #[inline(always)]
    fn local(&self) -> &Local {
        // SAFETY: null, or a place of this machine, which is there for good.
        unsafe { LOCAL.get().as_ref() }.unwrap_or_else(|| self.join())
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local> {
        self.locals.get(cpu.get() as usize)
    }

    fn cpu(&self) -> CpuId {
        CpuId::new(self.local().cpu)
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        self.online().get(cpu.get() as usize).is_some_and(|online| *online)
    }

    fn while_offline(&self, cpu: CpuId, work: &mut dyn FnMut()) -> bool {
        let online = self.online();
        let offline = online.get(cpu.get() as usize).is_some_and(|online| !online);
        if offline {
            work();
        }
        drop(online);
        offline
    }

    // A thread answers when it comes by.
    fn kick(&self, _: CpuId) {}
}

impl Pressure for Machine {}

// SAFETY: one thread is one CPU here: its number and its data are its own; memory is at its own address.
unsafe impl PageHal for Machine {
    type Map = BankMap<'static>;
    type Relax = quarry::arch::host::Spin;

    #[inline(always)]
    fn map(&self) -> BankMap<'static> {
        self.local().map
    }

    #[inline(always)]
    fn local_map(local: &Local) -> BankMap<'static> {
        local.map
    }

    #[inline(always)]
    fn pages(local: &Local) -> &CpuPages {
        &local.pages
    }

    #[inline(always)]
    fn may_wait(&self, _: &Local, (): ()) -> bool {
        true
    }

    #[inline(always)]
    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(phys.get())
    }

    #[inline(always)]
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
        let at = self.to_virt(start).as_ptr::<u8>();
        // SAFETY: pages that the allocator has taken for its caller.
        let bytes = unsafe { std::slice::from_raw_parts(at, to_usize(pages * PAGE_SIZE)) };
        let (at, found) = bytes.iter().enumerate().find(|(_, found)| **found != byte)?;
        Some((PhysAddr::new(start.get() + at as u64), *found))
    }
}

// SAFETY: one thread is one CPU here; each number has a header of its own in the data of each CPU.
unsafe impl SlabHal for Machine {
    const FIRST_ARRAYS: u32 = 0;

    #[inline(always)]
    fn array_offset(number: u16) -> ArrayOffset {
        // SAFETY: the data of each CPU begin with the headers of all numbers.
        unsafe { ArrayOffset::at(u32::from(number) * HEADER) }
    }

    #[inline(always)]
    fn header(local: &Local, offset: ArrayOffset) -> &ArrayHeader {
        let [first, ..] = &local.arrays;
        local.arrays.get((offset.distance() / HEADER) as usize).unwrap_or(first)
    }

    #[inline(always)]
    fn slabs(local: &Local) -> &CpuSlabs {
        &local.slabs
    }

    /// The standard library's own.
    fn entropy(&self) -> u64 {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one(0)
    }

    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize) {
        // SAFETY: an object that is the allocator's or its caller's.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }
}

/// `kmalloc`. Each clone is another way to the same heap.
#[derive(Clone)]
pub(crate) struct Kmalloc;

impl Heap for Kmalloc {
    const NAME: &'static str = concat!("quarry ", env!("CARGO_PKG_VERSION"));

    fn new(_: Memory) -> Result<Self, Unable> {
        slabs().shrink_all();
        slabs().pages().drain_all();
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        NonNull::new(slabs().kmalloc(layout.size(), Gfp::KERNEL).ok()?.as_ptr())
    }

    #[inline(always)]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, _: Layout) {
        let at = VirtAddr::new(block.as_ptr().expose_provenance() as u64);
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        let freed = unsafe { slabs().kfree(at) };
        assert!(freed.is_ok(), "a block is freed once");
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        NonNull::new(slabs().kmalloc(layout.size(), Gfp::KERNEL | Gfp::ZERO).ok()?.as_ptr())
    }

    /// It has memory of its own.
    fn taken(&self) -> Option<usize> {
        Some(0)
    }
}
