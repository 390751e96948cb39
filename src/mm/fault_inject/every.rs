//! Every allocation of an operation fails once: the driver that all layers are tested with.

use super::{FaultContext, FaultInjector};
use core::fmt;

/// Calls after which an operation is taken to be one that never ends.
const CALLS_MAX: u32 = 1 << 20;

/// Interface of [`fail_every`] to the machine under test.
pub trait FaultTarget {
    /// All that must be the same before and after: free pages, objects of caches, areas, tables.
    type Counts: Clone + PartialEq + fmt::Debug;
    /// An invariant that does not hold.
    type Broken: fmt::Debug;

    /// The injector that its sites ask.
    fn injector(&self) -> &FaultInjector;

    /// The context that runs the operation.
    fn context(&self) -> FaultContext;

    /// Makes every allocation go the way that asks, or no longer.
    fn set_careful(&self, careful: bool);

    /// Counts, with all that allocators keep for later given back first.
    fn counts(&self) -> Self::Counts;

    /// Tests all invariants.
    ///
    /// # Errors
    ///
    /// One that does not hold.
    fn check(&self) -> Result<(), Self::Broken>;
}

/// Whether an operation may succeed although an allocation of it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MayRecover {
    /// No: it must answer with an error.
    No,
    /// Yes: it has another way, or does less.
    Yes,
}

/// Counts of a run of [`fail_every`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounds {
    /// Calls that can fail, each of which did.
    pub points: u32,
    /// Of these, those after which the operation succeeded all the same.
    pub recovered: u32,
}

/// Error of an operation one of whose allocations failed. `call` is the number of that allocation, from 1; 0 before any failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultFinding<C, B, E> {
    /// It fails although nothing makes it.
    FailsByItself {
        /// The calls that had been made to fail before.
        call: u32,
        /// The error that it returns.
        error: E,
    },
    /// It succeeds although an allocation failed, and may not.
    Swallowed {
        /// The call that failed.
        call: u32,
    },
    /// Something is lost or left over.
    Leaks {
        /// The call that failed.
        call: u32,
        /// The count before.
        before: C,
        /// The count now.
        after: C,
    },
    /// An invariant does not hold.
    Breaks {
        /// The call that failed.
        call: u32,
        /// Which.
        broken: B,
    },
    /// It allocates more often than anything should.
    Endless,
    /// The calls of this context are counted already.
    Busy,
}

impl<C: fmt::Debug, B: fmt::Debug, E: fmt::Debug> fmt::Display for FaultFinding<C, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailsByItself { call, error } => write!(f, "after {call} failures: fails by itself: {error:?}"),
            Self::Swallowed { call } => write!(f, "call {call} failed, and nobody was told"),
            Self::Leaks { call, before, after } => write!(f, "call {call} failed: {before:?} before, {after:?} after"),
            Self::Breaks { call, broken } => write!(f, "call {call} failed: {broken:?}"),
            Self::Endless => f.write_str("allocates without end"),
            Self::Busy => f.write_str("the calls of this context are counted already"),
        }
    }
}

impl<C: fmt::Debug, B: fmt::Debug, E: fmt::Debug> core::error::Error for FaultFinding<C, B, E> {}

/// [`FaultFinding`] of an operation on `T` that answers with `E`.
type Finding<T, E> = FaultFinding<<T as FaultTarget>::Counts, <T as FaultTarget>::Broken, E>;

/// Runs `operation` with its first allocation failing, with its second, and so on until it passes because it makes no
/// more (Linux: the loop around `fail-nth`). `undo` undoes what succeeded.
///
/// After every round the counts are unchanged and the invariants hold; and the operation, run again with nothing failing,
/// succeeds. Where counting is legal, with nothing else running.
///
/// # Errors
///
/// [`FaultFinding`]: the error, and the allocation that has to fail to show it.
pub fn fail_every<T: FaultTarget, R, E>(
    target: &T,
    may_recover: MayRecover,
    mut operation: impl FnMut() -> Result<R, E>,
    mut undo: impl FnMut(R),
) -> Result<Rounds, Finding<T, E>> {
    let before = target.counts();
    let unchanged = |call| {
        target.check().map_err(|broken| FaultFinding::Breaks { call, broken })?;
        match target.counts() {
            after if after == before => Ok(()),
            after => Err(FaultFinding::Leaks { call, before: before.clone(), after }),
        }
    };
    let mut rounds = Rounds { points: 0, recovered: 0 };
    for call in 1..CALLS_MAX {
        target.set_careful(true);
        let armed = target.injector().fail_nth(target.context(), call);
        let outcome = armed.map(|nth| (operation(), nth.has_failed()));
        target.set_careful(false);
        match outcome.map_err(|_| FaultFinding::Busy)? {
            (Err(error), false) => return Err(FaultFinding::FailsByItself { call: call - 1, error }),
            (Ok(done), false) => {
                undo(done);
                unchanged(call - 1)?;
                return Ok(rounds);
            }
            (Ok(done), true) => {
                undo(done);
                if may_recover == MayRecover::No {
                    return Err(FaultFinding::Swallowed { call });
                }
                rounds.recovered += 1;
            }
            (Err(_), true) => {}
        }
        rounds.points = call;
        unchanged(call)?;
        match operation() {
            Ok(done) => undo(done),
            Err(error) => return Err(FaultFinding::FailsByItself { call, error }),
        }
        unchanged(call)?;
    }
    Err(FaultFinding::Endless)
}
