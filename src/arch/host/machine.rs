//! The simulated machine: RAM, CPUs, and the list of what went wrong.
//!
//! It is as unkind as the architecture permits. A store to a table is invisible to walkers until its CPU executes a DSB (and,
//! with [`Visibility::Mixed`], sometimes visible at once). An invalidation takes effect only when its CPU waits for it; until
//! then every CPU uses the entries that it has cached. A CPU caches everything that it may, at the first moment at which it may
//! ([`Config::eager`]), and keeps it until told otherwise. So code that lacks a barrier, a TLBI, a wait or a break before a
//! make fails here at once, and not once in a million boots.
#![forbid(unsafe_code)]

use super::memory::{Memory, table_of};
use super::op::TlbOp;
use super::promised::{Missed, Promised};
use super::root::Root;
use super::tlb::Tlb;
use crate::addr::{CpuId, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, to_usize};
use crate::hal::mmu::{Asid, BbmLevel};
use rustc_hash::FxHashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Violations that are kept; behind these come only their echoes.
const KEPT: usize = 32;

/// When walkers see a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// At the CPU's next DSB.
    Late,
    /// At once or at the next DSB, by a coin that this seed determines.
    Mixed(u64),
}

/// Properties of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Number of CPUs.
    pub cpus: u32,
    /// `ID_AA64MMFR2_EL1.BBM`.
    pub bbm: BbmLevel,
    /// FEAT_TLBIRANGE.
    pub range_invalidation: bool,
    /// FEAT_TTL: invalidations by address carry the level, and reach only entries of that level.
    pub ttl: bool,
    /// The CPUs set the access flag (FEAT_HAFDBS, `TCR_EL1.HA`).
    pub hardware_access_flag: bool,
    /// The CPUs keep the dirty state (FEAT_HAFDBS, `TCR_EL1.HD`).
    pub hardware_dirty: bool,
    /// Every CPU fetches every translation as soon as it exists. Without it, only accesses fill TLBs.
    pub eager: bool,
    /// A CPU takes one translation fault for what has become mapped since it last synchronised, as one may that had walked for the
    /// access before.
    pub stale_faults: bool,
    /// When walkers see a store.
    pub visibility: Visibility,
}

impl Config {
    /// Two CPUs like the Raspberry Pi 4's Cortex-A72: none of the features.
    pub const CORTEX_A72: Self = Self {
        cpus: 2,
        bbm: BbmLevel::Zero,
        range_invalidation: false,
        ttl: false,
        hardware_access_flag: false,
        hardware_dirty: false,
        eager: true,
        stale_faults: false,
        visibility: Visibility::Late,
    };

    /// Two CPUs like QEMU's `max`: all of them.
    pub const MAX: Self = Self {
        bbm: BbmLevel::Two,
        range_invalidation: true,
        ttl: true,
        hardware_access_flag: true,
        hardware_dirty: true,
        ..Self::CORTEX_A72
    };
}

/// One CPU.
#[derive(Default)]
pub(super) struct Cpu {
    pub(super) ttbr0: Option<Root>,
    pub(super) ttbr1: Option<Root>,
    pub(super) tlb: Tlb,
    /// Translations under ASIDs that it does not run with, to memory that has a new owner by now. They must be gone before the
    /// CPU runs with such an ASID again.
    pub(super) condemned: Tlb,
    /// Issued here and not waited for.
    pub(super) outstanding: Vec<TlbOp>,
    /// The entries that became valid since it synchronised.
    pub(super) missed: Missed,
}

impl Cpu {
    /// Drops what `op` reaches. Returns an address under each entry that could still be used.
    fn apply(&mut self, op: &TlbOp) -> Vec<VirtAddr> {
        self.condemned.apply(op);
        self.tlb.apply(op)
    }
}

/// Everything behind the lock.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) memory: Memory,
    pub(super) cpus: Vec<Cpu>,
    pub(super) frames: FrameStock,
    pub(super) counts: Counts,
    pub(super) violations: Vec<String>,
    /// The pages that every CPU may be using.
    pub(super) promised: Vec<Promised>,
    coin: u64,
}

/// The frames that tables are made of.
pub(super) struct FrameStock {
    pub(super) next: PhysAddr,
    pub(super) end: PhysAddr,
    pub(super) free: Vec<PhysAddr>,
    pub(super) out: FxHashSet<u64>,
    /// Allocations until one fails.
    pub(super) until_failure: Option<u64>,
}

/// Counts of executed operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// TLBI by address.
    pub by_address: u64,
    /// TLBI by range.
    pub by_range: u64,
    /// TLBI of one ASID.
    pub by_asid: u64,
    /// TLBI of everything.
    pub everything: u64,
    /// TLBI of everything on one CPU alone.
    pub local: u64,
    /// DSB of either kind.
    pub barriers: u64,
    /// 64-bit stores to tables.
    pub stores: u64,
}

impl State {
    pub(super) fn complain(&mut self, text: String) {
        if self.violations.len() < KEPT {
            self.violations.push(text);
        }
    }

    /// A fair coin, the same for the same seed.
    fn toss(&mut self) -> bool {
        // SplitMix64.
        self.coin = self.coin.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.coin ^ self.coin >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 63 == 1
    }

    /// A store to a table.
    pub(super) fn store(&mut self, cpu: usize, word: u64, value: u64) {
        self.counts.stores += 1;
        let (table, slot) = table_of(word);
        self.judge_store(table, slot, value);
        let early = matches!(self.config.visibility, Visibility::Mixed(_)) && self.toss();
        let was_valid = self.memory.visible(word) & 1 == 1;
        if !early {
            self.memory.store(cpu, word, value);
        } else if self.memory.show(word, value) {
            self.has_become_visible(word, !was_valid && value & 1 == 1);
            self.judge_promises();
        }
    }

    /// A DSB that waits for stores.
    pub(super) fn barrier(&mut self, cpu: usize) {
        self.counts.barriers += 1;
        for (word, made_valid) in self.memory.drain(cpu) {
            self.has_become_visible(word, made_valid);
        }
        self.judge_promises();
    }

    /// `TLBI VMALLE1; DSB NSH`: one CPU drops everything, and may fetch anew at once.
    pub(super) fn drop_local(&mut self, cpu: usize) {
        self.counts.local += 1;
        self.barrier(cpu);
        let dropped = self.cpus.get_mut(cpu).map(|cpu| cpu.apply(&TlbOp::EVERYTHING)).unwrap_or_default();
        if self.config.eager {
            for addr in dropped {
                self.speculate(cpu, addr);
            }
        }
        self.synchronise(cpu);
        self.judge_promises();
    }

    /// DSB ISH; ISB: invalidations first, on every CPU; each CPU may fetch anew from what is visible by then; and only then
    /// the stores that no earlier barrier ordered.
    pub(super) fn complete(&mut self, cpu: usize) {
        let ops = self.cpus.get_mut(cpu).map(|cpu| std::mem::take(&mut cpu.outstanding)).unwrap_or_default();
        for victim in 0..self.cpus.len() {
            let mut dropped: Vec<VirtAddr> = Vec::new();
            if let Some(state) = self.cpus.get_mut(victim) {
                dropped.extend(ops.iter().flat_map(|op| state.apply(op)));
            }
            if self.config.eager {
                for addr in dropped {
                    self.speculate(victim, addr);
                }
            }
        }
        self.barrier(cpu);
        self.synchronise(cpu);
        self.judge_promises();
    }
}

/// A simulated machine. Clones are handles to the same one.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<State>>,
}

/// Violations on a machine, one a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Violations(Vec<String>);

impl Violations {
    /// Whether some violation's text holds `part`.
    #[must_use]
    pub fn mention(&self, part: &str) -> bool {
        self.0.iter().any(|text| text.contains(part))
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|text| write!(f, "\n  {text}"))
    }
}

impl Machine {
    /// A machine with `table_frames`, the RAM that tables are taken from.
    #[must_use]
    pub fn new(config: Config, table_frames: PhysRange) -> Self {
        let coin = if let Visibility::Mixed(seed) = config.visibility { seed } else { 0 };
        let state = State {
            config,
            memory: Memory::default(),
            cpus: (0..config.cpus).map(|_| Cpu::default()).collect(),
            frames: FrameStock {
                next: table_frames.start(),
                end: table_frames.end(),
                free: Vec::new(),
                out: FxHashSet::default(),
                until_failure: None,
            },
            counts: Counts::default(),
            violations: Vec::new(),
            promised: Vec::new(),
            coin,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `root` into TTBR1 of every CPU.
    pub fn set_ttbr1(&self, root: PhysAddr) {
        let mut state = self.lock();
        for cpu in 0..state.cpus.len() {
            if let Some(cpu) = state.cpus.get_mut(cpu) {
                cpu.ttbr1 = Some(Root { table: root, asid: None });
            }
            state.speculate_all(cpu);
        }
    }

    /// Puts `root` and `asid` into TTBR0 of one CPU.
    pub fn set_ttbr0(&self, cpu: CpuId, root: PhysAddr, asid: Asid) {
        let mut state = self.lock();
        let cpu = to_usize(u64::from(cpu.get()));
        if let Some(cpu) = state.cpus.get_mut(cpu) {
            cpu.ttbr0 = Some(Root { table: root, asid: Some(asid) });
        }
        state.judge_asid(cpu, asid);
        state.speculate_all(cpu);
        state.synchronise(cpu);
    }

    /// Leaves nothing in TTBR0 of one CPU (`TCR_EL1.EPD0`): no user address is translated any more. Its TLB keeps its entries.
    pub fn clear_ttbr0(&self, cpu: CpuId) {
        let mut state = self.lock();
        if let Some(cpu) = state.cpus.get_mut(to_usize(u64::from(cpu.get()))) {
            cpu.ttbr0 = None;
        }
    }

    /// The eight bytes at a physical address, as software reads them through whatever maps them.
    #[must_use]
    pub fn peek(&self, at: PhysAddr) -> u64 {
        self.lock().memory.newest(at.get() & !7)
    }

    /// Eight bytes at a physical address, as a device writes them that is coherent.
    pub fn poke(&self, at: PhysAddr, value: u64) {
        self.lock().memory.show(at.get() & !7, value);
    }

    /// Fills whole pages from `start` on with a 64-bit value.
    pub fn fill(&self, start: PhysAddr, pages: u64, value: u64) {
        let mut state = self.lock();
        for page in 0..pages {
            state.memory.fill_page(start.get() + page * PAGE_SIZE, value);
        }
    }

    /// Copies a whole page of memory.
    pub fn copy_page(&self, from: PhysAddr, to: PhysAddr) {
        self.lock().memory.copy_page(from.get(), to.get());
    }

    /// States that the memory goes to a new owner: no CPU may hold a translation to it (promise 3 of the design).
    pub fn give_away(&self, memory: PhysRange) {
        self.lock().judge_new_owner(memory);
    }

    /// Operations executed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Table frames that are out.
    #[must_use]
    pub fn frames_out(&self) -> usize {
        self.lock().frames.out.len()
    }

    /// Lets `successes` table allocations pass and the next one fail; `None` lets all pass.
    pub fn fail_allocation_after(&self, successes: Option<u64>) {
        self.lock().frames.until_failure = successes;
    }

    /// Violations so far.
    ///
    /// # Errors
    ///
    /// The violations, if there are any.
    pub fn violations(&self) -> Result<(), Violations> {
        match self.lock().violations.clone() {
            none if none.is_empty() => Ok(()),
            violations => Err(Violations(violations)),
        }
    }

    /// Violations so far. At a moment when no call is under way and no gather unflushed, it also tests that every store is
    /// visible, every invalidation complete, and every TLB entry of every CPU equal to the tables.
    ///
    /// # Errors
    ///
    /// The violations, if there are any.
    pub fn check(&self) -> Result<(), Violations> {
        self.lock().judge_quiet();
        self.violations()
    }
}
