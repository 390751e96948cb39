//! The cause of a fault in words: the kind of the exception or the state of the stack, and the rule that an access has broken.

use crate::addr::VirtAddr;
use crate::arch::aarch64::esr::{Abort, Access, Esr, FaultStatus};
use crate::arch::aarch64::stack::{self, StackOwner};
use crate::arch::aarch64::trap::{Fatal, TrapFrame};
use core::fmt;

/// Beginning of the first line.
pub(super) const PREFIX: &str = "fault: ";

/// The first line of a report.
pub(super) struct Cause<'a>(pub(super) &'a TrapFrame, pub(super) Fatal);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Fatal::BadStack(_) => bad_stack(self.0.sp, f),
            Fatal::Unhandled(vector) => write!(f, "fault: {vector}"),
        }
    }
}

fn bad_stack(sp: VirtAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // The vectors found no room for the frame below sp: sp itself may still be the last bytes of the stack.
    let frame = sp.checked_sub(size_of::<TrapFrame>() as u64).unwrap_or_default();
    if let Some(stack) = stack::overflowed(frame) {
        match stack.owner {
            StackOwner::Thread(name) => {
                write!(f, "fault: stack overflow of thread {name}, on its stack {}", stack.range)
            }
            StackOwner::Cpu(..) => write!(f, "fault: stack overflow on the {stack}"),
        }
    } else if !sp.is_aligned(16) {
        write!(f, "fault: stack pointer {sp} is not a multiple of 16")
    } else if let Some(stack) = stack::containing(sp) {
        write!(f, "fault: exception on the {stack}")
    } else {
        write!(f, "fault: stack pointer {sp} is in no kernel stack")
    }
}

/// The memory rule that an access has broken, if there is one.
pub(super) fn rule(esr: Esr) -> Option<&'static str> {
    let Abort { status, access, .. } = esr.abort()?;
    match (status, access) {
        (FaultStatus::Permission(_), Access::Write) => Some("write to a read-only mapping"),
        (FaultStatus::Permission(_), Access::Execute) => Some("instruction fetch from non-executable memory (W^X)"),
        (FaultStatus::TagCheck, _) => Some("access through a pointer whose tag is not the memory's"),
        (FaultStatus::Alignment, _) => Some("access to device memory at an address that is not a multiple of its size"),
        _ => None,
    }
}
