//! Running a process whose faults are resolved where they happen, between two of its instructions.
#![forbid(unsafe_code)]

use super::user::{AddressSpace, fault_access};
use crate::addr::{UserAddr, VirtAddr};
use crate::arch::aarch64::esr::Esr;
use crate::arch::aarch64::user::{UserFrame, enter_user_resolving};
use crate::arch::aarch64::user_exit::UserExit;
use crate::gfp::Gfp;
use crate::hal::user::USER_END;

/// Runs the process of `frame` until it takes an exception, as [`enter_user`] does, but goes on after each fault that `space`, the
/// memory that this CPU sees ([`activate`](super::activate)), resolves with [`Gfp::USER`]. So a fault costs half as much as through
/// the caller's loop. [`UserExit::Abort`] is one that was not resolved: [`resolve_user_fault`](super::resolve_user_fault) says why,
/// and the process gets its signal, or the access may be tried again by then.
///
/// Faults are resolved on the caller's stack, with interrupts as the caller has them, and may sleep: from a thread, on its kernel
/// stack, with no lock held. A kernel that wants to see each fault has [`enter_user`].
///
/// [`enter_user`]: crate::arch::aarch64::user::enter_user
#[inline]
pub fn run_user(space: &AddressSpace, frame: &mut UserFrame) -> UserExit {
    debug_assert_eq!(
        super::switch_mm::current_mm(),
        Some(space.root()),
        "the CPU sees the space whose faults it resolves"
    );
    enter_user_resolving(frame, resolve, space)
}

/// Whether the access that faulted may be tried again. Called after an abort of a process.
extern "C" fn resolve(esr: Esr, far: VirtAddr, space: &AddressSpace) -> bool {
    let addr = UserAddr::new(far.get());
    let Some(access) = esr.resolvable_abort().filter(|_| addr < USER_END) else { return false };
    let access = fault_access(access);
    match space.fault_usual(addr, access, Gfp::USER) {
        Some(result) => result.is_ok(),
        None => space.fault_any(addr, access, Gfp::USER).is_ok(),
    }
}
