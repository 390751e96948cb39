//! The fast path of a change of space against a rollover on another CPU, under every schedule.

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use quarry::addr::CpuId;
use quarry::hal::mmu::Asid;
use quarry::mm::user::asid::{AsidAllocator, AsidCpu, AsidHal, AsidNumbers, AsidSlot, AsidWord};
use std::cell::Cell;

/// Where the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The fast path looks and stores, in two steps.
    LooksThenStores,
    /// A CPU does not drop its TLB.
    NoFlush,
}

#[derive(Debug)]
struct Word {
    value: AtomicU64,
    torn: bool,
}

impl Word {
    fn new(torn: bool) -> Self {
        Self { value: AtomicU64::new(0), torn }
    }
}

impl Default for Word {
    fn default() -> Self {
        Self::new(TORN.with(Cell::get))
    }
}

// The kind of words that a model makes: the types make them by `Default`.
std::thread_local! {
    static TORN: Cell<bool> = const { Cell::new(false) };
}

loom::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

impl AsidWord for Word {
    fn load(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        if !self.torn {
            return self.value.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        }
        let same = self.load() == current;
        if same {
            self.store(new);
        }
        same
    }

    fn swap(&self, value: u64) -> u64 {
        self.value.swap(value, Ordering::Relaxed)
    }
}

/// Numbers 1 to 3 for two CPUs.
const NUMBERS: u32 = 4;

/// State of a CPU: the space whose entries it has under each number, and TTBR0.
#[derive(Default)]
struct Tlb {
    entries: [Option<usize>; NUMBERS as usize],
    ttbr0: Option<(usize, Asid)>,
}

impl Tlb {
    /// The CPU fetches what TTBR0 leads to.
    fn fetch(&mut self) {
        if let Some((space, asid)) = self.ttbr0 {
            let entry = &mut self.entries[usize::from(asid.get())];
            assert!(entry.is_none_or(|held| held == space), "an entry of another space under the same number");
            *entry = Some(space);
        }
    }
}

struct Two {
    cpus: [AsidCpu<Word>; 2],
    numbers: Mutex<Box<AsidNumbers>>,
    // Each is touched by its own CPU alone.
    tlbs: [std::sync::Mutex<Tlb>; 2],
    planted: Planted,
}

impl Two {
    fn tlb(&self) -> std::sync::MutexGuard<'_, Tlb> {
        self.tlbs[CPU.with(Cell::get)].lock().unwrap()
    }
}

impl AsidHal for Two {
    type Word = Word;

    fn local(&self) -> Option<&AsidCpu<Word>> {
        self.cpus.get(CPU.with(Cell::get))
    }

    fn of(&self, cpu: CpuId) -> Option<&AsidCpu<Word>> {
        self.cpus.get(cpu.get() as usize)
    }

    fn cpus(&self) -> u32 {
        2
    }

    fn locked<R>(&self, f: impl FnOnce(&mut AsidNumbers) -> R) -> R {
        f(&mut self.numbers.lock().unwrap())
    }

    fn flush_local(&self) {
        if self.planted != Planted::NoFlush {
            self.tlb().entries = Default::default();
        }
        self.tlb().fetch();
    }

    fn order_before_walks(&self) {
        fence(Ordering::SeqCst);
    }
}

struct World {
    allocator: AsidAllocator<Two>,
    slots: [AsidSlot<Word>; 5],
}

impl World {
    fn switch(&self, space: usize) {
        let asid = self.allocator.activate(&self.slots[space]).expect("both CPUs have data");
        let mut tlb = self.allocator.hal().tlb();
        // The old tables are still there.
        tlb.fetch();
        tlb.ttbr0 = Some((space, asid));
        tlb.fetch();
    }
}

/// One CPU goes from space to space; the other one makes new spaces until the numbers run out.
fn model(planted: Planted) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        TORN.with(|torn| torn.set(planted == Planted::LooksThenStores));
        let hal = Two {
            cpus: Default::default(),
            // On a stack with room for it: the model's are small.
            numbers: Mutex::new(std::thread::spawn(|| Box::new(AsidNumbers::new())).join().unwrap()),
            tlbs: Default::default(),
            planted,
        };
        let allocator = AsidAllocator::with_word(hal, NUMBERS, Word::default()).expect("enough numbers");
        let world: &'static World = Box::leak(Box::new(World { allocator, slots: Default::default() }));
        world.switch(0);
        world.switch(1);
        world.switch(0);
        let other = loom::thread::spawn(move || {
            CPU.with(|cpu| cpu.set(1));
            for space in [2, 3, 4] {
                world.switch(space);
            }
        });
        // By the fast path, until a rollover comes in between.
        world.switch(1);
        world.switch(3);
        other.join().unwrap();
        for space in [4, 0, 2] {
            world.switch(space);
        }
        world.allocator.check_all().unwrap();
        world.allocator.check_slots(world.slots.iter()).unwrap();
    });
}

// Behaviour 492 for address space numbers.
#[test]
fn a_rollover_during_a_change_of_space_loses_nothing() {
    model(Planted::Nothing);
}

#[test]
#[should_panic(expected = "under the same number")]
fn a_fast_path_in_two_steps_is_found() {
    model(Planted::LooksThenStores);
}

#[test]
#[should_panic(expected = "under the same number")]
fn a_flush_that_is_left_out_is_found() {
    model(Planted::NoFlush);
}
