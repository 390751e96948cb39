//! `bench`: how long the common calls take here and now. The benchmarks proper, with peers and budgets, are the package `benches`:
//! these rows are for a look at the prompt, on any machine that boots.
#![forbid(unsafe_code)]

use super::progress::Progress;
use crate::addr::Order;
use crate::arch::aarch64::{counter, pmu};
use crate::board::Board;
use crate::gfp::Gfp;
use crate::global::{KVec, Pages, VVec};
use crate::kernel::command::Command;
use crate::kernel::machine::Machine;
use crate::kernel::{input, screen};
use crate::kprintln;
use core::hint::black_box;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "bench",
    arguments: "[ROW]",
    help: "how long an allocation and its free take; without a name lists the rows",
    example: "bench kmalloc",
    words: |before, offer| {
        if before.is_empty() {
            ROWS.iter().for_each(|row| offer(row.name));
        }
    },
    run: bench,
}];

/// Rounds that are measured, after one that only warms up.
const ROUNDS: u64 = 40;

/// A measurement.
struct Row {
    name: &'static str,
    about: &'static str,
    /// Pairs of calls in a round.
    pairs: u64,
    /// One pair; whether it succeeded.
    pair: fn() -> bool,
}

const ROWS: [Row; 6] = [
    Row {
        name: "kmalloc",
        about: "an object of 64 bytes, allocated and freed",
        pairs: 10_000,
        pair: || black_box(KVec::<u8>::with_capacity(64, Gfp::KERNEL)).is_ok(),
    },
    Row {
        name: "kmalloc-large",
        about: "an object of 32 KiB, allocated and freed",
        pairs: 2_000,
        pair: || black_box(KVec::<u8>::with_capacity(32 << 10, Gfp::KERNEL)).is_ok(),
    },
    Row {
        name: "page",
        about: "a page, allocated and freed",
        pairs: 10_000,
        pair: || black_box(Pages::new(Gfp::KERNEL, Order::ZERO)).is_ok(),
    },
    Row {
        name: "pages-zeroed",
        about: "a zeroed page, allocated and freed",
        pairs: 2_000,
        pair: || black_box(Pages::new(Gfp::KERNEL | Gfp::ZERO, Order::ZERO)).is_ok(),
    },
    Row {
        name: "block",
        about: "a block of the highest order, 4 MiB, allocated and freed",
        pairs: 500,
        pair: || black_box(Pages::new(Gfp::KERNEL, Order::MAX)).is_ok(),
    },
    Row {
        name: "vmalloc",
        about: "an area of 16 KiB, allocated and freed",
        pairs: 500,
        pair: || black_box(VVec::<u8>::with_capacity(16 << 10, Gfp::KERNEL)).is_ok(),
    },
];

fn bench(machine: &Machine, name: &str) {
    let Some(row) = ROWS.iter().find(|row| row.name == name) else {
        if !name.is_empty() {
            kprintln!("no row {name:?}; there are:");
        }
        return screen::list(machine, |f| {
            ROWS.iter().try_for_each(|row| writeln!(f, "  {:<14} {}", row.name, row.about))
        });
    };
    let (mut best, mut sum, mut instructions) = (u64::MAX, 0, u64::MAX);
    {
        let mut bar = Progress::new("bench");
        for round in 0..=ROUNDS {
            bar.show(round, ROUNDS);
            if input::is_cancelled() {
                return;
            }
            let (begun, retired) = (counter::ticks(), pmu::instructions_retired(&machine.cpu));
            if !(0..row.pairs).all(|_| (row.pair)()) {
                return kprintln!("no memory for {}", row.about);
            }
            let (ticks, retired) =
                (counter::ticks() - begun, pmu::instructions_retired(&machine.cpu).wrapping_sub(retired));
            if round > 0 {
                (best, sum) = (best.min(ticks), sum + ticks);
                // The event counter has 32 bits.
                instructions = instructions.min(retired & 0xffff_ffff);
            }
        }
    }
    // In tenths of a nanosecond, so that a digit is left of a fast call.
    let tenths = |ticks: u64, pairs: u64| ticks.saturating_mul(10_000_000_000 / counter::frequency()) / pairs;
    let (fast, mean) = (tenths(best, row.pairs), tenths(sum, row.pairs * ROUNDS));
    kprintln!("{}: {} pairs a round, {ROUNDS} rounds", row.about, row.pairs);
    kprintln!("  time of a pair by the counter of {} Hz, calls of this loop included:", counter::frequency());
    kprintln!("  {}.{} ns in the fastest round, {}.{} ns on average", fast / 10, fast % 10, mean / 10, mean % 10);
    match pmu::counts_instructions(&machine.cpu) {
        true => kprintln!("  {} instructions retired in the best round", instructions / row.pairs),
        false => kprintln!("  this CPU does not count instructions"),
    }
    if machine.board == Board::QemuVirt {
        kprintln!("  a virtual machine: where QEMU emulates the CPU, these are the emulator's times");
    }
}
