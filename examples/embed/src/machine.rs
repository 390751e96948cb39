//! What this kernel tells Quarry's allocators of its machine: one CPU, interrupts always masked, memory at its physical
//! address. The allocators are statics here, where their generics end.

use crate::Identity;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use quarry::addr::{CpuId, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::aarch64::cpu::Relax;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::mm::alloc::GlobalHeap;
use quarry::mm::memblock::{Memblock, Window};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, PageDescriptor, Section, sections_of};
use quarry::mm::slab::{ArrayHeader, CpuSlabs, MAX_CACHES, SlabAllocator, SlabHal, SlabOptions, Slot};
use quarry::mm::zone::{CpuPages, PageAllocator, PageHal, Pressure, WatermarkTuning, ZoneLimits};

/// The slab allocator of this machine.
pub type Slabs = SlabAllocator<'static, Machine>;
/// Blocks of pages.
static PAGES: PageAllocator<Machine> = PageAllocator::new(Machine);
/// Small objects.
pub static SLABS: Slabs = Slabs::new(&PAGES);
/// Behind the crate `alloc`.
#[global_allocator]
static HEAP: GlobalHeap<&Slabs> = GlobalHeap::new(&SLABS);
/// The CPU's own data, once there is memory for them.
static LOCAL: AtomicPtr<Local> = AtomicPtr::new(ptr::null_mut());

pub struct Machine;

pub struct Local {
    arrays: [ArrayHeader; MAX_CACHES],
    slabs: CpuSlabs,
    pages: CpuPages,
    map: BankMap<'static>,
}

/// Free pages.
pub fn free_pages() -> u64 {
    SLABS.shrink_all();
    PAGES.drain_all();
    PAGES.free_page_count()
}

/// Room for `count` values, zeroed, for good.
fn place<T>(memblock: &mut Memblock<'static, Identity>, count: usize) -> NonNull<T> {
    let bytes = (count * size_of::<T>()) as u64;
    let range = memblock.alloc(bytes.next_multiple_of(PAGE_SIZE), PAGE_SIZE, Window::ANYWHERE).unwrap();
    NonNull::new(range.start().get() as *mut T).unwrap()
}

/// Gives the memory that is left to the page allocator, and starts the slab allocator on it.
pub fn start(memblock: &mut Memblock<'static, Identity>, ram: PhysRange) {
    let (mut sections, origin) = sections_of(core::iter::once(ram));
    let section = sections.next().flatten().unwrap();
    let pages = section.pages() as usize;
    let types = pages / PAGEBLOCK_PAGES as usize;
    let descriptors = place::<PageDescriptor>(memblock, pages);
    let blocks = place::<AtomicU8>(memblock, types);
    let sections = place::<Section>(memblock, 1);
    let banks = place::<Bank<'static>>(memblock, 1);
    let local = place::<Local>(memblock, 1);
    // SAFETY: zeroed memory for as many of each, which nobody else has; descriptors and types may be zero, and the others
    // are written before they are read.
    let map = unsafe {
        let descriptors = core::slice::from_raw_parts(descriptors.as_ptr(), pages);
        let blocks = core::slice::from_raw_parts(blocks.as_ptr(), types);
        sections.write(section);
        banks.write(Bank { section, descriptors, blocks });
        BankMap::new(origin, core::slice::from_ref(banks.as_ref()), core::slice::from_ref(sections.as_ref())).unwrap()
    };
    // SAFETY: as above. Zeroes are arrays and lists without anything; only the map is none yet.
    unsafe { (&raw mut (*local.as_ptr()).map).write(map) };
    LOCAL.store(local.as_ptr(), Ordering::Relaxed);

    let limits = ZoneLimits::new(ram.start(), None, None);
    let free = memblock.retire().unwrap();
    // SAFETY: what the memblock has free, mapped where it is.
    unsafe { PAGES.hand_over(core::iter::once(ram), free, limits, WatermarkTuning::DEFAULT) }.unwrap();
    SLABS.start(SlabOptions::default()).unwrap();
    HEAP.hand_over();
}

impl Interrupts for Machine {
    type Saved = ();

    fn save(&self) {}

    fn restore(&self, (): ()) {}
}

impl PerCpu for Machine {
    type Local = Local;

    fn local(&self) -> &Local {
        // SAFETY: `start` stores it before the first use, and it is there for good.
        unsafe { &*LOCAL.load(Ordering::Relaxed) }
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local> {
        (cpu == CpuId::BOOT).then(|| self.local())
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

// There is nothing to reclaim: who finds no memory is told so.
impl Pressure for Machine {}

// SAFETY: one CPU, interrupts always masked; the descriptors are those of all RAM, which is mapped where it is, for
// good.
unsafe impl PageHal for Machine {
    type Map = BankMap<'static>;
    type Relax = Relax;

    fn map(&self) -> BankMap<'static> {
        self.local().map
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
        VirtAddr::new(phys.get())
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        Some(PhysAddr::new(virt.get()))
    }

    fn zero(&self, start: PhysAddr, pages: u64) {
        self.fill(start, pages, 0);
    }

    fn fill(&self, start: PhysAddr, pages: u64, byte: u8) {
        // SAFETY: pages that the allocator has taken for its caller.
        unsafe { (start.get() as *mut u8).write_bytes(byte, (pages * PAGE_SIZE) as usize) };
    }

    fn find_other(&self, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        // SAFETY: as above.
        let bytes = unsafe { core::slice::from_raw_parts(start.get() as *const u8, (pages * PAGE_SIZE) as usize) };
        let at = bytes.iter().position(|found| *found != byte)?;
        Some((PhysAddr::new(start.get() + at as u64), bytes[at]))
    }
}

// SAFETY: as above; each number has a header of its own in the data of each CPU.
unsafe impl SlabHal for Machine {
    const FIRST_ARRAYS: u32 = 0;

    fn slot(number: u16) -> Slot {
        // SAFETY: the data of each CPU begin with the headers of all numbers.
        unsafe { Slot::at(u32::from(number) * size_of::<ArrayHeader>() as u32) }
    }

    fn header(local: &Local, slot: Slot) -> &ArrayHeader {
        &local.arrays[slot.distance() as usize / size_of::<ArrayHeader>()]
    }

    fn slabs(local: &Local) -> &CpuSlabs {
        &local.slabs
    }

    /// Nothing: a kernel that cares has a seed from its loader.
    fn entropy(&self) -> u64 {
        0
    }

    fn zero_object(&self, object: VirtAddr, bytes: usize) {
        // SAFETY: an object that is the allocator's or its caller's.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }
}
