//! An allocator's interface to the CPU that it runs on: masking interrupts, and per-CPU data.

use crate::addr::CpuId;

/// Masking interrupts on the CPU that executes the call.
pub trait Interrupts {
    /// The previous interrupt mask.
    type Saved: Copy;

    /// Masks interrupts. Memory accesses are not moved across the call (Linux: `local_irq_save`).
    fn save(&self) -> Self::Saved;

    /// Restores what [`Interrupts::save`] returned, on the same CPU, in reverse order.
    fn restore(&self, saved: Self::Saved);
}

/// Per-CPU data.
///
/// Access to another CPU's data is safe: `Local` is `Sync`, and documents the operations of its owner alone.
pub trait PerCpu {
    /// Data of each CPU.
    type Local: Sync;

    /// Data of the CPU that executes the call, which stays the same CPU as long as interrupts are masked.
    fn local(&self) -> &Self::Local;

    /// Data of any CPU, or `None` for a CPU that this machine does not have.
    fn local_of(&self, cpu: CpuId) -> Option<&Self::Local>;

    /// The CPU that executes the call.
    fn cpu(&self) -> CpuId;

    /// One past the highest CPU number of this machine.
    fn cpus(&self) -> u32;

    /// Whether the CPU executes kernel code. The data of a CPU that does not are at rest, and any CPU may use them.
    fn is_online(&self, cpu: CpuId) -> bool;

    /// Runs `work` if `cpu` is offline, keeps it from coming online meanwhile, and keeps others from such work. Returns whether
    /// it was offline. Any context.
    ///
    /// The default body is for a machine on which no CPU goes online or offline while another one may call this.
    fn while_offline(&self, cpu: CpuId, work: &mut dyn FnMut()) -> bool {
        let offline = !self.is_online(cpu);
        if offline {
            work();
        }
        offline
    }

    /// Asks an online CPU to answer its requests soon, by interrupt or otherwise.
    fn kick(&self, cpu: CpuId);

    /// Called while this CPU waits for an answer of `cpu`, after `step` checks, counted from 0. A machine with a clock reports
    /// callers that let others wait for too long.
    fn waiting_for(&self, cpu: CpuId, step: u64) {
        let _ = (cpu, step);
    }
}

/// Runs `f` on the running CPU's data, and keeps the thread on that CPU meanwhile: interrupts are masked from before the CPU
/// number is read. A thread may migrate at any instruction where they are open, so all per-CPU data is accessed this way.
#[inline]
pub fn with_local<H: Interrupts + PerCpu, A>(hal: &H, f: impl FnOnce(&H::Local) -> A) -> A {
    let saved = hal.save();
    let answer = f(hal.local());
    hal.restore(saved);
    answer
}
