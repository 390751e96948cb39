//! The checking build's record of locks: which ones each CPU holds, and whether one more may be taken (Linux: lockdep).
//!
//! It checks the rule, not an actual deadlock: a lock that could deadlock some day is reported the first time that it is taken,
//! even without contention.

use super::class::{Class, Interrupts, LockClass};
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Whether this build checks locks: one with debug assertions, which all tests are.
pub const CHECKED: bool = cfg!(debug_assertions);
/// Locks that one CPU may hold at once, those of interrupted code included.
const MAX_HELD: usize = if CHECKED { 16 } else { 0 };

/// Interrupt context in which a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockContext {
    /// Interrupts are unmasked.
    Unmasked,
    /// Interrupts are masked.
    Masked,
    /// In an interrupt handler.
    Handler,
    /// Unknown, or without effect: the machine has no interrupts, or boots, or reports its end.
    Unknown,
}

/// Way of waiting of a CPU for a lock, and its record of those that it holds.
pub trait LockHal {
    /// One turn of waiting: the architecture's hint (YIELD, or WFE where an event is sure to come). Any context.
    fn relax();

    /// Runs `f`, uninterrupted, with the locks that the running CPU, or thread, holds, and with its context. The default body
    /// is for machines without records: their locks are not checked.
    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        let _ = f;
    }
}

/// A lock that is held, or waited for.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    class: &'static LockClass,
    address: usize,
    /// Place that took it.
    taken: &'static Location<'static>,
}

impl Held {
    /// Class of the lock.
    #[must_use]
    pub const fn class(&self) -> &'static LockClass {
        self.class
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock \"{}\" at {:#x}, taken at {}", self.class.name, self.address, self.taken)
    }
}

/// Error in taking or releasing a lock.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// This CPU holds it, so it would wait for itself.
    Double(Held, &'static Location<'static>),
    /// A lock is held whose place is behind this one's, or the same.
    Order(Held, &'static LockClass, &'static Location<'static>),
    /// Handlers take it, and interrupts are not masked.
    NotMasked(&'static LockClass, &'static Location<'static>),
    /// It is taken without masking elsewhere, and interrupts are masked.
    Masked(&'static LockClass, &'static Location<'static>),
    /// It is taken without masking elsewhere, and this is a handler.
    InHandler(&'static LockClass, &'static Location<'static>),
    /// Interrupts were unmasked while it was held.
    Unmasked(Held),
    /// More locks are held than can be recorded.
    TooMany(&'static LockClass, &'static Location<'static>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Double(held, at) => write!(f, "deadlock: {held}, is taken again by the same CPU at {at}"),
            Self::Order(held, class, at) => write!(
                f,
                "lock order: \"{}\" (level {}) is taken at {at} inside of \"{}\" (level {}), taken at {}",
                class.name, class.level, held.class.name, held.class.level, held.taken
            ),
            Self::NotMasked(class, at) => {
                write!(f, "lock \"{}\" is taken at {at} with interrupts unmasked, and handlers take it too", class.name)
            }
            Self::Masked(class, at) => {
                write!(f, "lock \"{}\" is taken at {at} with interrupts masked, and elsewhere without", class.name)
            }
            Self::InHandler(class, at) => {
                write!(
                    f,
                    "lock \"{}\" is taken at {at} in an interrupt handler, and elsewhere without masking",
                    class.name
                )
            }
            Self::Unmasked(held) => write!(f, "interrupts were unmasked inside of {held}"),
            Self::TooMany(class, at) => {
                write!(f, "lock \"{}\" is taken at {at} inside of {MAX_HELD} others", class.name)
            }
        }
    }
}

/// The locks that one CPU holds, or one thread. Nothing in a build that does not check.
///
/// The CPU alone changes it, uninterrupted, so plain loads and stores are enough.
///
/// # Invariants
///
/// - `HELD-1`: a class or a location that is not null is a `'static` reference.
/// - `HELD-2`: places from `used` on are free; a place below with a null class is, too.
#[derive(Debug)]
pub struct HeldLocks {
    places: [Place; MAX_HELD],
    used: AtomicUsize,
    enforced: AtomicBool,
}

#[derive(Debug)]
struct Place {
    class: AtomicPtr<LockClass>,
    address: AtomicUsize,
    taken: AtomicPtr<Location<'static>>,
}

impl Place {
    const fn new() -> Self {
        Self {
            class: AtomicPtr::new(core::ptr::null_mut()),
            address: AtomicUsize::new(0),
            taken: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    fn get(&self) -> Option<Held> {
        // SAFETY: HELD-1.
        let class = unsafe { self.class.load(Ordering::Relaxed).as_ref() }?;
        // SAFETY: HELD-1.
        let taken = unsafe { self.taken.load(Ordering::Relaxed).as_ref() }?;
        Some(Held { class, address: self.address.load(Ordering::Relaxed), taken })
    }

    fn set(&self, held: &Held) {
        self.address.store(held.address, Ordering::Relaxed);
        // INVARIANT: HELD-1.
        self.taken.store(core::ptr::from_ref(held.taken).cast_mut(), Ordering::Relaxed);
        self.class.store(core::ptr::from_ref(held.class).cast_mut(), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.class.store(core::ptr::null_mut(), Ordering::Relaxed);
    }
}

impl HeldLocks {
    /// No lock.
    pub const fn new() -> Self {
        Self { places: [const { Place::new() }; MAX_HELD], used: AtomicUsize::new(0), enforced: AtomicBool::new(false) }
    }

    /// Whether the order and the masking count from now on: from the end of booting to the report of the end. The rule that no
    /// CPU waits for itself always counts.
    pub fn enforce(&self, enforced: bool) {
        self.enforced.store(enforced, Ordering::Relaxed);
    }

    /// Moves the locks of the running thread to `from`, and those of the next one here from `to`. The state "the order counts"
    /// belongs to the CPU, and stays.
    pub(super) fn switch(&self, from: &Self, to: &Self) {
        from.set(self);
        self.set(to);
    }

    fn set(&self, other: &Self) {
        let used = other.used.load(Ordering::Relaxed);
        for (place, from) in self.places.iter().zip(&other.places).take(used) {
            match from.get() {
                Some(held) => place.set(&held),
                None => place.clear(),
            }
        }
        // INVARIANT: HELD-2.
        self.used.store(used, Ordering::Relaxed);
    }

    /// The locks that are held, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = Held> {
        self.places.iter().take(self.used.load(Ordering::Relaxed)).filter_map(Place::get)
    }

    /// Whether the caller may take, and wait for, a lock.
    ///
    /// # Errors
    ///
    /// A [`Violation`].
    pub fn may_take(
        &self,
        class: &'static LockClass,
        address: usize,
        context: LockContext,
        at: &'static Location<'static>,
    ) -> Result<(), Violation> {
        if let Some(held) = self.iter().find(|held| held.address == address && held.class == class) {
            return Err(Violation::Double(held, at));
        }
        if !self.enforced.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(held) = self.iter().find(|held| held.class.level >= class.level && !may_nest(held.class, class)) {
            return Err(Violation::Order(held, class, at));
        }
        match (class.interrupts, context) {
            (Interrupts::Masked, LockContext::Unmasked) => Err(Violation::NotMasked(class, at)),
            (Interrupts::Unmasked, LockContext::Masked) => Err(Violation::Masked(class, at)),
            (Interrupts::Unmasked | Interrupts::Either, LockContext::Handler) => Err(Violation::InHandler(class, at)),
            _ => Ok(()),
        }
    }

    /// Records a lock.
    ///
    /// # Errors
    ///
    /// [`Violation::TooMany`].
    pub fn take(
        &self,
        class: &'static LockClass,
        address: usize,
        taken: &'static Location<'static>,
    ) -> Result<(), Violation> {
        let at = self.used.load(Ordering::Relaxed);
        self.places.get(at).ok_or(Violation::TooMany(class, taken))?.set(&Held { class, address, taken });
        self.used.store(at + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the record of a lock that is released. Any order.
    ///
    /// # Errors
    ///
    /// [`Violation::Unmasked`]; its record is removed nevertheless.
    pub fn give(&self, class: &'static LockClass, address: usize, context: LockContext) -> Result<(), Violation> {
        let places = self.places.get(..self.used.load(Ordering::Relaxed)).unwrap_or(&[]);
        let is_it = |place: &&Place| place.get().is_some_and(|held| held.address == address && held.class == class);
        let Some((place, held)) = places.iter().rev().find(is_it).and_then(|place| Some((place, place.get()?))) else {
            return Ok(());
        };
        place.clear();
        // INVARIANT: HELD-2.
        let left = places.iter().rposition(|place| place.get().is_some()).map_or(0, |last| last + 1);
        self.used.store(left, Ordering::Relaxed);
        let was_masked = class.interrupts == Interrupts::Masked && self.enforced.load(Ordering::Relaxed);
        match context {
            LockContext::Unmasked if was_masked => Err(Violation::Unmasked(held)),
            _ => Ok(()),
        }
    }
}

impl Default for HeldLocks {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the order does not cover two classes: an embedding kernel's own locks are in an order of its own.
fn may_nest(outer: &LockClass, inner: &LockClass) -> bool {
    outer.level == 0 && inner.level == 0
}

/// Whether the caller waits for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// The caller waits until it is open, so everything is checked.
    Wait,
    /// It has been released: nobody waits.
    Taken,
}

/// Records that the running CPU takes a lock, and reports an error in that.
#[inline(never)]
#[track_caller]
pub(super) fn taking<R: LockHal>(class: &'static LockClass, address: usize, attempt: Attempt) {
    let at = Location::caller();
    let mut checked = Ok(());
    R::with_held(&mut |held, context| {
        if attempt == Attempt::Wait {
            checked = held.may_take(class, address, context, at);
        }
        if checked.is_ok() {
            checked = held.take(class, address, at);
        }
    });
    if let Err(violation) = checked {
        report(&violation);
    }
}

/// Records that the CPU releases a lock.
#[inline(never)]
#[track_caller]
pub(super) fn giving<R: LockHal>(class: &'static LockClass, address: usize) {
    let mut checked = Ok(());
    R::with_held(&mut |held, context| checked = held.give(class, address, context));
    if let Err(violation) = checked {
        report(&violation);
    }
}

/// A lock of another make than [`OrderedLock`](super::OrderedLock), which is held until this is dropped: for one that its
/// owner may take again, say.
#[must_use = "the lock counts as given back when this is dropped"]
#[derive(Debug)]
pub struct Watched<C: Class, R: LockHal> {
    address: usize,
    class: PhantomData<(C, R)>,
    /// Neither `Send` nor `Sync`.
    this_cpu: PhantomData<*mut ()>,
}

impl<C: Class, R: LockHal> Watched<C, R> {
    /// The caller is about to wait for the lock at `address`. Reports an error in that.
    #[track_caller]
    #[inline]
    pub fn taking(address: usize) -> Self {
        if CHECKED {
            taking::<R>(C::CLASS, address, Attempt::Wait);
        }
        Self { address, class: PhantomData, this_cpu: PhantomData }
    }
}

impl<C: Class, R: LockHal> Drop for Watched<C, R> {
    #[inline]
    fn drop(&mut self) {
        if CHECKED {
            giving::<R>(C::CLASS, self.address);
        }
    }
}

/// Continuing would hang, now or some day. Only checking builds come here.
#[cold]
#[track_caller]
#[expect(
    clippy::panic,
    reason = "a lock that is taken wrongly is a bug of the kernel, and this is the build to find it"
)]
fn report(violation: &Violation) -> ! {
    panic!("{violation}")
}
