//! A machine for address spaces: CPUs, descriptors up to a limit, and a record of what CPUs may still translate, so that
//! pages that come back too early are noticed.

use quarry::addr::{CpuId, VirtRange};
use quarry::ds::rbtree::{Chain, Node, Owned};
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::hal::cpu::{Interrupts, PerCpu};
use quarry::mm::vmalloc::{Area, AreaHal, Pages, VmapSpace};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

std::thread_local! {
    /// The CPU that this thread plays, and whether its interrupts are masked.
    static CPU: Cell<(u32, bool)> = const { Cell::new((0, false)) };
}

/// Lets this thread play another CPU.
pub(crate) fn run_on(cpu: u32) {
    CPU.set((cpu, false));
}

/// The CPU that this thread plays.
pub(super) fn playing() -> u32 {
    CPU.get().0
}

pub(super) type Space<'a> = VmapSpace<'a, Machine<'a>>;

pub(super) struct Machine<'a> {
    cpus: u32,
    descriptors: Mutex<Chain<'a, Area>>,
    /// Pages by number, with the addresses that translate to them.
    mapped: Mutex<FxHashMap<u64, VirtRange>>,
    next_page: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) in_handler: AtomicBool,
    /// Forget the flush: a planted bug.
    pub(super) forget_flush: AtomicBool,
    /// Pages that came back while CPUs could reach them.
    pub(super) too_early: AtomicU64,
}

/// Memory for descriptors.
pub(super) fn memory<'a>(count: usize) -> Vec<Node<'a, Area>> {
    (0..count).map(|_| Node::new(Area::new())).collect()
}

impl<'a> Machine<'a> {
    pub(super) fn new(cpus: u32, memory: &'a mut [Node<'a, Area>]) -> Self {
        let mut descriptors = Chain::new();
        for node in memory {
            descriptors.push_back(Owned::new(node));
        }
        Self {
            cpus,
            descriptors: Mutex::new(descriptors),
            mapped: Mutex::default(),
            next_page: AtomicU64::new(1),
            flushes: AtomicU64::new(0),
            released: AtomicU64::new(0),
            in_handler: AtomicBool::new(false),
            forget_flush: AtomicBool::new(false),
            too_early: AtomicU64::new(0),
        }
    }

    /// Pages that `range` translates to from now on.
    pub(super) fn map(&self, range: VirtRange) -> Pages {
        let number = self.next_page.fetch_add(1, Ordering::Relaxed);
        self.mapped.lock().unwrap().insert(number, range);
        Pages::new(number, 1)
    }

    /// Takes away all descriptors that are left.
    pub(super) fn run_dry(&self) -> Chain<'a, Area> {
        std::mem::take(&mut *self.descriptors.lock().unwrap())
    }

    /// Brings them back.
    pub(super) fn refill(&self, mut descriptors: Chain<'a, Area>) {
        self.descriptors.lock().unwrap().append(&mut descriptors);
    }

    pub(super) fn translated(&self) -> usize {
        self.mapped.lock().unwrap().len()
    }
}

impl Interrupts for Machine<'_> {
    type Saved = bool;

    fn save(&self) -> bool {
        let (cpu, masked) = CPU.get();
        CPU.set((cpu, true));
        masked
    }

    fn restore(&self, saved: bool) {
        CPU.set((CPU.get().0, saved));
    }
}

impl PerCpu for Machine<'_> {
    type Local = ();

    fn local(&self) -> &() {
        &()
    }

    fn local_of(&self, cpu: CpuId) -> Option<&()> {
        (cpu.get() < self.cpus).then_some(&())
    }

    fn cpu(&self) -> CpuId {
        CpuId::new(CPU.get().0)
    }

    fn cpus(&self) -> u32 {
        self.cpus
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        cpu.get() < self.cpus
    }

    fn kick(&self, _: CpuId) {}
}

// SAFETY: each descriptor is taken once; nothing is mapped behind the areas but in the list that is checked.
unsafe impl<'a> AreaHal<'a> for Machine<'a> {
    type Relax = quarry::arch::host::Spin;

    fn descriptor(&self, _: Gfp) -> Option<Owned<'a, Area>> {
        assert!(!CPU.get().1, "no lock is held while memory is asked for");
        self.descriptors.lock().unwrap().pop_front()
    }

    fn unmap_and_flush(&self, _: Internal, ranges: &mut dyn Iterator<Item = VirtRange>, _: u64) {
        assert!(!CPU.get().1, "no lock is held during a flush");
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if self.forget_flush.load(Ordering::Relaxed) {
            return;
        }
        let mut mapped = self.mapped.lock().unwrap();
        let gone: FxHashSet<_> = ranges.map(|range| range.start()).collect();
        mapped.retain(|_, range| !gone.contains(&range.start()));
    }

    fn release(&self, _: Internal, pages: Pages) {
        assert!(!CPU.get().1, "no lock is held while pages are freed");
        if self.mapped.lock().unwrap().contains_key(&pages.word()) {
            self.too_early.fetch_add(1, Ordering::Relaxed);
        }
        self.released.fetch_add(1, Ordering::Relaxed);
    }

    fn in_interrupt(&self) -> bool {
        self.in_handler.load(Ordering::Relaxed)
    }
}
