//! The syndrome in `ESR_EL1`, in words (Arm ARM D24.2.40). Arithmetic on a number, so that it runs on every machine.

use core::fmt;

/// The value of `ESR_EL1` at an exception.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Esr(u64);

impl Esr {
    /// Names `raw` as a syndrome.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The register as it was read.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The exception class, bits 31:26.
    #[must_use]
    pub const fn class(self) -> ExceptionClass {
        ExceptionClass(self.field(26, 6))
    }

    /// The instruction-specific syndrome, bits 24:0.
    #[must_use]
    pub const fn iss(self) -> u32 {
        (self.0 & 0x1ff_ffff) as u32
    }

    /// The details of an instruction or data abort; `None` for every other class.
    #[must_use]
    pub const fn abort(self) -> Option<Abort> {
        let class = self.class();
        if !matches!(
            class,
            ExceptionClass::INSTRUCTION_ABORT_LOWER
                | ExceptionClass::INSTRUCTION_ABORT
                | ExceptionClass::DATA_ABORT_LOWER
                | ExceptionClass::DATA_ABORT
        ) {
            return None;
        }
        let status = FaultStatus::decode(self.field(0, 6));
        // FnV, bit 10, has a meaning for a synchronous external abort only.
        let address_valid = !(self.bit(10) && matches!(status, FaultStatus::External));
        Some(Abort { access: self.access(), status, walk_of_stage_2: self.bit(7), address_valid })
    }

    /// The access of an abort that a handler may resolve: a translation, access flag or permission fault at a level from 0 to 3
    /// (DFSC and IFSC 0b0001xx to 0b0011xx), as these tables have no other. Only for the syndrome of an abort, of which it says in a few instructions what [`Self::abort`] says.
    #[must_use]
    #[inline(always)]
    pub const fn resolvable_abort(self) -> Option<Access> {
        if (self.0 >> 2 & 0xf).wrapping_sub(1) > 2 { None } else { Some(self.access()) }
    }

    /// The access of an abort: an instruction abort has bit 28 clear. A cache maintenance instruction reports WnR = 1 although it
    /// writes nothing (CM, bit 8).
    #[inline(always)]
    const fn access(self) -> Access {
        if !self.bit(28) {
            Access::Execute
        } else if self.bit(8) {
            Access::CacheMaintenance
        } else if self.bit(6) {
            Access::Write
        } else {
            Access::Read
        }
    }

    /// The 16-bit comment of the BRK, SVC, HVC or SMC instruction that caused the exception.
    #[must_use]
    pub const fn immediate(self) -> Option<u16> {
        match self.class() {
            ExceptionClass::SVC | ExceptionClass::HVC | ExceptionClass::SMC | ExceptionClass::BRK => {
                Some(self.field(0, 8) as u16 | (self.field(8, 8) as u16) << 8)
            }
            _ => None,
        }
    }

    /// Whether `FAR_EL1` was written for this exception: aborts with a valid address, PC alignment and watchpoints.
    #[must_use]
    pub const fn has_fault_address(self) -> bool {
        match self.abort() {
            Some(abort) => abort.address_valid,
            None => matches!(
                self.class(),
                ExceptionClass::PC_ALIGNMENT | ExceptionClass::WATCHPOINT | ExceptionClass::WATCHPOINT_LOWER
            ),
        }
    }

    const fn bit(self, at: u32) -> bool {
        self.0 & (1 << at) != 0
    }

    /// Bits `at + width - 1 ..= at`, `width` at most 8.
    const fn field(self, at: u32, width: u32) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "masked to at most 8 bits")]
        let field = ((self.0 >> at) & ((1 << width) - 1)) as u8;
        field
    }
}

impl fmt::Debug for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ESR {:#x}", self.0)
    }
}

impl fmt::Display for Esr {
    /// The syndrome in words: `data abort, write: permission fault, level 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.class(), f)?;
        if let Some(abort) = self.abort() {
            write!(f, ", {abort}")
        } else if let Some(immediate) = self.immediate() {
            write!(f, ", immediate {immediate:#x}")
        } else if self.iss() != 0 {
            write!(f, ", iss {:#x}", self.iss())
        } else {
            Ok(())
        }
    }
}

/// The class of an exception, `ESR_EL1.EC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExceptionClass(u8);

impl ExceptionClass {
    /// No class fits, among others an undefined instruction.
    pub const UNKNOWN: Self = Self(0x00);
    /// An access to SVE, SIMD or FP registers, which are trapped.
    pub const FP: Self = Self(0x07);
    /// SVC from AArch64.
    pub const SVC: Self = Self(0x15);
    /// HVC from AArch64.
    pub const HVC: Self = Self(0x16);
    /// SMC from AArch64.
    pub const SMC: Self = Self(0x17);
    /// Instruction abort from a lower exception level.
    pub const INSTRUCTION_ABORT_LOWER: Self = Self(0x20);
    /// Instruction abort at the current exception level.
    pub const INSTRUCTION_ABORT: Self = Self(0x21);
    /// The program counter is not aligned.
    pub const PC_ALIGNMENT: Self = Self(0x22);
    /// Data abort from a lower exception level.
    pub const DATA_ABORT_LOWER: Self = Self(0x24);
    /// Data abort at the current exception level.
    pub const DATA_ABORT: Self = Self(0x25);
    /// The stack pointer is not aligned to 16 bytes.
    pub const SP_ALIGNMENT: Self = Self(0x26);
    /// System error.
    pub const SERROR: Self = Self(0x2f);
    /// Breakpoint at the current exception level.
    pub const BREAKPOINT: Self = Self(0x31);
    /// Software step at the current exception level.
    pub const SOFTWARE_STEP: Self = Self(0x33);
    /// Watchpoint from a lower exception level.
    pub const WATCHPOINT_LOWER: Self = Self(0x34);
    /// Watchpoint at the current exception level.
    pub const WATCHPOINT: Self = Self(0x35);
    /// BRK from AArch64.
    pub const BRK: Self = Self(0x3c);

    /// The class with number `raw`; only the low six bits count.
    #[must_use]
    pub const fn new(raw: u8) -> Self {
        Self(raw & 0x3f)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The class in words, or `None` where the architecture reserves the number.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x00 => "undefined instruction or unknown reason",
            0x01 => "trapped WFI, WFE or their timed forms",
            0x03 => "trapped AArch32 MCR or MRC (coproc 15)",
            0x04 => "trapped AArch32 MCRR or MRRC (coproc 15)",
            0x05 => "trapped AArch32 MCR or MRC (coproc 14)",
            0x06 => "trapped AArch32 LDC or STC",
            0x07 => "access to SVE, SIMD or floating point trapped",
            0x08 => "trapped AArch32 VMRS",
            0x09 => "pointer authentication instruction trapped",
            0x0a => "LD64B or ST64B family instruction trapped",
            0x0c => "trapped AArch32 MRRC (coproc 14)",
            0x0d => "branch target exception",
            0x0e => "illegal execution state",
            0x11 => "SVC from AArch32",
            0x12 => "HVC from AArch32",
            0x13 => "SMC from AArch32",
            0x14 => "trapped MSRR, MRRS or system instruction with a register pair",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "trapped MSR, MRS or system instruction",
            0x19 => "access to SVE trapped",
            0x1a => "trapped ERET",
            0x1b => "exception from a TSTART instruction",
            0x1c => "pointer authentication failure",
            0x1d => "access to SME trapped",
            0x1e => "granule protection check",
            0x20 => "instruction abort from a lower exception level",
            0x21 => "instruction abort",
            0x22 => "PC alignment fault",
            0x24 => "data abort from a lower exception level",
            0x25 => "data abort",
            0x26 => "SP alignment fault",
            0x27 => "memory copy or memory set exception",
            0x28 => "floating-point exception from AArch32",
            0x2c => "floating-point exception",
            0x2d => "guarded control stack exception",
            0x2f => "SError",
            0x30 => "breakpoint from a lower exception level",
            0x31 => "breakpoint",
            0x32 => "software step from a lower exception level",
            0x33 => "software step",
            0x34 => "watchpoint from a lower exception level",
            0x35 => "watchpoint",
            0x38 => "BKPT from AArch32",
            0x3a => "vector catch from AArch32",
            0x3c => "BRK",
            0x3d => "profiling exception",
            _ => return None,
        })
    }
}

impl fmt::Display for ExceptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "reserved exception class {:#x}", self.0),
        }
    }
}

/// Kind of an access that aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Load.
    Read,
    /// Store, or the store half of an atomic.
    Write,
    /// Instruction fetch.
    Execute,
    /// Cache maintenance or address translation instruction.
    CacheMaintenance,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "instruction fetch",
            Self::CacheMaintenance => "cache maintenance",
        })
    }
}

/// An instruction or data abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Kind of the access.
    pub access: Access,
    /// Reason why it failed.
    pub status: FaultStatus,
    /// A stage 2 fault on the walk of a stage 1 table (S1PTW).
    pub walk_of_stage_2: bool,
    /// Whether `FAR_EL1` holds the address.
    pub address_valid: bool,
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.access, self.status)?;
        if self.walk_of_stage_2 {
            f.write_str(", stage 2 fault on a stage 1 walk")?;
        }
        Ok(())
    }
}

/// A level of the translation tables: -1 (52-bit addresses only) to 3; 0 is the PGD, 3 the PTE.
pub type Level = i8;

/// Reason why an abort happened: the fault status code, `DFSC` or `IFSC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultStatus {
    /// An address is larger than the tables or the output size allow.
    AddressSize(Level),
    /// No valid entry.
    Translation(Level),
    /// The entry's access flag is clear.
    AccessFlag(Level),
    /// The entry forbids the access.
    Permission(Level),
    /// The bus answered the access with an error.
    External,
    /// The bus answered a table walk with an error.
    ExternalOnWalk(Level),
    /// The address tag differs from the memory tag (MTE).
    TagCheck,
    /// Parity or ECC error on the access.
    Parity,
    /// Parity or ECC error on a table walk.
    ParityOnWalk(Level),
    /// The granule protection check refused the access, or a table walk at this level.
    GranuleProtection(Option<Level>),
    /// The address is not aligned as the access or the memory type asks.
    Alignment,
    /// Two TLB entries match one address.
    TlbConflict,
    /// The hardware may not update the entry's flags here.
    UnsupportedUpdate,
    /// Lockdown, implementation defined.
    Lockdown,
    /// An exclusive or atomic access to memory that does not support it.
    UnsupportedExclusive,
    /// A code that the architecture reserves.
    Reserved(u8),
}

impl FaultStatus {
    /// The meaning of a six-bit `DFSC` or `IFSC`.
    #[must_use]
    pub const fn decode(code: u8) -> Self {
        let code = code & 0x3f;
        #[expect(clippy::cast_possible_wrap, reason = "0 to 3")]
        let level = (code & 3) as Level;
        match code {
            0x00..=0x03 => Self::AddressSize(level),
            0x04..=0x07 => Self::Translation(level),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::External,
            0x11 => Self::TagCheck,
            0x13 => Self::ExternalOnWalk(-1),
            0x14..=0x17 => Self::ExternalOnWalk(level),
            0x18 => Self::Parity,
            0x1b => Self::ParityOnWalk(-1),
            0x1c..=0x1f => Self::ParityOnWalk(level),
            0x21 => Self::Alignment,
            0x23 => Self::GranuleProtection(Some(-1)),
            0x24..=0x27 => Self::GranuleProtection(Some(level)),
            0x28 => Self::GranuleProtection(None),
            0x29 => Self::AddressSize(-1),
            0x2b => Self::Translation(-1),
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedUpdate,
            0x34 => Self::Lockdown,
            0x35 => Self::UnsupportedExclusive,
            _ => Self::Reserved(code),
        }
    }

    /// The table level at which the fault was found, where the code tells.
    #[must_use]
    pub const fn level(self) -> Option<Level> {
        match self {
            Self::AddressSize(level)
            | Self::Translation(level)
            | Self::AccessFlag(level)
            | Self::Permission(level)
            | Self::ExternalOnWalk(level)
            | Self::ParityOnWalk(level) => Some(level),
            Self::GranuleProtection(level) => level,
            _ => None,
        }
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressSize(_) => "address size fault",
            Self::Translation(_) => "translation fault",
            Self::AccessFlag(_) => "access flag fault",
            Self::Permission(_) => "permission fault",
            Self::External => "external abort",
            Self::ExternalOnWalk(_) => "external abort on a table walk",
            Self::TagCheck => "tag check fault",
            Self::Parity => "parity or ECC error",
            Self::ParityOnWalk(_) => "parity or ECC error on a table walk",
            Self::GranuleProtection(None) => "granule protection fault",
            Self::GranuleProtection(Some(_)) => "granule protection fault on a table walk",
            Self::Alignment => "alignment fault",
            Self::TlbConflict => "TLB conflict",
            Self::UnsupportedUpdate => "unsupported atomic hardware update",
            Self::Lockdown => "lockdown fault",
            Self::UnsupportedExclusive => "unsupported exclusive or atomic access",
            Self::Reserved(code) => return write!(f, "reserved fault status {code:#x}"),
        })?;
        match self.level() {
            Some(level) => write!(f, ", level {level}"),
            None => Ok(()),
        }
    }
}
