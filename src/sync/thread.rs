//! State that belongs to a thread and not to the CPU that runs it: its scopes, the locks that it holds, its number for fault
//! injection. While the thread runs, all of it is in the CPU's own data, where the fast paths find it with one load; a switch
//! moves it out, and that of the next thread in.
#![forbid(unsafe_code)]

use super::held_locks::HeldLocks;
use super::scopes::{Depths, Scopes};
use crate::addr::CpuId;
use crate::hal::wait::Scope;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The number of the first thread: no CPU has such a one.
const FIRST_NUMBER: u32 = 1 << 16;

/// The number of the next thread.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(FIRST_NUMBER);

/// This crate's state of a thread while no CPU runs it. A kernel has one in each thread's control block, made with the thread
/// ([`ThreadContext::new`]), and names it at each switch.
///
/// # Invariants
///
/// - `THR-1`: at most one CPU runs it, whose number plus one is in `cpu`; the other fields are stale then.
#[derive(Debug)]
pub struct ThreadContext {
    depths: Depths,
    held: HeldLocks,
    waiting_since: AtomicU64,
    /// Zero until the thread runs for the first time.
    number: AtomicU32,
    cpu: AtomicU32,
}

impl ThreadContext {
    /// Context of a thread that has not run yet: inside no scope, with no lock held.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            depths: Depths::new(),
            held: HeldLocks::new(),
            waiting_since: AtomicU64::new(0),
            number: AtomicU32::new(0),
            cpu: AtomicU32::new(0),
        }
    }

    /// The CPU that runs the thread, if any. Any context.
    pub fn runs_on(&self) -> Option<CpuId> {
        self.cpu.load(Ordering::Relaxed).checked_sub(1).map(CpuId::new)
    }

    /// Whether the thread was inside of a scope when it ran last. Any context.
    pub fn is_inside(&self, scope: Scope) -> bool {
        self.depths.is_inside(scope)
    }

    fn set_cpu(&self, cpu: Option<CpuId>) {
        // INVARIANT: THR-1.
        self.cpu.store(cpu.map_or(0, |cpu| cpu.get().wrapping_add(1)), Ordering::Relaxed);
    }

    /// The thread's number, which it gets here the first time.
    fn number(&self) -> u32 {
        match self.number.load(Ordering::Relaxed) {
            0 => {
                // From the start again when all are used up. The closure never declines.
                let next = |last: u32| Some(if last < u32::MAX - 1 { last + 1 } else { FIRST_NUMBER });
                let own = NEXT_NUMBER.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(FIRST_NUMBER);
                self.number.store(own, Ordering::Relaxed);
                own
            }
            own => own,
        }
    }
}

impl Default for ThreadContext {
    fn default() -> Self {
        Self::new()
    }
}

/// State of the running thread in the CPU's data, besides [`Scopes`] and locks. All-zero is a valid value: it has not switched
/// yet. Its CPU alone changes it, with interrupts masked.
#[derive(Debug)]
pub struct RunningThread {
    waiting_since: AtomicU64,
    number: AtomicU32,
}

impl RunningThread {
    /// No thread: the CPU has run no other code since it came up.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiting_since: AtomicU64::new(0), number: AtomicU32::new(0) }
    }

    /// The number of the thread, or `None` before the first switch. It differs from every CPU's number, and from `u32::MAX`.
    pub fn number(&self) -> Option<u32> {
        Some(self.number.load(Ordering::Relaxed)).filter(|number| *number != 0)
    }

    /// Time, in ticks, when the thread began to wait for another CPU.
    pub fn waiting_since(&self) -> u64 {
        self.waiting_since.load(Ordering::Relaxed)
    }

    /// The thread begins to wait for another CPU.
    pub fn waits_since(&self, ticks: u64) {
        self.waiting_since.store(ticks, Ordering::Relaxed);
    }
}

impl Default for RunningThread {
    fn default() -> Self {
        Self::new()
    }
}

/// Reason why a switch was not made. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SwitchError {
    /// Interrupts are not masked.
    NotMasked,
    /// The thread that is to be left does not run on this CPU; the CPU that runs it, if any.
    NotHere(Option<CpuId>),
    /// A CPU runs the next thread already.
    Runs(CpuId),
    /// The thread that is to be left has to stay on its CPU: it is between `get_cpu` and `put_cpu`.
    Pinned,
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no switch of threads: ")?;
        match self {
            Self::NotMasked => f.write_str("interrupts must be masked"),
            Self::NotHere(Some(cpu)) => write!(f, "the thread to leave runs on {cpu:?}"),
            Self::NotHere(None) => f.write_str("this CPU runs another thread than the one to leave"),
            Self::Runs(cpu) => write!(f, "the next thread still runs on {cpu:?}"),
            Self::Pinned => f.write_str("the thread to leave is between get_cpu and put_cpu"),
        }
    }
}

impl core::error::Error for SwitchError {}

/// Places of the running thread's state in the CPU's data.
#[derive(Debug)]
pub struct ThisCpu<'c, const MASKED: u64, const ALWAYS: u64> {
    /// Its number.
    pub cpu: CpuId,
    /// Scopes of the thread.
    pub scopes: &'c Scopes<MASKED, ALWAYS>,
    /// The locks that it holds, if they are recorded.
    pub held: Option<&'c HeldLocks>,
    /// All other state.
    pub thread: &'c RunningThread,
}

/// The CPU leaves the thread `from` and runs `to` from here on. Caller must be that CPU, with interrupts masked; the caller's
/// own lock orders the switches to a thread. The context before the first switch becomes `from`.
///
/// # Errors
///
/// [`SwitchError::NotHere`], [`SwitchError::Runs`], [`SwitchError::Pinned`].
pub fn switch_thread<const MASKED: u64, const ALWAYS: u64>(
    here: &ThisCpu<'_, MASKED, ALWAYS>,
    from: &ThreadContext,
    to: &ThreadContext,
) -> Result<(), SwitchError> {
    let ThisCpu { cpu, scopes, held, thread } = *here;
    let is_first = thread.number().is_none() && from.runs_on().is_none();
    if from.runs_on() != Some(cpu) && !is_first {
        return Err(SwitchError::NotHere(from.runs_on()));
    }
    if core::ptr::eq(from, to) {
        return Ok(());
    }
    if scopes.is_inside(Scope::Cpu) {
        return Err(SwitchError::Pinned);
    }
    if let Some(other) = to.runs_on() {
        return Err(SwitchError::Runs(other));
    }
    // The one that runs first gets its number here.
    from.number();
    scopes.switch(&from.depths, &to.depths);
    if let Some(held) = held {
        held.switch(&from.held, &to.held);
    }
    from.waiting_since.store(thread.waiting_since(), Ordering::Relaxed);
    thread.waits_since(to.waiting_since.load(Ordering::Relaxed));
    thread.number.store(to.number(), Ordering::Relaxed);
    from.set_cpu(None);
    to.set_cpu(Some(cpu));
    Ok(())
}
