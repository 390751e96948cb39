//! A simulated machine for the page allocator: RAM as page descriptors and page contents, CPUs with lists of their own,
//! and a record of what the allocator asked of it.

use quarry::addr::{CpuId, Pfn, PhysAddr, PhysRange};
use quarry::arch::host;
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::cpu::{Interrupts, PerCpu, with_local};
use quarry::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use quarry::mm::fault_inject::{FaultContext, FaultInjector, FaultRequest, FaultSite};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, Page, PageDescriptor, PageMap, Section, sections_of};
use quarry::mm::zone::{
    CpuPages, Handed, PageAllocator, PageHal, Pressure, Reclaim, Relief, SetupError, Shortage, WatermarkTuning,
    ZoneLimits, scoped_gfp,
};
use quarry::sync::Scopes;
use quarry::sync::{HeldLocks, LockContext, LockHal};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, Condvar, Mutex, OnceLock};
use std::time::Duration;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Longer than anything takes that a CPU sleeps for.
const FOR_EVER: Duration = Duration::from_secs(30);

/// So many more points, and then what another CPU does.
type Between = (u32, Box<dyn FnOnce()>);

std::thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
    /// The CPU that this thread plays, and whether its interrupts are masked.
    static CPU: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// What this thread is told about the descriptors instead of the truth: the frame of page 0, and the sections.
    static LIE: Cell<Option<(Pfn, &'static [Section])>> = const { Cell::new(None) };
    /// Whether this thread migrates to the next CPU at every point where its interrupts are open.
    static MIGRATES: Cell<bool> = const { Cell::new(false) };
    /// What another CPU does in the middle of what this thread does.
    static BETWEEN: Cell<Option<Between>> = const { Cell::new(None) };
}

/// Lets another CPU do `f` in the middle of what this thread does next: when it has come to its `point`-th look at a
/// descriptor with no lock held, or has loaded a state that it may change.
pub(super) fn between(point: u32, cpu: u32, f: impl FnOnce() + 'static) {
    let other = move || {
        let before = CPU.replace((cpu, false));
        f();
        CPU.set(before);
    };
    BETWEEN.set(Some((point, Box::new(other))));
}

/// Whether the other CPU has come. If not, it does not come any more.
pub(super) fn was_between() -> bool {
    BETWEEN.take().is_none()
}

/// A point at which another CPU may come in between.
fn point() {
    let mut is_free = true;
    host::with_held(&mut |held, _| is_free = held.iter().next().is_none());
    match BETWEEN.take() {
        Some((0, other)) if is_free => other(),
        Some((left, other)) => BETWEEN.set(Some((left - u32::from(is_free), other))),
        None => {}
    }
}

/// Runs `f` in a thread that migrates to the next CPU that is online at every point where interrupts are open: before they
/// are masked, after they are opened again, and after each look at the CPU or at what it has. Not while it is inside of a
/// scope that forbids waiting, which keeps it where it is. Ends on the CPU that it began on.
pub(super) fn migrating<R>(f: impl FnOnce() -> R) -> R {
    let here = CPU.get();
    MIGRATES.set(true);
    let answer = f();
    MIGRATES.set(false);
    assert!(!CPU.get().1);
    CPU.set(here);
    answer
}

/// Runs `f` with another answer to what pages have descriptors.
pub(super) fn with_sections<R>(origin: Pfn, sections: &[Section], f: impl FnOnce() -> R) -> R {
    LIE.set(Some((origin, sections.to_vec().leak())));
    let result = f();
    LIE.set(None);
    result
}

/// Lets this thread play another CPU.
pub(super) fn run_on(cpu: u32) {
    CPU.set((cpu, false));
}

/// Runs `f` with interrupts masked, as a handler does.
pub(super) fn in_interrupt<R>(f: impl FnOnce() -> R) -> R {
    let (cpu, before) = CPU.get();
    CPU.set((cpu, true));
    let result = f();
    CPU.set((cpu, before));
    result
}

/// Descriptors and page blocks that this thread has looked at.
pub(super) fn visits() -> u64 {
    VISITS.get()
}

/// The descriptors, counting who looks: what the allocator does with memory is told by what it touches.
#[derive(Clone, Copy)]
pub(super) struct Counted<'m>(BankMap<'m>);

// SAFETY: the answers of the map behind it, but for a test that lies to see what comes of it.
unsafe impl PageMap for Counted<'_> {
    fn origin(&self) -> Pfn {
        LIE.get().map_or(self.0.origin(), |(origin, _)| origin)
    }

    fn sections(&self) -> &[Section] {
        LIE.get().map_or(self.0.sections(), |(_, sections)| sections)
    }

    fn get(&self, page: Page) -> &PageDescriptor {
        VISITS.set(VISITS.get() + 1);
        point();
        self.0.get(page)
    }

    fn block_type(&self, page: Page) -> &AtomicU8 {
        VISITS.set(VISITS.get() + 1);
        self.0.block_type(page)
    }
}

/// The descriptors of a machine's RAM.
pub(super) struct Ram {
    origin: Pfn,
    pub(super) banks: Vec<PhysRange>,
    sections: Vec<Section>,
    descriptors: Vec<Vec<PageDescriptor>>,
    blocks: Vec<Vec<AtomicU8>>,
}

impl Ram {
    /// RAM in `banks`, sorted and disjoint, of whole pages.
    pub(super) fn new(banks: &[PhysRange]) -> Self {
        let (sections, origin) = sections_of(banks.iter().copied());
        let sections: Vec<Section> = sections.map(|section| section.expect("RAM spans less than 16 TiB")).collect();
        let pages = |section: &Section| section.pages() as usize;
        Self {
            origin,
            banks: banks.to_vec(),
            descriptors: sections.iter().map(|s| (0..pages(s)).map(|_| PageDescriptor::default()).collect()).collect(),
            blocks: sections
                .iter()
                .map(|s| (0..pages(s) / PAGEBLOCK_PAGES as usize).map(|_| AtomicU8::new(0)).collect())
                .collect(),
            sections,
        }
    }

    fn as_banks(&self) -> Vec<Bank<'_>> {
        self.sections
            .iter()
            .zip(&self.descriptors)
            .zip(&self.blocks)
            .map(|((section, descriptors), blocks)| Bank { section: *section, descriptors, blocks })
            .collect()
    }
}

/// What the test decides about memory shortage, and what it saw.
#[derive(Default)]
pub(super) struct Watcher {
    pub(super) wakes: AtomicU64,
    /// Calls that may sleep, made where that is not allowed.
    pub(super) atomic_calls: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) atomic_sleeps: AtomicU64,
    /// How often somebody found that he has to wait.
    pub(super) waits: AtomicU64,
    pub(super) reliefs: AtomicU64,
    pub(super) refuse: AtomicBool,
    /// Free memory that was written to.
    pub(super) overwritten: Mutex<Vec<(PhysAddr, u8)>>,
    /// Which allocations fail.
    pub(super) faults: FaultInjector,
    /// Called by `relieve`.
    pub(super) relief: Mutex<Option<Relieve>>,
}

/// What a test does about a shortage.
pub(super) type Relieve = Box<dyn FnMut(&Shortage) -> Relief + Send>;

/// The machine as the allocator sees it.
pub(super) struct Sim<'m> {
    map: Counted<'m>,
    locals: Vec<Local<'m>>,
    online: Vec<AtomicBool>,
    /// CPUs whose data nobody finds.
    hidden: Vec<AtomicBool>,
    pub(super) watcher: Watcher,
    /// The byte that a page is filled with, where a test cares.
    pub(super) contents: Mutex<HashMap<u64, u8>>,
    /// Who is asked for memory, on a machine that has a reclaimer.
    reclaimer: OnceLock<Reclaiming>,
    /// The CPUs that were kicked. Whoever sleeps does so on the condition.
    kicked: Mutex<Vec<bool>>,
    events: Condvar,
    /// Whether there is anybody who could wake a CPU that sleeps.
    pub(super) others: AtomicBool,
}

/// A machine for good, with a reclaimer.
#[derive(Clone, Copy)]
pub(super) struct Reclaiming {
    pub(super) pages: &'static Pages<'static>,
    pub(super) reclaim: &'static Reclaim<Yield>,
}

pub(super) struct Local<'m> {
    pages: CpuPages,
    map: Counted<'m>,
    scopes: Scopes<MASKED, ALWAYS>,
}

/// A bit of this machine's interrupt mask that says that interrupts are masked, and one that is always set.
const MASKED: u64 = 1;
const ALWAYS: u64 = 2;

fn mask_bits(masked: bool) -> u64 {
    ALWAYS | if masked { MASKED } else { 0 }
}

impl Interrupts for Sim<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        self.migrate();
        let (cpu, masked) = CPU.get();
        CPU.set((cpu, true));
        masked
    }

    fn restore(&self, saved: bool) {
        let (cpu, masked) = CPU.get();
        assert!(masked, "somebody unmasked interrupts in between");
        CPU.set((cpu, saved));
        self.migrate();
    }
}

impl<'m> PerCpu for Sim<'m> {
    type Local = Local<'m>;

    fn local(&self) -> &Local<'m> {
        let local = &self.locals[CPU.get().0 as usize];
        self.migrate();
        local
    }

    fn local_of(&self, cpu: CpuId) -> Option<&Local<'m>> {
        let hidden = self.hidden.get(cpu.get() as usize)?.load(Ordering::Acquire);
        self.locals.get(cpu.get() as usize).filter(|_| !hidden)
    }

    fn cpu(&self) -> CpuId {
        let cpu = CpuId::new(CPU.get().0);
        self.migrate();
        cpu
    }

    fn cpus(&self) -> u32 {
        u32::try_from(self.locals.len()).unwrap()
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        self.online[cpu.get() as usize].load(Ordering::Acquire)
    }

    fn kick(&self, cpu: CpuId) {
        if let Some(machine) = self.reclaimer.get().filter(|_| MIGRATES.get()) {
            // No other thread plays that CPU: its interrupt comes at once.
            let before = CPU.replace((cpu.get(), true));
            machine.pages.answer_requests();
            CPU.set(before);
            return;
        }
        self.kicked.lock().unwrap()[cpu.get() as usize] = true;
        self.events.notify_all();
    }
}

impl Wait for Sim<'_> {
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        assert_eq!(self.atomic(), None, "waits where that is not legal");
        let cpu = CPU.get().0 as usize;
        queue.wait_with(condition, |seen| {
            self.watcher.waits.fetch_add(1, Ordering::SeqCst);
            // What the interrupt of a kick does.
            if let Some(machine) = self.reclaimer.get() {
                machine.pages.answer_requests();
            }
            if !self.others.load(Ordering::SeqCst) {
                return false;
            }
            let kicked = self.kicked.lock().unwrap();
            let asleep = |kicked: &mut Vec<bool>| queue.generation() == seen && !kicked[cpu];
            let (mut kicked, slept) = self.events.wait_timeout_while(kicked, FOR_EVER, asleep).unwrap();
            assert!(!slept.timed_out(), "nobody wakes {cpu}");
            kicked[cpu] = false;
            true
        })
    }

    fn wake(&self, queue: &WaitQueue) {
        queue.wake_with(|| {
            // Whoever has looked at the generation sleeps before this lock is free, or has not looked yet.
            drop(self.kicked.lock().unwrap());
            self.events.notify_all();
        });
    }
}

impl Context for Sim<'_> {
    fn enter(&self, scope: Scope) {
        with_local(self, |local| local.scopes.enter(scope));
    }

    fn leave(&self, scope: Scope) {
        with_local(self, |local| local.scopes.leave(scope));
    }

    fn is_inside(&self, scope: Scope) -> bool {
        with_local(self, |local| local.scopes.is_inside(scope))
    }

    fn atomic(&self) -> Option<Atomic> {
        let saved = self.save();
        let why = self.local().scopes.atomic(mask_bits(saved));
        self.restore(saved);
        why
    }
}

impl Pressure for Sim<'_> {
    fn wake(&self, zone: ZoneType, order: quarry::addr::Order) {
        assert!(!CPU.get().1, "woken with interrupts masked by the allocator");
        self.watcher.wakes.fetch_add(1, Ordering::Relaxed);
        if let Some(machine) = self.reclaimer.get() {
            machine.reclaim.wake_background(self, zone, order);
        }
    }

    fn scoped(&self, gfp: Gfp) -> Gfp {
        scoped_gfp(self, gfp)
    }

    fn freed(&self) {
        if let Some(machine) = self.reclaimer.get() {
            machine.reclaim.pages_freed(self);
        }
    }

    fn relieve(&self, shortage: &Shortage) -> Relief {
        assert!(!CPU.get().1, "called with interrupts masked by the allocator");
        self.watcher.reliefs.fetch_add(1, Ordering::Relaxed);
        if let Some(machine) = self.reclaimer.get() {
            return machine.reclaim.relieve(machine.pages, shortage);
        }
        self.watcher.relief.lock().unwrap().as_mut().map_or(Relief::GiveUp, |relief| relief(shortage))
    }

    fn should_fail(&self, gfp: Gfp, order: quarry::addr::Order) -> bool {
        let (cpu, masked) = CPU.get();
        let context = if masked { FaultContext::INTERRUPT } else { FaultContext::new(cpu) };
        let request = FaultRequest { context, gfp, size: order.pages() };
        self.watcher.refuse.load(Ordering::Relaxed) || self.watcher.faults.should_fail(FaultSite::PageAlloc, request)
    }

    fn failed(&self, _: &Shortage) {
        self.watcher.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn sleeps_in_atomic(&self, _: &'static str) {
        self.watcher.atomic_calls.fetch_add(1, Ordering::Relaxed);
    }

    fn waits_in_atomic(&self, _: Gfp, _: quarry::addr::Order) {
        self.watcher.atomic_sleeps.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: a thread plays one CPU at a time, and handlers run where it is not masked; no memory is behind the pages.
unsafe impl<'m> PageHal for Sim<'m> {
    type Map = Counted<'m>;
    type Relax = Yield;

    fn map(&self) -> Counted<'m> {
        self.map
    }

    fn local_map(local: &Local<'m>) -> Counted<'m> {
        local.map
    }

    fn pages<'l>(local: &'l Local<'m>) -> &'l CpuPages {
        &local.pages
    }

    fn may_wait(&self, local: &Local<'m>, saved: bool) -> bool {
        mask_bits(saved) & local.scopes.no_wait() == 0
    }

    fn load_exclusive(word: &AtomicU64) -> u64 {
        let found = word.load(Ordering::Relaxed);
        point();
        found
    }

    fn to_virt(&self, phys: PhysAddr) -> quarry::addr::VirtAddr {
        quarry::mm::layout::phys_to_virt(phys).unwrap()
    }

    fn to_phys(&self, virt: quarry::addr::VirtAddr) -> Option<PhysAddr> {
        quarry::mm::layout::virt_to_phys(virt)
    }

    fn zero(&self, start: PhysAddr, pages: u64) {
        let mut contents = self.contents.lock().unwrap();
        for page in 0..pages {
            contents.insert(Pfn::containing(start).get() + page, 0);
        }
    }

    fn fill(&self, start: PhysAddr, pages: u64, byte: u8) {
        let mut contents = self.contents.lock().unwrap();
        contents.extend((0..pages).map(|page| (Pfn::containing(start).get() + page, byte)));
    }

    fn find_other(&self, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let contents = self.contents.lock().unwrap();
        (0..pages).map(|page| Pfn::new(Pfn::containing(start).get() + page)).find_map(|pfn| {
            let found = contents.get(&pfn.get()).copied().unwrap_or(0xff);
            (found != byte).then_some((pfn.start(), found))
        })
    }

    fn overwritten(&self, at: PhysAddr, found: u8) {
        self.watcher.overwritten.lock().unwrap().push((at, found));
    }
}

/// How threads wait that play CPUs.
pub(super) struct Yield;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        std::thread::yield_now();
    }
}

impl LockHal for Yield {
    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        host::with_held(f);
    }
}

pub(super) type Pages<'m> = PageAllocator<Sim<'m>>;

impl Sim<'_> {
    /// Whether this CPU is inside of anything that forbids waiting.
    pub(super) fn scopes_are_open(&self) -> bool {
        self.local().scopes.no_wait() & ALWAYS != 0
    }

    /// Moves a thread that migrates to the next CPU, if it may go.
    fn migrate(&self) {
        let (cpu, masked) = CPU.get();
        if !MIGRATES.get() || masked || self.locals[cpu as usize].scopes.no_wait() & ALWAYS != 0 {
            return;
        }
        let cpus = u32::try_from(self.locals.len()).unwrap();
        let next = (1..=cpus).map(|step| (cpu + step) % cpus).find(|next| self.is_online(CpuId::new(*next)));
        CPU.set((next.unwrap_or(cpu), false));
    }

    pub(super) fn set_online(&self, cpu: u32, online: bool) {
        self.online[cpu as usize].store(online, Ordering::Release);
    }

    /// Sees that this context is one that reclaim calls out in: inside its scope, and with no lock held, all of which are
    /// taken with interrupts masked.
    pub(super) fn assert_reclaiming(&self) {
        assert!(self.is_inside(Scope::Reclaim), "called outside the scope");
        assert!(!CPU.get().1, "called with a lock held");
    }

    /// Makes a CPU's data impossible to find, or possible again: a bug for the checks.
    pub(super) fn hide_cpu(&self, cpu: u32, hidden: bool) {
        self.hidden[cpu as usize].store(hidden, Ordering::Release);
    }

    /// Writes to a page, as its owner would.
    pub(super) fn fill(&self, page: Page, pages: u32, byte: u8) {
        let mut contents = self.contents.lock().unwrap();
        for index in 0..pages {
            contents.insert(self.map.pfn(page.offset(index)).get(), byte);
        }
    }

    pub(super) fn byte(&self, page: Page) -> u8 {
        self.contents.lock().unwrap().get(&self.map.pfn(page).get()).copied().unwrap_or(0xff)
    }
}

/// Counts a CPU that is done, or whose test has failed.
struct Leaving<'a>(&'a AtomicU32);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Lets `cpus` threads play a CPU each, all of them online. Who is done answers the others until all are.
pub(super) fn on_cpus<R: Send>(pages: &Pages<'_>, cpus: u32, run: impl Fn(u32) -> R + Sync) -> Vec<R> {
    let (start, done) = (Barrier::new(cpus as usize), AtomicU32::new(0));
    (0..cpus).for_each(|cpu| pages.hal().set_online(cpu, true));
    let one = |cpu| {
        run_on(cpu);
        start.wait();
        let leaving = Leaving(&done);
        let result = run(cpu);
        drop(leaving);
        while done.load(Ordering::Acquire) < cpus {
            pages.answer_requests();
            std::thread::yield_now();
        }
        result
    };
    let one = &one;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || one(cpu))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (1..cpus).for_each(|cpu| pages.hal().set_online(cpu, false));
    run_on(0);
    results
}

/// What the machine is like.
pub(super) struct Spec {
    pub(super) ram: Vec<PhysRange>,
    /// What of it is taken before the allocator gets it.
    pub(super) reserved: Vec<PhysRange>,
    pub(super) limits: Option<ZoneLimits>,
    pub(super) cpus: u32,
    pub(super) tuning: WatermarkTuning,
}

impl Spec {
    pub(super) fn new(ram: &[PhysRange]) -> Self {
        Self { ram: ram.to_vec(), reserved: Vec::new(), limits: None, cpus: 1, tuning: WatermarkTuning::DEFAULT }
    }

    /// `size` bytes of RAM from 1 GiB on.
    pub(super) fn of_size(size: u64) -> Self {
        Self::new(&[range(GIB, size)])
    }

    /// Nothing is kept free: every page can be had.
    pub(super) fn without_reserve(mut self) -> Self {
        self.tuning.min_free_kbytes = Some(0);
        self
    }

    pub(super) fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    pub(super) fn reserve(mut self, reserved: PhysRange) -> Self {
        self.reserved.push(reserved);
        self
    }

    pub(super) fn limits(mut self, dma_end: u64) -> Self {
        self.limits = Some(ZoneLimits::new(self.ram[0].start(), Some(PhysAddr::new(dma_end)), None));
        self
    }

    /// Runs `f` on such a machine, and checks every invariant afterwards.
    pub(super) fn run(self, f: impl FnOnce(&Pages<'_>)) {
        self.run_setup(|pages, handed| {
            handed.unwrap();
            f(pages);
            pages.check().unwrap();
        });
    }

    pub(super) fn run_setup(self, f: impl FnOnce(&Pages<'_>, Result<Handed, SetupError>)) {
        let ram = Ram::new(&self.ram);
        let banks = ram.as_banks();
        let (pages, handed) = self.boot(&ram, &banks);
        f(&pages, handed);
    }

    /// A machine that is never taken down, with a reclaimer that is asked for memory.
    pub(super) fn with_reclaimer(self) -> Reclaiming {
        let ram: &'static Ram = Box::leak(Box::new(Ram::new(&self.ram)));
        let (pages, handed) = self.boot(ram, Box::leak(ram.as_banks().into_boxed_slice()));
        handed.unwrap();
        let pages: &'static Pages<'static> = Box::leak(Box::new(pages));
        let machine = Reclaiming { pages, reclaim: Box::leak(Box::new(Reclaim::new())) };
        assert!(pages.hal().reclaimer.set(machine).is_ok());
        machine
    }

    /// Runs `f` on such a machine before the allocator has its memory.
    pub(super) fn before_hand_over(&self, f: impl FnOnce(&Pages<'_>)) {
        let ram = Ram::new(&self.ram);
        f(&self.assemble(&ram, &ram.as_banks()));
    }

    fn boot<'m>(&self, ram: &'m Ram, banks: &'m [Bank<'m>]) -> (Pages<'m>, Result<Handed, SetupError>) {
        let pages = self.assemble(ram, banks);
        let limits = self.limits.unwrap_or(ZoneLimits::new(self.ram[0].start(), None, None));
        let free = subtract(&ram.banks, &self.reserved);
        let handed = raw!(pages.hand_over(ram.banks.iter().copied(), free.into_iter(), limits, self.tuning));
        (pages, handed)
    }

    fn assemble<'m>(&self, ram: &'m Ram, banks: &'m [Bank<'m>]) -> Pages<'m> {
        run_on(0);
        let map = Counted(BankMap::new(ram.origin, banks, &ram.sections).unwrap());
        let local = || {
            let scopes = Scopes::new();
            scopes.enforce(true);
            Local { pages: CpuPages::new(), map, scopes }
        };
        let sim = Sim {
            map,
            locals: (0..self.cpus).map(|_| local()).collect(),
            online: (0..self.cpus).map(|cpu| AtomicBool::new(cpu == 0)).collect(),
            hidden: (0..self.cpus).map(|_| AtomicBool::new(false)).collect(),
            watcher: Watcher::default(),
            contents: Mutex::default(),
            reclaimer: OnceLock::new(),
            kicked: Mutex::new(vec![false; self.cpus as usize]),
            events: Condvar::new(),
            others: AtomicBool::new(false),
        };
        PageAllocator::new(sim)
    }
}

pub(super) fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

/// `ranges` without `holes`, both sorted.
fn subtract(ranges: &[PhysRange], holes: &[PhysRange]) -> Vec<PhysRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = range.start();
        for hole in holes.iter().filter_map(|hole| hole.intersection(*range)) {
            left.extend(PhysRange::new(from, hole.start()).filter(|part| !part.is_empty()));
            from = hole.end();
        }
        left.extend(PhysRange::new(from, range.end()).filter(|part| !part.is_empty()));
    }
    left
}
