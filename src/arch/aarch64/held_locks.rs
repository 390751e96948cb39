//! The locks that each CPU holds, in the checking build, and where a CPU is when it takes one.
#![forbid(unsafe_code)]

use super::cpu::{self, MAX_CPUS, Relax};
use super::irq::{self, IrqFlags};
use super::stack::{self, StackUse};
use crate::addr::{CpuId, VirtAddr, to_usize};
use crate::sync::{CHECKED, HeldLocks, LockContext, LockHal};

/// CPUs whose locks are remembered.
const RECORDS: usize = if CHECKED { MAX_CPUS } else { 0 };

static HELD: [HeldLocks; RECORDS] = [const { HeldLocks::new() }; RECORDS];

/// The locks that this CPU holds. `None` in a build that does not check, and on a CPU that has no number: two of those would
/// be taken for one.
#[must_use]
pub fn held_locks() -> Option<&'static HeldLocks> {
    if CHECKED && !cpu::is_numbered() {
        return None;
    }
    HELD.get(to_usize(u64::from(cpu::current().get())))
}

/// The locks that a CPU holds, at some moment during the call. `None` in a build that does not check.
#[must_use]
pub fn held_locks_of(cpu: CpuId) -> Option<&'static HeldLocks> {
    HELD.get(to_usize(u64::from(cpu.get())))
}

/// Whether the order of locks counts on this CPU: from the end of booting to the report of the end.
pub fn enforce_lock_order(enforced: bool) {
    if let Some(held) = held_locks() {
        held.enforce(enforced);
    }
}

fn context(interrupts: IrqFlags) -> LockContext {
    let marker = 0_u8;
    let interrupt_stack = stack::of_cpu(cpu::current(), StackUse::Interrupt);
    if interrupt_stack.is_some_and(|stack| stack.range.contains(VirtAddr::of(&raw const marker))) {
        LockContext::Handler
    } else if interrupts.bits() & IrqFlags::MASKED == 0 {
        LockContext::Unmasked
    } else {
        LockContext::Masked
    }
}

impl LockHal for Relax {
    fn relax() {
        Self::turn();
    }

    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        // Debug exceptions too: a handler that steps through code takes locks between its instructions.
        let interrupts = irq::local_irq_save_flags();
        irq::mask_all();
        if let Some(held) = held_locks() {
            f(held, context(interrupts));
        }
        irq::local_irq_restore_flags(interrupts);
    }
}
