//! All that this kernel has to do for its memory: the machine, the first call of each CPU, and the exceptions.

use crate::{board, sched};
use core::fmt::Arguments;
use core::sync::atomic::{AtomicBool, Ordering};
use quarry::arch::aarch64::esr::Esr;
use quarry::arch::aarch64::exception::Exception;
use quarry::hal::wait::{Scope, WaitQueue};
use quarry::mm::zone::WatermarkTuning;
use quarry::prelude::*;
use quarry::{Machine, Memory, Options, Setup, Tables, Up};

struct Threads;

quarry::machine!(Threads, linear_offset = 0);

// SAFETY: TTBR0 maps all RAM where it is, on all CPUs; `hold_others` is not there.
unsafe impl Machine for Threads {
    fn kick(&self, cpu: CpuId) -> bool {
        board::interrupt(1 << cpu.get(), board::ANSWER);
        true
    }

    fn print(&self, text: Arguments<'_>) {
        board::print(text);
    }

    fn rouse(&self) {
        WANTED.store(true, Ordering::Release);
        RECLAIMER.wake_with(|| sched::wake(&RECLAIMER));
    }

    fn block(&self, queue: &WaitQueue, seen: u32) -> bool {
        sched::block(queue, seen, sched::Waits::ForMemory)
    }

    fn wake(&self, queue: &WaitQueue) {
        sched::wake(queue);
    }
}

/// Where the thread that reclaims in the background waits, and whether it is wanted.
static RECLAIMER: WaitQueue = WaitQueue::new();
static WANTED: AtomicBool = AtomicBool::new(false);

/// The thread that reclaims in the background.
pub fn reclaimer(_: u64) {
    loop {
        let _ = RECLAIMER.wait_with(&mut || WANTED.swap(false, Ordering::Acquire), |seen| {
            sched::block(&RECLAIMER, seen, sched::Waits::ForWork)
        });
        quarry::idle();
    }
}

/// On the CPU that boots.
pub fn start(cpus: u32, ram: PhysRange, image: PhysRange) -> Up {
    let memory = Memory::Ranges { ram: &[ram], reserved: &[image] };
    // The reclaimer is woken early, as it has to wait for its turn.
    let watermarks = WatermarkTuning { scale_factor: 500, ..WatermarkTuning::DEFAULT };
    let options = Options { watermarks, ..Options::DEFAULT };
    let setup = Setup { memory, tables: Tables::New, cpus, seed: 1, options };
    // SAFETY: nothing but the image is in use; boot.S has set this CPU's registers and masked interrupts; the vectors call
    // `repair` and `resume_at`.
    unsafe { quarry::bring_up(&setup) }.unwrap_or_else(|error| panic!("{error}"))
}

/// On each other CPU.
pub fn join(cpu: u32) {
    // SAFETY: boot.S has set this CPU's registers and masked interrupts; each CPU has a number of its own.
    unsafe { quarry::join_cpu(CpuId::new(cpu)) }.unwrap_or_else(|error| panic!("{error}"));
}

/// On each CPU, when its interrupts are about to be unmasked.
pub fn ready() {
    quarry::forbid_waiting_in_atomic(true);
}

/// Runs an interrupt's handler, in which nobody may wait.
pub fn in_interrupt(handler: impl FnOnce()) {
    let _scope = quarry::sync::enter(quarry::context(), Scope::Interrupt);
    handler();
}

/// Whether a synchronous exception is one that Quarry expects, and is over.
pub fn repair(frame: &mut sched::Frame, esr: u64, far: u64) -> bool {
    let (esr, far) = (Esr::new(esr), VirtAddr::new(far));
    quarry::repair(&mut Exception { x: &mut frame.x, elr: &mut frame.elr, spsr: frame.spsr, esr, far })
}
