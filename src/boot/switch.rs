//! From the boot stub's tables to the final ones.

use super::early_map::EarlyMap;
use super::{BootError, tables};
use crate::addr::PhysAddr;
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::arch::aarch64::linear::LinearMemory;
use crate::arch::aarch64::mmu::El1Mmu;
use crate::global::{self, MemblockFrames};
use crate::hal::prot::Prot;
use crate::mm::layout::PAGE_OFFSET;
use crate::mm::pgtable::{MapFlags, PageTable, Space};

/// Builds the final tables, and runs on them from here on.
pub(crate) fn switch_to_final_tables(
    boot: &BootInfo,
    early: &EarlyMap,
    linear: (Prot, MapFlags),
) -> Result<(), BootError> {
    let frames = MemblockFrames;
    // SAFETY: the first and only call, on the boot stub's tables.
    let slots = El1Mmu::with_window(unsafe { early.table_slots() });
    // SAFETY: this function is the only one that changes these tables until they are given to `global`, and it maps each frame
    // with its owner's memory type: RAM write-back, devices as the fixmap had them.
    let table = unsafe { PageTable::new(slots, &frames, Space::Kernel) }?;
    // Taking frames for tables needs the memblock, so it is asked for one bank after the other. They stay as they are.
    let mut passed = PhysAddr::ZERO;
    let banks = core::iter::from_fn(|| {
        let bank = global::memblock().mapped_range_from(passed)?;
        passed = bank.end();
        Some(bank)
    });
    tables::fill(&table, &frames, boot, banks, early.lasting(), linear)?;
    // SAFETY: `fill` mapped the image where it is now, with the stacks, and every device and the device tree at the
    // addresses they have; exceptions are masked and the other CPUs are parked outside the tables.
    unsafe { boot::switch_tables(boot, table.root()) };

    // SAFETY: the linear map is live from here on; `tlb::init_cpu` has run.
    let mmu = unsafe { global::linear_mmu() };
    // SAFETY: the linear map holds every frame of RAM, and so those of the tables.
    let table = unsafe { table.with_mmu(mmu) };
    global::set_kernel_tables(table);
    // SAFETY: the linear map maps all RAM that the memblock manages, and this is the one memblock, which knows the
    // image, the device tree and everything that the tree reserves.
    global::memblock().set_backing(Some(unsafe { LinearMemory::new(PAGE_OFFSET) }));
    let mut memblock = global::memblock();
    memblock.allow_resize();
    Ok(memblock.leave_lent_slots()?)
}
