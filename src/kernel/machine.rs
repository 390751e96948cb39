//! The machine that was booted: the facts found meanwhile, and the memory that booting used.

use super::bootargs::BootArgs;
use super::heap;
use super::owner_map::{Owner, OwnerMapError};
use crate::addr::{PAGE_SIZE, PhysRange, VirtAddr, VirtRange};
use crate::arch::aarch64::boot::BootInfo;
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::features::IdRegisters;
use crate::board::Board;
use crate::fdt::Tree;
use crate::global::{self, KernelMmu};
use crate::hal::entry::Entry;
use crate::mm::layout;
use crate::mm::memblock::Discovery;
use crate::mm::page::PageMap as _;
use crate::mm::pgtable::PageTable;
use crate::mm::pgtable::wx::WxReport;
use crate::mm::zone::PageHal as _;
use crate::sync::Once;
use alloc::vec::Vec;
use core::ops::ControlFlow;

/// Owner of the kernel's page tables that booting made.
pub(super) const TABLES: Owner = Owner::Boot("page tables");

/// Facts found during boot, for the prompt and the tests.
#[derive(Debug)]
pub struct Machine {
    /// Values handed over by the boot stub.
    pub boot: BootInfo,
    /// The ID registers of the boot CPU.
    pub cpu: IdRegisters,
    /// The board.
    pub board: Board,
    /// The boot arguments.
    pub args: BootArgs<'static>,
    /// The device tree.
    pub tree: Tree<'static>,
    /// Where the device tree lies.
    pub tree_range: PhysRange,
    /// Facts about memory in the device tree, beside those that memblock keeps.
    pub found: Discovery,
    /// Instructions retired from the first one at EL1 to the last step of booting; 0 where there is no such counter.
    pub boot_cost: u64,
    /// Result of the W^X check.
    pub wx: WxReport,
    /// RAM that booting used, by name.
    pub(super) boot_memory: BootMemory,
}

static MACHINE: Once<Machine, Relax> = Once::new();

/// Facts found during boot; `None` while boot is in progress.
#[must_use]
pub fn machine() -> Option<&'static Machine> {
    MACHINE.get()
}

/// Publishes the facts: boot is over. Boot CPU, once.
pub(super) fn booted(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

/// RAM in use, and the part of it that booting used, by name. It is recorded once, when booting is over and the boot CPU is
/// still alone, from the final places and not from the sizes requested.
#[derive(Debug)]
pub(super) struct BootMemory {
    /// RAM that is not left out.
    pub(super) ram: Vec<PhysRange>,
    /// Memory that booting took, by owner.
    pub(super) taken: Vec<(PhysRange, Owner)>,
}

impl BootMemory {
    /// Records all memory that memblock allocated during boot. Boot CPU, before any other CPU runs.
    pub(super) fn survey() -> Result<Self, OwnerMapError> {
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

    fn add(&mut self, range: PhysRange, owner: Owner) -> Result<(), OwnerMapError> {
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
    fn add_behind(&mut self, tables: &PageTable<KernelMmu>, start: u64, end: u64) -> Result<(), OwnerMapError> {
        let range = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap_or_default();
        let walk = tables.walk(range, |visit| {
            let Entry::Leaf(leaf) = visit.entry else { return ControlFlow::Continue(()) };
            let memory = PhysRange::from_size(leaf.phys, visit.level.size());
            until_error(memory.map_or(Ok(()), |memory| self.add(memory, Owner::Boot("page descriptors"))))
        });
        walk.break_value().map_or(Ok(()), Err)
    }

    /// The tables themselves.
    fn add_tables(&mut self, tables: &PageTable<KernelMmu>) -> Result<(), OwnerMapError> {
        let page = |table| PhysRange::from_size(table, PAGE_SIZE);
        page(tables.root()).map_or(Ok(()), |root| self.add(root, TABLES))?;
        let walk = tables.walk_all(|visit| {
            let Entry::Table(table) = visit.entry else { return ControlFlow::Continue(()) };
            until_error(page(table).map_or(Ok(()), |table| self.add(table, TABLES)))
        });
        walk.break_value().map_or(Ok(()), Err)
    }
}

fn until_error(result: Result<(), OwnerMapError>) -> ControlFlow<OwnerMapError> {
    result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

fn linear(virt: VirtRange) -> Option<PhysRange> {
    PhysRange::from_size(layout::virt_to_phys(virt.start())?, virt.size())
}
