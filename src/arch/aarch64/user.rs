//! Running a process: its registers, the way to EL0 and back, and why it came back.
//!
//! [`enter_user`] is a function: it runs the process until that takes an exception, and returns why. So a kernel's loop over a
//! process is a loop in its source, on the kernel stack of the thread: system calls, faults, interrupts and preemption are
//! what the loop does between two calls.

use super::esr::Esr;
use super::irq;
use super::user_exit::UserExit;
use crate::addr::{UserAddr, VirtAddr};
use core::mem::{offset_of, size_of};

/// The state of a process while it does not run. FP and vector registers are not among it: the kernel does not touch them, and
/// traps them for the process ([`UserExit::FpTrapped`]) until its own code gives them out.
///
/// All-zero is the state at which a new process starts, but for `pc` and `sp`: no value of the kernel's reaches it.
#[repr(C, align(16))]
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UserFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Padding: the following fields are stored as pairs.
    reserved: u64,
    /// The instruction that it executes next.
    pub pc: UserAddr,
    /// The flags, as `PSTATE` has them. Only those that a process may set count ([`USER_FLAGS`]).
    pub pstate: u64,
    /// The stack pointer.
    pub sp: UserAddr,
    /// The thread's own word (`TPIDR_EL0`).
    pub tls: u64,
}

const _: () = assert!(offset_of!(UserFrame, pstate) == offset_of!(UserFrame, pc) + 8, "stored as a pair");
const _: () = assert!(offset_of!(UserFrame, tls) == offset_of!(UserFrame, sp) + 8, "stored as a pair");
const _: () = assert!(size_of::<UserFrame>() < 504, "every offset fits a load or store of a pair");

/// The `PSTATE` bits that a process may set: N, Z, C and V, TCO, DIT, SSBS, BTYPE.
pub const USER_FLAGS: u64 = 0xf << 28 | 1 << 25 | 1 << 24 | 1 << 12 | 0b11 << 10;
/// FIQ is masked for good in this kernel, at EL0 too.
const FIQ_MASKED: u64 = 1 << 6;

core::arch::global_asm!(
    include_str!("../../../boot/user.S"),
    USER_X = const offset_of!(UserFrame, x),
    USER_PC = const offset_of!(UserFrame, pc),
    USER_SP = const offset_of!(UserFrame, sp),
);

#[repr(C)]
struct Cause {
    esr: u64,
    far: u64,
}

unsafe extern "C" {
    fn quarry_enter_user(frame: *mut UserFrame) -> Cause;
    fn quarry_run_user(frame: *mut UserFrame, resolver: *const (), argument: *const (), daif: u64) -> Cause;
}

/// A function that resolves aborts of a process, by syndrome and address: whether the instruction is to be tried again.
pub(crate) type Resolver<T> = extern "C" fn(Esr, VirtAddr, &T) -> bool;

impl UserFrame {
    /// A process that starts at `pc` with an empty stack that ends at `sp`. All other registers are zero.
    #[must_use]
    pub const fn new(pc: UserAddr, sp: UserAddr) -> Self {
        Self { x: [0; 31], reserved: 0, pc, pstate: 0, sp, tls: 0 }
    }
}

/// Runs the process of `frame` on this CPU, with the memory that the CPU sees ([`switch_mm`]), until it takes an exception. The
/// frame has its registers then, and may be changed before the next call.
///
/// Interrupts are unmasked while the process runs, and as the caller has them afterwards. One that comes while it runs ends the call
/// with [`UserExit::Interrupt`], and is handled, as one of the kernel, when they are unmasked: at once, if the caller has them
/// so. From a thread, on its kernel stack, with no lock held.
///
/// Cost of a system call and back, this call included: some 80 instructions.
///
/// [`switch_mm`]: crate::hal::mmu
#[inline]
pub fn enter_user(frame: &mut UserFrame) -> UserExit {
    frame.pstate = frame.pstate & USER_FLAGS | FIQ_MASKED;
    let saved = irq::local_irq_save_flags();
    // SAFETY: the process has the rights of EL0: it reaches what is mapped for it, and every exception that it takes ends the
    // call, with all registers of this code as they were.
    let cause = unsafe { quarry_enter_user(frame) };
    irq::local_irq_restore_flags(saved);
    UserExit::new(Esr::new(cause.esr), VirtAddr::new(cause.far))
}

/// [`enter_user`], but an abort of the process goes to `resolver`, with `argument`, and ends the call only if that does not resolve
/// it. It is called on this stack, with interrupts as the caller has them; it may sleep.
///
/// Cost of a fault, `resolver` not included: 55 instructions, which is half of a way through the caller.
#[inline]
pub(crate) fn enter_user_resolving<T: Sync>(frame: &mut UserFrame, resolver: Resolver<T>, argument: &T) -> UserExit {
    frame.pstate = frame.pstate & USER_FLAGS | FIQ_MASKED;
    let saved = irq::local_irq_save_flags();
    let (resolver, argument) = (resolver as *const (), core::ptr::from_ref(argument).cast());
    // SAFETY: as in `enter_user`. The resolver has the type that the routine calls it by: two words and a thin reference, which
    // lives as long as this call, and one bit of answer.
    let cause = unsafe { quarry_run_user(frame, resolver, argument, saved.bits()) };
    irq::local_irq_restore_flags(saved);
    UserExit::new(Esr::new(cause.esr), VirtAddr::new(cause.far))
}
