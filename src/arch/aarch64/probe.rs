//! Loads that may fault: a bad address is an answer, not a report. Two instructions have addresses of their own, which
//! the handler of synchronous exceptions recognises.

use super::trap::TrapFrame;
use crate::addr::VirtAddr;
use core::arch::global_asm;

global_asm!(
    // in: x0 = address   out: x0 = 0 and x1 = the value, or x0 = 1 if the load faulted   clobbers nothing else
    ".section .text.probe, \"ax\"",
    ".global probe_load_u32, probe_load_u32_access, probe_load_u64, probe_load_u64_access, probe_faulted",
    "probe_load_u32:",
    "probe_load_u32_access: ldr w1, [x0]",
    "mov x0, #0",
    "ret",
    "probe_load_u64:",
    "probe_load_u64_access: ldr x1, [x0]",
    "mov x0, #0",
    "ret",
    "probe_faulted: mov x0, #1",
    "ret",
);

#[repr(C)]
struct Answer {
    faulted: u64,
    value: u64,
}

unsafe extern "C" {
    fn probe_load_u32(addr: u64) -> Answer;
    fn probe_load_u64(addr: u64) -> Answer;
    static probe_load_u32_access: u8;
    static probe_load_u64_access: u8;
    static probe_faulted: u8;
}

/// Loads the 32-bit word at `addr`, a multiple of 4; `None` if the access faults. Any context, once the vectors and a
/// handler that calls [`fix_up`] are in place. Reading a device register has whatever effect it has.
#[must_use]
pub fn load_u32(addr: VirtAddr) -> Option<u32> {
    // SAFETY: a load has no effect on memory that Rust knows of, and a fault is fixed up.
    let answer = unsafe { probe_load_u32(addr.get()) };
    #[expect(clippy::cast_possible_truncation, reason = "the routine loads 32 bits")]
    (answer.faulted == 0).then_some(answer.value as u32)
}

/// Loads the 64-bit word at `addr`, a multiple of 8; as [`load_u32`].
#[must_use]
pub fn load_u64(addr: VirtAddr) -> Option<u64> {
    // SAFETY: as in `load_u32`.
    let answer = unsafe { probe_load_u64(addr.get()) };
    (answer.faulted == 0).then_some(answer.value)
}

/// If `frame` is a data abort of one of the loads above, makes it return "faulted". Whether it was. For the handler of
/// synchronous exceptions.
pub fn fix_up(frame: &mut TrapFrame) -> bool {
    let probing = frame.elr == VirtAddr::of(&raw const probe_load_u32_access)
        || frame.elr == VirtAddr::of(&raw const probe_load_u64_access);
    if probing {
        frame.elr = VirtAddr::of(&raw const probe_faulted);
    }
    probing
}
