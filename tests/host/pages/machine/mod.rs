//! A simulated machine for the page allocator: RAM as page descriptors and page contents, CPUs with lists of their own,
//! and a record of what the allocator asked of it.

mod ram;
mod spec;
mod threads;

use quarry::addr::{CpuId, Pfn, PhysAddr, VirtAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu, with_local};
use quarry::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use quarry::mm::fault_inject::{FaultContext, FaultInjector, FaultRequest, FaultSite};
use quarry::mm::layout;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::{CpuPages, Mover, PageAllocator, PageHal, Pressure, Reclaim, Relief, Shortage, scoped_gfp};
use quarry::sync::{RunningThread, Scopes, ThisCpu, ThreadContext, switch_thread};
use ram::Counted;
pub(super) use ram::{visits, with_sections};
pub(super) use spec::{Spec, range};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;
use threads::migrating;
use threads::{CPU, MIGRATES, point};
pub(super) use threads::{Yield, between, in_interrupt, on_cpus, run_on, was_between};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Longer than anything takes that a CPU sleeps for.
const FOR_EVER: Duration = Duration::from_secs(30);

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
    /// Whether a CPU that somebody waits for goes away instead of answering.
    pub(super) leaves: AtomicBool,
    /// Called by `relieve`.
    pub(super) relief: Mutex<Option<Relieve>>,
    /// Registered movers of movable pages.
    pub(super) mover: OnceLock<&'static dyn Mover>,
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
    /// The thread that migrates.
    migrant: ThreadContext,
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
    thread: RunningThread,
    /// What the CPU runs while the thread that migrates is elsewhere.
    idle: ThreadContext,
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

    fn waiting_for(&self, cpu: CpuId, step: u64) {
        if self.watcher.leaves.load(Ordering::Acquire) {
            assert!(step < 2, "waits for a CPU that is not there");
            self.set_online(cpu.get(), false);
        }
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

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        layout::phys_to_virt(phys).unwrap()
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        layout::virt_to_phys(virt)
    }

    fn zero(&self, _: Internal, start: PhysAddr, pages: u64) {
        let mut contents = self.contents.lock().unwrap();
        for page in 0..pages {
            contents.insert(Pfn::containing(start).get() + page, 0);
        }
    }

    fn fill(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) {
        let mut contents = self.contents.lock().unwrap();
        contents.extend((0..pages).map(|page| (Pfn::containing(start).get() + page, byte)));
    }

    fn find_other(&self, _: Internal, start: PhysAddr, pages: u64, byte: u8) -> Option<(PhysAddr, u8)> {
        let contents = self.contents.lock().unwrap();
        (0..pages).map(|page| Pfn::new(Pfn::containing(start).get() + page)).find_map(|pfn| {
            let found = contents.get(&pfn.get()).copied().unwrap_or(0xff);
            (found != byte).then_some((pfn.start(), found))
        })
    }

    fn evacuate(&self, _: Internal, page: Page, order: quarry::addr::Order) -> bool {
        assert!(!CPU.get().1, "called with interrupts masked by the allocator");
        self.watcher.mover.get().is_some_and(|mover| mover.evacuate(page, order))
    }

    fn overwritten(&self, at: PhysAddr, found: u8) {
        self.watcher.overwritten.lock().unwrap().push((at, found));
    }
}

pub(super) type Pages<'m> = PageAllocator<Sim<'m>>;

impl Sim<'_> {
    /// Whether this CPU is inside of anything that forbids waiting.
    pub(super) fn scopes_are_open(&self) -> bool {
        self.local().scopes.no_wait() & ALWAYS != 0
    }

    /// The CPUs on which somebody is inside of a scope.
    pub(super) fn cpus_inside(&self, scope: Scope) -> Vec<u32> {
        (0..).zip(&self.locals).filter(|(_, local)| local.scopes.is_inside(scope)).map(|(cpu, _)| cpu).collect()
    }

    /// Runs `f` in the thread that migrates, which begins on this CPU.
    pub(super) fn in_migrant<R>(&self, f: impl FnOnce() -> R) -> R {
        self.switch(|local| (&local.idle, &self.migrant));
        let answer = migrating(f);
        self.switch(|local| (&self.migrant, &local.idle));
        answer
    }

    /// This CPU leaves the first thread for the second.
    fn switch<'s>(&'s self, threads: impl FnOnce(&'s Local<'_>) -> (&'s ThreadContext, &'s ThreadContext)) {
        let cpu = CPU.get().0;
        let local = &self.locals[cpu as usize];
        let here = ThisCpu { cpu: CpuId::new(cpu), scopes: &local.scopes, held: None, thread: &local.thread };
        let (from, to) = threads(local);
        switch_thread(&here, from, to).unwrap();
    }

    /// Moves a thread that migrates to the next CPU, unless interrupts are masked or it has to stay.
    fn migrate(&self) {
        let (cpu, masked) = CPU.get();
        if !MIGRATES.get() || masked || self.locals[cpu as usize].scopes.is_inside(Scope::Cpu) {
            return;
        }
        let cpus = u32::try_from(self.locals.len()).unwrap();
        let next = (1..=cpus).map(|step| (cpu + step) % cpus).find(|next| self.is_online(CpuId::new(*next)));
        let Some(next) = next.filter(|next| *next != cpu) else { return };
        self.switch(|local| (&self.migrant, &local.idle));
        CPU.set((next, false));
        self.switch(|local| (&local.idle, &self.migrant));
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
