//! Many address spaces on few CPUs with few numbers, on the simulated machine: no access ever meets an entry of another space.

use crate::random::Random;
use quarry::addr::{CpuId, PhysAddr, PhysRange, VirtAddr, to_usize};
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, Machine, SimCpu, Who};
use quarry::hal::entry::{EntryFormat, RawEntry};
use quarry::hal::frame::FrameSource;
use quarry::hal::level::{LeafLevel, Level};
use quarry::hal::mmu::{AsidScope, Invalidation, Mmu, WalkDepth};
use quarry::hal::prot::{Access, Prot};
use quarry::mm::user::asid::{
    AsidAllocator, AsidCpu, AsidError, AsidHal, AsidNumbers, AsidSlot, AsidWord, NUMBERS_8_BIT, NUMBERS_16_BIT,
};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGE: u64 = 4096;
/// Where every space has its only page.
const AT: VirtAddr = VirtAddr::new(0x40_0000);
const RAM: u64 = 0x80_0000_0000;

/// Where the allocator, or the machine under it, is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Planted {
    Nothing,
    /// A CPU does not drop its TLB after a rollover.
    NoFlush,
    /// The generation stays what it is at a rollover.
    NotBumped,
    /// A rollover overlooks a CPU.
    CpuForgotten,
    /// A rollover drops all TLBs itself, at once, instead of leaving that to the CPUs.
    BroadcastOnly,
}

/// A word that keeps its first value if it is told to.
#[derive(Debug, Default)]
struct Word {
    value: AtomicU64,
    frozen: AtomicBool,
}

impl AsidWord for Word {
    fn load(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    fn store(&self, value: u64) {
        if self.load() == 0 || !self.frozen.load(Ordering::SeqCst) {
            self.value.store(value, Ordering::SeqCst);
        }
    }

    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        self.value.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn swap(&self, value: u64) -> u64 {
        self.value.swap(value, Ordering::SeqCst)
    }
}

struct Sim {
    machine: Machine,
    planted: Planted,
    cpus: Vec<AsidCpu<Word>>,
    numbers: RefCell<AsidNumbers>,
    /// The CPU that executes.
    now: Cell<u32>,
    /// Whether the CPUs flushed since the lock was taken were asked for.
    forgetting: Cell<bool>,
}

impl Sim {
    fn cpu(&self) -> SimCpu {
        self.machine.cpu(CpuId::new(self.now.get()))
    }
}

impl AsidHal for Sim {
    type Word = Word;

    fn local(&self) -> Option<&AsidCpu<Word>> {
        self.cpus.get(self.now.get() as usize)
    }

    fn of(&self, cpu: CpuId) -> Option<&AsidCpu<Word>> {
        let forgotten = self.planted == Planted::CpuForgotten && self.forgetting.get() && cpu.get() == 3;
        self.cpus.get(cpu.get() as usize).filter(|_| !forgotten)
    }

    fn cpus(&self) -> u32 {
        u32::try_from(self.cpus.len()).unwrap()
    }

    fn locked<R>(&self, f: impl FnOnce(&mut AsidNumbers) -> R) -> R {
        self.forgetting.set(true);
        let result = f(&mut self.numbers.borrow_mut());
        self.forgetting.set(false);
        result
    }

    fn flush_local(&self) {
        match self.planted {
            Planted::NoFlush => {}
            Planted::BroadcastOnly => {}
            _ => self.cpu().invalidate_local(),
        }
        // TTBR0 still holds the last space: the CPU may fetch from it at once.
        self.cpu().speculate(AT);
    }

    fn order_before_walks(&self) {
        self.cpu().complete();
    }
}

/// An address space of one page, its tables made by hand.
struct Space {
    slot: AsidSlot<Word>,
    /// From the root down.
    tables: [PhysAddr; 4],
    /// Kind of the page.
    frame: u64,
}

struct World {
    allocator: AsidAllocator<Sim>,
    spaces: Vec<Space>,
    /// Which space each CPU runs.
    running: Vec<Option<usize>>,
    /// Which CPUs are in the middle of a change.
    changing: Vec<bool>,
    random: Random,
    next_frame: u64,
    rollovers: u64,
}

impl World {
    fn new(cpus: u32, numbers: u32, spaces: usize, eager: bool, planted: Planted, seed: u64) -> Self {
        let frames = PhysRange::from_size(PhysAddr::new(0x4000_0000), 64 << 20).expect("no wrap");
        let machine = Machine::new(Config { cpus, eager, ..Config::CORTEX_A72 }, frames);
        let hal = Sim {
            machine,
            planted,
            cpus: (0..cpus).map(|_| AsidCpu::default()).collect(),
            numbers: RefCell::new(AsidNumbers::new()),
            now: Cell::new(0),
            forgetting: Cell::new(false),
        };
        let generation = Word { frozen: AtomicBool::new(planted == Planted::NotBumped), ..Word::default() };
        let allocator = AsidAllocator::with_word(hal, numbers, generation).expect("enough numbers");
        let mut world = Self {
            allocator,
            spaces: Vec::new(),
            running: vec![None; cpus as usize],
            changing: vec![false; cpus as usize],
            random: Random(seed),
            next_frame: 0,
            rollovers: 0,
        };
        world.spaces = (0..spaces).map(|_| world.new_space()).collect();
        world
    }

    fn new_frame(&mut self) -> u64 {
        self.next_frame += 1;
        RAM + self.next_frame * PAGE
    }

    fn leaf(frame: u64) -> RawEntry {
        Stage1::leaf(LeafLevel::Pte, PhysAddr::new(frame), Prot::user(Access::Execute), false)
    }

    fn new_space(&mut self) -> Space {
        let (cpu, frames) = (self.allocator.hal().cpu(), self.allocator.hal().machine.frames());
        let tables = [(); 4].map(|()| frames.alloc_table().expect("a frame"));
        for table in tables {
            raw!(cpu.zero_table(table));
        }
        cpu.publish_table();
        for (pair, level) in tables.windows(2).zip([Level::Pgd, Level::Pud, Level::Pmd]) {
            raw!(cpu.write(pair[0], level.slot(AT), Stage1::table(pair[1])));
        }
        let frame = self.new_frame();
        raw!(cpu.write(tables[3], Level::Pte.slot(AT), Self::leaf(frame)));
        cpu.publish();
        Space { slot: AsidSlot::default(), tables, frame }
    }

    /// The page of a space becomes another one, by break-before-make.
    fn change_page(&mut self, space: usize) {
        let (frame, cpu) = (self.new_frame(), self.allocator.hal().cpu());
        let space = &mut self.spaces[space];
        let slot = Level::Pte.slot(AT);
        raw!(cpu.write(space.tables[3], slot, RawEntry::ABSENT));
        cpu.order_before_invalidate();
        if let Some(asid) = space.slot.asid() {
            cpu.invalidate(Invalidation {
                start: AT,
                count: 1,
                stride: LeafLevel::Pte,
                depth: WalkDepth::LastLevel,
                scope: AsidScope::One(asid),
            });
        }
        cpu.complete();
        let old = PhysRange::from_size(PhysAddr::new(space.frame), PAGE).expect("no wrap");
        self.allocator.hal().machine.give_away(old);
        space.frame = frame;
        raw!(cpu.write(space.tables[3], slot, Self::leaf(frame)));
        cpu.publish();
    }

    /// A space that no CPU runs ends, and another one takes its place.
    fn replace(&mut self, space: usize) {
        if self.running.contains(&Some(space)) {
            return;
        }
        let new = self.new_space();
        let cpu = self.allocator.hal().cpu();
        let old = std::mem::replace(&mut self.spaces[space], new);
        if let Some(asid) = old.slot.asid() {
            cpu.order_before_invalidate();
            cpu.invalidate_asid(asid);
            cpu.complete();
        }
        for table in old.tables {
            raw!(self.allocator.hal().machine.frames().free_table(table));
        }
    }

    /// Changes the space of a CPU; between its new number and its new `TTBR0`, other CPUs do something, too.
    fn switch(&mut self, cpu: u32, to: usize, depth: u32) -> Result<(), String> {
        self.allocator.hal().now.set(cpu);
        let from = self.running[cpu as usize].replace(to);
        self.changing[cpu as usize] = true;
        let before = self.spaces[to].slot.asid();
        let mut noted = None;
        let asid = self.allocator.activate_noting(&self.spaces[to].slot, &mut |asid| noted = Some(asid));
        let asid = asid.expect("every CPU has data");
        if before != Some(asid) && noted != Some(asid) {
            return Err(format!("space {to} has {asid:?}, and {noted:?} was noted"));
        }
        if self.allocator.hal().planted == Planted::BroadcastOnly && self.allocator.rollovers() != self.rollovers {
            self.rollovers = self.allocator.rollovers();
            self.allocator.hal().cpu().invalidate_all();
            self.allocator.hal().cpu().complete();
        }
        if depth < 2 && self.random.below(4) == 0 {
            for _ in 0..self.random.below(4) {
                let other = u32::try_from(self.random.below(self.running.len() as u64)).unwrap();
                if !self.changing[other as usize] {
                    self.step(other, depth + 1)?;
                }
                // It still has the last space's tables, and may fetch from them.
                if from.is_some() {
                    self.allocator.hal().machine.cpu(CpuId::new(cpu)).speculate(AT);
                }
            }
        }
        self.changing[cpu as usize] = false;
        self.allocator.hal().now.set(cpu);
        self.allocator.hal().cpu().set_ttbr0(self.spaces[to].tables[0], asid);
        Ok(())
    }

    /// One CPU looks where its page is.
    fn look(&self, cpu: u32) -> Result<(), String> {
        let Some(space) = self.running[cpu as usize] else { return Ok(()) };
        let found = self.allocator.hal().machine.cpu(CpuId::new(cpu)).fetch(AT, Who::User);
        let wanted = self.spaces[space].frame;
        if found == Ok(PhysAddr::new(wanted)) {
            return Ok(());
        }
        Err(format!("CPU {cpu} runs space {space}, whose page is {wanted:#x}, and finds {found:?}"))
    }

    fn step(&mut self, cpu: u32, depth: u32) -> Result<(), String> {
        self.allocator.hal().now.set(cpu);
        let space = to_usize(self.random.below(self.spaces.len() as u64));
        match self.random.below(16) {
            0 => self.change_page(space),
            // While some CPU is on its way to another space, none ends.
            1 if depth == 0 => self.replace(space),
            2 => {
                // No process: the empty table.
                self.allocator.hal().machine.clear_ttbr0(CpuId::new(cpu));
                self.running[cpu as usize] = None;
            }
            _ => self.switch(cpu, space, depth)?,
        }
        self.look(cpu)
    }

    fn run(&mut self, steps: u64) -> Result<(), String> {
        for number in 0..steps {
            let cpu = u32::try_from(self.random.below(self.running.len() as u64)).unwrap();
            self.step(cpu, 0)?;
            if number % 1024 == 0 {
                self.allocator.check_all().map_err(|error| error.to_string())?;
                let slots = self.spaces.iter().map(|space| &space.slot);
                self.allocator.check_slots(slots).map_err(|error| error.to_string())?;
                self.allocator.hal().machine.violations().map_err(|violations| format!("{violations:?}"))?;
            }
        }
        self.allocator.check_all().map_err(|error| error.to_string())?;
        self.allocator.hal().machine.violations().map_err(|violations| format!("{violations:?}"))
    }
}

fn seed() -> u64 {
    std::env::var("QUARRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0015)
}

fn history(cpus: u32, numbers: u32, spaces: usize, eager: bool, steps: u64, planted: Planted) -> Result<u64, String> {
    let seed = seed();
    println!("seed {seed}");
    let mut world = World::new(cpus, numbers, spaces, eager, planted, seed);
    world.run(steps).map(|()| world.allocator.rollovers())
}

// Behaviour 389: also through rollovers of 8-bit numbers, with CPUs in the middle of a change of space.
#[test]
fn no_cpu_meets_the_entry_of_another_space() {
    let steps = if cfg!(miri) { 300 } else { 100_000 };
    let rollovers =
        history(4, NUMBERS_8_BIT, 300, false, steps, Planted::Nothing).unwrap_or_else(|text| panic!("{text}"));
    assert!(cfg!(miri) || rollovers > 50, "{rollovers} rollovers");
}

#[test]
fn few_numbers_roll_over_all_the_time() {
    let steps = if cfg!(miri) { 200 } else { 20_000 };
    for cpus in [1, 2, 4, 7] {
        let rollovers =
            history(cpus, cpus + 2, 12, false, steps, Planted::Nothing).unwrap_or_else(|text| panic!("{text}"));
        assert!(rollovers > steps / 100, "{rollovers} rollovers");
    }
}

#[test]
fn cpus_that_fetch_whatever_they_may_meet_nothing_stale() {
    let steps = if cfg!(miri) { 50 } else { 3_000 };
    history(4, 7, 12, true, steps, Planted::Nothing).unwrap_or_else(|text| panic!("{text}"));
}

#[test]
fn each_shortcut_is_caught() {
    for planted in [Planted::NoFlush, Planted::NotBumped, Planted::CpuForgotten, Planted::BroadcastOnly] {
        let found = history(4, 7, 12, false, 20_000, planted);
        assert!(found.is_err(), "{planted:?} is not noticed");
    }
}

#[test]
fn sixteen_bits_need_no_rollover_for_as_many_spaces() {
    assert_eq!(history(2, NUMBERS_16_BIT, 300, false, 3_000, Planted::Nothing), Ok(0));
}

#[test]
fn there_must_be_more_numbers_than_cpus() {
    let hal = |cpus: u32| Sim {
        machine: Machine::new(Config::CORTEX_A72, PhysRange::EMPTY),
        planted: Planted::Nothing,
        cpus: (0..cpus).map(|_| AsidCpu::default()).collect(),
        numbers: RefCell::new(AsidNumbers::new()),
        now: Cell::new(0),
        forgetting: Cell::new(false),
    };
    assert!(AsidAllocator::with_word(hal(254), NUMBERS_8_BIT, Word::default()).is_ok());
    let refused = AsidAllocator::with_word(hal(255), NUMBERS_8_BIT, Word::default()).map(drop);
    assert_eq!(refused, Err(AsidError::TooFewNumbers));
}
