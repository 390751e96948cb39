//! The number of this CPU, and its sleep while it has nothing to do.
//!
//! The number lives in `TPIDRRO_EL0`, bits 15:0: `TPIDR_EL1` holds the address of the CPU's own data, and the exception
//! vectors need a number without touching memory. The upper half says that the number has been set: after reset the register
//! holds anything.

use super::features::IdRegisters;
use crate::addr::{CpuId, VirtAddr};
use aarch64_cpu::{
    asm::{self, barrier},
    registers::{MPIDR_EL1, TPIDR_EL1, TPIDRRO_EL0},
};
use core::sync::atomic::{AtomicU32, Ordering};
use tock_registers::interfaces::{Readable, Writeable};

/// More CPUs than any board that Quarry knows (QEMU virt: up to 256 in its device trees).
pub const MAX_CPUS: usize = 256;

/// The upper half of the register, once a CPU has its number.
const NUMBERED: u64 = 0x5175_7272;

/// The CPU that executes this. Any context; one register read.
#[must_use]
pub fn current() -> CpuId {
    CpuId::new((TPIDRRO_EL0.get() & 0xffff) as u32)
}

/// Tells this CPU its number; once, before anything asks for it. Clears the vectors' count of bad stacks.
pub fn set_current(cpu: CpuId) {
    TPIDRRO_EL0.set(NUMBERED << 32 | u64::from(cpu.get()));
}

/// Whether the number of this CPU has been set.
#[must_use]
pub fn is_numbered() -> bool {
    TPIDRRO_EL0.get() >> 32 == NUMBERED
}

/// The affinity fields of this CPU's `MPIDR_EL1`: what firmware and the interrupt controller call it.
#[must_use]
pub fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// Address of this CPU's own data, set by [`set_local`]: one register read. Stays the same as long as the CPU does: while
/// interrupts are masked.
#[must_use]
#[inline(always)]
pub fn local() -> VirtAddr {
    VirtAddr::new(TPIDR_EL1.get())
}

/// Tells this CPU where its own data lie.
pub fn set_local(data: VirtAddr) {
    TPIDR_EL1.set(data.get());
}

/// One step of waiting for another CPU or a device: YIELD. (`core::hint::spin_loop` is ISB here, which under emulation
/// burns the time slice that the other CPU needs.)
pub fn relax() {
    // SAFETY: YIELD is a hint and changes nothing.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Return address of the function that this is inlined into, from its frame record.
#[must_use]
#[inline(always)]
pub fn return_address() -> VirtAddr {
    let to: u64;
    // SAFETY: every function of this build that makes calls has a frame record, to which x29 points. Saying that x30 is
    // overwritten makes the compiler set it up before.
    unsafe {
        core::arch::asm!(
            "ldr {}, [x29, #8]",
            out(reg) to,
            out("x30") _,
            options(nostack, readonly, preserves_flags)
        );
    }
    VirtAddr::new(to)
}

/// Attempts to read the source of random numbers, which may be slower than its reader.
const RANDOM_TRIES: u32 = 8;

/// A number out of this CPU's own source of random ones; `None` if it has no source or the source has no number (Arm ARM D24.2,
/// `RNDR`). Any context.
#[must_use]
pub fn random(features: &IdRegisters) -> Option<u64> {
    if !features.has_rng() {
        return None;
    }
    (0..RANDOM_TRIES).find_map(|_| {
        let (value, given): (u64, u64);
        // SAFETY: the register exists with FEAT_RNG; reading it sets the flags, Z for no number, and nothing else.
        unsafe {
            core::arch::asm!(
                "mrs {value}, s3_3_c2_c4_0",
                "cset {given}, ne",
                value = out(reg) value,
                given = out(reg) given,
                options(nomem, nostack)
            );
        }
        (given != 0).then_some(value)
    })
}

/// Sleeps until an event: one sent by [`send_event`], or an interrupt that is not masked. An event that came since the last
/// call ends this one at once, the return from an interrupt among them, so a caller that first checks and then sleeps misses
/// nothing (Arm ARM D1.6.1). It may end for no reason.
pub fn wait_for_event() {
    asm::wfe();
}

/// Ends the sleep of all CPUs in [`wait_for_event`], or their next one. A CPU that wakes sees all earlier stores.
pub fn send_event() {
    barrier::dsb(barrier::ISHST);
    asm::sev();
}

/// Sleeps until an interrupt is pending, masked or not. It may end for no reason.
pub fn wait_for_interrupt() {
    asm::wfi();
}

/// Wait strategy of the locks of crate `spin` in this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

/// The CPU that waits for locks no more, plus one.
static ENDS: AtomicU32 = AtomicU32::new(0);
/// Number of further attempts.
static LOOKS: AtomicU32 = AtomicU32::new(100_000);

/// From now on this CPU waits for a lock only as long as one may yet be given back by a CPU that is slow to stop: the others
/// have been stopped, and it reports the end of the kernel itself. Waiting on panics.
pub fn wait_no_more() {
    ENDS.store(current().get() + 1, Ordering::Relaxed);
}

/// Whether [`wait_no_more`] has been called on this CPU.
#[must_use]
pub fn waits_no_more() -> bool {
    is_numbered() && ENDS.load(Ordering::Relaxed) == current().get() + 1
}

impl Relax {
    /// One turn of waiting for a lock.
    #[expect(clippy::panic, reason = "the alternative is to wait for ever, without a word")]
    pub(super) fn turn() {
        // The caller waits anyhow, so that the test costs nothing.
        if waits_no_more()
            && LOOKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        {
            panic!("a report waits for a lock that nobody gives back");
        }
        relax();
    }
}

/// Stops this CPU for good, interrupts masked.
pub fn park() -> ! {
    super::irq::mask_all();
    loop {
        asm::wfi();
    }
}
