//! What a machine is like, and how it is put together.

use super::ram::{Counted, Ram};
use super::threads::run_on;
use super::{GIB, Local, Pages, Reclaiming, Sim, Watcher};
use quarry::addr::{PhysAddr, PhysRange};
use quarry::mm::page::{Bank, BankMap};
use quarry::mm::zone::{CpuPages, Handed, PageAllocator, Reclaim, SetupError, WatermarkTuning, ZoneLimits};
use quarry::sync::{RunningThread, Scopes, ThreadContext};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, OnceLock};

/// What the machine is like.
pub(in crate::pages) struct Spec {
    pub(in crate::pages) ram: Vec<PhysRange>,
    /// What of it is taken before the allocator gets it.
    pub(in crate::pages) reserved: Vec<PhysRange>,
    pub(in crate::pages) limits: Option<ZoneLimits>,
    pub(in crate::pages) cpus: u32,
    pub(in crate::pages) tuning: WatermarkTuning,
}

impl Spec {
    pub(in crate::pages) fn new(ram: &[PhysRange]) -> Self {
        Self { ram: ram.to_vec(), reserved: Vec::new(), limits: None, cpus: 1, tuning: WatermarkTuning::DEFAULT }
    }

    /// `size` bytes of RAM from 1 GiB on.
    pub(in crate::pages) fn of_size(size: u64) -> Self {
        Self::new(&[range(GIB, size)])
    }

    /// Nothing is kept free: every page can be had.
    pub(in crate::pages) fn without_reserve(mut self) -> Self {
        self.tuning.min_free_kbytes = Some(0);
        self
    }

    pub(in crate::pages) fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    pub(in crate::pages) fn reserve(mut self, reserved: PhysRange) -> Self {
        self.reserved.push(reserved);
        self
    }

    pub(in crate::pages) fn limits(mut self, dma_end: u64) -> Self {
        self.limits = Some(ZoneLimits::new(self.ram[0].start(), Some(PhysAddr::new(dma_end)), None));
        self
    }

    /// Runs `f` on such a machine, and checks every invariant afterwards.
    pub(in crate::pages) fn run(self, f: impl FnOnce(&Pages<'_>)) {
        self.run_setup(|pages, handed| {
            handed.unwrap();
            f(pages);
            pages.check().unwrap();
        });
    }

    pub(in crate::pages) fn run_setup(self, f: impl FnOnce(&Pages<'_>, Result<Handed, SetupError>)) {
        let ram = Ram::new(&self.ram);
        let banks = ram.as_banks();
        let (pages, handed) = self.boot(&ram, &banks);
        f(&pages, handed);
    }

    /// A machine that is never taken down, with a reclaimer that is asked for memory.
    pub(in crate::pages) fn with_reclaimer(self) -> Reclaiming {
        let ram: &'static Ram = Box::leak(Box::new(Ram::new(&self.ram)));
        let (pages, handed) = self.boot(ram, Box::leak(ram.as_banks().into_boxed_slice()));
        handed.unwrap();
        let pages: &'static Pages<'static> = Box::leak(Box::new(pages));
        let machine = Reclaiming { pages, reclaim: Box::leak(Box::new(Reclaim::new())) };
        assert!(pages.hal().reclaimer.set(machine).is_ok());
        machine
    }

    /// Runs `f` on such a machine before the allocator has its memory.
    pub(in crate::pages) fn before_hand_over(&self, f: impl FnOnce(&Pages<'_>)) {
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
            let (thread, idle) = (RunningThread::new(), ThreadContext::new());
            Local { pages: CpuPages::new(), map, scopes, thread, idle }
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
            migrant: ThreadContext::new(),
        };
        PageAllocator::new(sim)
    }
}

pub(in crate::pages) fn range(start: u64, size: u64) -> PhysRange {
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
