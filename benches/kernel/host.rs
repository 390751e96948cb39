//! Benchmarks in real time, on the machine that builds: every heap through the same workloads in the same run, taking turns,
//! so that other work of the machine affects all of them. Compare the ratios. `docs/measuring.md` says more.

extern crate alloc;

mod heap;
mod quarry_host;
mod shared;
mod timed;

use critical_section as _;
use heap::peers::{
    ax_allocator, buddy_alloc, buddy_slab_allocator, buddy_system_allocator, dlmalloc, embedded_alloc,
    good_memory_allocator, linked_list_allocator, rlsf, slab_allocator_rs, slabmalloc, talc,
};
use heap::random::Random;
use heap::{Heap, Memory, Unable, check};
use quarry_host::Kmalloc;
use shared::{Libc, Locked};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::panic::{catch_unwind, set_hook};
use std::path::PathBuf;
use std::ptr::NonNull;
use timed::{Batch, Bulk, Churn, Pair, alone, handed_over, together};

/// Bytes that a heap gets.
const SIZE: usize = 64 << 20;
/// How often the heaps take turns.
const ROUNDS: usize = 15;

/// One workload of one heap.
struct Row {
    name: &'static str,
    threads: u32,
    by: &'static str,
    /// Whether the heap does what a heap must.
    check: fn(Memory) -> Result<(), Unable>,
    run: fn(Memory) -> Result<f64, Unable>,
}

/// The rows of a heap in one thread, and in two.
fn rows<H: Heap + 'static, S: Heap + Clone + Send + 'static>() -> Vec<Row> {
    let check = |memory| check::check::<S>(memory, Random::layout);
    let row = |name, threads, run| Row { name, threads, by: H::NAME, check, run };
    vec![
        row("kmalloc_runtime/64", 1, |memory| alone::<H, _>(memory, Pair(64))),
        row("kmalloc_runtime/64", 2, |memory| together::<S, _>(memory, Pair(64))),
        row("kmalloc_runtime/1024", 1, |memory| alone::<H, _>(memory, Pair(1024))),
        row("kmalloc_runtime/1024", 2, |memory| together::<S, _>(memory, Pair(1024))),
        row("kmalloc_batch_random/1024", 1, |memory| alone::<H, _>(memory, Batch)),
        row("kmalloc_batch_random/1024", 2, |memory| together::<S, _>(memory, Batch)),
        row("kmalloc_bulk/64", 1, |memory| alone::<H, _>(memory, Bulk)),
        row("kmalloc_bulk/64", 2, |memory| together::<S, _>(memory, Bulk)),
        row("churn/1024", 1, |memory| alone::<H, _>(memory, Churn)),
        row("churn/1024", 2, |memory| together::<S, _>(memory, Churn)),
        row("handed_over/256", 2, |memory| handed_over::<S>(memory)),
    ]
}

/// Every heap there is.
fn all() -> Vec<Row> {
    fn peer<H: Heap + 'static>() -> Vec<Row> {
        rows::<H, Locked<H>>()
    }
    [
        rows::<Kmalloc, Kmalloc>(),
        rows::<Libc, Libc>(),
        peer::<ax_allocator::Slabs>(),
        peer::<buddy_alloc::FastBuddy>(),
        peer::<buddy_slab_allocator::SlabsOverBuddy>(),
        peer::<buddy_system_allocator::Buddy>(),
        peer::<dlmalloc::Dlmalloc>(),
        peer::<embedded_alloc::Embedded>(),
        peer::<good_memory_allocator::Bins>(),
        peer::<linked_list_allocator::List>(),
        peer::<rlsf::Tlsf>(),
        peer::<slab_allocator_rs::Eighths>(),
        peer::<slabmalloc::Zone>(),
        peer::<talc::Binned>(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Time of each row, by workload and threads, then by heap.
type Table<'a> = BTreeMap<(&'a str, u32), BTreeMap<&'a str, Result<Vec<f64>, String>>>;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let rows: Vec<Row> = all().into_iter().filter(|row| row.name.contains(&filter)).collect();
    assert!(!rows.is_empty(), "no row is called {filter:?}");
    let memory = memory();
    // A peer's panic is a line of the table.
    set_hook(Box::new(|_| {}));
    let mut table = Table::new();
    for round in 0..=ROUNDS {
        for row in &rows {
            let times = table.entry((row.name, row.threads)).or_default().entry(row.by).or_insert(Ok(Vec::new()));
            let Ok(taken) = times else { continue };
            let run = || match round {
                0 => (row.check)(memory).map(|()| None),
                _ => (row.run)(memory).map(Some),
            };
            match catch_unwind(run) {
                Ok(Ok(time)) => taken.extend(time),
                Ok(Err(why)) => *times = Err(why.to_owned()),
                Err(panic) => *times = Err(format!("panicked: {}", message(panic.as_ref()))),
            }
        }
    }
    let mut json = String::new();
    for ((name, threads), times) in &table {
        json += &print(name, *threads, times);
    }
    let path = output();
    match fs::write(&path, json) {
        Ok(()) => println!("\nresults: {}", path.display()),
        Err(error) => eprintln!("{}: {error}", path.display()),
    }
}

/// `bench/host.jsonl` in cargo's target directory: this program lies in `TARGET/TRIPLE/PROFILE/deps`.
fn output() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let dir = program.ancestors().nth(4).unwrap_or(&program).join("bench");
    // Writing says what is wrong.
    let _ = fs::create_dir_all(&dir);
    dir.join("host.jsonl")
}

/// Message of a panic.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Memory for one heap at a time.
fn memory() -> Memory {
    let Ok(layout) = Layout::from_size_align(SIZE, 2 << 20) else { panic!("no such layout") };
    // SAFETY: the layout is not empty.
    let Some(start) = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }) else { panic!("no memory") };
    // SAFETY: it is never freed, and heaps get it one after the other.
    unsafe { Memory::new(start, SIZE) }
}

/// Prints what the heaps took for one workload, the quickest first, with the ratio of each to it; and returns it as JSON.
fn print(name: &str, threads: u32, times: &BTreeMap<&str, Result<Vec<f64>, String>>) -> String {
    println!("\n{name}, {threads} {}", if threads == 1 { "thread" } else { "threads" });
    let mut lines = Vec::new();
    for (by, times) in times {
        match times {
            Ok(times) => lines.push(Figures::of(by, times)),
            Err(why) => println!("  {by:<24} {why}"),
        }
    }
    lines.sort_by(|a, b| a.median.total_cmp(&b.median));
    let best = lines.first().map_or(f64::NAN, |line| line.median);
    let mut json = String::new();
    for Figures { by, n, min, median, mean, max } in lines {
        println!("  {by:<24} {median:>9.1} ns  ({min:.1} to {max:.1})  {:>7.2}", median / best);
        let _ = writeln!(
            json,
            "{{\"name\":\"{name}\",\"impl\":\"{by}\",\"cpu\":\"host\",\"threads\":{threads},\"unit\":\"ns\",\"n\":{n},\
             \"min\":{min:.2},\"median\":{median:.2},\"mean\":{mean:.2},\"p99\":{max:.2},\"max\":{max:.2}}}"
        );
    }
    json
}

/// Time of one heap for one workload.
struct Figures<'a> {
    by: &'a str,
    n: usize,
    min: f64,
    median: f64,
    mean: f64,
    max: f64,
}

impl<'a> Figures<'a> {
    fn of(by: &'a str, times: &[f64]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let at = |rank: usize| sorted.get(rank).copied().unwrap_or(f64::NAN);
        let mean = sorted.iter().sum::<f64>() / n as f64;
        Self { by, n, min: at(0), median: at(n / 2), mean, max: at(n.saturating_sub(1)) }
    }
}
