//! `top`: the caches, areas and address spaces with the most memory, drawn anew each second.
#![forbid(unsafe_code)]

use super::command::{Command, no_words};
use super::machine::Machine;
use super::picture::{Bar, Exact, Largest, Style};
use super::process;
use super::screen::{self, Live};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::driver::timer;
use crate::global;
use crate::kprintln;
use core::fmt::{self, Write};
use core::panic::Location;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "top",
    arguments: "[once]",
    help: "caches, areas and address spaces by memory, each second until a key comes",
    example: "top once",
    words: no_words,
    run: |machine, rest| match rest {
        "" => Live::begin(machine, "it").until_a_key(&Top { machine }),
        "once" => screen::page(machine, &Top { machine }),
        _ => kprintln!("top, or top once"),
    },
}];

/// Rows of each part.
const ROWS: usize = 5;
/// Characters of a bar.
const BAR: u64 = 20;

/// The screen, with the figures of the moment at which it is printed.
struct Top<'m> {
    machine: &'m Machine,
}

/// A cache.
#[derive(Clone, Copy)]
struct CacheRow {
    name: &'static str,
    objects: u64,
    active: u64,
}

/// An area.
#[derive(Clone, Copy)]
struct AreaRow {
    start: VirtAddr,
    caller: Option<&'static Location<'static>>,
}

impl fmt::Display for Top<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = screen::style(self.machine, false);
        let seconds = timer::microseconds() / 1_000_000;
        let (total, free) = (global::totalram_pages() * PAGE_SIZE, global::nr_free_pages() * PAGE_SIZE);
        let used = total.saturating_sub(free);
        let cpus = global::online_cpus().count();
        writeln!(f, "up {seconds} s, {cpus} CPUs, {} of {} in use, {} free", Exact(used), Exact(total), Exact(free))?;
        caches(style, f)?;
        areas(style, f)?;
        spaces(style, f)
    }
}

fn caches(style: Style, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rows: Largest<CacheRow, ROWS> = Largest::default();
    let slabs = global::slab_allocator();
    let looked = slabs.for_each(|cache| {
        let info = slabs.info(cache);
        let row = CacheRow { name: cache.name(), objects: info.objects, active: info.active_objects };
        if info.pages != 0 {
            rows.add(info.pages * PAGE_SIZE, row);
        }
    });
    if let Err(error) = looked {
        writeln!(f, "{error}")?;
    }
    heading(f, "CACHES", rows.count(), rows.sum(), "OBJECTS IN USE, OF ALL")?;
    for (bytes, CacheRow { name, objects, active }) in rows.iter() {
        let bar = Bar { part: bytes, whole: rows.sum(), width: BAR, style };
        writeln!(f, "{name:<20} {:>14} {bar} {active} of {objects}", Exact(bytes))?;
    }
    Ok(())
}

fn areas(style: Style, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rows: Largest<AreaRow, ROWS> = Largest::default();
    for area in global::vmap_space().iter() {
        if area.pages != 0 {
            rows.add(u64::from(area.pages) * PAGE_SIZE, AreaRow { start: area.range.start(), caller: area.caller });
        }
    }
    heading(f, "AREAS", rows.count(), rows.sum(), "ALLOCATED BY")?;
    for (bytes, AreaRow { start, caller }) in rows.iter() {
        let bar = Bar { part: bytes, whole: rows.sum(), width: BAR, style };
        let (file, line) = caller.map_or(("", 0), |caller| (caller.file(), caller.line()));
        let file = file.rsplit('/').next().unwrap_or_default();
        writeln!(f, "{start:#018x}   {:>14} {bar} {file}:{line}", Exact(bytes))?;
    }
    Ok(())
}

fn spaces(style: Style, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rows: Largest<_, ROWS> = Largest::default();
    process::each_space_size(|bytes, pid, name| rows.add(bytes, (pid, name)));
    heading(f, "ADDRESS SPACES", rows.count(), rows.sum(), "PROCESS")?;
    for (bytes, (pid, name)) in rows.iter() {
        let bar = Bar { part: bytes, whole: rows.sum(), width: BAR, style };
        writeln!(f, "{:20} {:>14} {bar} {pid} {name}", "", Exact(bytes))?;
    }
    Ok(())
}

/// The line above a part's rows.
fn heading(f: &mut impl Write, name: &str, count: usize, sum: u64, column: &str) -> fmt::Result {
    writeln!(f, "{name:<15} {count:>4} {:>14} {:20} {column}", Exact(sum), "")
}
