//! Accesses that may fault: a bad address is an answer, not a report. Three instructions have addresses of their own, and a call has
//! a return address of its own, which the handler of synchronous exceptions recognises; and in a range where that is agreed on,
//! any load reads zero where nothing is mapped.

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
    // in: x0 = address, x1 = value   out: x0 = 0, or x0 = 1 if the store faulted
    ".global probe_store_u64, probe_store_u64_access",
    "probe_store_u64:",
    "probe_store_u64_access: str x1, [x0]",
    "mov x0, #0",
    "ret",
    "probe_faulted: mov x0, #1",
    "ret",
    // in: x0 = function   out: x0 = 0, or x0 = 1 if its first instruction could not be executed
    ".global probe_call, probe_call_return, probe_call_faulted",
    "probe_call: stp x29, x30, [sp, #-16]!",
    "mov x29, sp",
    "blr x0",
    "probe_call_return: mov x0, #0",
    "ldp x29, x30, [sp], #16",
    "ret",
    "probe_call_faulted: mov x0, #1",
    "ldp x29, x30, [sp], #16",
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
    fn probe_store_u64(addr: u64, value: u64) -> u64;
    fn probe_call(function: u64) -> u64;
    static probe_store_u64_access: u8;
    static probe_call_return: u8;
    static probe_call_faulted: u8;
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

/// Stores the 64-bit word at `addr`, a multiple of 8; as [`load_u32`]. Returns whether it was stored.
///
/// # Safety
///
/// Nobody relies on the word's value, or the access faults.
#[must_use]
pub unsafe fn store_u64(addr: VirtAddr, value: u64) -> bool {
    // SAFETY: nobody relies on the word (`# Safety`), and a fault is fixed up.
    unsafe { probe_store_u64(addr.get(), value) == 0 }
}

/// Calls `function` without arguments; as [`load_u32`]. Returns whether it has returned.
///
/// # Safety
///
/// It is a function of the C calling convention that keeps memory safe, or its first instruction cannot be executed.
pub unsafe fn call(function: VirtAddr) -> bool {
    // SAFETY: it is such a function, or it faults at once (`# Safety`), which is fixed up: no register has changed then.
    unsafe { probe_call(function.get()) == 0 }
}

/// Whether this is a fault of one of the accesses above. For the handler of synchronous exceptions.
#[must_use]
pub fn is_probe(exception: &Exception<'_>) -> bool {
    resumption(exception).is_some()
}

/// If this is a fault of one of the accesses above, makes it return "faulted". Returns whether it was one. For the handler of
/// synchronous exceptions.
pub fn fix_up(exception: &mut Exception<'_>) -> bool {
    match resumption(exception) {
        Some(at) => {
            *exception.elr = at;
            true
        }
        None => false,
    }
}

/// The instruction at which a faulting access goes on.
fn resumption(exception: &Exception<'_>) -> Option<VirtAddr> {
    let at = *exception.elr;
    let accesses =
        [&raw const probe_load_u32_access, &raw const probe_load_u64_access, &raw const probe_store_u64_access];
    if accesses.into_iter().any(|access| at == VirtAddr::of(access)) {
        return Some(VirtAddr::of(&raw const probe_faulted));
    }
    // The function that was called has made no call of its own, and its first instruction is the one that faults.
    let called = exception.x.get(30) == Some(&VirtAddr::of(&raw const probe_call_return).get());
    let class = exception.esr.class();
    let is_fetch =
        class == ExceptionClass::INSTRUCTION_ABORT && exception.far == at || class == ExceptionClass::UNKNOWN;
    (called && is_fetch).then(|| VirtAddr::of(&raw const probe_call_faulted))
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
