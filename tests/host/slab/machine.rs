//! A simulated machine for the slab allocator: RAM is an arena of real memory, CPUs have arrays of their own, and misuse
//! is kept for the test to look at.

use super::thread::{self, open_point};
pub(crate) use super::thread::{at_open_points, in_interrupt, run_on};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, TAG_GRANULE, Tag, TagSet, VirtAddr};
use quarry::arch::host;
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::hal::tags::{TagEvent, TagMemory};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, PageDescriptor, Section};
use quarry::mm::slab::{
    ArrayHeader, ArrayOffset, CacheHandle, CacheSpec, CpuSlabs, MAX_CACHES, Misuse, SlabAllocator, SlabFlags, SlabHal,
    SlabOptions,
};
use quarry::mm::zone::{
    CpuPages, PageAllocator, PageHal, Pressure, Relief, Scrub, Shortage, WatermarkTuning, ZoneLimits,
};
use quarry::sync::{HeldLocks, LockContext, LockHal};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

pub(crate) const MIB: u64 = 1 << 20;
/// Where RAM starts, if a test does not say otherwise.
const BASE: u64 = 1 << 30;
/// Bytes of a block of the highest order: what the arena is aligned to.
const SECTION: u64 = 4 * MIB;

std::thread_local! {
    /// Where the calls of this thread come from, and when.
    static CALL: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Says where this thread's calls come from, and when that is.
pub(crate) fn call_from(caller: u64, ticks: u64) {
    CALL.set((caller, ticks));
}

/// The machine as the allocators see it.
pub(crate) struct Sim<'m> {
    map: BankMap<'m>,
    locals: Vec<Local<'m>>,
    online: Vec<AtomicBool>,
    arena: u64,
    base: u64,
    size: u64,
    /// Reports.
    pub(crate) misuse: Mutex<Vec<Misuse>>,
    /// Printed text.
    lines: Mutex<Vec<String>>,
    /// Allocations that want to sleep where that is not legal.
    pub(crate) atomic_sleeps: AtomicU64,
    /// Other functions that may sleep, called where that is not legal.
    pub(crate) atomic_calls: Mutex<Vec<&'static str>>,
    /// Requests to the page allocator while calls take the slow path.
    pub(crate) asked: Mutex<Vec<(Gfp, Order)>>,
    /// After how many allocations of pages the next one fails; `u64::MAX` for never.
    pub(crate) pages_left: AtomicU64,
    /// The same for objects that take the slow path.
    pub(crate) slabs_left: AtomicU64,
    /// Interrupts sent to other CPUs.
    pub(crate) kicks: AtomicU64,
    /// The tags of memory, if it has any.
    pub(crate) tags: Option<TagModel>,
}

/// A tag for each granule of RAM, as the machine would keep them; pointers with tags are not followed here.
pub(crate) struct TagModel {
    base: u64,
    granules: Vec<AtomicU8>,
    random: AtomicU64,
    /// Records of owners.
    pub(crate) events: Mutex<Vec<TagEvent>>,
}

impl TagModel {
    fn granule(&self, at: PhysAddr) -> &AtomicU8 {
        &self.granules[usize::try_from((at.get() - self.base) / TAG_GRANULE).unwrap()]
    }
}

impl TagMemory for TagModel {
    fn set(&self, range: PhysRange, tag: Tag) {
        assert!(range.start().is_aligned(TAG_GRANULE) && range.end().is_aligned(TAG_GRANULE), "{range}");
        for at in (range.start().get()..range.end().get()).step_by(16) {
            self.granule(PhysAddr::new(at)).store(tag.get(), Ordering::Relaxed);
        }
    }

    fn get(&self, at: PhysAddr) -> Tag {
        Tag::from_bits(self.granule(at).load(Ordering::Relaxed).into())
    }

    fn random(&self, choices: TagSet) -> Tag {
        assert!(!choices.is_empty());
        let step = |seed: u64| Some(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let seed = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap();
        let wanted = usize::try_from(seed >> 33).unwrap() % choices.len() as usize;
        (0..16).map(Tag::from_bits).filter(|tag| choices.contains(*tag)).nth(wanted).unwrap()
    }

    fn fence(&self) {}

    fn note(&self, event: &TagEvent) {
        self.events.lock().unwrap().push(*event);
    }
}

#[repr(C)]
pub(crate) struct Local<'m> {
    number: u32,
    first: Vec<ArrayHeader>,
    slabs: CpuSlabs,
    /// Behind a pointer, as each reference to them is one to thousands of cells, which Miri visits one by one.
    pages: Box<CpuPages>,
    map: BankMap<'m>,
}

impl Interrupts for Sim<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        thread::mask()
    }

    fn restore(&self, saved: bool) {
        thread::unmask(saved);
    }
}

impl<'m> PerCpu for Sim<'m> {
    type Local = Local<'m>;

    fn local(&self) -> &Local<'m> {
        open_point();
        &self.locals[thread::here() as usize]
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local<'m>> {
        self.locals.get(cpu.get() as usize)
    }

    fn cpu(&self) -> CpuId {
        open_point();
        CpuId::new(thread::here())
    }

    fn cpus(&self) -> u32 {
        u32::try_from(self.locals.len()).unwrap()
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        // The CPU that runs is online: a test that plays several CPUs on one thread is on one of them at a time.
        cpu == self.cpu() || self.online[cpu.get() as usize].load(Ordering::Acquire)
    }

    fn kick(&self, cpu: CpuId) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
        thread::kick(cpu.get());
    }
}

/// Counts down; whether it was zero.
fn runs_out(left: &AtomicU64) -> bool {
    match left.load(Ordering::Relaxed) {
        u64::MAX => false,
        0 => true,
        some => {
            left.store(some - 1, Ordering::Relaxed);
            false
        }
    }
}

impl Pressure for Sim<'_> {
    fn wake(&self, _: ZoneType, _: Order) {}

    fn relieve(&self, _: &Shortage) -> Relief {
        assert!(!thread::is_masked(), "called with interrupts masked by the allocator");
        Relief::GiveUp
    }

    fn should_fail(&self, gfp: Gfp, order: Order) -> bool {
        self.asked.lock().unwrap().push((gfp, order));
        runs_out(&self.pages_left)
    }

    fn failed(&self, _: &Shortage) {}

    fn waits_in_atomic(&self, _: Gfp, _: Order) {
        self.atomic_sleeps.fetch_add(1, Ordering::Relaxed);
    }

    fn sleeps_in_atomic(&self, call: &'static str) {
        self.atomic_calls.lock().unwrap().push(call);
    }
}

// SAFETY: a thread plays one CPU at a time, and handlers run where it is not masked; memory is in the arena, as long
// as the machine.
unsafe impl<'m> PageHal for Sim<'m> {
    type Map = BankMap<'m>;
    type Relax = Yield;

    fn map(&self) -> BankMap<'m> {
        self.map
    }

    fn local_map(local: &Local<'m>) -> BankMap<'m> {
        local.map
    }

    fn pages<'l>(local: &'l Local<'m>) -> &'l CpuPages {
        &local.pages
    }

    fn may_wait(&self, _: &Local<'m>, saved: bool) -> bool {
        !saved
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(self.arena + (phys.get() - self.base))
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        let offset = virt.get().checked_sub(self.arena).filter(|offset| *offset < self.size)?;
        Some(PhysAddr::new(self.base + offset))
    }

    fn zero(&self, internal: Internal, start: PhysAddr, pages: u64) {
        self.fill(internal, start, pages, 0);
    }

    fn tags(&self, _: Internal) -> Option<&dyn TagMemory> {
        self.tags.as_ref().map(|tags| -> &dyn TagMemory { tags })
    }

    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) {
        fill(self.to_virt(start), byte, usize::try_from(pages * PAGE_SIZE).unwrap());
    }

    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let found = bytes(self.to_virt(start), usize::try_from(pages * PAGE_SIZE).unwrap());
        let at = found.iter().position(|found| *found != byte)?;
        Some((PhysAddr::new(start.get() + at as u64), found[at]))
    }
}

impl Sim<'_> {
    /// The tag of the memory at an address, for any tag in the pointer.
    pub(crate) fn tag_of(&self, at: VirtAddr) -> Tag {
        self.tags.as_ref().unwrap().get(self.to_phys(at.untagged()).unwrap())
    }
}

// SAFETY: a thread plays one CPU at a time; each number has a header of its own in the data of each CPU.
unsafe impl SlabHal for Sim<'_> {
    const FIRST_ARRAYS: u32 = 0;

    fn array_offset(number: u16) -> ArrayOffset {
        // SAFETY: the data of each CPU begin with the headers of all numbers.
        unsafe { ArrayOffset::at(u32::from(number) * u32::try_from(size_of::<ArrayHeader>()).unwrap()) }
    }

    fn header(local: &Self::Local, offset: ArrayOffset) -> &ArrayHeader {
        thread::note_array(local.number);
        &local.first[offset.distance() as usize / size_of::<ArrayHeader>()]
    }

    fn slabs(local: &Self::Local) -> &CpuSlabs {
        &local.slabs
    }

    fn entropy(&self) -> u64 {
        self.arena
    }

    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize) {
        // SAFETY: memory of the arena that the allocator has just given out.
        unsafe { object.as_ptr::<u8>().write_bytes(0, bytes) };
    }

    fn should_fail_slab(&self, _: &'static str, _: Gfp) -> bool {
        runs_out(&self.slabs_left)
    }

    fn misuse(&self, misuse: &Misuse) {
        self.misuse.lock().unwrap().push(*misuse);
    }

    fn print(&self, line: std::fmt::Arguments<'_>) {
        self.lines.lock().unwrap().push(line.to_string());
    }

    fn return_address(&self) -> VirtAddr {
        VirtAddr::new(CALL.get().0)
    }

    fn ticks(&self) -> u64 {
        CALL.get().1
    }
}

/// How threads wait that play CPUs.
pub(crate) struct Yield;

impl LockHal for Yield {
    fn relax() {
        open_point();
        std::thread::yield_now();
    }

    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        host::with_held(f);
    }
}

pub(crate) type Slabs<'p, 'm> = SlabAllocator<'p, Sim<'m>>;
pub(crate) type Handle<'m> = CacheHandle<Sim<'m>>;

impl Sim<'_> {
    pub(crate) fn set_online(&self, cpu: u32, online: bool) {
        self.online[cpu as usize].store(online, Ordering::Release);
    }

    /// Reports since the last call.
    pub(crate) fn reports(&self) -> Vec<Misuse> {
        std::mem::take(&mut self.misuse.lock().unwrap())
    }

    /// Printed text since the last call.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// Any address that is no RAM.
    pub(crate) fn outside(&self) -> VirtAddr {
        VirtAddr::new(self.arena + self.size + 0x1_0000)
    }

    /// The address behind the last byte of RAM.
    pub(crate) fn end(&self) -> VirtAddr {
        VirtAddr::new(self.arena + self.size)
    }
}

/// Writes to an object.
pub(crate) fn fill(object: VirtAddr, byte: u8, size: usize) {
    // SAFETY: the tests pass objects that they have, and their sizes.
    unsafe { object.as_ptr::<u8>().write_bytes(byte, size) };
}

/// The bytes of an object.
pub(crate) fn bytes(object: VirtAddr, size: usize) -> Vec<u8> {
    // SAFETY: the tests pass objects that they have, and their sizes.
    unsafe { std::slice::from_raw_parts(object.as_ptr::<u8>(), size) }.to_vec()
}

/// Whether all of an object's bytes are `byte`.
pub(crate) fn holds(object: VirtAddr, byte: u8, size: usize) -> bool {
    // Compared at once: a loop over the bytes takes Miri minutes.
    bytes(object, size) == vec![byte; size]
}

/// Properties of the machine.
pub(crate) struct Spec {
    base: u64,
    size: u64,
    cpus: u32,
    options: SlabOptions,
    /// Whether the allocator's own objects may be in other slabs afterwards.
    moves: bool,
    tagged: bool,
    migrates: bool,
}

/// The memory behind the pages.
struct Arena(*mut u8, Layout);

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `run` with this layout.
        unsafe { dealloc(self.0, self.1) };
    }
}

impl Spec {
    /// `size` bytes of RAM, a multiple of 4 MiB. Under Miri there are no more than 4 MiB: it is slow at
    /// each page, and most tests need few.
    pub(crate) fn of_size(size: u64) -> Self {
        assert!(size.is_multiple_of(SECTION));
        let size = if cfg!(miri) { SECTION } else { size };
        Self {
            base: BASE,
            size,
            cpus: 1,
            options: SlabOptions::default(),
            moves: false,
            tagged: false,
            migrates: false,
        }
    }

    pub(crate) fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// RAM starts at `base`, a multiple of 4 MiB.
    pub(crate) fn at(mut self, base: u64) -> Self {
        self.base = base;
        self
    }

    /// Memory has tags.
    pub(crate) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// CPUs exchange the memory of their arrays: afterwards there is as much of it as before, but in other slabs.
    pub(crate) fn exchanging(mut self) -> Self {
        self.moves = true;
        self
    }

    /// The running thread moves to the next CPU wherever interrupts are open.
    pub(crate) fn migrating(mut self) -> Self {
        self.migrates = true;
        self
    }

    pub(crate) fn options(mut self, options: SlabOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs `f` on such a machine, and checks every invariant afterwards, and that all pages come back that the test has
    /// not kept: with everything freed, `f` leaves what it found.
    pub(crate) fn run(self, f: impl FnOnce(&Slabs<'_, '_>)) {
        run_on(0);
        let pages = usize::try_from(self.size / PAGE_SIZE).unwrap();
        let section = usize::try_from(SECTION).unwrap();
        // The start is aligned here: a zeroed block that the allocator aligns is written at once, and most tests use little.
        let layout = Layout::from_size_align(usize::try_from(self.size).unwrap() + section, 1).unwrap();
        // SAFETY: the layout is not empty.
        let arena = Arena(unsafe { alloc_zeroed(layout) }, layout);
        assert!(!arena.0.is_null());
        let start = arena.0.wrapping_add(arena.0.align_offset(section));
        let descriptors: Vec<_> = (0..pages).map(|_| PageDescriptor::default()).collect();
        let blocks: Vec<_> = (0..pages / PAGEBLOCK_PAGES as usize).map(|_| AtomicU8::new(0)).collect();
        let sections = [Section { first: 0, end: u32::try_from(pages).unwrap() }];
        let banks = [Bank { section: sections[0], descriptors: &descriptors, blocks: &blocks }];
        let map = BankMap::new(Pfn::containing(PhysAddr::new(self.base)), &banks, &sections).unwrap();
        let local = |number| Local {
            number,
            first: (0..MAX_CACHES).map(|_| ArrayHeader::new()).collect(),
            slabs: CpuSlabs::new(),
            pages: Box::new(CpuPages::new()),
            map,
        };
        let sim = Sim {
            map,
            locals: (0..self.cpus).map(local).collect(),
            online: (0..self.cpus).map(|_| AtomicBool::new(false)).collect(),
            arena: start.expose_provenance() as u64,
            base: self.base,
            size: self.size,
            misuse: Mutex::default(),
            lines: Mutex::default(),
            atomic_sleeps: AtomicU64::new(0),
            atomic_calls: Mutex::default(),
            asked: Mutex::default(),
            pages_left: AtomicU64::new(u64::MAX),
            slabs_left: AtomicU64::new(u64::MAX),
            kicks: AtomicU64::new(0),
            tags: self.tagged.then(|| TagModel {
                base: self.base,
                granules: (0..self.size / TAG_GRANULE).map(|_| AtomicU8::new(0)).collect(),
                random: AtomicU64::new(1),
                events: Mutex::default(),
            }),
        };
        let allocator = PageAllocator::new(sim);
        let ram = PhysRange::from_size(PhysAddr::new(self.base), self.size).unwrap();
        let limits = ZoneLimits::new(ram.start(), None, None);
        let tuning = WatermarkTuning { min_free_kbytes: Some(0), ..WatermarkTuning::DEFAULT };
        raw!(allocator.hand_over(std::iter::once(ram), std::iter::once(ram), limits, tuning)).unwrap();
        if self.tagged {
            allocator.set_scrub(Scrub::TAG);
        }
        let slabs = SlabAllocator::new(&allocator);
        slabs.start(self.options).unwrap();
        // Nothing points to its old place: it may move.
        let slabs = Box::new(slabs);
        let balance = || {
            // Not under Miri, as in `check`.
            if cfg!(miri) {
                return (0, 0);
            }
            let free = free_pages(&slabs);
            (free + if self.moves { slabs.pages_in_slabs() } else { 0 }, in_use(&slabs))
        };
        let before = balance();
        if self.migrates {
            thread::migrating(&slabs, self.cpus, || f(&slabs))
        } else {
            f(&slabs)
        }
        check(&slabs);
        assert_eq!(balance(), before, "pages that did not come back, or objects");
        check(&slabs);
    }
}

/// Every invariant of both allocators. Not under Miri, which needs a minute for a look at all pages and is after something
/// else.
pub(crate) fn check(slabs: &Slabs<'_, '_>) {
    if cfg!(miri) {
        return;
    }
    slabs.check().unwrap_or_else(|broken| panic!("{broken}"));
    slabs.pages().check().unwrap_or_else(|broken| panic!("{broken}"));
}

/// Objects that are in use, of all caches.
fn in_use(slabs: &Slabs<'_, '_>) -> u64 {
    let mut objects = 0;
    slabs.for_each(|cache| objects += slabs.info(cache).active_objects).unwrap();
    objects
}

/// Free pages, with all caches drained.
pub(crate) fn free_pages(slabs: &Slabs<'_, '_>) -> u64 {
    slabs.shrink_all();
    slabs.pages().drain_all();
    slabs.pages().free_page_count()
}

/// A cache that shares no slabs.
pub(crate) fn spec(name: &'static str, size: u32) -> CacheSpec {
    CacheSpec { name, size, align: 0, flags: SlabFlags::NO_MERGE, constructor: None }
}
