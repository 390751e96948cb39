//! A whole machine under vmalloc: pages, tables, CPUs whose TLBs keep what they have, and a switch that leaves the
//! invalidation out.

use super::machine::{memory, run_on};
use super::{GIB, MIB, pages_at};
use quarry::addr::{CpuId, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, Machine as TlbMachine, SimCpu, SimFrames, Who};
use quarry::ds::rbtree::{Chain, Node, Owned};
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::hal::entry::RawEntry;
use quarry::hal::level::{Run, Slot};
use quarry::hal::mmu::{Asid, BbmLevel, Invalidation, Mmu};
use quarry::mm::io::Claim;
use quarry::mm::page::{Bank, BankMap, Page, PageDescriptor, PageMap, Section};
use quarry::mm::pgtable::{PageTable, Space as TableSpace};
use quarry::mm::vmalloc::{Area, Tuning, VmallocHal, VmapSpace};
use quarry::mm::zone::{CpuPages, PageAllocator, PageHal, Pressure, WatermarkTuning, ZoneLimits};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Where RAM begins.
pub(crate) const RAM: u64 = 0x80_0000_0000;
/// CPUs.
const CPUS: u32 = 2;
/// Mappings of devices that can be noted beside the last few.
pub(crate) const CLAIMS: usize = 64;

/// Whether `vm_map_ram` maps one of so many frames from this one on.
type Maps<'a> = dyn Fn(Pfn, u64) -> bool + 'a;

std::thread_local! {
    static MASKED: Cell<bool> = const { Cell::new(false) };
    static BRIEFLY: Cell<Option<*const Maps<'static>>> = const { Cell::new(None) };
    static ASKED: Cell<Option<*const Look<'static>>> = const { Cell::new(None) };
    static LATE: Cell<Option<*const Look<'static>>> = const { Cell::new(None) };
}

/// The view of one reader.
type Look<'a> = dyn Fn() + 'a;

/// Runs `f` on a machine whose CPUs acknowledge invalidations late: `look` is called each time when some were issued and this
/// CPU waits, while the others still have what they had.
pub(crate) fn acknowledging_late<'a, R>(look: &'a Look<'a>, f: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime changes, and the pointer is gone when this returns.
    let look = unsafe { std::mem::transmute::<&'a Look<'a>, &'static Look<'static>>(look) };
    LATE.set(Some(std::ptr::from_ref(look)));
    let result = f();
    LATE.set(None);
    result
}

/// Runs `f`, and `look` once: when somebody is about to map something, as another CPU that comes in between.
pub(crate) fn before_mapping<'a, R>(look: &'a Look<'a>, f: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime changes, and the pointer is gone when this returns.
    let look = unsafe { std::mem::transmute::<&'a Look<'a>, &'static Look<'static>>(look) };
    ASKED.set(Some(std::ptr::from_ref(look)));
    let result = f();
    assert!(ASKED.take().is_none(), "nothing was mapped");
    result
}

/// Runs `f` while the page allocator asks `maps` before it frees what `vm_map_ram` has mapped.
pub(super) fn asking<'a>(maps: &'a Maps<'a>, f: impl FnOnce()) {
    // SAFETY: only the lifetime changes, and the pointer is gone when this returns.
    let maps = unsafe { std::mem::transmute::<&'a Maps<'a>, &'static Maps<'static>>(maps) };
    BRIEFLY.set(Some(std::ptr::from_ref(maps)));
    f();
    BRIEFLY.set(None);
}

/// The CPU that this thread plays, as `run_on` set it.
fn cpu() -> CpuId {
    CpuId::new(super::machine::playing())
}

/// CPU 0's tables, with an invalidation that can be left out.
pub(crate) struct Forgetful {
    cpu: SimCpu,
    pub(crate) forget: AtomicBool,
}

// SAFETY: the machine is a model; being unsound on demand is the purpose.
unsafe impl Mmu for Forgetful {
    type Format = Stage1;

    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry {
        // SAFETY: passed on.
        unsafe { self.cpu.read(table, slot) }
    }

    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: passed on.
        unsafe { self.cpu.write(table, slot, entry) }
    }

    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry> {
        // SAFETY: passed on.
        unsafe { self.cpu.compare_exchange(table, slot, current, new) }
    }

    unsafe fn zero_table(&self, table: PhysAddr) {
        // SAFETY: passed on.
        unsafe { self.cpu.zero_table(table) }
    }

    unsafe fn fill(&self, table: PhysAddr, run: Run, first: RawEntry, step: u64) {
        // SAFETY: passed on.
        unsafe { self.cpu.fill(table, run, first, step) }
    }

    fn publish_table(&self) {
        self.cpu.publish_table();
    }

    fn publish(&self) {
        self.cpu.publish();
    }

    fn order_before_invalidate(&self) {
        self.cpu.order_before_invalidate();
    }

    fn invalidate(&self, what: Invalidation) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu.invalidate(what);
        }
    }

    fn invalidate_range(&self, what: Invalidation) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu.invalidate_range(what);
        }
    }

    fn invalidate_all(&self) {
        if !self.forget.load(Ordering::Relaxed) {
            self.cpu.invalidate_all();
        }
    }

    fn invalidate_asid(&self, asid: Asid) {
        self.cpu.invalidate_asid(asid);
    }

    fn complete(&self) {
        // Not again while it looks.
        if let Some(look) = LATE.take() {
            // SAFETY: set while what it points to is borrowed.
            let look_now = unsafe { &*look };
            look_now();
            LATE.set(Some(look));
        }
        self.cpu.complete();
    }

    fn has_range_invalidation(&self) -> bool {
        self.cpu.has_range_invalidation()
    }

    fn bbm_level(&self) -> BbmLevel {
        self.cpu.bbm_level()
    }
}

/// RAM as descriptors.
struct Ram {
    section: Section,
    descriptors: Vec<PageDescriptor>,
    blocks: Vec<AtomicU8>,
}

impl Ram {
    fn new(size: u64) -> Self {
        let pages = u32::try_from(size / PAGE_SIZE).unwrap();
        Self {
            section: Section { first: 0, end: pages },
            descriptors: (0..pages).map(|_| PageDescriptor::default()).collect(),
            blocks: (0..pages / 512).map(|_| AtomicU8::new(0)).collect(),
        }
    }
}

pub(crate) struct Local<'m> {
    pages: CpuPages,
    map: BankMap<'m>,
}

/// The page allocator's machine.
pub(crate) struct PagesOf<'m> {
    map: BankMap<'m>,
    locals: Vec<Local<'m>>,
    /// The next so many allocations pass, and the one after fails; every one after that passes again.
    pub(crate) until_failure: AtomicU64,
    pub(crate) zeroed: AtomicU64,
}

impl Interrupts for PagesOf<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        MASKED.replace(true)
    }

    fn restore(&self, saved: bool) {
        MASKED.set(saved);
    }
}

impl<'m> PerCpu for PagesOf<'m> {
    type Local = Local<'m>;

    fn local(&self) -> &Local<'m> {
        &self.locals[cpu().get() as usize]
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local<'m>> {
        self.locals.get(cpu.get() as usize)
    }

    fn cpu(&self) -> CpuId {
        cpu()
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        cpu.get() == 0
    }

    fn kick(&self, _: CpuId) {}
}

impl Pressure for PagesOf<'_> {
    fn should_fail(&self, _: Gfp, _: quarry::addr::Order) -> bool {
        let left = self.until_failure.load(Ordering::Relaxed);
        self.until_failure.store(left.wrapping_sub(u64::from(left != u64::MAX)), Ordering::Relaxed);
        left == 0
    }
}

// SAFETY: one thread runs, whichever CPU it plays; no memory is behind the pages.
unsafe impl<'m> PageHal for PagesOf<'m> {
    type Map = BankMap<'m>;
    type Relax = quarry::arch::host::Spin;

    fn map(&self) -> BankMap<'m> {
        self.map
    }

    fn local_map(local: &Local<'m>) -> BankMap<'m> {
        local.map
    }

    fn pages<'l>(local: &'l Local<'m>) -> &'l CpuPages {
        &local.pages
    }

    fn may_wait(&self, _: &Local<'m>, _: bool) -> bool {
        true
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        quarry::mm::layout::phys_to_virt(phys).unwrap()
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        quarry::mm::layout::virt_to_phys(virt)
    }

    fn zero(&self, _: Internal, _: PhysAddr, pages: u64) {
        self.zeroed.fetch_add(pages, Ordering::Relaxed);
    }

    fn fill(&self, _: Internal, _: PhysAddr, _: u64, _: u8) {}

    fn is_mapped_briefly(&self, first: Pfn, pages: u64) -> bool {
        // SAFETY: set while what it points to is borrowed.
        BRIEFLY.get().is_some_and(|maps| unsafe { &*maps }(first, pages))
    }

    fn find_other(&self, _: Internal, _: PhysAddr, _: u64, _: u8) -> Option<(PhysAddr, u8)> {
        None
    }
}

/// The flags with which vmalloc asked for memory of its own, in order.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) descriptors: Vec<Gfp>,
    pub(crate) tables: Vec<Gfp>,
}

/// All of it, as vmalloc sees it.
pub(crate) struct Kernel<'m> {
    pub(crate) machine: TlbMachine,
    frames: SimFrames,
    pub(crate) table: PageTable<Forgetful>,
    pub(crate) pages: PageAllocator<PagesOf<'m>>,
    descriptors: Mutex<Chain<'m, Area>>,
    /// For mappings of devices, and for as many as there are.
    pub(crate) claims: Mutex<Chain<'m, Claim>>,
    pub(crate) in_handler: AtomicBool,
    /// How memory of vmalloc's own was asked for.
    pub(crate) asked: Mutex<Asked>,
    /// Memory that was zeroed through its own addresses.
    pub(crate) cleared: Mutex<Vec<VirtRange>>,
    /// Rows of records of per-CPU memory.
    pub(crate) rows: AtomicUsize,
    /// No more of them can be had.
    pub(crate) no_rows: AtomicBool,
}

impl Interrupts for Kernel<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        MASKED.replace(true)
    }

    fn restore(&self, saved: bool) {
        MASKED.set(saved);
    }
}

impl PerCpu for Kernel<'_> {
    type Local = ();

    fn local(&self) -> &() {
        &()
    }

    fn local_of(&self, cpu: CpuId) -> Option<&()> {
        (cpu.get() < CPUS).then_some(&())
    }

    fn cpu(&self) -> CpuId {
        cpu()
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    fn is_online(&self, _: CpuId) -> bool {
        true
    }

    fn kick(&self, _: CpuId) {}
}

// SAFETY: one set of tables, one chain of descriptors, from which each is taken once.
unsafe impl<'m> VmallocHal<'m> for Kernel<'m> {
    type Mmu = Forgetful;
    type Frames = SimFrames;
    type Pages = PagesOf<'m>;
    type Relax = quarry::arch::host::Spin;

    fn descriptor(&self, gfp: Gfp) -> Option<Owned<'m, Area>> {
        self.asked.lock().unwrap().descriptors.push(gfp);
        self.descriptors.lock().unwrap().pop_front()
    }

    fn in_interrupt(&self) -> bool {
        self.in_handler.load(Ordering::Relaxed)
    }

    fn tables(&self) -> &PageTable<Forgetful> {
        &self.table
    }

    fn frames(&self, gfp: Gfp) -> SimFrames {
        self.asked.lock().unwrap().tables.push(gfp);
        if let Some(look) = ASKED.take() {
            // SAFETY: set while what it points to is borrowed.
            let look = unsafe { &*look };
            look();
        }
        self.frames.clone()
    }

    fn pages(&self) -> &PageAllocator<PagesOf<'m>> {
        &self.pages
    }
}

pub(crate) type Vmalloc<'m> = VmapSpace<'m, Kernel<'m>>;

/// Runs `f` on a machine with everything free.
pub(crate) fn with_machine(config: Config, f: impl FnOnce(&Vmalloc<'_>)) {
    with_reserved(config, PhysRange::EMPTY, f);
}

/// The same, with memory in the middle that is reserved.
pub(crate) fn with_reserved(config: Config, reserved: PhysRange, f: impl FnOnce(&Vmalloc<'_>)) {
    let size = if cfg!(miri) { 8 * MIB } else { 64 * MIB };
    let ram = Ram::new(size);
    let Ram { section, descriptors, blocks } = &ram;
    let (banks, sections) = ([Bank { section: *section, descriptors, blocks }], [*section]);
    let mut nodes = memory(4_000);
    let mut claims: Vec<_> = (0..CLAIMS).map(|_| Node::new(Claim::new())).collect();
    f(&boot(&banks, &sections, (size, reserved), (&mut nodes, &mut claims), config));
}

/// [`with_machine`], and sees that everything is as before in the end.
pub(super) fn on_a_machine(config: Config, f: impl FnOnce(&Vmalloc<'_>)) {
    with_machine(config, |space| {
        let free = free_pages(space);
        f(space);
        at_rest(space, free);
    });
}

/// Free pages, none of them on the list of a CPU.
pub(crate) fn free_pages(space: &Vmalloc<'_>) -> u64 {
    space.hal().pages.drain_all();
    space.hal().pages.free_page_count()
}

fn boot<'m>(
    banks: &'m [Bank<'m>],
    sections: &'m [Section],
    (size, reserved): (u64, PhysRange),
    (nodes, claim_nodes): (&'m mut [Node<'m, Area>], &'m mut [Node<'m, Claim>]),
    config: Config,
) -> Vmalloc<'m> {
    run_on(0);
    let map = BankMap::new(Pfn::new(RAM / PAGE_SIZE), banks, sections).unwrap();
    let locals = (0..CPUS).map(|_| Local { pages: CpuPages::new(), map }).collect();
    let until_failure = AtomicU64::new(u64::MAX);
    let pages = PageAllocator::new(PagesOf { map, locals, until_failure, zeroed: AtomicU64::new(0) });
    let ram = PhysRange::from_size(PhysAddr::new(RAM), size).unwrap();
    let limits = ZoneLimits::new(ram.start(), None, None);
    let free = match reserved.is_empty() {
        true => vec![ram],
        false => [(ram.start(), reserved.start()), (reserved.end(), ram.end())]
            .into_iter()
            .filter_map(|(start, end)| PhysRange::new(start, end))
            .collect(),
    };
    raw!(pages.hand_over([ram].into_iter(), free.into_iter(), limits, WatermarkTuning::DEFAULT)).unwrap();
    let machine = TlbMachine::new(config, PhysRange::from_size(PhysAddr::new(0x4000_0000), 16 * MIB).unwrap());
    let frames = machine.frames();
    let mmu = Forgetful { cpu: machine.cpu(CpuId::BOOT), forget: AtomicBool::new(false) };
    // SAFETY: the machine is a model.
    let table = unsafe { PageTable::new(mmu, &frames, TableSpace::Kernel) }.unwrap();
    machine.set_ttbr1(table.root());
    let mut descriptors = Chain::new();
    for node in nodes {
        descriptors.push_back(Owned::new(node));
    }
    let descriptors = Mutex::new(descriptors);
    let mut claims = Chain::new();
    claim_nodes.iter_mut().for_each(|node| claims.push_back(Owned::new(node)));
    let claims = Mutex::new(claims);
    let in_handler = AtomicBool::new(false);
    let kernel = Kernel {
        machine,
        frames,
        table,
        pages,
        descriptors,
        claims,
        in_handler,
        asked: Mutex::default(),
        cleared: Mutex::default(),
        rows: AtomicUsize::new(0),
        no_rows: AtomicBool::new(false),
    };
    let space = VmapSpace::new(kernel);
    space.set_up(&Tuning { region: pages_at(0, GIB / PAGE_SIZE), ram_pages: size / PAGE_SIZE }).unwrap();
    space
}

/// Another owner takes a page, and no CPU may reach it by an old translation.
pub(crate) fn take_page(space: &Vmalloc<'_>) -> Option<Page> {
    let pages = &space.hal().pages;
    let page = pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, quarry::addr::Order::ZERO).ok()?;
    let phys = pages.hal().map().phys(page);
    space.hal().machine.give_away(PhysRange::from_size(phys, PAGE_SIZE).unwrap());
    Some(page)
}

/// Every CPU reads every page of an area; what they read stays in their TLBs.
pub(crate) fn touch(space: &Vmalloc<'_>, start: VirtAddr, pages: u64) {
    for cpu in (0..CPUS).map(CpuId::new) {
        for page in 0..pages {
            let addr = VirtAddr::new(start.get() + page * PAGE_SIZE + 8);
            space.hal().machine.cpu(cpu).load(addr, Who::Kernel).unwrap();
        }
    }
}

/// Everything is free again, and no rule was broken.
pub(crate) fn at_rest(space: &Vmalloc<'_>, free_pages: u64) {
    space.purge_all();
    space.check().unwrap();
    assert_eq!(space.iter().count(), 0);
    let hal = space.hal();
    hal.pages.drain_all();
    hal.pages.check().unwrap();
    assert_eq!(hal.pages.free_page_count(), free_pages, "pages are back");
    let map = hal.pages.hal().map();
    let mapped = |page: u32| map.get(map.find(Pfn::new(RAM / PAGE_SIZE + u64::from(page))).unwrap()).state().mappings();
    assert!((0..map.sections()[0].end).all(|page| mapped(page) == 0), "no page is held");
    hal.table.check().unwrap_or_else(|error| panic!("{error}"));
    if let Err(violations) = hal.machine.check() {
        panic!("{violations:?}");
    }
}
