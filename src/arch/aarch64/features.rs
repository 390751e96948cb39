//! Features of this CPU, read once from the ID registers (Arm ARM D24.2). Decoding is pure and builds everywhere.

use super::cores::{Core, Revision};
use super::errata::Rows;
use core::fmt;

/// The ID registers that memory management cares about.
#[derive(Clone, Copy, Default, Debug)]
pub struct IdRegisters {
    /// `MIDR_EL1`.
    pub midr: u64,
    /// `REVIDR_EL1`.
    pub revidr: u64,
    /// `ID_AA64PFR0_EL1`.
    pub pfr0: u64,
    /// `ID_AA64PFR1_EL1`.
    pub pfr1: u64,
    /// `ID_AA64DFR0_EL1`.
    pub dfr0: u64,
    /// `ID_AA64ISAR0_EL1`.
    pub isar0: u64,
    /// `ID_AA64ISAR2_EL1`.
    pub isar2: u64,
    /// `ID_AA64MMFR0_EL1`.
    pub mmfr0: u64,
    /// `ID_AA64MMFR1_EL1`.
    pub mmfr1: u64,
    /// `ID_AA64MMFR2_EL1`.
    pub mmfr2: u64,
    /// `CTR_EL0`.
    pub ctr: u64,
}

const fn field(register: u64, lsb: u32) -> u8 {
    ((register >> lsb) & 0xf) as u8
}

/// Whether an instruction cache finds a line by its physical address alone (PIPT), so that maintenance by one mapping reaches all:
/// `CTR_EL0.L1Ip`, bits 15:14. Otherwise it is a VIPT one.
#[must_use]
pub const fn is_icache_pipt(ctr: u64) -> bool {
    ctr >> 14 & 3 == 0b11
}

impl IdRegisters {
    /// Reads the registers of the CPU this runs on. EL1 or above, any context.
    #[cfg(target_arch = "aarch64")]
    #[must_use]
    pub fn read() -> Self {
        use aarch64_cpu::registers::{
            ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
            ID_AA64PFR1_EL1, MIDR_EL1, Readable,
        };
        let (revidr, isar2, ctr): (u64, u64, u64);
        // SAFETY: reading an ID register has no effect.
        unsafe { core::arch::asm!("mrs {}, revidr_el1", out(reg) revidr, options(nomem, nostack, preserves_flags)) };
        // SAFETY: reading an ID register has no effect; ID_AA64ISAR2_EL1 reads as zero where it is not defined.
        unsafe { core::arch::asm!("mrs {}, S3_0_C0_C6_2", out(reg) isar2, options(nomem, nostack, preserves_flags)) };
        // SAFETY: reading CTR_EL0 has no effect, and EL1 may read it.
        unsafe { core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
        Self {
            midr: MIDR_EL1.get(),
            revidr,
            pfr0: ID_AA64PFR0_EL1.get(),
            pfr1: ID_AA64PFR1_EL1.get(),
            dfr0: ID_AA64DFR0_EL1.get(),
            isar0: ID_AA64ISAR0_EL1.get(),
            isar2,
            mmfr0: ID_AA64MMFR0_EL1.get(),
            mmfr1: ID_AA64MMFR1_EL1.get(),
            mmfr2: ID_AA64MMFR2_EL1.get(),
            ctr,
        }
    }

    /// Bits of physical address: `ID_AA64MMFR0_EL1.PARange`.
    #[must_use]
    pub const fn physical_bits(&self) -> u8 {
        match field(self.mmfr0, 0) {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            6 => 52,
            _ => 56,
        }
    }

    /// Bits of an address-space identifier.
    #[must_use]
    pub const fn asid_bits(&self) -> u8 {
        if field(self.mmfr0, 4) >= 2 { 16 } else { 8 }
    }

    /// Level of support for changing the size of a live block without break-before-make: `ID_AA64MMFR2_EL1.BBM`.
    #[must_use]
    pub const fn bbm_level(&self) -> u8 {
        field(self.mmfr2, 52)
    }

    /// Whether a range of addresses can be invalidated by one instruction (`FEAT_TLBIRANGE`).
    #[must_use]
    pub const fn has_tlbi_range(&self) -> bool {
        field(self.isar0, 56) >= 2
    }

    /// Whether memory carries allocation tags (`FEAT_MTE2`).
    #[must_use]
    pub const fn has_mte2(&self) -> bool {
        let mte = field(self.pfr1, 8);
        mte >= 2 && mte != 0xf
    }

    /// Whether there are instructions that copy and set memory (`FEAT_MOPS`).
    #[must_use]
    pub const fn has_mops(&self) -> bool {
        field(self.isar2, 16) >= 1
    }

    /// Whether there are single-instruction atomics (`FEAT_LSE`).
    #[must_use]
    pub const fn has_lse(&self) -> bool {
        field(self.isar0, 20) >= 2
    }

    /// Whether the CPU has a register of random numbers (`FEAT_RNG`).
    #[must_use]
    pub const fn has_rng(&self) -> bool {
        field(self.isar0, 60) >= 1
    }

    /// Whether EL1 can be barred from user memory (`FEAT_PAN`).
    #[must_use]
    pub const fn has_pan(&self) -> bool {
        field(self.mmfr1, 20) >= 1
    }

    /// Whether that counts for pages that user code may only execute, too (`FEAT_PAN3`).
    #[must_use]
    pub const fn has_epan(&self) -> bool {
        field(self.mmfr1, 20) >= 3
    }

    /// Whether accesses from EL0 to the kernel's half fault at once (`FEAT_E0PD`).
    #[must_use]
    pub const fn has_e0pd(&self) -> bool {
        field(self.mmfr2, 60) >= 1
    }

    /// Whether the hardware sets the access flag (1) and the dirty state too (2).
    #[must_use]
    pub const fn hardware_access_dirty(&self) -> u8 {
        field(self.mmfr1, 0)
    }

    /// Whether the GIC has a system-register interface (GICv3 and later).
    #[must_use]
    pub const fn has_gic_registers(&self) -> bool {
        field(self.pfr0, 24) >= 1
    }

    /// Whether the CPU has an architected PMU.
    #[must_use]
    pub const fn has_pmu(&self) -> bool {
        let version = field(self.dfr0, 8);
        version != 0 && version != 0xf
    }

    /// Bytes in the smallest data-cache line of the system: `CTR_EL0.DminLine`.
    #[must_use]
    pub const fn dcache_line(&self) -> u64 {
        4 << field(self.ctr, 16)
    }

    /// The core's name, if its part number is known.
    #[must_use]
    pub fn core_name(&self) -> &'static str {
        Core::of(self.midr).name().unwrap_or("unknown core")
    }

    /// The errata that this core has, of those that the kernel knows.
    #[must_use]
    pub fn errata(&self) -> Rows {
        Rows::of(self.midr, self.revidr)
    }
}

impl fmt::Display for IdRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} (MIDR {:#010x}), {}-bit physical addresses, {}-bit ASIDs, BBM level {}, {}-byte cache lines",
            self.core_name(),
            Revision::of(self.midr),
            self.midr,
            self.physical_bits(),
            self.asid_bits(),
            self.bbm_level(),
            self.dcache_line()
        )?;
        let optional = [
            (self.has_lse(), "LSE"),
            (self.has_pan(), "PAN"),
            (self.has_tlbi_range(), "TLBIRANGE"),
            (self.has_mops(), "MOPS"),
            (self.has_rng(), "RNG"),
            (self.has_mte2(), "MTE2"),
            (self.hardware_access_dirty() >= 2, "HAFDBS"),
            (self.has_pmu(), "PMU"),
            (self.has_gic_registers(), "GICv3"),
        ];
        for (_, name) in optional.iter().filter(|(there, _)| *there) {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}
