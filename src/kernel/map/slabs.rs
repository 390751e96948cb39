//! The slabs of a cache, and the objects in each.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, PhysRange};
use crate::global;
use crate::kernel::machine::Machine;
use crate::kernel::picture::{Exact, Style};
use crate::kernel::screen;
use crate::kprintln;
use crate::mm::slab::{Objects, Slot};
use core::fmt::{self, Write};

/// Slabs that are drawn.
const MOST: usize = 40;
/// Objects beside each other.
const COLUMNS: u32 = 64;

/// Draws the slabs of the cache of this name.
pub(super) fn show(machine: &Machine, name: &str, style: Style) {
    let mut found = false;
    let looked = global::slab_allocator().for_each(|cache| found |= cache.name() == name);
    match looked {
        Err(error) => kprintln!("{error}"),
        Ok(()) if !found => kprintln!("no cache {name:?}; slabinfo lists them: map slab kmalloc-64"),
        Ok(()) => screen::page(machine, &Slabs { name, style }),
    }
}

/// The slabs of a cache, as they are when it is printed.
struct Slabs<'n> {
    name: &'n str,
    style: Style,
}

impl fmt::Display for Slabs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slabs = global::slab_allocator();
        let mut result = Ok(());
        let _ = slabs.for_each(|cache| {
            if cache.name() == self.name && result.is_ok() {
                let mut sums = Sums::default();
                let size = cache.object_size();
                result = writeln!(f, "cache {}, objects of {size} bytes", self.name);
                let walk = slabs.for_each_slab_of(cache, &mut |memory, objects| {
                    sums.add(memory, objects);
                    if result.is_ok() && sums.slabs <= MOST {
                        result = self.slab(memory, objects, f);
                    }
                });
                result = result.and_then(|()| match walk {
                    Ok(()) => sums.write(f),
                    Err(broken) => writeln!(f, "{broken}"),
                });
            }
        });
        result
    }
}

impl Slabs<'_> {
    fn slab(&self, memory: PhysRange, objects: &Objects, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Slot::ALL.map(|slot| objects.count(slot));
        let [used, cached, free] = counts;
        let (start, size) = (memory.start(), Exact(memory.size()));
        writeln!(f, "{start:#014x} {size}: {used} in use, {cached} cached, {free} free")?;
        for first in (0..objects.len()).step_by(COLUMNS as usize) {
            f.write_str("  ")?;
            for index in first..objects.len().min(first + COLUMNS) {
                let Some(slot) = objects.get(index) else { break };
                match self.style {
                    Style::Plain => f.write_char(letter(slot))?,
                    Style::Colour => write!(f, "\x1b[38;5;{}m■", colour(slot))?,
                }
            }
            f.write_str(if self.style == Style::Plain { "\n" } else { "\x1b[0m\n" })?;
        }
        Ok(())
    }
}

const fn letter(slot: Slot) -> char {
    match slot {
        Slot::InUse => '#',
        Slot::Cached => '-',
        Slot::Free => '.',
    }
}

const fn colour(slot: Slot) -> u8 {
    match slot {
        Slot::InUse => 220,
        Slot::Cached => 39,
        Slot::Free => 28,
    }
}

/// Sums over all slabs of the cache.
#[derive(Default)]
struct Sums {
    slabs: usize,
    bytes: u64,
    objects: [u64; Slot::ALL.len()],
}

impl Sums {
    fn add(&mut self, memory: PhysRange, objects: &Objects) {
        self.slabs += 1;
        self.bytes += memory.size();
        for (sum, slot) in self.objects.iter_mut().zip(Slot::ALL) {
            *sum += u64::from(objects.count(slot));
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.slabs > MOST {
            writeln!(f, "and {} slabs more", self.slabs - MOST)?;
        }
        let [used, cached, free] = self.objects;
        let (slabs, pages, size) = (self.slabs, self.bytes / PAGE_SIZE, Exact(self.bytes));
        writeln!(
            f,
            "sum {size} in {slabs} slabs ({pages} pages)\nobjects: # {used} in use, - {cached} cached by CPUs, . {free} free"
        )
    }
}
