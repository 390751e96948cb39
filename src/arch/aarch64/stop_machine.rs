//! Holding other CPUs while mappings that they use are invalid: each waits out of registers, all exceptions masked, and touches
//! nothing but two words of the image.

use super::cpu::MAX_CPUS;
use crate::addr::{CpuId, to_usize};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The hold that each CPU has arrived at: numbers only increase, so a late arrival cannot be mistaken for the current hold.
static ARRIVED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// The last hold that is over.
static RELEASED: AtomicU64 = AtomicU64::new(0);

/// The number of the next hold. The caller must make sure that there is one hold at a time.
pub fn next() -> u64 {
    RELEASED.load(Ordering::Relaxed) + 1
}

/// Waits, as `cpu`, until the hold `number` is over; not at all if it is already. In an interrupt handler.
pub fn wait_here(cpu: CpuId, number: u64) {
    let Some(arrived) = ARRIVED.get(to_usize(u64::from(cpu.get()))) else { return };
    // SAFETY: a store to an atomic of this CPU's and loads of another, in the image, with every exception masked and all
    // operands in registers. The load-acquire exclusive arms the event that the store of `release` sends (Arm ARM D1.7).
    unsafe {
        asm!(
            "mrs {daif}, daif",
            "msr daifset, #15",
            "stlr {number}, [{arrived}]",
            "2: ldaxr {over}, [{released}]",
            "cmp {over}, {number}",
            "b.hs 3f",
            "wfe",
            "b 2b",
            "3: clrex",
            "isb",
            "msr daif, {daif}",
            number = in(reg) number,
            arrived = in(reg) arrived.as_ptr(),
            released = in(reg) RELEASED.as_ptr(),
            over = out(reg) _,
            daif = out(reg) _,
            options(nostack),
        );
    }
}

/// Whether a CPU is waiting in the hold `number`.
pub fn is_held(cpu: CpuId, number: u64) -> bool {
    // Acquire pairs with the store-release above: the CPU's earlier accesses are complete.
    ARRIVED.get(to_usize(u64::from(cpu.get()))).is_some_and(|arrived| arrived.load(Ordering::Acquire) == number)
}

/// Releases all CPUs that wait in the hold `number`, or would arrive in it.
pub fn release(number: u64) {
    RELEASED.store(number, Ordering::Release);
    super::cpu::send_event();
}
