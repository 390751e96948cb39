//! GICv3 (Arm IHI 0069H), with affinity routing: every interrupt is in group 1 of the non-secure state, and the CPU
//! interface is system registers.

use super::interrupt::{Acknowledged, GicError, IntId, REGIONS, Trigger};
use crate::addr::{VirtAddr, VirtRange};
use crate::arch::aarch64::cpu;
use crate::driver::timer;
use crate::driver::waker::{self, Power, WakeRegister};
use crate::hal::patience::Patience;
use aarch64_cpu::asm::barrier;
use arm_gic::gicv3::registers::{Gicd, GicrSgi, Waker as WakerBits};
use arm_gic::gicv3::{GicCpuInterface, GicDistributor, GicRedistributor, SgiTarget, SgiTargetGroup};
use arm_gic::{IntId as ArmIntId, InterruptGroup, UniqueMmioPointer};
use core::ptr::NonNull;
use safe_mmio::{field, field_shared};

/// Bytes from one redistributor to the next; twice that where it has the frames for virtual LPIs (§12.10).
const REDISTRIBUTOR_SIZE: u64 = 128 << 10;

/// The lowest affinity field of CPUs that the list of targets can name is below this (§12.11.44, without a range selector).
const SGI_TARGETS: u64 = 16;

/// A GICv3.
///
/// # Invariants
///
/// - `GICV3-1`: at `distributor`, not zero, and in all of `redistributors`, none at zero unless it is empty, the registers
///   are mapped as Device memory, for ever, and no other driver uses them.
#[derive(Debug)]
pub(super) struct V3 {
    distributor: VirtAddr,
    redistributors: [VirtRange; REGIONS],
}

impl V3 {
    /// # Safety
    ///
    /// As for [`super::Gic::new`].
    pub(super) const unsafe fn new(distributor: VirtAddr, redistributors: [VirtRange; REGIONS]) -> Self {
        // INVARIANT: GICV3-1 by the caller's contract.
        Self { distributor, redistributors }
    }

    pub(super) fn init(&self) {
        let mut distributor = self.distributor();
        distributor.enable_all_interrupts(false);
        distributor.configure_default_settings();
    }

    /// Answers with this CPU's affinity.
    pub(super) fn init_cpu(&self) -> Result<u64, GicError> {
        let mut redistributor = self.own_redistributor()?;
        GicCpuInterface::enable_system_register_el1();
        barrier::isb(barrier::SY);
        self.set_power(Power::Awake)?;
        // One write ends an interrupt, no matter which EOImode a loader or the previous kernel chose.
        write_ctlr(0);
        redistributor.configure_default_settings();
        GicCpuInterface::set_priority_mask(0xff);
        GicCpuInterface::enable_group1(true);
        barrier::isb(barrier::SY);
        let affinity = cpu::affinity();
        if affinity & 0xff < SGI_TARGETS { Ok(affinity) } else { Err(GicError::Unreachable(affinity)) }
    }

    pub(super) fn leave_cpu(&self) -> Result<(), GicError> {
        GicCpuInterface::enable_group1(false);
        barrier::isb(barrier::SY);
        self.set_power(Power::Asleep)
    }

    /// Wakes this CPU's redistributor, or puts it to sleep, within a tenth of a second.
    fn set_power(&self, wanted: Power) -> Result<(), GicError> {
        let at = self.own_redistributor_at()?;
        let mut patience = Patience::new(timer::ticks(), timer::frequency() / 10);
        let is_patient = || patience.is_left(timer::ticks());
        waker::set_power(&mut Waker(block::<GicrSgi>(at)), wanted, is_patient).map_err(GicError::Unresponsive)
    }

    /// Makes an interrupt between CPUs pending on the CPU with `affinity`, whose lowest field is below 16.
    pub(super) fn send(&self, intid: ArmIntId, affinity: u64) -> Result<(), arm_gic::gicv3::GicError> {
        let [aff0, affinity1, affinity2, _, affinity3, ..] = affinity.to_le_bytes();
        let target = SgiTarget::List { affinity3, affinity2, affinity1, target_list: 1_u16 << (aff0 & 0xf) };
        // The handler sees all earlier stores, and the interrupt is on its way (Linux: `gic_ipi_send_mask`).
        barrier::dsb(barrier::ISHST);
        GicCpuInterface::send_sgi(intid, target, SgiTargetGroup::CurrentGroup1)?;
        barrier::isb(barrier::SY);
        Ok(())
    }

    pub(super) fn enable(&self, intid: IntId, trigger: Trigger) -> Result<(), GicError> {
        let arm = intid.to_arm()?;
        let refused = |_| GicError::Refused(intid);
        if intid.is_shared() {
            let mut distributor = self.distributor();
            if intid.get() >= distributor.typer().num_spis() + super::interrupt::FIRST_SHARED {
                return Err(GicError::Refused(intid));
            }
            distributor.set_trigger(arm, trigger.to_arm()).map_err(refused)?;
            distributor.set_routing(arm, Some(cpu::affinity())).map_err(refused)?;
            return distributor.enable_interrupt(arm, true).map_err(refused);
        }
        let mut redistributor = self.own_redistributor()?;
        if intid.has_trigger() {
            redistributor.set_trigger(arm, trigger.to_arm()).map_err(refused)?;
        }
        redistributor.enable_interrupt(arm, true).map_err(refused)
    }

    pub(super) fn disable(&self, intid: IntId) -> Result<(), GicError> {
        let arm = intid.to_arm()?;
        let refused = |_| GicError::Refused(intid);
        if intid.is_shared() {
            return self.distributor().enable_interrupt(arm, false).map_err(refused);
        }
        self.own_redistributor()?.enable_interrupt(arm, false).map_err(refused)
    }

    pub(super) fn acknowledge(&self) -> Option<Acknowledged> {
        let word = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1)?;
        // The handler must see all writes before the interrupt was raised, and the acknowledgement must have taken effect
        // (Linux: `gic_read_iar`).
        barrier::dsb(barrier::SY);
        Some(Acknowledged { word, intid: IntId::new(u32::from(word))? })
    }

    pub(super) fn end(&self, taken: Acknowledged) {
        GicCpuInterface::end_interrupt(taken.word, InterruptGroup::Group1);
        barrier::isb(barrier::SY);
    }

    fn distributor(&self) -> GicDistributor<'static> {
        GicDistributor::new(block::<Gicd>(self.distributor))
    }

    /// The redistributor of this CPU: the one whose affinity is the CPU's own.
    fn own_redistributor(&self) -> Result<GicRedistributor<'static>, GicError> {
        self.own_redistributor_at().map(|at| GicRedistributor::new(block::<GicrSgi>(at)))
    }

    fn own_redistributor_at(&self) -> Result<VirtAddr, GicError> {
        self.redistributors.iter().find_map(own_redistributor_in).ok_or(GicError::NoRedistributor)
    }
}

/// The redistributor of this CPU, if it lies in a region, which ends with the last one that it has.
fn own_redistributor_in(region: &VirtRange) -> Option<VirtAddr> {
    let mut at = region.start();
    loop {
        VirtRange::from_size(at, REDISTRIBUTOR_SIZE).filter(|whole| region.contains_range(*whole))?;
        let typer = GicRedistributor::new(block::<GicrSgi>(at)).typer();
        if typer.core_mpidr() == cpu::affinity() {
            return Some(at);
        }
        if typer.last_redistributor() {
            return None;
        }
        let step = if typer.virtual_lpis_supported() { 2 * REDISTRIBUTOR_SIZE } else { REDISTRIBUTOR_SIZE };
        at = at.checked_add(step)?;
    }
}

/// Writes `ICC_CTLR_EL1` (§12.2.6). In effect after the next ISB.
fn write_ctlr(value: u64) {
    // SAFETY: the register decides how this CPU ends interrupts, and the controller is this driver's (GICV3-1).
    unsafe { core::arch::asm!("msr S3_0_C12_C12_4, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// The wake register among the registers of a redistributor.
struct Waker(UniqueMmioPointer<'static, GicrSgi>);

impl WakeRegister for Waker {
    fn read(&self) -> u32 {
        let gicr = field_shared!(self.0, gicr);
        field_shared!(gicr, waker).read().bits()
    }

    fn write(&mut self, value: u32) {
        let mut gicr = field!(self.0, gicr);
        field!(gicr, waker).write(WakerBits::from_bits_retain(value));
    }
}

/// The registers of type `T` at `at`, inside what GICV3-1 names.
fn block<T>(at: VirtAddr) -> UniqueMmioPointer<'static, T> {
    // SAFETY: GICV3-1: not zero.
    let at = unsafe { NonNull::new_unchecked(at.as_ptr()) };
    // SAFETY: GICV3-1. Another pointer to the same block can be alive only in code that holds the lock.
    unsafe { UniqueMmioPointer::new(at) }
}
