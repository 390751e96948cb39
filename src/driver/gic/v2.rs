//! GICv2 (Arm IHI 0048B).
//!
//! The kernel runs in the non-secure state. There a GIC with security extensions shows group 1 in the places where one
//! without them has its group 0, which arrives as IRQ as well: the registers of group 0 serve both.

use super::interrupt::{Acknowledged, GicError, IntId, Trigger};
use crate::addr::VirtAddr;
use aarch64_cpu::asm::barrier;
use arm_gic::gicv2::{GicV2, SgiTarget, SgiTargetListFilter};
use arm_gic::{IntId as ArmIntId, InterruptGroup, UniqueMmioPointer};
use core::ptr::NonNull;
use safe_mmio::fields::ReadPureWrite;

/// Offset of the first byte of GICD_ITARGETSR: one for each interrupt, with a bit for each CPU.
const TARGETS: u64 = 0x800;
/// The part of the acknowledged word that is the INTID; the rest names the CPU that asked for the interrupt.
const INTID_MASK: u32 = 0x3ff;

/// A GICv2.
///
/// # Invariants
///
/// - `GICV2-1`: at both addresses, not zero, the registers are mapped as Device memory, for ever, and no other driver
///   uses them.
#[derive(Debug)]
pub(super) struct V2 {
    distributor: VirtAddr,
    cpu_interface: VirtAddr,
}

impl V2 {
    /// # Safety
    ///
    /// As for [`super::Gic::new`].
    pub(super) const unsafe fn new(distributor: VirtAddr, cpu_interface: VirtAddr) -> Self {
        // INVARIANT: GICV2-1 by the caller's contract.
        Self { distributor, cpu_interface }
    }

    pub(super) fn init(&self) {
        self.driver().enable_all_interrupts(false);
    }

    /// Answers with this CPU's bit among the targets of interrupts.
    pub(super) fn init_cpu(&self) -> u64 {
        let mut gic = self.driver();
        // Groups and the CPU interface. On a GIC with security extensions this enables group 1 by its bit in the secure
        // view; the non-secure view has it at bit 0 (§4.3.1).
        gic.setup();
        gic.enable_group0(true);
        u64::from(self.target(0).read())
    }

    pub(super) fn leave_cpu(&self) {
        // Nothing is of a higher priority than this.
        self.driver().set_priority_mask(0);
    }

    /// Makes an interrupt between CPUs pending on the CPU whose bit is `target`. With a single CPU there are no bits.
    pub(super) fn send(&self, intid: ArmIntId, target: u64) {
        let (filter, list) = match target {
            0 => (SgiTargetListFilter::ForwardSelfOnly, 0),
            bits => (SgiTargetListFilter::CPUTargetList, (bits & 0xff) as u16),
        };
        // The handler sees all earlier stores.
        barrier::dsb(barrier::ISHST);
        self.driver().send_sgi(intid, SgiTarget::List { target_list_filter: filter, target_list: list });
    }

    pub(super) fn enable(&self, intid: IntId, trigger: Trigger) -> Result<(), GicError> {
        let arm = intid.to_arm()?;
        let mut gic = self.driver();
        if intid.has_trigger() {
            gic.set_trigger(arm, trigger.to_arm());
        }
        if intid.is_shared() {
            self.route_here(intid);
        }
        gic.enable_interrupt(arm, true).map_err(|_| GicError::Refused(intid))
    }

    pub(super) fn disable(&self, intid: IntId) -> Result<(), GicError> {
        self.driver().enable_interrupt(intid.to_arm()?, false).map_err(|_| GicError::Refused(intid))
    }

    pub(super) fn acknowledge(&self) -> Option<Acknowledged> {
        let word = self.driver().get_and_acknowledge_interrupt(InterruptGroup::Group0)?;
        // The handler must see all writes before the interrupt was raised (Linux: `gic_handle_irq`).
        barrier::dsb(barrier::SY);
        Some(Acknowledged { word, intid: IntId::new(u32::from(word) & INTID_MASK)? })
    }

    pub(super) fn end(&self, taken: Acknowledged) {
        self.driver().end_interrupt(taken.word, InterruptGroup::Group0);
    }

    /// Routes a shared interrupt to this CPU. The targets of the private interrupts are read-only and tell which bit
    /// this CPU has; with one CPU they read as zero, and there is nothing to route.
    fn route_here(&self, intid: IntId) {
        let own = self.target(0).read();
        if own != 0 {
            self.target(u64::from(intid.get())).write(own);
        }
    }

    fn target(&self, intid: u64) -> UniqueMmioPointer<'static, ReadPureWrite<u8>> {
        let at = VirtAddr::new(self.distributor.get() + TARGETS + intid).as_ptr();
        // SAFETY: GICV2-1: not zero.
        let at = unsafe { NonNull::new_unchecked(at) };
        // SAFETY: GICV2-1; the register can be accessed by bytes (§4.3.12), and the caller holds the lock.
        unsafe { UniqueMmioPointer::new(at) }
    }

    fn driver(&self) -> GicV2<'static> {
        // SAFETY: GICV2-1. Other such values can be in use at the same time: on other CPUs or in the code that an
        // interrupt has interrupted. They make single volatile accesses; those that change the value that they read hold the
        // lock, with interrupts masked.
        unsafe { GicV2::new(self.distributor.as_ptr(), self.cpu_interface.as_ptr()) }
    }
}
