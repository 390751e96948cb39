//! What this kernel does when memory is short: its reclaimer, and how a CPU without threads waits.

use super::cpu::{KernelPages, rouse};
use super::drain::answer_requests;
use super::faults;
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
use spin::once::Once;

/// This kernel's reclaimer.
pub type KernelReclaim = Reclaim<Relax>;
/// A spin lock whose holder may not wait on this machine.
pub type SpinLock<T> = Lock<T, KernelPages, Relax>;

static RECLAIM: KernelReclaim = Reclaim::new();
static DEFERRED: Registry<dyn Deferred, Relax> = Registry::new();
static HOOKS: Once<&'static PressureHooks, Relax> = Once::new();

/// The reclaimer: where shrinkers, purges and OOM hooks register.
#[must_use]
pub fn reclaim() -> &'static KernelReclaim {
    &RECLAIM
}

/// What the running context is inside of, and how it waits.
#[must_use]
pub fn context() -> &'static KernelPages {
    PAGES.hal()
}

/// Asserts that sleeping is allowed where the caller is; see [`PageAllocator::might_sleep`](crate::mm::zone::PageAllocator).
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

/// How the kernel around the allocator reports, and what it knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct PressureHooks {
    /// An allocation fails without [`Gfp::NOWARN`]. Any context in which one may be made.
    pub failed: fn(&Shortage),
    /// An allocation that may wait was made where waiting is not legal, and goes on without. Any context.
    pub waits_in_atomic: fn(Gfp, Order, Atomic),
    /// A function that may sleep, by its name, was called where that is not legal; it is refused. Any context.
    pub sleeps_in_atomic: fn(&'static str, Atomic),
    /// Whether anything but the running contexts of CPUs may yet free memory: an interrupt's handler.
    pub may_be_woken: fn() -> bool,
}

/// Registers the kernel's hooks. The first call counts; without one, reports are single lines of the log, and nobody is
/// there to wake a waiter.
pub fn set_pressure_hooks(hooks: &'static PressureHooks) {
    HOOKS.call_once(|| hooks);
}

/// Work that an interrupt handler has put off, such as freeing what may not be freed there.
pub trait Deferred: Sync {
    /// Does it: whether there was any. Interrupts unmasked, no lock held, on any CPU, inside [`Scope::Deferred`]: may not
    /// wait.
    fn run(&self) -> bool;
}

/// Lets whoever is idle or waits do the work that `work` has put off.
///
/// # Errors
///
/// [`RegistryError::Full`].
pub fn defer_to(work: &'static dyn Deferred) -> Result<Registration, RegistryError> {
    DEFERRED.register(context(), work)
}

/// Ends it: when this returns the work is being done nowhere. Where sleeping is allowed, and not in the work itself.
///
/// # Errors
///
/// As for [`Registry::unregister`].
pub fn defer_no_more(registration: Registration) -> Result<(), RegistryError> {
    DEFERRED.unregister(context(), registration)
}

/// What a CPU does that has nothing else to do: answers other CPUs, does deferred work, reclaims in the background if that
/// is wanted. Whether it did anything. Where sleeping is allowed; elsewhere that is reported, and nothing is done.
pub fn idle() -> bool {
    might_sleep("idle").is_ok() && work_meanwhile()
}

/// [`idle`] for a caller that waits, and so has asked.
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
    /// There are no threads: the CPU does what [`idle`] does, and sleeps until an event.
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        let saved = irq::local_irq_save_flags();
        irq::local_irq_enable();
        let waited = queue.wait_with(condition, |seen| {
            if work_meanwhile() || queue.generation() != seen {
                return true;
            }
            sync::sleep_for_memory(self, HOOKS.get().is_some_and(|hooks| (hooks.may_be_woken)()))
        });
        irq::local_irq_restore_flags(saved);
        waited
    }

    fn wake(&self, queue: &WaitQueue) {
        queue.wake_with(cpu::send_event);
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
        faults::should_fail(FaultSite::PageAlloc, gfp, order.pages())
    }

    fn scoped(&self, gfp: Gfp) -> Gfp {
        scoped_gfp(self, gfp)
    }

    fn freed(&self) {
        RECLAIM.pages_freed(self);
    }

    fn failed(&self, shortage: &Shortage) {
        // A report about memory looks at the zones, which may be locked for good when the kernel ends.
        match HOOKS.get() {
            _ if faults::fault_injector().is_closed() => {}
            Some(hooks) => (hooks.failed)(shortage),
            None => log::warn!("page allocation failure: order:{}, mode:{}", shortage.order.get(), shortage.gfp),
        }
    }

    fn waits_in_atomic(&self, gfp: Gfp, order: Order) {
        let why = self.atomic().unwrap_or(Atomic::Masked);
        match HOOKS.get() {
            Some(hooks) => (hooks.waits_in_atomic)(gfp, order, why),
            None => log::error!("sleeping allocation in atomic context: order:{}, mode:{gfp}, {why}", order.get()),
        }
    }

    fn sleeps_in_atomic(&self, call: &'static str) {
        let why = self.atomic().unwrap_or(Atomic::Masked);
        match HOOKS.get() {
            Some(hooks) => (hooks.sleeps_in_atomic)(call, why),
            None => log::error!("sleeping function called in atomic context ({why}): {call}"),
        }
    }
}
