//! The tables of TTBR1: the kernel's own, or new ones.

use super::{BringUpError, Tables};
use crate::addr::PhysAddr;
use crate::arch::aarch64::linear::LinearMemory;
use crate::arch::aarch64::translation::{TranslationRegisters, WrongRegister};
use crate::global::machine::linear_offset;
use crate::global::{MemblockFrames, kernel_tables, linear_mmu, memblock, set_kernel_tables};
use crate::mm::pgtable::{PageTable, Space};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::TTBR1_EL1;
use tock_registers::interfaces::Writeable;

/// Checks this CPU's registers.
pub(super) fn check_registers() -> Result<(), BringUpError> {
    TranslationRegisters::read().check().map_err(|wrong| match wrong {
        WrongRegister::Mair(found, wanted) => BringUpError::Mair(found, wanted),
        WrongRegister::Tcr(found) => BringUpError::Tcr(found),
        WrongRegister::Sctlr(found) => BringUpError::MmuOff(found),
        WrongRegister::NotMasked => BringUpError::NotMasked,
    })
}

/// Takes over the tables of TTBR1, and lets memblock use the linear map.
///
/// # Safety
///
/// As for [`bring_up`](super::bring_up()); memblock knows of all memory.
pub(super) unsafe fn take_over(tables: Tables) -> Result<(), BringUpError> {
    // SAFETY: MACH-1, by the first bullet of `bring_up`; this is the one memblock, which knows of all that is in use.
    memblock().set_backing(Some(unsafe { LinearMemory::new(linear_offset()) }));
    memblock().allow_resize();
    // SAFETY: MACH-1, and `bring_up` has called `tlb::init_cpu`.
    let mmu = unsafe { linear_mmu() };
    let table = match tables {
        Tables::Adopt => {
            let root = PhysAddr::new(TTBR1_EL1.get_baddr());
            // SAFETY: fourth bullet of `bring_up`: the live tables of the upper half, whose regions are this crate's.
            unsafe { PageTable::adopt(mmu, root, Space::Kernel) }
        }
        Tables::New => {
            // SAFETY: tables that nobody else has; the frames come from memblock.
            let table = unsafe { PageTable::new(mmu, &MemblockFrames, Space::Kernel) }?;
            load(table.root());
            table
        }
    };
    set_kernel_tables(table);
    Ok(())
}

/// Puts a root into TTBR1, which held an empty one, or none.
pub(super) fn load(root: PhysAddr) {
    // The root's entries are written before a walk can see them.
    barrier::dsb(barrier::ISH);
    TTBR1_EL1.set(root.get());
    barrier::isb(barrier::SY);
}

/// The root of the kernel's tables.
pub(super) fn root() -> Option<PhysAddr> {
    kernel_tables().map(PageTable::root)
}
