//! The tables of TTBR1: the kernel's own, or new ones.

use super::{BringUpError, Tables};
use crate::addr::PhysAddr;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::irq::{self, IrqFlags};
use crate::arch::aarch64::linear::LinearMemory;
use crate::arch::aarch64::mair::mair_el1;
use crate::global::machine::linear_offset;
use crate::global::{MemblockFrames, kernel_tables, linear_mmu, memblock, set_kernel_tables};
use crate::mm::pgtable::{PageTable, Space};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{MAIR_EL1, SCTLR_EL1, TCR_EL1, TTBR1_EL1};
use tock_registers::interfaces::{Readable, Writeable};

/// Looks at what this CPU has in its registers.
pub(super) fn check_registers() -> Result<(), BringUpError> {
    let (mair, tagged) = (MAIR_EL1.get(), IdRegisters::read().has_mte2());
    if mair != mair_el1(false) && !(tagged && mair == mair_el1(true)) {
        return Err(BringUpError::Mair(mair, mair_el1(false)));
    }
    if TCR_EL1.read(TCR_EL1::T1SZ) != 16 || !TCR_EL1.matches_all(TCR_EL1::TG1::KiB_4 + TCR_EL1::EPD1::EnableTTBR1Walks)
    {
        return Err(BringUpError::Tcr(TCR_EL1.get()));
    }
    if !SCTLR_EL1.matches_all(SCTLR_EL1::M::Enable + SCTLR_EL1::C::Cacheable + SCTLR_EL1::I::Cacheable) {
        return Err(BringUpError::MmuOff(SCTLR_EL1.get()));
    }
    let saved = irq::local_irq_save_flags();
    irq::local_irq_restore_flags(saved);
    if saved.bits() & IrqFlags::MASKED == 0 { Err(BringUpError::NotMasked) } else { Ok(()) }
}

/// Makes the tables of TTBR1 this crate's, and lets memblock use the linear map.
///
/// # Safety
///
/// As for [`bring_up`](super::bring_up()); memblock knows of all memory.
pub(super) unsafe fn take_over(tables: Tables) -> Result<(), BringUpError> {
    // SAFETY: MACH-1 is the caller's promise; this is the one memblock, which knows of all that is in use.
    memblock().set_backing(Some(unsafe { LinearMemory::new(linear_offset()) }));
    memblock().allow_resize();
    // SAFETY: MACH-1, and `bring_up` has called `tlb::init_cpu`.
    let mmu = unsafe { linear_mmu() };
    let table = match tables {
        Tables::Adopt => {
            let root = PhysAddr::new(TTBR1_EL1.get_baddr());
            // SAFETY: the caller's promise: the live tables of the upper half, whose regions are this crate's.
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

/// Puts a root into TTBR1, where an empty one was, or nothing.
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
