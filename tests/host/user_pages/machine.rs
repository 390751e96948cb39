//! A machine with user spaces: RAM with contents, pages, CPUs whose TLBs keep what they have, and switches that leave an
//! invalidation out.

use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, Machine as Sim, SimFrames, Spin, Who};
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::hal::entry::{Entry, EntryFormat, RawEntry};
use quarry::hal::level::{Level, Slot};
use quarry::hal::mmu::{Asid, BbmLevel, Invalidation, Mmu};
use quarry::hal::prot::Access;
use quarry::mm::page::{Bank, BankMap, PageDescriptor, PageMap, Section};
use quarry::mm::user::pages::{Backing, FaultAccess, FaultError, Handled, UserHal, UserPages};
use quarry::mm::zone::{CpuPages, PageAllocator, PageHal, Pressure, WatermarkTuning, ZoneLimits};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

pub(super) const MIB: u64 = 1 << 20;
/// Where RAM begins.
pub(super) const RAM: u64 = 0x80_0000_0000;
pub(super) const CPUS: u32 = 4;

std::thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
    static MASKED: Cell<bool> = const { Cell::new(false) };
}

/// Lets this thread play another CPU.
pub(super) fn run_on(cpu: u32) {
    CPU.set(cpu);
}

pub(super) fn cpu() -> CpuId {
    CpuId::new(CPU.get())
}

pub(super) struct Local {
    pages: CpuPages,
    map: BankMap<'static>,
}

/// The page allocator's machine.
pub(super) struct PagesOf {
    map: BankMap<'static>,
    locals: Vec<Local>,
    sim: Sim,
    /// The next so many allocations pass, and the one after fails; every one after that passes again.
    pub(super) until_failure: AtomicU64,
    /// The flags of allocations that went past the lists.
    pub(super) asked: AtomicU64,
}

impl Interrupts for PagesOf {
    type Saved = bool;

    fn save(&self) -> bool {
        MASKED.replace(true)
    }

    fn restore(&self, saved: bool) {
        MASKED.set(saved);
    }
}

impl PerCpu for PagesOf {
    type Local = Local;

    fn local(&self) -> &Local {
        &self.locals[cpu().get() as usize]
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local> {
        self.locals.get(cpu.get() as usize)
    }

    fn cpu(&self) -> CpuId {
        cpu()
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    fn is_online(&self, other: CpuId) -> bool {
        other == cpu()
    }

    fn kick(&self, _: CpuId) {}
}

impl Pressure for PagesOf {
    fn should_fail(&self, _: Gfp, _: Order) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let left = self.until_failure.load(Ordering::Relaxed);
        self.until_failure.store(left.wrapping_sub(u64::from(left != u64::MAX)), Ordering::Relaxed);
        left == 0
    }
}

// SAFETY: each thread plays a CPU of its own; memory is that of the model.
unsafe impl PageHal for PagesOf {
    type Map = BankMap<'static>;
    type Relax = Spin;

    fn map(&self) -> BankMap<'static> {
        self.map
    }

    fn local_map(local: &Local) -> BankMap<'static> {
        local.map
    }

    fn pages(local: &Local) -> &CpuPages {
        &local.pages
    }

    fn may_wait(&self, _: &Local, _: bool) -> bool {
        true
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        quarry::mm::layout::phys_to_virt(phys).unwrap()
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        quarry::mm::layout::virt_to_phys(virt)
    }

    fn zero(&self, _: Internal, start: PhysAddr, pages: u64) {
        // It has a new owner.
        self.sim.give_away(PhysRange::from_size(start, pages * PAGE_SIZE).unwrap());
        self.sim.fill(start, pages, 0);
    }

    fn fill(&self, _: Internal, _: PhysAddr, _: u64, _: u8) {}

    fn find_other(&self, _: Internal, _: PhysAddr, _: u64, _: u8) -> Option<(PhysAddr, u8)> {
        None
    }
}

/// The tables as the CPU edits them that this thread plays, with an invalidation that can be left out.
pub(super) struct AnyCpu {
    sim: Sim,
    forget: &'static AtomicBool,
    keep_writable: &'static AtomicBool,
}

impl AnyCpu {
    fn cpu(&self) -> quarry::arch::host::SimCpu {
        self.sim.cpu(cpu())
    }
}

// SAFETY: the machine is a model; being unsound on demand is the purpose.
unsafe impl Mmu for AnyCpu {
    type Format = Stage1;

    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry {
        // SAFETY: passed on.
        unsafe { self.cpu().read(table, slot) }
    }

    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: passed on.
        let old = || unsafe { self.cpu().read(table, slot) };
        if self.keep_writable.load(Ordering::Relaxed) && loses_write(old(), entry) {
            return;
        }
        // SAFETY: passed on.
        unsafe { self.cpu().write(table, slot, entry) }
    }

    unsafe fn annotate(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: passed on.
        unsafe { self.cpu().annotate(table, slot, entry) }
    }

    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry> {
        // SAFETY: passed on.
        unsafe { self.cpu().compare_exchange(table, slot, current, new) }
    }

    fn publish_table(&self) {
        self.cpu().publish_table();
    }

    fn publish(&self) {
        self.cpu().publish();
    }

    fn order_before_invalidate(&self) {
        self.cpu().order_before_invalidate();
    }

    fn invalidate(&self, what: Invalidation) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu().invalidate(what);
        }
    }

    fn invalidate_range(&self, what: Invalidation) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu().invalidate_range(what);
        }
    }

    fn invalidate_all(&self) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu().invalidate_all();
        }
    }

    fn invalidate_asid(&self, asid: Asid) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu().invalidate_asid(asid);
        }
    }

    fn complete(&self) {
        self.cpu().complete();
    }

    fn has_range_invalidation(&self) -> bool {
        self.cpu().has_range_invalidation()
    }

    fn bbm_level(&self) -> BbmLevel {
        self.cpu().bbm_level()
    }
}

/// Whether a page that could be written is only to be read from now on.
fn loses_write(old: RawEntry, new: RawEntry) -> bool {
    match (Stage1::decode(Level::Pte, old), Stage1::decode(Level::Pte, new)) {
        (Entry::Leaf(old), Entry::Leaf(new)) => {
            old.phys == new.phys && old.prot.is_writable() && new.prot.access() == Access::ReadOnly
        }
        _ => false,
    }
}

/// All of it.
pub(super) struct Kernel {
    pub(super) sim: Sim,
    frames: SimFrames,
    pub(super) pages: PageAllocator<PagesOf>,
    zero_page: Pfn,
    pub(super) forget: AtomicBool,
    /// Pages stay writable that are to be read-only.
    pub(super) keep_writable: AtomicBool,
    /// TTBR0 of each CPU.
    running: Mutex<HashMap<u32, (PhysAddr, Asid)>>,
    /// Pages made executable.
    pub(super) synced: AtomicU64,
}

/// A handle to it.
#[derive(Clone, Copy)]
pub(super) struct Handle(pub(super) &'static Kernel);

pub(super) type Space = UserPages<Handle>;

// SAFETY: one allocator; the zero page is never given back; pages are copied in the model.
unsafe impl UserHal for Handle {
    type Mmu = AnyCpu;
    type Frames = SimFrames;
    type Pages = PagesOf;
    type Relax = Spin;

    fn mmu(&self) -> AnyCpu {
        AnyCpu { sim: self.0.sim.clone(), forget: &self.0.forget, keep_writable: &self.0.keep_writable }
    }

    fn frames(&self, _: Gfp) -> SimFrames {
        self.0.frames.clone()
    }

    fn pages(&self) -> &PageAllocator<PagesOf> {
        &self.0.pages
    }

    fn zero_page(&self) -> Pfn {
        self.0.zero_page
    }

    fn copy_page(&self, _: Internal, from: PhysAddr, to: PhysAddr) {
        self.0.sim.give_away(PhysRange::from_size(to, PAGE_SIZE).unwrap());
        self.0.sim.copy_page(from, to);
    }

    fn sync_instructions(&self, _: PhysAddr, pages: u64) {
        self.0.synced.fetch_add(pages, Ordering::Relaxed);
    }
}

/// A value that is there until the end of the test, so that handles to it are as simple as a kernel's.
pub(super) struct Kept<T>(*mut T);

impl<T> Kept<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Box::into_raw(Box::new(value)))
    }

    pub(super) fn get(&self) -> &'static T {
        // SAFETY: made in `new`; what is handed out ends with the test's function, before this is dropped.
        unsafe { &*self.0 }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Runs `f` on a machine, and sees that everything is free in the end and no rule was broken.
pub(super) fn on_a_machine(config: Config, f: impl FnOnce(&'static Kernel)) {
    let size = if cfg!(miri) { 8 * MIB } else { 64 * MIB };
    with_ram(config, size, f);
}

/// [`on_a_machine`] with this much RAM.
pub(super) fn with_ram(config: Config, size: u64, f: impl FnOnce(&'static Kernel)) {
    with_banks(config, &[(0, size)], f);
}

/// [`on_a_machine`] with RAM in several places, from these offsets on.
pub(super) fn with_banks(config: Config, ram: &[(u64, u64)], f: impl FnOnce(&'static Kernel)) {
    run_on(0);
    let index = |bytes: u64| u32::try_from(bytes / PAGE_SIZE).unwrap();
    let section = |&(offset, size): &(u64, u64)| Section { first: index(offset), end: index(offset + size) };
    let sections = Kept::new(ram.iter().map(section).collect::<Vec<_>>());
    let kept = |section: &Section| {
        let descriptors = (0..section.pages()).map(|_| PageDescriptor::default()).collect::<Vec<_>>();
        let blocks = (0..section.pages() / 512).map(|_| AtomicU8::new(0)).collect::<Vec<_>>();
        (*section, Kept::new(descriptors), Kept::new(blocks))
    };
    let kept = sections.get().iter().map(kept).collect::<Vec<_>>();
    let bank = |(section, descriptors, blocks): &(Section, Kept<Vec<PageDescriptor>>, Kept<Vec<AtomicU8>>)| Bank {
        section: *section,
        descriptors: descriptors.get(),
        blocks: blocks.get(),
    };
    let banks = Kept::new(kept.iter().map(bank).collect::<Vec<_>>());
    let map = BankMap::new(Pfn::new(RAM / PAGE_SIZE), banks.get(), sections.get()).unwrap();
    let tables = PhysRange::from_size(PhysAddr::new(0x4000_0000), 16 * MIB).unwrap();
    let sim = Sim::new(Config { cpus: CPUS, ..config }, tables);
    let locals = (0..CPUS).map(|_| Local { pages: CpuPages::new(), map }).collect();
    let until_failure = AtomicU64::new(u64::MAX);
    let pages = PageAllocator::new(PagesOf { map, locals, sim: sim.clone(), until_failure, asked: AtomicU64::new(0) });
    let ram = ram.iter().map(|(offset, size)| PhysRange::from_size(PhysAddr::new(RAM + offset), *size).unwrap());
    let limits = ZoneLimits::new(PhysAddr::new(RAM), None, None);
    raw!(pages.hand_over(ram.clone(), ram, limits, WatermarkTuning::DEFAULT)).unwrap();
    let zero = pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, Order::ZERO).unwrap();
    let kept = Kept::new(Kernel {
        frames: sim.frames(),
        sim,
        zero_page: Pfn::containing(map.phys(zero)),
        pages,
        forget: AtomicBool::new(false),
        keep_writable: AtomicBool::new(false),
        running: Mutex::default(),
        synced: AtomicU64::new(0),
    });
    let kernel = kept.get();
    kernel.pages.drain_all();
    let free = kernel.pages.free_page_count();
    f(kernel);
    run_on(0);
    kernel.drain();
    kernel.pages.check().unwrap();
    assert_eq!(kernel.pages.free_page_count(), free, "pages are back");
    assert_eq!(kernel.sim.frames_out(), 0, "tables are back");
    if let Err(violations) = kernel.sim.check() {
        panic!("{violations:?}");
    }
    let word = |at: u64| kernel.sim.peek(PhysAddr::new(kernel.zero_page.start().get() + at));
    assert!((0..PAGE_SIZE).step_by(8).all(|at| word(at) == 0), "the zero page is zero");
}

impl Kernel {
    pub(super) fn drain(&self) {
        for cpu in 0..CPUS {
            run_on(cpu);
            self.pages.drain_all();
        }
        run_on(0);
    }

    pub(super) fn free_pages(&self) -> u64 {
        let playing = cpu().get();
        self.drain();
        run_on(playing);
        self.pages.free_page_count()
    }

    pub(super) fn space(&'static self, asid: u16) -> Space {
        UserPages::new(Handle(self), Asid::new(asid), Gfp::KERNEL).unwrap()
    }

    /// Puts a space into TTBR0 of the CPU that this thread plays.
    pub(super) fn switch_to(&self, space: &Space) {
        let wanted = (space.root(), space.asid());
        let found = self.running.lock().unwrap().insert(cpu().get(), wanted);
        if found != Some(wanted) {
            self.sim.set_ttbr0(cpu(), wanted.0, wanted.1);
        }
    }

    /// Lets every CPU run `space`.
    pub(super) fn run_everywhere(&self, space: &Space) {
        let playing = cpu().get();
        for cpu in 0..CPUS {
            run_on(cpu);
            self.switch_to(space);
        }
        run_on(playing);
    }

    /// One access of the CPU that this thread plays, with the faults that it takes.
    fn access(
        &self,
        space: &Space,
        addr: VirtAddr,
        area: &Backing,
        access: FaultAccess,
        attempt: impl Fn() -> Option<u64>,
    ) -> Result<(u64, Vec<Handled>), FaultError> {
        self.switch_to(space);
        let mut handled = Vec::new();
        for _ in 0..8 {
            if let Some(value) = attempt() {
                return Ok((value, handled));
            }
            handled.push(space.fault(addr, access, area, Gfp::KERNEL | Gfp::NOWARN)?);
        }
        panic!("{addr:?} faults for ever: {handled:?}");
    }

    pub(super) fn load(
        &self,
        space: &Space,
        addr: VirtAddr,
        area: &Backing,
    ) -> Result<(u64, Vec<Handled>), FaultError> {
        let load = || self.sim.cpu(cpu()).load(addr, Who::User).ok();
        self.access(space, addr, area, FaultAccess::Read, load)
    }

    pub(super) fn store(
        &self,
        space: &Space,
        addr: VirtAddr,
        area: &Backing,
        value: u64,
    ) -> Result<Vec<Handled>, FaultError> {
        let store = || self.sim.cpu(cpu()).store(addr, Who::User, value).ok().map(|()| 0);
        self.access(space, addr, area, FaultAccess::Write, store).map(|(_, handled)| handled)
    }

    pub(super) fn fetch(&self, space: &Space, addr: VirtAddr, area: &Backing) -> Result<Vec<Handled>, FaultError> {
        let fetch = || self.sim.cpu(cpu()).fetch(addr, Who::User).ok().map(PhysAddr::get);
        self.access(space, addr, area, FaultAccess::Execute, fetch).map(|(_, handled)| handled)
    }

    /// No rule was broken so far, and every TLB agrees with the tables.
    pub(super) fn check_quiet(&self) {
        if let Err(violations) = self.sim.check() {
            panic!("{violations:?}");
        }
    }

    /// All invariants of these spaces, whose memory is private.
    pub(super) fn check(&self, spaces: &[&Space]) {
        quarry::mm::user::pages::check(spaces, |_, _| false).unwrap_or_else(|broken| panic!("{broken}"));
        self.check_quiet();
    }

    /// A number in the TLB that another space will have: what is left of it goes, as at a rollover.
    pub(super) fn retire(&self, asid: Asid) {
        self.sim.cpu(cpu()).invalidate_asid(asid);
        self.sim.cpu(cpu()).complete();
    }

    /// Ends spaces; the CPUs run an empty one meanwhile.
    pub(super) fn end(&'static self, spaces: impl IntoIterator<Item = Space>) {
        let idle = self.space(0);
        self.run_everywhere(&idle);
        spaces.into_iter().for_each(UserPages::destroy);
        let playing = cpu().get();
        for cpu in 0..CPUS {
            run_on(cpu);
            self.sim.clear_ttbr0(CpuId::new(cpu));
        }
        run_on(playing);
        self.running.lock().unwrap().clear();
        idle.destroy();
    }
}

pub(super) const BASE: u64 = 0x40_0000_0000;

pub(super) const fn va(raw: u64) -> VirtAddr {
    VirtAddr::new(raw)
}

/// The `n`th page from the base on.
pub(super) const fn page(n: u64) -> VirtAddr {
    va(BASE + n * PAGE_SIZE)
}

pub(super) fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::from_size(page(first), count * PAGE_SIZE).unwrap()
}

/// A private, writable area of so many pages from the base on.
pub(super) fn data(count: u64) -> Backing {
    Backing::private(pages(0, count), Access::ReadWrite)
}
