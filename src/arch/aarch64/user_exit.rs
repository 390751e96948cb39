//! Reason why a process came back to the kernel. Arithmetic on a syndrome, so that it runs on every machine.
#![forbid(unsafe_code)]

use super::esr::{Esr, ExceptionClass};
use crate::addr::VirtAddr;
use core::fmt;

/// Reason why a process came back to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserExit {
    /// It made a system call (`SVC`), with this number in the instruction; `pc` is behind it.
    Syscall(u16),
    /// It accessed memory, or fetched an instruction, and that faulted; `pc` is the instruction.
    Abort(Esr, VirtAddr),
    /// An interrupt came. It is handled by now if the caller has interrupts unmasked.
    Interrupt,
    /// It executed an instruction that does not exist.
    Undefined,
    /// It executed `BRK` with this number.
    Breakpoint(u16),
    /// Its `pc` or `sp` is not aligned.
    Misaligned(Esr, VirtAddr),
    /// It used an FP or vector register; the kernel has given it none.
    FpTrapped,
    /// Anything else: a register or an instruction that EL0 may not use, a debug exception, a system error.
    Other(Esr, VirtAddr),
}

impl UserExit {
    /// Decodes an exception from its syndrome and fault address; a syndrome of all ones is an interrupt.
    #[must_use]
    #[inline(always)]
    pub fn new(esr: Esr, far: VirtAddr) -> Self {
        // First what is to be quick.
        if esr.class() == ExceptionClass::SVC {
            return Self::Syscall((esr.iss() & 0xffff) as u16);
        }
        Self::of_slow(esr, far)
    }

    #[cold]
    fn of_slow(esr: Esr, far: VirtAddr) -> Self {
        if esr.get() == u64::MAX {
            return Self::Interrupt;
        }
        match esr.class() {
            ExceptionClass::DATA_ABORT_LOWER | ExceptionClass::INSTRUCTION_ABORT_LOWER => Self::Abort(esr, far),
            ExceptionClass::UNKNOWN => Self::Undefined,
            ExceptionClass::BRK => Self::Breakpoint((esr.iss() & 0xffff) as u16),
            ExceptionClass::PC_ALIGNMENT | ExceptionClass::SP_ALIGNMENT => Self::Misaligned(esr, far),
            ExceptionClass::FP => Self::FpTrapped,
            _ => Self::Other(esr, far),
        }
    }
}

impl fmt::Display for UserExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syscall(number) => write!(f, "system call, immediate {number:#x}"),
            Self::Abort(esr, far) => write!(f, "{esr}, address {far:#x}"),
            Self::Interrupt => f.write_str("interrupt"),
            Self::Undefined => f.write_str("undefined instruction"),
            Self::Breakpoint(number) => write!(f, "breakpoint {number:#x}"),
            Self::Misaligned(esr, _) | Self::Other(esr, _) => fmt::Display::fmt(esr, f),
            Self::FpTrapped => f.write_str("FP or vector register"),
        }
    }
}
