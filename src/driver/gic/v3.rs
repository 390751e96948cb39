//! The registers of a GICv3 (Arm IHI 0069H) as this machine has them: two kinds of blocks in memory, and the CPU interface as
//! system registers. `driver::gicv3` knows what to do with them.

use super::interrupt::{Acknowledged, GicError, IntId, REGIONS, Trigger};
use crate::addr::{VirtAddr, VirtRange};
use crate::arch::aarch64::cpu;
use crate::driver::gicv3::{self, Barrier, Block, CpuRegister, Gicv3Error, Registers};
use crate::driver::timer;
use aarch64_cpu::asm::barrier;
use arm_gic::UniqueMmioPointer;
use core::ptr::NonNull;
use safe_mmio::fields::ReadPureWrite;

/// Bytes of a distributor's registers.
const DISTRIBUTOR_SIZE: u64 = 64 << 10;

/// A GICv3.
///
/// # Invariants
///
/// - `GICV3-1`: at `distributor`, not zero, and in all of `redistributors`, none at zero unless it is empty, the registers
///   are mapped as Device memory, for ever, and no other driver uses them. All start on page boundaries.
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

    pub(super) fn init(&self) -> Result<(), GicError> {
        Ok(gicv3::init(self)?)
    }

    /// Answers with this CPU's affinity.
    pub(super) fn init_cpu(&self) -> Result<u64, GicError> {
        Ok(gicv3::init_cpu(self)?)
    }

    pub(super) fn leave_cpu(&self) -> Result<(), GicError> {
        Ok(gicv3::leave_cpu(self)?)
    }

    /// Makes an interrupt between CPUs pending on the CPU with `affinity`, whose lowest field is below 16.
    pub(super) fn send(&self, intid: IntId, affinity: u64) {
        gicv3::send(self, intid.get(), affinity);
    }

    pub(super) fn enable(&self, intid: IntId, trigger: Trigger) -> Result<(), GicError> {
        gicv3::enable(self, intid.get(), trigger == Trigger::Edge).map_err(|error| of(intid, error))
    }

    pub(super) fn disable(&self, intid: IntId) -> Result<(), GicError> {
        gicv3::disable(self, intid.get()).map_err(|error| of(intid, error))
    }

    pub(super) fn acknowledge(&self) -> Option<Acknowledged> {
        let intid = IntId::new(gicv3::acknowledge(self)?)?;
        Some(Acknowledged { word: intid.to_arm().ok()?, intid })
    }

    pub(super) fn end(&self, taken: &Acknowledged) {
        gicv3::end(self, taken.intid.get());
    }

    /// The register of type `T` at `offset`, if it lies in the block and is aligned.
    fn register<T>(&self, block: Block, offset: u64) -> Option<UniqueMmioPointer<'static, ReadPureWrite<T>>> {
        let (start, size) = (self.start(block)?, size_of::<T>() as u64);
        if !offset.is_multiple_of(size) || offset.checked_add(size)? > self.size(block) {
            return None;
        }
        let at = NonNull::new(start.checked_add(offset)?.as_ptr())?;
        // SAFETY: GICV3-1: the checks above keep it in the block, aligned. Another pointer to the same register may be alive on
        // another CPU: each makes single volatile accesses, and those that change what they read hold the lock.
        Some(unsafe { UniqueMmioPointer::new(at) })
    }

    fn start(&self, block: Block) -> Option<VirtAddr> {
        match block {
            Block::Distributor => Some(self.distributor),
            Block::Region(number) => self.redistributors.get(number).map(|region| region.start()),
        }
    }
}

/// The error of a request about `intid`.
fn of(intid: IntId, error: Gicv3Error) -> GicError {
    if error == Gicv3Error::Refused { GicError::Refused(intid) } else { GicError::V3(error) }
}

impl Registers for V3 {
    fn read(&self, block: Block, offset: u64) -> u32 {
        self.register(block, offset).map_or(0, |register| register.read())
    }

    fn write(&self, block: Block, offset: u64, value: u32) {
        if let Some(mut register) = self.register(block, offset) {
            register.write(value);
        }
    }

    fn read_wide(&self, block: Block, offset: u64) -> u64 {
        self.register(block, offset).map_or(0, |register| register.read())
    }

    fn write_wide(&self, block: Block, offset: u64, value: u64) {
        if let Some(mut register) = self.register(block, offset) {
            register.write(value);
        }
    }

    fn size(&self, block: Block) -> u64 {
        match block {
            Block::Distributor => DISTRIBUTOR_SIZE,
            Block::Region(number) => self.redistributors.get(number).map_or(0, |region| region.size()),
        }
    }

    fn cpu_read(&self, register: CpuRegister) -> u64 {
        macro_rules! read {
            ($name:literal) => {{
                let value: u64;
                // SAFETY: the interface is this driver's (GICV3-1); reading IAR1 takes an interrupt, as the caller wants.
                unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
                value
            }};
        }
        match register {
            CpuRegister::Ctlr => read!("S3_0_C12_C12_4"),
            CpuRegister::Iar1 => read!("S3_0_C12_C12_0"),
            CpuRegister::Igrpen1 => read!("S3_0_C12_C12_7"),
            CpuRegister::Pmr => read!("S3_0_C4_C6_0"),
            CpuRegister::Sre => read!("S3_0_C12_C12_5"),
            // Write-only.
            CpuRegister::Eoir1 | CpuRegister::Sgi1r => 0,
        }
    }

    fn cpu_write(&self, register: CpuRegister, value: u64) {
        macro_rules! write {
            ($name:literal) => {
                // SAFETY: the interface is this driver's (GICV3-1), and decides about nothing but interrupts.
                unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) }
            };
        }
        match register {
            CpuRegister::Ctlr => write!("S3_0_C12_C12_4"),
            CpuRegister::Eoir1 => write!("S3_0_C12_C12_1"),
            CpuRegister::Igrpen1 => write!("S3_0_C12_C12_7"),
            CpuRegister::Pmr => write!("S3_0_C4_C6_0"),
            CpuRegister::Sgi1r => write!("S3_0_C12_C11_5"),
            CpuRegister::Sre => write!("S3_0_C12_C12_5"),
            // Read-only.
            CpuRegister::Iar1 => {}
        }
    }

    fn affinity(&self) -> u64 {
        cpu::affinity()
    }

    fn barrier(&self, kind: Barrier) {
        match kind {
            Barrier::Stores => barrier::dsb(barrier::ISHST),
            Barrier::All => barrier::dsb(barrier::SY),
            Barrier::Instructions => barrier::isb(barrier::SY),
        }
    }

    fn ticks(&self) -> u64 {
        timer::ticks()
    }

    fn frequency(&self) -> u64 {
        timer::frequency()
    }
}
