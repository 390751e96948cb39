//! Benchmarks in real time, on the machine that builds: every heap through the same workloads in the same run, taking turns,
//! so that what else the machine does falls on all of them. What to read are the ratios. `docs/measuring.md` says more.

extern crate alloc;

mod heap;
mod shared;
mod timed;

use critical_section as _;
use heap::peers::{
    ax_allocator, buddy_alloc, buddy_slab_allocator, buddy_system_allocator, dlmalloc, embedded_alloc,
    good_memory_allocator, linked_list_allocator, rlsf, slab_allocator_rs, slabmalloc, talc,
};
use heap::random::Random;
use heap::{Heap, Memory, Unable, check};
use shared::{Libc, Locked};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::panic::{catch_unwind, set_hook};
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

/// What each row took, by workload and threads, then by heap.
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
    for ((name, threads), times) in &table {
        print(name, *threads, times);
    }
}

/// What a panic said.
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

/// Prints what the heaps took for one workload: the quickest first, with its ratio to each.
fn print(name: &str, threads: u32, times: &BTreeMap<&str, Result<Vec<f64>, String>>) {
    let mut lines = Vec::new();
    for (by, times) in times {
        match times {
            Ok(times) => {
                let mut sorted = times.clone();
                sorted.sort_by(f64::total_cmp);
                let at = |percent: usize| sorted.get((sorted.len() - 1) * percent / 100).copied().unwrap_or(f64::NAN);
                lines.push((at(50), at(0), at(100), *by));
            }
            Err(why) => println!("{name:<28} {threads} threads  {by:<24} {why}"),
        }
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some(&(best, ..)) = lines.first() else { return };
    for (median, least, most, by) in lines {
        println!(
            "{name:<28} {threads} threads  {by:<24} {median:>9.1} ns  ({least:.1} to {most:.1})  {:>6.2}",
            median / best
        );
    }
}
