//! Loads that may fault: a bad address is an answer, not a report. Two instructions have addresses of their own, which
//! the handler of synchronous exceptions recognises; and in a range where that is agreed on, any load reads zero where
//! nothing is mapped.

use super::esr::{Access, ExceptionClass, FaultStatus};
use super::exception::Exception;
use crate::addr::{VirtAddr, VirtRange};
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

/// Loads the 32-bit word at `addr`, a multiple of 4; `None` if the access faults. Any context, once the vectors and a handler
/// that calls [`fix_up`] are in place. Reading a device register has its usual side effects.
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

/// If this is a data abort of one of the loads above, makes it return "faulted". Returns whether it was one. For the handler of
/// synchronous exceptions.
pub fn fix_up(exception: &mut Exception<'_>) -> bool {
    let probing = *exception.elr == VirtAddr::of(&raw const probe_load_u32_access)
        || *exception.elr == VirtAddr::of(&raw const probe_load_u64_access);
    if probing {
        *exception.elr = VirtAddr::of(&raw const probe_faulted);
    }
    probing
}

/// If this is a load from an address of `range` at which nothing is mapped, lets it read zero and continue. Returns whether it
/// was one. For the handler of synchronous exceptions.
///
/// Code reads descriptors that do not exist this way: all-zero says that the page starts no block, so that a wrong page number
/// takes the slow path with its checks, and costs the fast path nothing.
pub fn read_zero(exception: &mut Exception<'_>, range: VirtRange) -> bool {
    let missing = exception.esr.class() == ExceptionClass::DATA_ABORT
        && exception.esr.abort().is_some_and(|abort| {
            abort.access == Access::Read && abort.address_valid && matches!(abort.status, FaultStatus::Translation(_))
        });
    if !missing || !range.contains(exception.far) {
        return false;
    }
    // SAFETY: the CPU has just executed the instruction.
    let instruction = unsafe { exception.elr.as_ptr::<u32>().read_volatile() };
    let Some(target) = loaded_register(instruction) else { return false };
    // Register 31 is the zero register here.
    if let Some(register) = exception.x.get_mut(target) {
        *register = 0;
    }
    *exception.elr = VirtAddr::new(exception.elr.get().wrapping_add(4));
    true
}

/// The register that a plain load of 1, 2, 4 or 8 bytes writes: LDR, LDRH, LDRB with an unsigned offset, LDUR, or an
/// offset in a register (Arm ARM C4.1.94), or LDXR, whose store-exclusive fails after the exception. `None` for anything
/// else.
const fn loaded_register(instruction: u32) -> Option<usize> {
    let unsigned_offset = instruction & 0x3fc0_0000 == 0x3940_0000;
    let unscaled = instruction & 0x3fe0_0c00 == 0x3840_0000;
    let by_register = instruction & 0x3fe0_0c00 == 0x3860_0800;
    let exclusive = instruction & 0x3fff_fc00 == 0x085f_7c00;
    match unsigned_offset || unscaled || by_register || exclusive {
        true => Some((instruction & 0x1f) as usize),
        false => None,
    }
}

const _: () = {
    assert!(matches!(loaded_register(0xf940_0041), Some(1)), "ldr x1, [x2]");
    assert!(matches!(loaded_register(0xb940_0c43), Some(3)), "ldr w3, [x2, #12]");
    assert!(matches!(loaded_register(0x3864_6845), Some(5)), "ldrb w5, [x2, x4]");
    assert!(matches!(loaded_register(0xf85f_8046), Some(6)), "ldur x6, [x2, #-8]");
    assert!(matches!(loaded_register(0xc85f_7c47), Some(7)), "ldxr x7, [x2]");
    assert!(matches!(loaded_register(0x085f_7c48), Some(8)), "ldxrb w8, [x2]");
    assert!(loaded_register(0xc85f_fc41).is_none(), "ldaxr x1, [x2]");
    assert!(loaded_register(0xc87f_0c41).is_none(), "ldxp x1, x3, [x2]");
    assert!(loaded_register(0xc803_7c41).is_none(), "stxr w3, x1, [x2]");
    assert!(loaded_register(0xf900_0041).is_none(), "str x1, [x2]");
    assert!(loaded_register(0xf840_8441).is_none(), "ldr x1, [x2], #8");
    assert!(loaded_register(0xf980_0040).is_none(), "prfm");
};
