//! Benchmarks of the kernel, in the kernel: one image with every peer linked into it, booted by the runner on a machine
//! that counts instructions exactly. `docs/measuring.md` says how the figures come about and how to read them.
#![no_std]
#![no_main]

extern crate alloc;

/// A raw call of a benchmark: on what it owns itself, or with a name that the call has to refuse.
macro_rules! raw {
    ($call:expr) => {{
        // SAFETY: what is named is the caller's own and not used afterwards, or nobody's, and refused.
        unsafe { $call }
    }};
}

mod areas;
mod arena;
mod counter;
#[cfg(feature = "peers")]
mod critical_section;
mod dmas;
mod drivers;
mod fast_path;
mod figures;
mod fullness;
mod heap;
mod heaps;
mod ioremaps;
mod mapping;
mod memory;
mod meter;
mod pages;
#[cfg(feature = "peers")]
mod peers;
mod percpus;
mod quarry_areas;
mod quarry_heap;
mod quarry_pages;
mod quarry_tables;
mod rows;
mod trace;
mod user_pages;
mod user_ranges;
mod user_spaces;
mod users;
mod vmallocs;

use meter::Meter;
use quarry::addr::PAGE_SIZE;
use quarry::global;
use quarry::kernel::init;
use quarry::{kprintln, ktest};

// The runner knows this entry by its name, and passes what to do among the boot arguments.
ktest!(benchmarks, machine = "icount mem=1G");
fn benchmarks() {
    let Some(machine) = init::machine() else { panic!("benchmarks run after booting") };
    let args = machine.args;
    match args.value("bench") {
        Some("memory") => memory_use(),
        Some("clock") => rows::run(&mut Meter::clocking(&machine.cpu), args),
        Some("trace") => rows::run(&mut Meter::tracing(&machine.cpu), args),
        _ => rows::run(&mut Meter::counting(&machine.cpu), args),
    }
}

/// How much RAM is free, for the slope of the metadata over RAM.
fn memory_use() {
    kprintln!("bench: memory\t{}", global::nr_free_pages() * PAGE_SIZE);
}
