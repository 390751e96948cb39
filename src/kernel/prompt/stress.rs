//! `stress`: every CPU allocates and frees at random for some seconds.
#![forbid(unsafe_code)]

use super::allocations::Memory;
use super::progress::Progress;
use crate::addr::{CpuId, Order, to_usize};
use crate::arch::aarch64::counter;
use crate::gfp::Gfp;
use crate::global::{self, KVec, Pages, VVec};
use crate::hal::patience::elapsed;
use crate::kernel::bootargs::parse_number;
use crate::kernel::command::{Command, no_words};
use crate::kernel::machine::Machine;
use crate::kernel::map::Physical;
use crate::kernel::screen::{self, Live};
use crate::kernel::{cpus, input};
use crate::kprintln;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "stress",
    arguments: "[SECONDS] [map]",
    help: "every CPU allocates and frees objects, pages and areas at random, with the map of RAM if you like; Ctrl-C ends it",
    example: "stress 5",
    words: no_words,
    run: stress,
}];

/// Without a number.
const SECONDS: u64 = 5;
const MAX_SECONDS: u64 = 3600;
/// Allocations that a CPU holds at most.
const HELD: usize = 128;
/// Operations between two looks at the clock.
const STRIDE: u64 = 64;

/// A CPU's part of the stress: allocations that come and go.
struct Worker {
    state: u64,
    held: KVec<Memory>,
    refused: u64,
}

impl Worker {
    /// With nothing allocated; `None` if there is no memory even for the list of allocations.
    fn new(seed: u64) -> Option<Self> {
        let held = KVec::with_capacity(HELD, Gfp::KERNEL).ok()?;
        Some(Self { state: seed | 1, held, refused: 0 })
    }

    /// A random number below a bound (xorshift64*).
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// Allocates something or frees something.
    fn step(&mut self) {
        let count = self.held.len();
        // The more is held, the more likely something is freed.
        if self.below(HELD as u64) < count as u64 {
            let victim = to_usize(self.below(count as u64));
            let last = count - 1;
            self.held.as_mut_slice().swap(victim, last);
            drop(self.held.pop());
            return;
        }
        let gfp = Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN;
        let memory = match self.below(16) {
            0 => VVec::with_capacity(to_usize(1 + self.below(256 << 10)), gfp).ok().map(Memory::Area),
            1..=4 => {
                let order = u8::try_from(self.below(6)).ok().and_then(Order::new).unwrap_or(Order::ZERO);
                Pages::new(gfp, order).ok().map(Memory::Block)
            }
            _ => KVec::with_capacity(to_usize(1 + self.below(4096)), gfp).ok().map(Memory::Object),
        };
        match memory {
            // There is room: the list has a capacity of `HELD`.
            Some(memory) => drop(self.held.push_within_capacity(memory)),
            None => self.refused += 1,
        }
    }
}

fn stress(machine: &Machine, rest: &str) {
    let (rest, drawn) = rest.strip_suffix("map").map_or((rest, false), |rest| (rest.trim_end(), true));
    let seconds = if rest.is_empty() { Some(SECONDS) } else { parse_number(rest) };
    let Some(seconds) = seconds.filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) else {
        return kprintln!("a number of seconds from 1 to {MAX_SECONDS}, such as stress 5");
    };
    let free = global::nr_free_pages();
    let (steps, refused, cancelled) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begun = counter::ticks();
    let total = seconds * counter::frequency();
    let cpus = cpus::run_everywhere(&|cpu: CpuId| {
        let Some(mut worker) = Worker::new(begun ^ u64::from(cpu.get()) << 32) else { return };
        let mut bar = (cpu == CpuId::BOOT && !drawn).then(|| Progress::new("stress"));
        let mut live = (cpu == CpuId::BOOT && drawn).then(|| Live::begin(machine, "the stress"));
        loop {
            let passed = elapsed(begun, counter::ticks());
            if let Some(bar) = &mut bar {
                bar.show(passed, total);
                if input::is_cancelled() {
                    cancelled.store(true, Ordering::Relaxed);
                }
            }
            if let Some(live) = &mut live {
                live.show_if_due(&Physical { machine, style: screen::style(machine, false), range: None });
                if live.has_ended() {
                    cancelled.store(true, Ordering::Relaxed);
                }
            }
            if passed >= total || cancelled.load(Ordering::Relaxed) {
                break;
            }
            (0..STRIDE).for_each(|_| worker.step());
            steps.fetch_add(STRIDE, Ordering::Relaxed);
        }
        refused.fetch_add(worker.refused, Ordering::Relaxed);
    });
    let milliseconds = (elapsed(begun, counter::ticks()) * 1000 / counter::frequency()).max(1);
    let (steps, refused) = (steps.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    kprintln!("{steps} operations on {cpus} CPUs in {milliseconds} ms, {} a second", steps * 1000 / milliseconds);
    kprintln!("{refused} allocations refused; free pages before {free}, now {}", global::nr_free_pages());
    let mut broken = 0;
    global::check_all(&mut |part, result| {
        if let Err(error) = result {
            broken += 1;
            kprintln!("{part}: {error}");
        }
    });
    if broken == 0 {
        kprintln!("every invariant holds");
    }
}
