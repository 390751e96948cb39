//! Scopes of a context, as one CPU (or one thread) counts them.
#![forbid(unsafe_code)]

use crate::hal::wait::{Atomic, Context, Scope};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The scopes that forbid waiting, the first that is named first.
const FORBIDDING: [(Scope, Atomic); 5] = [
    (Scope::Interrupt, Atomic::Interrupt),
    (Scope::Reclaim, Atomic::Reclaim),
    (Scope::Deferred, Atomic::Deferred),
    (Scope::Lock, Atomic::Lock),
    (Scope::Cpu, Atomic::Cpu),
];

/// Scopes of one CPU, with the answer to "may it wait?" ready in one word, [`Scopes::no_wait`]: the bits of a saved interrupt
/// mask that forbid it. `MASKED` is the bit that is set while interrupts are masked, `ALWAYS` a bit that is set in every mask.
/// One AND with the mask that has just been saved answers the question.
///
/// All-zero is a valid value: the machine boots, nothing runs beside it, and waiting with interrupts masked is allowed.
///
/// Its CPU alone changes it, with interrupts masked from before the CPU number is read
/// ([`with_local`](crate::hal::cpu::with_local)), so plain loads and stores do. A kernel with threads moves the depths with the
/// thread, at each switch ([`switch_thread`](super::switch_thread)).
///
/// # Invariants
///
/// - `SCOPE-1`: `no_wait` has `ALWAYS` while a depth that forbids waiting is not zero, and `MASKED` while it is enforced.
#[derive(Debug)]
pub struct Scopes<const MASKED: u64, const ALWAYS: u64> {
    no_wait: AtomicU64,
    depths: Depths,
    enforced: AtomicBool,
}

/// Depth of a context in each scope. All-zero is a valid value: inside no scope.
#[derive(Debug)]
pub(super) struct Depths([AtomicU32; Scope::COUNT]);

impl Depths {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; Scope::COUNT])
    }

    pub(super) fn is_inside(&self, scope: Scope) -> bool {
        self.0.get(scope as usize).is_some_and(|depth| depth.load(Ordering::Relaxed) != 0)
    }

    fn change(&self, scope: Scope, by: u32) {
        if let Some(depth) = self.0.get(scope as usize) {
            depth.store(depth.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    fn set(&self, from: &Self) {
        for (depth, other) in self.0.iter().zip(&from.0) {
            depth.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl<const MASKED: u64, const ALWAYS: u64> Scopes<MASKED, ALWAYS> {
    /// Distance of the word of [`Scopes::no_wait`] from the start, for code that does not know the type.
    pub const NO_WAIT: usize = core::mem::offset_of!(Self, no_wait);

    /// Inside no scope, while the machine boots.
    pub const fn new() -> Self {
        Self { no_wait: AtomicU64::new(0), depths: Depths::new(), enforced: AtomicBool::new(false) }
    }

    /// The bits of a saved interrupt mask that forbid waiting.
    #[inline(always)]
    pub fn no_wait(&self) -> u64 {
        self.no_wait.load(Ordering::Relaxed)
    }

    /// Whether masked interrupts forbid waiting from now on: when booting is over.
    pub fn enforce(&self, enforced: bool) {
        self.enforced.store(enforced, Ordering::Relaxed);
        self.update();
    }

    /// See [`Context::enter`].
    pub fn enter(&self, scope: Scope) {
        self.change(scope, 1);
    }

    /// See [`Context::leave`].
    pub fn leave(&self, scope: Scope) {
        self.change(scope, 1_u32.wrapping_neg());
    }

    /// See [`Context::is_inside`].
    pub fn is_inside(&self, scope: Scope) -> bool {
        self.depths.is_inside(scope)
    }

    /// See [`Context::atomic`]; `saved` is the interrupt mask.
    pub fn atomic(&self, saved: u64) -> Option<Atomic> {
        let inside = FORBIDDING.into_iter().find(|(scope, _)| self.is_inside(*scope)).map(|(_, why)| why);
        inside.or_else(|| (saved & self.no_wait() & MASKED != 0).then_some(Atomic::Masked))
    }

    fn change(&self, scope: Scope, by: u32) {
        self.depths.change(scope, by);
        if scope.forbids_waiting() {
            self.update();
        }
    }

    /// The CPU leaves its context, whose depths go to `from`, for another one, whose depths are in `to`. The state "booting is
    /// over" belongs to the CPU, and stays.
    pub(super) fn switch(&self, from: &Depths, to: &Depths) {
        from.set(&self.depths);
        self.depths.set(to);
        self.update();
    }

    fn update(&self) {
        let inside = FORBIDDING.into_iter().any(|(scope, _)| self.is_inside(scope));
        let enforced = if self.enforced.load(Ordering::Relaxed) { MASKED } else { 0 };
        // INVARIANT: SCOPE-1.
        self.no_wait.store(enforced | if inside { ALWAYS } else { 0 }, Ordering::Relaxed);
    }
}

impl<const MASKED: u64, const ALWAYS: u64> Default for Scopes<MASKED, ALWAYS> {
    fn default() -> Self {
        Self::new()
    }
}

/// The running context is inside a [`Scope`] until this is dropped, which the same context must do.
#[must_use = "the scope ends when the guard is dropped"]
#[derive(Debug)]
pub struct ScopeGuard<'c, C: Context> {
    context: &'c C,
    scope: Scope,
}

/// Enters a scope.
pub fn enter<C: Context>(context: &C, scope: Scope) -> ScopeGuard<'_, C> {
    context.enter(scope);
    ScopeGuard { context, scope }
}

impl<C: Context> Drop for ScopeGuard<'_, C> {
    fn drop(&mut self) {
        self.context.leave(self.scope);
    }
}
