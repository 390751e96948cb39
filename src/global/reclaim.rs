//! Actions of this kernel when memory is short: its reclaimer, and how a CPU without threads waits.

use super::cpu::{KernelPages, rouse};
use super::drain::answer_requests;
use super::fault_injection;
use super::machine::machine;
use super::pages::PAGES;
use crate::addr::Order;
use crate::arch::aarch64::cpu::{self, Relax};
use crate::arch::aarch64::irq;
use crate::gfp::{Gfp, ZoneType};
use crate::hal::cpu::{Interrupts, PerCpu, with_local};
use crate::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use crate::mm::fault_inject::FaultSite;
use crate::mm::zone::{
    Balanced, Pressure, Reclaim, Registration, Registry, RegistryError, Relief, Shortage, SleepsInAtomic, scoped_gfp,
};
use crate::sync::{self, Lock};

/// This kernel's reclaimer.
pub type KernelReclaim = Reclaim<Relax>;
/// A spin lock whose holder may not wait on this machine.
pub type SpinLock<T> = Lock<T, KernelPages, Relax>;

static RECLAIM: KernelReclaim = Reclaim::new();
static DEFERRED: Registry<dyn Deferred, Relax> = Registry::new();

/// The reclaimer: where shrinkers, purges and OOM hooks register.
#[must_use]
pub fn reclaim() -> &'static KernelReclaim {
    &RECLAIM
}

/// Scopes of the running context, and how it waits.
#[must_use]
pub fn context() -> &'static KernelPages {
    PAGES.hal()
}

/// Asserts that sleeping is allowed in the caller's context; see
/// [`PageAllocator::might_sleep`](crate::mm::zone::PageAllocator).
///
/// # Errors
///
/// [`SleepsInAtomic`], which has been reported.
pub fn might_sleep(call: &'static str) -> Result<(), SleepsInAtomic> {
    PAGES.might_sleep(call)
}

/// An open spin lock.
pub const fn spin_lock<T>(data: T) -> SpinLock<T> {
    Lock::new(KernelPages(()), data)
}

/// Work that an interrupt handler has put off, such as freeing memory that may not be freed there.
pub trait Deferred: Sync {
    /// Does the work. Returns whether there was any. Called with interrupts unmasked and no lock held, on any CPU, inside
    /// [`Scope::Deferred`]: it may not wait.
    fn run(&self) -> bool;
}

/// Registers `work`: idle or waiting CPUs do the work that it has deferred.
///
/// # Errors
///
/// [`RegistryError::Full`].
pub fn defer_to(work: &'static dyn Deferred) -> Result<Registration, RegistryError> {
    DEFERRED.register(context(), work)
}

/// Ends the registration: when this returns, no CPU is doing the work. Where sleeping is allowed, and not in the work itself.
///
/// # Errors
///
/// As for [`Registry::unregister`].
pub fn defer_no_more(registration: Registration) -> Result<(), RegistryError> {
    DEFERRED.unregister(context(), registration)
}

/// Work of an idle CPU: it answers other CPUs, does deferred work, reclaims in the background if that is wanted. Returns
/// whether it did anything. Where sleeping is allowed; elsewhere that is reported, and nothing is done.
pub fn idle() -> bool {
    might_sleep("idle").is_ok() && work_meanwhile()
}

/// [`idle`] for a caller that waits, and has checked that it may.
fn work_meanwhile() -> bool {
    answer_requests();
    let mut worked = false;
    // Deferred work that waited would come here again, and run itself once more.
    if !PAGES.hal().is_inside(Scope::Deferred) {
        let _: Option<()> = DEFERRED.visit(PAGES.hal(), |work, _| {
            let _scope = sync::enter(PAGES.hal(), Scope::Deferred);
            worked |= work.run();
            None
        });
    }
    RECLAIM.balance(&PAGES) != Balanced::Idle || worked
}

impl Wait for KernelPages {
    /// A thread blocks, if the kernel has any. Otherwise the CPU does what [`idle`] does, and sleeps until an event.
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        let saved = irq::local_irq_save_flags();
        irq::local_irq_enable();
        let waited = queue.wait_with(condition, |seen| {
            if machine().block(queue, seen) || work_meanwhile() || queue.generation() != seen {
                return true;
            }
            sync::sleep_for_memory(self, machine().may_free_memory())
        });
        irq::local_irq_restore_flags(saved);
        waited
    }

    fn wake(&self, queue: &WaitQueue) {
        queue.wake_with(|| {
            cpu::send_event();
            machine().wake(queue);
        });
    }
}

impl Context for KernelPages {
    fn enter(&self, scope: Scope) {
        with_local(self, |local| local.scopes.enter(scope));
    }

    fn leave(&self, scope: Scope) {
        with_local(self, |local| local.scopes.leave(scope));
    }

    fn is_inside(&self, scope: Scope) -> bool {
        with_local(self, |local| local.scopes.is_inside(scope))
    }

    fn atomic(&self) -> Option<Atomic> {
        let saved = self.save();
        let why = self.local().scopes.atomic(saved.bits());
        self.restore(saved);
        why
    }
}

impl Pressure for KernelPages {
    fn wake(&self, zone: ZoneType, order: Order) {
        RECLAIM.wake_background(self, zone, order);
        rouse();
    }

    fn relieve(&self, shortage: &Shortage) -> Relief {
        RECLAIM.relieve(&PAGES, shortage)
    }

    fn should_fail(&self, gfp: Gfp, order: Order) -> bool {
        fault_injection::should_fail(FaultSite::PageAlloc, gfp, order.pages())
    }

    fn scoped(&self, gfp: Gfp) -> Gfp {
        scoped_gfp(self, gfp)
    }

    fn freed(&self) {
        RECLAIM.pages_freed(self);
    }

    fn failed(&self, shortage: &Shortage) {
        // A report about memory reads the zones, which may stay locked when the kernel ends.
        if !fault_injection::fault_injector().is_closed() {
            machine().allocation_failed(shortage);
        }
    }

    fn waits_in_atomic(&self, gfp: Gfp, order: Order) {
        machine().waits_in_atomic(gfp, order, self.atomic().unwrap_or(Atomic::Masked));
    }

    fn sleeps_in_atomic(&self, call: &'static str) {
        machine().sleeps_in_atomic(call, self.atomic().unwrap_or(Atomic::Masked));
    }
}
