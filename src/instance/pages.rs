//! The machine's page allocator, and Linux's names for it as free functions.
//!
//! All functions may be called in any context unless they say otherwise; those that allocate wait only with
//! [`Gfp::DIRECT_RECLAIM`].

use super::slab::{FirstArrays, OtherArrays};
use super::stack::{KeptStacks, drain_stacks};
use super::{faults, slab_fast};
use crate::addr::{CpuId, Order, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS, Relax};
use crate::arch::aarch64::irq::{self, IrqFlags};
use crate::arch::aarch64::mem;
use crate::gfp::{Gfp, ZoneType};
use crate::hal::cpu::{Interrupts, PerCpu};
use crate::hal::frame::{FrameSource, NoFrame};
use crate::mm::fault_inject::FaultSite;
use crate::mm::layout::{self, PAGE_OFFSET};
use crate::mm::page::{Kind, Page, PageMap, Vmemmap};
use crate::mm::slab::{ArrayHeader, CpuSlabs};
use crate::mm::zone::{AllocError, ContigError, CpuPages, FreeError, PageAllocator, PageBatch, PageHal};
use crate::sync::Scopes;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use spin::mutex::SpinMutex;
use spin::once::Once;

// An OR adds where the offset and the addresses share no bit.
const _: () = assert!(PAGE_OFFSET & (layout::LINEAR_MAP_SIZE - 1) == 0);

/// What a CPU of this kernel is inside of. FIQ is masked for good in this kernel, so that its bit is in every saved mask.
pub(super) type KernelScopes = Scopes<{ IrqFlags::MASKED }, { IrqFlags::FIQ_MASKED }>;

/// What each CPU has of its own. All-zero is a valid value: a CPU that has no pages and may wait.
#[derive(Debug)]
#[repr(C)]
pub struct CpuLocal {
    /// First: two words that one instruction loads.
    pub(super) slab: CpuSlabs,
    /// The arrays of the first caches, those of `kmalloc` without special flags.
    pub(super) first_arrays: FirstArrays,
    /// Here, so that the lists of single pages lie at small offsets from the address in the register.
    pages: CpuPages,
    map: Vmemmap,
    /// What this CPU is inside of.
    pub(super) scopes: KernelScopes,
    /// The arrays of all others.
    pub(super) arrays: OtherArrays,
    /// Stacks for the next threads.
    pub(super) stacks: KeptStacks,
    /// When the wait for another CPU began that is under way.
    waiting_since: AtomicU64,
    /// Whether it sleeps.
    asleep: AtomicBool,
}

impl CpuLocal {
    #[expect(clippy::large_stack_arrays, reason = "constant, for a static")]
    const fn new() -> Self {
        Self {
            slab: CpuSlabs::new(),
            first_arrays: [const { ArrayHeader::new() }; _],
            pages: CpuPages::new(),
            map: Vmemmap::NONE,
            scopes: Scopes::new(),
            arrays: [const { ArrayHeader::new() }; _],
            stacks: KeptStacks::new(),
            waiting_since: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
        }
    }
}

/// What a CPU has until it is given something better.
static NOTHING: CpuLocal = CpuLocal::new();

/// The data of each CPU, or null.
///
/// - `LOCAL-1`: a pointer that is not null leads to a [`CpuLocal`] that is there for good.
static LOCALS: [AtomicPtr<CpuLocal>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
/// One past the highest CPU number that has data.
static CPUS: AtomicU32 = AtomicU32::new(0);

/// This machine, as the page allocator sees it.
#[derive(Clone, Copy, Debug)]
pub struct KernelPages(pub(super) ());

impl Interrupts for KernelPages {
    type Saved = IrqFlags;

    #[inline(always)]
    fn save(&self) -> IrqFlags {
        irq::local_irq_save_flags()
    }

    #[inline(always)]
    fn restore(&self, saved: IrqFlags) {
        irq::local_irq_restore_flags(saved);
    }
}

impl PerCpu for KernelPages {
    type Local = CpuLocal;

    #[inline(always)]
    fn local(&self) -> &CpuLocal {
        let local = cpu::local().as_ptr::<CpuLocal>();
        // SAFETY: `start_cpu` or `give_cpu` has put a pointer there that is good for ever (LOCAL-1).
        unsafe { &*local }
    }

    fn local_of(&self, cpu: CpuId) -> Option<&CpuLocal> {
        let local = LOCALS.get(to_usize(u64::from(cpu.get())))?.load(Ordering::Acquire);
        // SAFETY: LOCAL-1.
        (!local.is_null()).then(|| unsafe { &*local })
    }

    fn cpu(&self) -> CpuId {
        cpu::current()
    }

    fn cpus(&self) -> u32 {
        CPUS.load(Ordering::Relaxed)
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        // Acquire pairs with the release in `set_online`: what the CPU did to its data before it went is there.
        ONLINE.get(to_usize(u64::from(cpu.get()))).is_some_and(|online| online.load(Ordering::Acquire))
    }

    fn while_offline(&self, cpu: CpuId, work: &mut dyn FnMut()) -> bool {
        let saved = self.save();
        let coming_and_going = COMING_AND_GOING.lock();
        let offline = !self.is_online(cpu);
        if offline {
            work();
        }
        drop(coming_and_going);
        self.restore(saved);
        offline
    }

    fn kick(&self, cpu: CpuId) {
        if let Some(hooks) = CPU_HOOKS.get() {
            (hooks.kick)(cpu);
        }
    }

    fn waiting_for(&self, cpu: CpuId, step: u64) {
        let Some(hooks) = CPU_HOOKS.get() else { return };
        let since = &self.local().waiting_since;
        if step == 0 {
            since.store((hooks.now)(), Ordering::Relaxed);
        } else if (hooks.now)().wrapping_sub(since.load(Ordering::Relaxed)) > (hooks.patience)() {
            since.store((hooks.now)(), Ordering::Relaxed);
            (hooks.no_answer)(cpu);
        }
    }
}

/// Which CPUs run the kernel.
static ONLINE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
/// Held while a CPU comes or goes, and while somebody uses the data of one that is away; interrupts masked.
static COMING_AND_GOING: SpinMutex<(), Relax> = SpinMutex::new(());
static CPU_HOOKS: Once<&'static CpuHooks, Relax> = Once::new();

/// How the kernel around the allocators reaches its CPUs.
#[derive(Clone, Copy, Debug)]
pub struct CpuHooks {
    /// Makes a CPU call [`answer_requests`] soon: by an interrupt. Any context.
    pub kick: fn(CpuId),
    /// The ticks of a clock. Any context.
    pub now: fn() -> u64,
    /// How many of them another CPU may take for an answer before it is reported.
    pub patience: fn() -> u64,
    /// Reports that a CPU does not answer; the wait goes on, as its lists are still its own.
    pub no_answer: fn(CpuId),
    /// Wakes a CPU that has nothing to do, if there is one: there is work in the background. Any context.
    pub rouse: fn(),
}

/// Registers the kernel's hooks, before a second CPU runs. The first call counts.
pub fn set_cpu_hooks(hooks: &'static CpuHooks) {
    CPU_HOOKS.call_once(|| hooks);
}

/// Does what other CPUs have asked of this one: what [`CpuHooks::kick`] makes a CPU do. Any context.
pub fn answer_requests() {
    PAGES.answer_requests();
    super::slab_allocator().answer_requests();
}

/// Whether a CPU runs the kernel. Any context.
#[must_use]
pub fn is_online(cpu: CpuId) -> bool {
    PAGES.hal().is_online(cpu)
}

/// The CPUs that run the kernel, this one among them. Any context.
pub fn online_cpus() -> impl Iterator<Item = CpuId> {
    (0..PAGES.hal().cpus()).map(CpuId::new).filter(|cpu| is_online(*cpu))
}

/// Runs `sleep`, in which this CPU sleeps until something happens: meanwhile it counts as one that frees no memory.
pub fn asleep(sleep: impl FnOnce()) {
    let asleep = &PAGES.hal().local().asleep;
    asleep.store(true, Ordering::SeqCst);
    // Whoever waits for memory looks whether somebody is left who could free some.
    cpu::send_event();
    sleep();
    asleep.store(false, Ordering::SeqCst);
}

/// Whether another CPU is awake, which may free memory.
pub(super) fn others_are_awake() -> bool {
    let here = cpu::current();
    let others = online_cpus().filter(|cpu| *cpu != here).filter_map(|cpu| PAGES.hal().local_of(cpu));
    others.into_iter().any(|local| !local.asleep.load(Ordering::SeqCst))
}

/// The background has work to do.
pub(super) fn rouse() {
    if let Some(hooks) = CPU_HOOKS.get() {
        (hooks.rouse)();
    }
}

/// The CPUs that may run the kernel: those that have data (Linux: `for_each_possible_cpu`). Any context.
pub fn possible_cpus() -> impl Iterator<Item = CpuId> {
    (0..PAGES.hal().cpus()).map(CpuId::new).filter(|cpu| PAGES.hal().local_of(*cpu).is_some())
}

/// This CPU, which has data since [`give_cpu`], uses them from here on, and takes part: whoever wants pages or objects from
/// it asks it. Whether it has data. On a CPU that starts, interrupts masked, before it allocates anything; the next thing that
/// it does is [`answer_requests`].
pub fn bring_cpu_online() -> bool {
    let cpu = cpu::current();
    let Some(local) = PAGES.hal().local_of(cpu) else { return false };
    cpu::set_local(VirtAddr::of(local));
    set_online(cpu, true);
    true
}

/// This CPU takes part no longer: its pages and objects are anybody's, and it does not touch them again. Interrupts masked,
/// for good.
pub fn take_cpu_offline() {
    set_online(cpu::current(), false);
}

fn set_online(cpu: CpuId, online: bool) {
    let saved = PAGES.hal().save();
    let coming_and_going = COMING_AND_GOING.lock();
    if let Some(place) = ONLINE.get(to_usize(u64::from(cpu.get()))) {
        // Release pairs with the acquire in `is_online`.
        place.store(online, Ordering::Release);
    }
    drop(coming_and_going);
    PAGES.hal().restore(saved);
}

/// Gives back what a CPU has at hand that is not online: pages, objects, stacks. Whether it was not online. Where memory may
/// be freed.
pub fn drain_offline_cpu(cpu: CpuId) -> bool {
    let Some(local) = PAGES.hal().local_of(cpu) else { return false };
    let slabs = super::slab_allocator().drain_offline(cpu);
    // Two that drain the same CPU's stacks would get different ones.
    if slabs {
        drain_stacks(PAGES.hal(), &local.stacks);
    }
    slabs && PAGES.drain_offline(cpu)
}

impl PageHal for KernelPages {
    type Map = Vmemmap;
    type Relax = Relax;

    #[inline]
    fn map(&self) -> Vmemmap {
        self.local().map
    }

    #[inline(always)]
    fn local_map(local: &CpuLocal) -> Vmemmap {
        local.map
    }

    #[inline(always)]
    fn pages(local: &CpuLocal) -> &CpuPages {
        &local.pages
    }

    #[inline(always)]
    fn may_wait(&self, local: &CpuLocal, saved: IrqFlags) -> bool {
        saved.bits() & local.scopes.no_wait() == 0
    }

    #[inline]
    fn zero(&self, start: PhysAddr, pages: u64) {
        let first = VirtAddr::new(PAGE_OFFSET | start.get()).as_ptr::<mem::Page>();
        if let Some(first) = NonNull::new(first).filter(|_| pages != 0) {
            // SAFETY: the allocator has just taken these pages of RAM for its caller, and the linear map maps them.
            unsafe { mem::clear_pages(first, pages) };
        }
    }

    fn fill(&self, start: PhysAddr, pages: u64, byte: u8) {
        let first = VirtAddr::new(PAGE_OFFSET | start.get()).as_ptr::<u8>();
        // SAFETY: pages of RAM that the allocator is about to put on its lists, or has there under the zone's lock.
        unsafe { first.write_bytes(byte, to_usize(pages * PAGE_SIZE)) };
    }

    fn find_other(&self, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let first = VirtAddr::new(PAGE_OFFSET | start.get()).as_ptr::<u64>();
        // SAFETY: pages of RAM that the allocator has just taken for its caller; whoever writes to them all the same is
        // what is looked for, and writes no more than bytes.
        let words = unsafe { core::slice::from_raw_parts(first, to_usize(pages * PAGE_SIZE / 8)) };
        let expected = u64::from_ne_bytes([byte; 8]);
        let (index, word) = words.iter().enumerate().find(|(_, word)| **word != expected)?;
        let (place, found) = word.to_ne_bytes().into_iter().enumerate().find(|(_, found)| *found != byte)?;
        Some((PhysAddr::new(start.get() + (index * 8 + place) as u64), found))
    }
}

pub(super) static PAGES: PageAllocator<KernelPages> = PageAllocator::new(KernelPages(()));

/// The page allocator, for reports and checks.
#[must_use]
pub fn page_allocator() -> &'static PageAllocator<KernelPages> {
    &PAGES
}

/// Lets the boot CPU run the functions of this file, which refuse everything until there is memory. Before the first of
/// them.
pub fn start_cpu() {
    cpu::set_local(VirtAddr::of(&raw const NOTHING));
    set_online(CpuId::BOOT, true);
}

/// Bytes, a multiple of the page size, that a CPU's data take.
pub const CPU_LOCAL_SIZE: u64 = (size_of::<CpuLocal>() as u64).next_multiple_of(PAGE_SIZE);

/// Gives a CPU its data. If it is this CPU, it uses them from here on.
///
/// # Safety
///
/// `place` is [`CPU_LOCAL_SIZE`] zeroed bytes, page aligned, mapped read-write for good and used by nobody else. `map` is
/// the one of this machine. Called once a CPU, before pages are handed over, with interrupts masked.
pub unsafe fn give_cpu(cpu: CpuId, place: VirtAddr, map: Vmemmap) {
    let local = place.as_ptr::<CpuLocal>();
    // SAFETY: the caller's promise: large enough, aligned and nobody else's.
    let field = unsafe { &raw mut (*local).map };
    // SAFETY: as above.
    unsafe { field.write(map) };
    // SAFETY: as above; the field is an atomic.
    unsafe { &*local }.slab.descriptors.store(slab_fast::DESCRIPTORS, Ordering::Relaxed);
    let Some(slot) = LOCALS.get(to_usize(u64::from(cpu.get()))) else { return };
    // INVARIANT: LOCAL-1: zeroes are a valid value of all other fields. Release pairs with the acquire in `local_of`.
    slot.store(local, Ordering::Release);
    CPUS.fetch_max(cpu.get() + 1, Ordering::Relaxed);
    if cpu == cpu::current() {
        cpu::set_local(place);
    }
}

/// The data of every CPU that has some.
pub fn cpu_locals() -> impl Iterator<Item = VirtRange> {
    let places = LOCALS.iter().map(|slot| VirtAddr::of(slot.load(Ordering::Acquire)));
    places.filter(|place| *place != VirtAddr::ZERO).filter_map(|place| VirtRange::from_size(place, CPU_LOCAL_SIZE))
}

/// From now on an allocation that may wait is reported where interrupts are masked, on this CPU: booting is over.
pub fn forbid_waiting_in_atomic(forbid: bool) {
    PAGES.hal().local().scopes.enforce(forbid);
}

/// Page frames for page tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuddyFrames;

// SAFETY: the page allocator gives whole pages of RAM that nothing else uses, which the linear map reaches.
unsafe impl FrameSource for BuddyFrames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        if faults::should_fail(FaultSite::PageTable, Gfp::ATOMIC, 1) {
            return Err(NoFrame);
        }
        let page = alloc_page(Gfp::ATOMIC | Gfp::NOWARN).map_err(|_| NoFrame)?;
        // A fresh page is unclaimed.
        let _ = PAGES.claim(page, Kind::PageTable, 0);
        Ok(page_to_phys(page))
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        let Some(page) = pfn_to_page(Pfn::containing(table)) else { return };
        // A table from before the hand-over is reserved memory, which becomes the allocator's here.
        let freed = match PAGES.disown(page, Kind::PageTable) {
            Ok(()) => free_page(page),
            Err(_) => PAGES.free_reserved(page, 1).map(|_| ()),
        };
        if let Err(error) = freed {
            log::error!("page table at {table} is lost: {error}");
        }
    }
}

/// What names a block: its first page, or the address of its first byte in the linear map.
pub trait BlockName: Copy {
    /// The first page.
    ///
    /// # Errors
    ///
    /// [`FreeError`] for an address that is no page's.
    fn page(self) -> Result<Page, FreeError>;
}

impl BlockName for Page {
    #[inline(always)]
    fn page(self) -> Result<Page, FreeError> {
        Ok(self)
    }
}

impl BlockName for VirtAddr {
    #[inline]
    fn page(self) -> Result<Page, FreeError> {
        PAGES.page_at(self)
    }
}

/// Allocates 2^order pages, aligned to their size. See [`PageAllocator::alloc_pages`].
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn alloc_pages(gfp: Gfp, order: Order) -> Result<Page, AllocError> {
    PAGES.alloc_pages(gfp, order)
}

/// Allocates a page.
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn alloc_page(gfp: Gfp) -> Result<Page, AllocError> {
    PAGES.alloc_pages(gfp, Order::ZERO)
}

/// Gives a block back, named by its first page or by its address (Linux: `__free_pages` and `free_pages`, told apart by
/// type here).
///
/// # Errors
///
/// A variant of [`FreeError`] that names what is wrong; nothing has changed then.
#[inline(always)]
pub fn free_pages(block: impl BlockName, order: Order) -> Result<(), FreeError> {
    PAGES.free_pages(block.page()?, order)
}

/// Gives a page back, named by itself or by its address.
///
/// # Errors
///
/// As for [`free_pages`].
#[inline(always)]
pub fn free_page(page: impl BlockName) -> Result<(), FreeError> {
    free_pages(page, Order::ZERO)
}

/// Allocates 2^order pages and answers with their address in the linear map (Linux: `__get_free_pages`).
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn get_free_pages(gfp: Gfp, order: Order) -> Result<VirtAddr, AllocError> {
    alloc_pages(gfp, order).map(page_address)
}

/// Allocates a zeroed page and answers with its address.
///
/// # Errors
///
/// [`AllocError`].
#[inline(always)]
pub fn get_zeroed_page(gfp: Gfp) -> Result<VirtAddr, AllocError> {
    get_free_pages(gfp | Gfp::ZERO, Order::ZERO)
}

/// Allocates 2^order pages that every device reaches, and answers with their address (Linux: `__get_dma_pages`).
///
/// # Errors
///
/// [`AllocError`]; flags for another zone contradict these.
#[inline(always)]
pub fn get_dma_pages(gfp: Gfp, order: Order) -> Result<VirtAddr, AllocError> {
    get_free_pages(gfp | Gfp::DMA, order)
}

/// Fills a batch with single pages; see [`PageAllocator::alloc_pages_bulk`].
///
/// # Errors
///
/// [`AllocError`] if there was not even one.
#[inline(always)]
pub fn alloc_pages_bulk<const N: usize>(gfp: Gfp, batch: &mut PageBatch<N>) -> Result<usize, AllocError> {
    PAGES.alloc_pages_bulk(gfp, batch)
}

/// Frees the pages of a batch; see [`PageAllocator::free_pages_bulk`].
///
/// # Errors
///
/// As for [`free_pages`].
#[inline(always)]
pub fn free_pages_bulk<const N: usize>(batch: &mut PageBatch<N>) -> Result<(), FreeError> {
    PAGES.free_pages_bulk(batch)
}

/// Allocates the fewest contiguous pages that hold `bytes`; see [`PageAllocator::alloc_pages_exact`].
///
/// # Errors
///
/// [`AllocError`].
pub fn alloc_pages_exact(gfp: Gfp, bytes: u64) -> Result<VirtAddr, AllocError> {
    PAGES.alloc_pages_exact(gfp, bytes).map(page_address)
}

/// Gives back what [`alloc_pages_exact`] returned for as many bytes.
///
/// # Errors
///
/// As for [`free_pages`].
pub fn free_pages_exact(start: impl BlockName, bytes: u64) -> Result<(), FreeError> {
    PAGES.free_pages_exact(start.page()?, bytes)
}

/// Makes an allocated block into single pages; see [`PageAllocator::split_page`].
///
/// # Errors
///
/// As for [`free_pages`].
pub fn split_page(page: Page, order: Order) -> Result<(), FreeError> {
    PAGES.split_page(page, order)
}

/// Allocates `pages` contiguous pages, however many, from a multiple of `align` on; see [`PageAllocator::alloc_contig_pages`].
///
/// # Errors
///
/// [`ContigError`] if there is no such run of free pages.
pub fn alloc_contig_pages(pages: u32, align: u32, gfp: Gfp) -> Result<Page, ContigError> {
    PAGES.alloc_contig_pages(pages, align, gfp)
}

/// Allocates the pages from `first` on; see [`PageAllocator::alloc_contig_range`].
///
/// # Errors
///
/// [`ContigError`] if one of them is in use.
pub fn alloc_contig_range(first: Page, pages: u32, gfp: Gfp) -> Result<(), ContigError> {
    PAGES.alloc_contig_range(first, pages, gfp)
}

/// Frees contiguous pages, each a block of its own.
///
/// # Errors
///
/// As for [`free_pages`].
pub fn free_contig_range(first: Page, pages: u32) -> Result<(), FreeError> {
    PAGES.free_contig_range(first, pages)
}

/// Takes another reference to an allocated block; see [`PageAllocator::get_page`].
///
/// # Errors
///
/// [`FreeError`] if the block is not allocated.
pub fn get_page(page: Page) -> Result<(), FreeError> {
    PAGES.get_page(page)
}

/// Drops a reference; the last one frees the block.
///
/// # Errors
///
/// As for [`free_pages`].
pub fn put_page(page: Page) -> Result<(), FreeError> {
    PAGES.put_page(page)
}

/// References to the block that holds `page`; 0 if it is free.
#[must_use]
pub fn page_count(page: Page) -> u32 {
    PAGES.page_count(page)
}

/// The address of a page's first byte in the linear map. Every page has one on a 64-bit machine.
#[must_use]
#[inline(always)]
pub fn page_address(page: Page) -> VirtAddr {
    VirtAddr::new(PAGE_OFFSET | page_to_phys(page).get())
}

/// The physical address of a page's first byte.
#[must_use]
#[inline(always)]
pub fn page_to_phys(page: Page) -> PhysAddr {
    PAGES.hal().local().map.phys(page)
}

/// The frame of a page.
#[must_use]
pub fn page_to_pfn(page: Page) -> Pfn {
    PAGES.hal().local().map.pfn(page)
}

/// The page of a frame, or `None` if the frame has no descriptor.
#[must_use]
pub fn pfn_to_page(pfn: Pfn) -> Option<Page> {
    PAGES.hal().local().map.find(pfn)
}

/// The page that holds the byte at an address of the linear map.
///
/// # Errors
///
/// [`FreeError::NotLinear`] for an address outside the linear map, [`FreeError::NoDescriptor`] where there is no RAM.
pub fn virt_to_page(addr: VirtAddr) -> Result<Page, FreeError> {
    PAGES.page_at(addr.align_down(1 << PAGE_SHIFT))
}

/// The address of physical memory in the linear map, or `None` if the linear map cannot reach it.
#[must_use]
pub fn phys_to_virt(phys: PhysAddr) -> Option<VirtAddr> {
    layout::phys_to_virt(phys)
}

/// The physical address behind an address of the linear map, or `None` for any other.
#[must_use]
pub fn virt_to_phys(virt: VirtAddr) -> Option<PhysAddr> {
    layout::virt_to_phys(virt)
}

/// Pages that the allocator manages, free or not.
#[must_use]
pub fn totalram_pages() -> u64 {
    PAGES.total_pages()
}

/// Free pages in all zones, those on per-CPU lists not counted.
#[must_use]
pub fn nr_free_pages() -> u64 {
    PAGES.free_page_count()
}

/// Gives the pages on every CPU's lists back to their zones; see [`PageAllocator::drain_all`].
pub fn drain_all_pages() {
    PAGES.drain_all();
}

/// Maps a page into the kernel's address space. All RAM is in the linear map of a 64-bit machine, so this is
/// [`page_address`], never fails and costs nothing; it exists so that code which ran where memory is high runs here.
#[must_use]
pub fn kmap(page: Page) -> VirtAddr {
    page_address(page)
}

/// As [`kmap`], for contexts that may not sleep. Here neither does.
#[must_use]
pub fn kmap_atomic(page: Page) -> VirtAddr {
    page_address(page)
}

/// Undoes [`kmap`] and [`kmap_atomic`]: nothing to do on a 64-bit machine.
pub fn kunmap(_page: Page) {}

/// A block of pages that is freed when it is dropped.
#[derive(Debug)]
#[must_use = "the pages are freed at once if nobody keeps them"]
pub struct Pages {
    page: Page,
    order: Order,
}

impl Pages {
    /// Allocates 2^order pages.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    #[inline(always)]
    pub fn new(gfp: Gfp, order: Order) -> Result<Self, AllocError> {
        Ok(Self { page: alloc_pages(gfp, order)?, order })
    }

    /// The first page.
    #[must_use]
    pub const fn page(&self) -> Page {
        self.page
    }

    /// The order.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> VirtAddr {
        page_address(self.page)
    }

    /// The block as raw pages, which the caller frees.
    pub fn into_raw(self) -> Page {
        let page = self.page;
        core::mem::forget(self);
        page
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Err(error) = free_pages(self.page, self.order) {
            log::error!("a block that was owned cannot be freed: {error}");
        }
    }
}

/// The zone that a page belongs to.
#[must_use]
pub fn page_zone(page: Page) -> Option<ZoneType> {
    PAGES.zone_of_page(page)
}
