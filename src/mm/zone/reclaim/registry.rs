//! Registered sources of memory: a fixed number of places, so that registering allocates nothing, each of which can be left
//! while its tenant is at work.
#![forbid(unsafe_code)]

use crate::hal::cpu::Interrupts;
use crate::hal::wait::{Atomic, Context, Wait, WaitQueue, Waited};
use crate::mm::zone::Pressure;
use crate::sync::{LockHal, OrderedLock, class};
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Places of a registry.
pub const REGISTRY_PLACES: usize = 32;

/// Reason why somebody is not registered, or still is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// All places are taken.
    Full,
    /// The place has been given back already.
    Gone,
    /// It is at work in this very context, or in one that will not go on: it would have to wait for itself.
    AtWork,
    /// The caller may not wait.
    Atomic(Atomic),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no place left"),
            Self::Gone => f.write_str("not registered"),
            Self::AtWork => f.write_str("it is at work"),
            Self::Atomic(why) => write!(f, "the caller may not wait: {why}"),
        }
    }
}

impl core::error::Error for RegistryError {}

/// Names a place that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "needed to leave again"]
pub struct Registration {
    place: usize,
    /// Which tenant of the place: a registration that is over names nobody.
    tenancy: u64,
}

struct Tenant<T: ?Sized + 'static> {
    entry: Option<&'static T>,
    tenancy: u64,
    /// Contexts that it is at work in.
    users: u32,
}

/// Reclaim's notes about a tenant, zero at first.
#[derive(Debug)]
pub struct Notes {
    /// Work that was put off.
    pub(super) deferred: AtomicU64,
    /// One more than what the tenant said last that it holds, or zero if it has not been asked.
    held: AtomicU64,
}

impl Notes {
    const fn new() -> Self {
        Self { deferred: AtomicU64::new(0), held: AtomicU64::new(0) }
    }

    /// Notes what the tenant says that it holds.
    pub(super) fn set_held(&self, held: u64) {
        self.held.store(held.saturating_add(1), Ordering::Relaxed);
    }

    /// The amount that the tenant reported last; `None` if it has not been asked.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        self.held.load(Ordering::Relaxed).checked_sub(1)
    }
}

struct Place<T: ?Sized + 'static, R> {
    tenant: OrderedLock<Tenant<T>, class::Tenant, R>,
    notes: Notes,
}

/// Places for `T`, such as `dyn Shrinker`.
///
/// # Invariants
///
/// - `REG-1`: a place is given away only while nobody is at work in it.
/// - `REG-2`: no lock is held while a tenant works.
pub struct Registry<T: ?Sized + 'static, R> {
    places: [Place<T, R>; REGISTRY_PLACES],
    /// Places that are or were taken, which are the first: an empty registry costs one load.
    used: AtomicU32,
    /// For who waits for a tenant to stop working.
    idle: WaitQueue,
}

impl<T: ?Sized, R: LockHal> Registry<T, R> {
    /// No tenants.
    pub const fn new() -> Self {
        Self {
            places: [const {
                Place { tenant: OrderedLock::new(Tenant { entry: None, tenancy: 0, users: 0 }), notes: Notes::new() }
            }; REGISTRY_PLACES],
            used: AtomicU32::new(0),
            idle: WaitQueue::new(),
        }
    }

    /// Takes a place. Any context.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Full`].
    pub fn register<H: Interrupts>(&self, hal: &H, entry: &'static T) -> Result<Registration, RegistryError> {
        for (number, place) in (0_u32..).zip(&self.places) {
            let taken = Self::with_tenant(hal, place, |tenant| {
                // INVARIANT: REG-1.
                if tenant.entry.is_some() || tenant.users != 0 {
                    return None;
                }
                tenant.entry = Some(entry);
                tenant.tenancy += 1;
                place.notes.deferred.store(0, Ordering::Relaxed);
                place.notes.held.store(0, Ordering::Relaxed);
                Some(tenant.tenancy)
            });
            if let Some(tenancy) = taken {
                self.used.fetch_max(number + 1, Ordering::Relaxed);
                return Ok(Registration { place: number as usize, tenancy });
            }
        }
        Err(RegistryError::Full)
    }

    /// Leaves a place, and returns when the tenant is at work nowhere any more: what it works on may go. Where sleeping is
    /// allowed.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Gone`]; [`RegistryError::AtWork`] if it is called by a tenant at work, or if this one is at work in a
    /// context that will never go on; [`RegistryError::Atomic`] where waiting is not legal. But for the first, it is still
    /// registered then.
    pub fn unregister<H: Wait + Context + Interrupts + Pressure>(
        &self,
        hal: &H,
        registration: Registration,
    ) -> Result<(), RegistryError> {
        match hal.atomic() {
            None => {}
            Some(Atomic::Reclaim | Atomic::Deferred) => return Err(RegistryError::AtWork),
            Some(why) => {
                hal.sleeps_in_atomic("Registry::unregister");
                return Err(RegistryError::Atomic(why));
            }
        }
        let place = self.places.get(registration.place).ok_or(RegistryError::Gone)?;
        let entry = Self::with_tenant(hal, place, |tenant| {
            tenant.entry.take_if(|_| tenant.tenancy == registration.tenancy).ok_or(RegistryError::Gone)
        })?;
        // The place may have another tenant by the time that this is asked, which is at work for longer.
        let left = |tenant: &mut Tenant<T>| tenant.tenancy != registration.tenancy || tenant.users == 0;
        match hal.wait(&self.idle, &mut || Self::with_tenant(hal, place, left)) {
            Waited::Woken => Ok(()),
            Waited::WouldNeverWake => Self::with_tenant(hal, place, |tenant| {
                if left(tenant) {
                    return Ok(());
                }
                tenant.entry = Some(entry);
                Err(RegistryError::AtWork)
            }),
        }
    }

    /// Lets each tenant work, one after the other, until one of them breaks off with an answer. The second argument is
    /// what is noted about it. Any context in which the tenants may work.
    pub fn visit<H: Wait + Interrupts, B>(
        &self,
        hal: &H,
        mut work: impl FnMut(&'static T, &Notes) -> Option<B>,
    ) -> Option<B> {
        let used = self.used.load(Ordering::Relaxed) as usize;
        for place in self.places.iter().take(used) {
            let Some(entry) = Self::with_tenant(hal, place, |tenant| {
                let entry = tenant.entry?;
                tenant.users += 1;
                Some(entry)
            }) else {
                continue;
            };
            // INVARIANT: REG-2.
            let answer = work(entry, &place.notes);
            let left = Self::with_tenant(hal, place, |tenant| {
                tenant.users -= 1;
                tenant.entry.is_none()
            });
            if left {
                hal.wake(&self.idle);
            }
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    /// With interrupts masked: the holder of the lock makes progress, and a handler that visits does not meet it held.
    fn with_tenant<H: Interrupts, A>(hal: &H, place: &Place<T, R>, f: impl FnOnce(&mut Tenant<T>) -> A) -> A {
        let saved = hal.save();
        let answer = f(&mut place.tenant.lock());
        hal.restore(saved);
        answer
    }
}

impl<T: ?Sized, R: LockHal> Default for Registry<T, R> {
    fn default() -> Self {
        Self::new()
    }
}
