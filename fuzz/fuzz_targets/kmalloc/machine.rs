//! A machine of two CPUs that one thread plays, with 64 MiB of real memory; made once, and used by every input.

use quarry::addr::{CpuId, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, PageDescriptor, Section};
use quarry::mm::slab::{ArrayHeader, ArrayOffset, CpuSlabs, MAX_CACHES, Misuse, SlabAllocator, SlabHal, SlabOptions};
use quarry::mm::zone::{CpuPages, PageAllocator, PageHal, Pressure, WatermarkTuning, ZoneLimits};
use std::alloc::{Layout, alloc_zeroed};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Bytes of memory, and where they begin.
pub const SIZE: u64 = 64 << 20;
pub const BASE: u64 = 1 << 30;

static CPU: AtomicU32 = AtomicU32::new(0);
static INPUTS: AtomicU64 = AtomicU64::new(0);
static SLABS: LazyLock<SlabAllocator<'static, Machine>> = LazyLock::new(make);

pub fn slabs() -> &'static SlabAllocator<'static, Machine> {
    &SLABS
}

/// Lets the thread play another CPU.
pub fn run_on(cpu: u32) {
    CPU.store(cpu, Ordering::Relaxed);
}

/// Every invariant, and now and then that all memory comes back.
pub fn check(slabs: &SlabAllocator<'static, Machine>) {
    if INPUTS.fetch_add(1, Ordering::Relaxed) % 64 != 0 {
        return;
    }
    slabs.check().unwrap_or_else(|broken| panic!("{broken}"));
    slabs.pages().check().unwrap_or_else(|broken| panic!("{broken}"));
    slabs.shrink_all();
    slabs.pages().drain_all();
    let machine = slabs.hal();
    // CPUs exchange the memory of their arrays: there is as much of it as before, but it may be in other slabs.
    let pages = slabs.pages().free_page_count() + slabs.pages_in_slabs();
    let before = machine.pages.swap(pages, Ordering::Relaxed);
    assert!(before == 0 || before == pages, "{before} pages were free or in slabs, now {pages}");
    let mut objects = 0;
    slabs.for_each(|cache| objects += slabs.info(cache).active_objects).unwrap();
    let before = machine.objects.swap(objects, Ordering::Relaxed);
    assert!(before == 0 || before == objects, "{before} objects were in use, now {objects}");
}

pub struct Machine {
    map: BankMap<'static>,
    locals: [Local; 2],
    arena: u64,
    /// What the last check found: pages that are free or in slabs, objects in use.
    pages: AtomicU64,
    objects: AtomicU64,
}

pub struct Local {
    arrays: [ArrayHeader; MAX_CACHES],
    slabs: CpuSlabs,
    pages: CpuPages,
    map: BankMap<'static>,
}

fn make() -> SlabAllocator<'static, Machine> {
    let pages = usize::try_from(SIZE / PAGE_SIZE).expect("a few");
    let layout = Layout::from_size_align(SIZE as usize, 4 << 20).expect("a layout");
    // SAFETY: not empty.
    let arena = unsafe { alloc_zeroed(layout) };
    assert!(!arena.is_null());
    let descriptors: Vec<_> = (0..pages).map(|_| PageDescriptor::default()).collect();
    let blocks: Vec<_> = (0..pages / PAGEBLOCK_PAGES as usize).map(|_| AtomicU8::new(0)).collect();
    let section = Section { first: 0, end: pages as u32 };
    let sections = Vec::leak(vec![section]);
    let banks = Vec::leak(vec![Bank { section, descriptors: descriptors.leak(), blocks: blocks.leak() }]);
    let map = BankMap::new(Pfn::containing(PhysAddr::new(BASE)), banks, sections).expect("a map");
    let local = || Local {
        arrays: [const { ArrayHeader::new() }; MAX_CACHES],
        slabs: CpuSlabs::new(),
        pages: CpuPages::new(),
        map,
    };
    let machine = Machine {
        map,
        locals: [local(), local()],
        arena: arena.expose_provenance() as u64,
        pages: AtomicU64::new(0),
        objects: AtomicU64::new(0),
    };
    let allocator = Box::leak(Box::new(PageAllocator::new(machine)));
    let ram = PhysRange::from_size(PhysAddr::new(BASE), SIZE).expect("a range");
    let limits = ZoneLimits::new(ram.start(), None, None);
    let once = std::iter::once(ram);
    // SAFETY: the arena, which nobody else has.
    unsafe { allocator.hand_over(once.clone(), once, limits, WatermarkTuning::DEFAULT) }.expect("zones");
    let slabs = SlabAllocator::new(allocator);
    slabs.start(SlabOptions::default()).expect("caches");
    slabs
}

impl Interrupts for Machine {
    type Saved = ();

    fn save(&self) {}

    fn restore(&self, (): ()) {}
}

impl PerCpu for Machine {
    type Local = Local;

    fn local(&self) -> &Local {
        &self.locals[CPU.load(Ordering::Relaxed) as usize]
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local> {
        self.locals.get(cpu.get() as usize)
    }

    fn cpu(&self) -> CpuId {
        CpuId::new(CPU.load(Ordering::Relaxed))
    }

    fn cpus(&self) -> u32 {
        2
    }

    // The other one is at rest whenever it is looked at.
    fn is_online(&self, cpu: CpuId) -> bool {
        cpu == self.cpu()
    }

    fn kick(&self, _: CpuId) {}
}

impl Pressure for Machine {}

// SAFETY: one thread runs, whichever CPU it plays; memory is in the arena, there for good.
unsafe impl PageHal for Machine {
    type Map = BankMap<'static>;
    type Relax = quarry::arch::host::Spin;

    fn map(&self) -> BankMap<'static> {
        self.map
    }

    fn local_map(local: &Local) -> BankMap<'static> {
        local.map
    }

    fn pages(local: &Local) -> &CpuPages {
        &local.pages
    }

    fn may_wait(&self, _: &Local, (): ()) -> bool {
        true
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(self.arena + (phys.get() - BASE))
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        let offset = virt.get().checked_sub(self.arena).filter(|offset| *offset < SIZE)?;
        Some(PhysAddr::new(BASE + offset))
    }

    fn zero(&self, internal: Internal, start: PhysAddr, pages: u64) {
        self.fill(internal, start, pages, 0);
    }

    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) {
        let at = self.to_virt(start).as_ptr::<u8>();
        // SAFETY: pages that the allocator has taken for its caller.
        unsafe { at.write_bytes(byte, (pages * PAGE_SIZE) as usize) };
    }

    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let at = self.to_virt(start).as_ptr::<u8>();
        // SAFETY: pages that the allocator has taken for its caller.
        let bytes = unsafe { std::slice::from_raw_parts(at, (pages * PAGE_SIZE) as usize) };
        let (at, found) = bytes.iter().enumerate().find(|(_, found)| **found != byte)?;
        Some((PhysAddr::new(start.get() + at as u64), *found))
    }
}

// SAFETY: each number has a header of its own in the data of each CPU.
unsafe impl SlabHal for Machine {
    const FIRST_ARRAYS: u32 = 0;

    fn array_offset(number: u16) -> ArrayOffset {
        // SAFETY: the data of each CPU begin with the headers of all numbers.
        unsafe { ArrayOffset::at(u32::from(number) * size_of::<ArrayHeader>() as u32) }
    }

    fn header(local: &Local, offset: ArrayOffset) -> &ArrayHeader {
        &local.arrays[offset.distance() as usize / size_of::<ArrayHeader>()]
    }

    fn slabs(local: &Local) -> &CpuSlabs {
        &local.slabs
    }

    // The same for every run, so that a crash can be run again.
    fn entropy(&self) -> u64 {
        0
    }

    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize) {
        // SAFETY: an object that is the allocator's or its caller's.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }

    fn misuse(&self, misuse: &Misuse) {
        panic!("{misuse}");
    }
}
