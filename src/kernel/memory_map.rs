//! The account of the running machine: memory used during boot, by name, and the current owner of each byte.

use super::account::{Account, AccountError};
use super::heap;
use super::init::Machine;
use super::memmap::{MapError, MemoryMap, Owner};
use crate::addr::{PAGE_SIZE, PhysRange, VirtAddr, VirtRange};
use crate::arch::aarch64::boot;
use crate::fdt::Cpu;
use crate::global::{self, KernelMmu};
use crate::hal::entry::Entry;
use crate::mm::layout;
use crate::mm::page::PageMap as _;
use crate::mm::pgtable::PageTable;
use crate::mm::zone::{PageHal as _, Stock};
use alloc::vec::Vec;
use core::ops::ControlFlow;

/// Room for more runs than were counted.
const RUNS_MORE: usize = 16;

const TABLES: Owner = Owner::Boot("page tables");

/// RAM in use, and the part of it that booting used, by name. It is recorded once, when booting is over and the boot CPU is
/// still alone, from the final places and not from the sizes requested.
#[derive(Debug)]
pub(super) struct BootMemory {
    /// RAM that is not left out.
    ram: Vec<PhysRange>,
    taken: Vec<(PhysRange, Owner)>,
}

impl BootMemory {
    /// Records all memory that memblock allocated during boot. Boot CPU, before any other CPU runs.
    pub(super) fn survey() -> Result<Self, MapError> {
        let mut found = Self { ram: Vec::new(), taken: Vec::new() };
        let memblock = global::memblock();
        for region in memblock.memory().regions() {
            found.ram.try_reserve(1)?;
            found.ram.push(region.range);
        }
        for array in [memblock.memory().storage(), memblock.reserved().storage()].into_iter().flatten() {
            found.add(array, Owner::Boot("memblock"))?;
        }
        drop(memblock);
        // The sections of RAM have a page of their own where the boot CPU's data leave no room for them behind.
        let sections = global::page_allocator().hal().map().sections().as_ptr_range();
        let (start, end) = (VirtAddr::of(sections.start), VirtAddr::of(sections.end));
        let pages = VirtRange::new(start.align_down(PAGE_SIZE), end.align_up(PAGE_SIZE).unwrap_or(end));
        if let Some(sections) = pages.and_then(linear) {
            found.add(sections, Owner::Boot("page descriptors"))?;
        }
        if let Some(heap) = heap::range().and_then(linear) {
            found.add(heap, Owner::Boot("early heap"))?;
        }
        for local in global::cpu_locals().filter_map(linear) {
            found.add(local, Owner::Boot("per-CPU data"))?;
        }
        if let Some(tables) = global::kernel_tables() {
            found.add_behind(tables, layout::PAGEBLOCK_START, layout::PAGEBLOCK_END)?;
            found.add_behind(tables, layout::VMEMMAP_START, layout::VMEMMAP_END)?;
            found.add_tables(tables)?;
        }
        Ok(found)
    }

    fn add(&mut self, range: PhysRange, owner: Owner) -> Result<(), MapError> {
        match self.taken.last_mut() {
            Some((last, same)) if *same == owner && (last.end() == range.start() || range.end() == last.start()) => {
                let (start, end) = (last.start().min(range.start()), last.end().max(range.end()));
                *last = PhysRange::new(start, end).unwrap_or(*last);
            }
            _ => {
                self.taken.try_reserve(1)?;
                self.taken.push((range, owner));
            }
        }
        Ok(())
    }

    /// The memory behind page descriptors and page block types.
    fn add_behind(&mut self, tables: &PageTable<KernelMmu>, start: u64, end: u64) -> Result<(), MapError> {
        let range = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap_or_default();
        let walk = tables.walk(range, |visit| {
            let Entry::Leaf(leaf) = visit.entry else { return ControlFlow::Continue(()) };
            let memory = PhysRange::from_size(leaf.phys, visit.level.size());
            until_error(memory.map_or(Ok(()), |memory| self.add(memory, Owner::Boot("page descriptors"))))
        });
        walk.break_value().map_or(Ok(()), Err)
    }

    /// The tables themselves.
    fn add_tables(&mut self, tables: &PageTable<KernelMmu>) -> Result<(), MapError> {
        let page = |table| PhysRange::from_size(table, PAGE_SIZE);
        page(tables.root()).map_or(Ok(()), |root| self.add(root, TABLES))?;
        let walk = tables.walk_all(|visit| {
            let Entry::Table(table) = visit.entry else { return ControlFlow::Continue(()) };
            until_error(page(table).map_or(Ok(()), |table| self.add(table, TABLES)))
        });
        walk.break_value().map_or(Ok(()), Err)
    }
}

fn until_error(result: Result<(), MapError>) -> ControlFlow<MapError> {
    result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

fn linear(virt: VirtRange) -> Option<PhysRange> {
    PhysRange::from_size(layout::virt_to_phys(virt.start())?, virt.size())
}

/// Current owner of each byte of RAM, checked. Any CPU, while others allocate and free; not from a context that holds the early
/// heap or a zone. Cost: O(blocks + rows × names).
///
/// # Errors
///
/// [`AccountError`]: RAM does not add up, and where.
pub fn account(machine: &Machine) -> Result<Account, AccountError> {
    let map = map_of(machine)?;
    let census = global::page_allocator().census()?;
    let account = Account { map, census };
    account.check()?;
    Ok(account)
}

fn map_of(machine: &Machine) -> Result<MemoryMap, AccountError> {
    let mut map = MemoryMap::new(machine.tree.memory().flatten())?;
    for bank in &machine.boot_memory.ram {
        map.paint(*bank, Owner::Unclaimed)?;
    }
    for (range, owner) in &machine.boot_memory.taken {
        map.paint(*range, *owner)?;
    }
    for word in machine.tree.cpus().filter_map(Cpu::release_word) {
        map.paint(word, Owner::Reserved("spin table"))?;
    }
    for range in machine.tree.reservations().flatten() {
        map.paint(range, Owner::Reserved("/memreserve/"))?;
    }
    // Memory that devices allocate from may be the page allocator's.
    let is_pages = |range: PhysRange| global::io_space().is_managed(range.start());
    for reserved in global::io_space().reserved().ranges().iter().filter(|reserved| !is_pages(reserved.range)) {
        let owner = if reserved.no_map { Owner::NoMap } else { Owner::Reserved };
        map.paint(reserved.range, owner(reserved.name))?;
    }
    if let Some(initrd) = machine.found.initrd {
        map.paint(initrd, Owner::Reserved("initrd"))?;
    }
    map.paint(machine.tree_range, Owner::Reserved("device tree"))?;
    for (name, virt) in boot::image_parts() {
        if let Some(range) = PhysRange::from_size(machine.boot.image_phys(virt.start()), virt.size()) {
            map.paint(range, Owner::Kernel(name))?;
        }
    }
    for run in managed_runs()? {
        // A table from before the hand-over is freed when its mappings are unmapped.
        map.paint_pages(run, |owner| owner == TABLES)?;
    }
    map.finish()?;
    Ok(map)
}

/// Memory of the page allocator, as runs of pages. The walk holds a zone's lock, under which nothing may be allocated: so the
/// runs are counted first, and room for them is there before they are noted.
fn managed_runs() -> Result<Vec<PhysRange>, AccountError> {
    let pages = global::page_allocator();
    let mut runs = Vec::new();
    let mut found = 0;
    loop {
        runs.clear();
        // Making room may itself split a run.
        runs.try_reserve(found + RUNS_MORE).map_err(|_| MapError::NoMemory)?;
        let room = runs.capacity();
        found = 0;
        let walk = pages.for_each_run(|run, stock| {
            if stock == Stock::Managed {
                found += 1;
                if runs.len() < room {
                    runs.push(run);
                }
            }
        });
        walk.map_err(|broken| AccountError::Pages(broken.into()))?;
        if found <= room {
            return Ok(runs);
        }
    }
}
