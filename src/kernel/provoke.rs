//! Faults that somebody wants to see: the whole report is printed, and the access returns instead of ending the kernel.

use super::report;
use crate::addr::VirtAddr;
use crate::arch::aarch64::probe;
use crate::arch::aarch64::trap::{Fatal, TrapFrame, Vector};
use core::sync::atomic::{AtomicBool, Ordering};

/// The boot CPU is about to fault, and wants the report.
static WANTED: AtomicBool = AtomicBool::new(false);

/// An access that shall fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrong {
    Load(VirtAddr),
    Store(VirtAddr),
    Call(VirtAddr),
}

/// Accesses memory wrongly. Returns whether the access faulted, in which case its report has been printed. Boot CPU, at the prompt.
///
/// # Safety
///
/// The access faults.
pub(super) unsafe fn access(wrong: Wrong) -> bool {
    WANTED.store(true, Ordering::Relaxed);
    let faulted = match wrong {
        Wrong::Load(addr) => probe::load_u64(addr).is_none(),
        // SAFETY: it faults (`# Safety`).
        Wrong::Store(addr) => !unsafe { probe::store_u64(addr, 0) },
        // SAFETY: it faults (`# Safety`).
        Wrong::Call(addr) => !unsafe { probe::call(addr) },
    };
    WANTED.store(false, Ordering::Relaxed);
    faulted
}

/// Prints the report of a fault that is wanted. The handler of exceptions calls it before it repairs anything.
pub(super) fn on_fault(frame: &mut TrapFrame) {
    if WANTED.load(Ordering::Relaxed) && probe::is_probe(&frame.exception()) && WANTED.swap(false, Ordering::Relaxed) {
        report::print_fault(frame, Fatal::Unhandled(Vector::EL1H_SYNC));
    }
}
