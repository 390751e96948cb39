//! The tour: where nobody sits at a terminal, every subsystem does one visible thing, says its figures, and gives its memory
//! back; then the machine is left.
#![forbid(unsafe_code)]

mod devices;
mod memory;
mod process;
mod say;

use super::machine::Machine;
use super::{machine_account, process as processes, wx_check};
use crate::addr::PAGE_SIZE;
use crate::driver::timer;
use crate::global::{self, Error};
use crate::kernel::picture::Exact;
use crate::kprintln;

/// A stop: the subsystem's name, and what it does.
type Stop = (&'static str, fn(&Machine) -> Result<(), Error>);

const STOPS: [Stop; 10] = [
    ("memblock", memory::memblock),
    ("buddy", memory::buddy),
    ("slab", memory::slab),
    ("vmalloc", memory::vmalloc),
    ("per-CPU", memory::per_cpu),
    ("mempool", memory::mempool),
    ("ioremap", devices::ioremap),
    ("DMA", devices::dma),
    ("tags", memory::tags),
    ("user", process::user),
];

/// Goes round. Whether every stop did its work and every invariant holds at the end. Boot CPU, when booting is over.
pub(super) fn run(machine: &Machine) -> bool {
    let begun = timer::microseconds();
    kprintln!("\nThe tour: each subsystem does one thing. At a terminal `make run` gives a prompt instead.\n");
    let mut fine = true;
    // The first allocations of each kind make what stays: slabs, chunks, tables.
    for (name, stop) in STOPS {
        if let Err(error) = stop(machine) {
            kprintln!("{name:<9}failed: {error}");
            fine = false;
        }
    }
    let used = (global::totalram_pages() - global::nr_free_pages()) * PAGE_SIZE;
    let took = (timer::microseconds() - begun) / 1000;
    kprintln!("\n{} in use, {} free after {took} ms", Exact(used), Exact(global::nr_free_pages() * PAGE_SIZE));
    check(machine) && fine
}

/// Tests every invariant, and says in a line how many parts there are, or in one each which are broken.
fn check(machine: &Machine) -> bool {
    let (mut parts, mut broken) = (0, 0);
    let mut tell = |part: &'static str, result: Result<(), &dyn core::fmt::Display>| {
        parts += 1;
        if let Err(error) = result {
            broken += 1;
            kprintln!("check    {part}: {error}");
        }
    };
    global::check_all(&mut tell);
    global::check_part("W^X", wx_check::check_tables(&machine.boot).map(drop), &mut tell);
    global::check_part("processes", processes::check(), &mut tell);
    let account = machine_account::account(machine);
    let total = account.as_ref().map_or(0, |account| account.map.total());
    global::check_part("sum of all RAM", account.map(drop), &mut tell);
    if broken == 0 {
        kprintln!("check    every invariant of {parts} parts holds; the owners of RAM add up to {}", Exact(total));
    }
    broken == 0
}
