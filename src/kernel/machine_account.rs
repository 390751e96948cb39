//! The account of the running machine: the current owner of each byte of its RAM.

use super::account::{Account, AccountError};
use super::machine::{Machine, TABLES};
use super::owner_map::{Owner, OwnerMap, OwnerMapError};
use crate::addr::PhysRange;
use crate::arch::aarch64::boot;
use crate::fdt::Cpu;
use crate::global;
use crate::mm::zone::Stock;
use alloc::vec::Vec;

/// Room for more runs than were counted.
const RUNS_MORE: usize = 16;

/// Current owner of each byte of RAM, checked. Any CPU, while others allocate and free; not from a context that holds the early
/// heap or a zone. Cost: O(blocks + rows × names).
///
/// # Errors
///
/// [`AccountError`]: RAM does not add up, and where.
pub fn account(machine: &Machine) -> Result<Account, AccountError> {
    let map = owners(machine)?;
    let census = global::page_allocator().census()?;
    let account = Account { map, census };
    account.check()?;
    Ok(account)
}

/// The owner of each byte of RAM, as [`account`] finds them, without the count of blocks that checks it.
pub(super) fn owners(machine: &Machine) -> Result<OwnerMap, AccountError> {
    let mut map = OwnerMap::new(machine.tree.memory().flatten())?;
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
        runs.try_reserve(found + RUNS_MORE).map_err(|_| OwnerMapError::NoMemory)?;
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
