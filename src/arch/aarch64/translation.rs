//! The registers that say how a CPU translates addresses, as the tables of this crate need them (Arm ARM D24.2). The check is
//! arithmetic on values, and builds everywhere.
#![forbid(unsafe_code)]

use super::mair::mair_el1;

/// Translation registers of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslationRegisters {
    /// `MAIR_EL1`.
    pub mair: u64,
    /// `TCR_EL1`.
    pub tcr: u64,
    /// `SCTLR_EL1`.
    pub sctlr: u64,
    /// `DAIF`.
    pub daif: u64,
    /// Whether the CPU has memory tags (FEAT_MTE2).
    pub has_tags: bool,
}

/// Error in the registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WrongRegister {
    /// `MAIR_EL1`: its value, and the value needed.
    Mair(u64, u64),
    /// `TCR_EL1`: its value.
    Tcr(u64),
    /// `SCTLR_EL1`: its value.
    Sctlr(u64),
    /// Interrupts are not masked.
    NotMasked,
}

/// The fields of `TCR_EL1` that are checked: T1SZ, EPD1, TG1.
const TCR_FIELDS: u64 = 0x3f << 16 | 1 << 23 | 0b11 << 30;
/// 48-bit addresses, walks enabled, 4 KiB pages.
const TCR_WANTED: u64 = 16 << 16 | 0b10 << 30;
/// MMU, data cache, instruction cache: all on.
const SCTLR_WANTED: u64 = 1 | 1 << 2 | 1 << 12;
/// Interrupts are masked.
const DAIF_I: u64 = 1 << 7;

impl TranslationRegisters {
    /// Registers of the CPU that this runs on.
    #[cfg(all(target_arch = "aarch64", target_os = "none"))]
    #[must_use]
    pub fn read() -> Self {
        use aarch64_cpu::registers::{DAIF, MAIR_EL1, Readable, SCTLR_EL1, TCR_EL1};
        Self {
            mair: MAIR_EL1.get(),
            tcr: TCR_EL1.get(),
            sctlr: SCTLR_EL1.get(),
            daif: DAIF.get(),
            has_tags: super::features::IdRegisters::read().has_mte2(),
        }
    }

    /// Looks at what this crate cannot work without.
    ///
    /// # Errors
    ///
    /// The first [`WrongRegister`].
    pub const fn check(&self) -> Result<(), WrongRegister> {
        let wanted = mair_el1(false);
        if self.mair != wanted && !(self.has_tags && self.mair == mair_el1(true)) {
            return Err(WrongRegister::Mair(self.mair, wanted));
        }
        if self.tcr & TCR_FIELDS != TCR_WANTED {
            return Err(WrongRegister::Tcr(self.tcr));
        }
        if self.sctlr & SCTLR_WANTED != SCTLR_WANTED {
            return Err(WrongRegister::Sctlr(self.sctlr));
        }
        if self.daif & DAIF_I == 0 { Err(WrongRegister::NotMasked) } else { Ok(()) }
    }
}
