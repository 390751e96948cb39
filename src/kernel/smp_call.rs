//! Calls of functions on other CPUs, in an interrupt (Linux: `kernel/smp.c`). No memory is allocated.
//!
//! A call is a record, pushed onto the list of its target CPU; the interrupt makes that CPU take the whole list and run the
//! calls in the order in which they came. A waiting caller has the record on its stack. Other callers use one of a few records
//! that each CPU has. When a CPU goes offline, the calls that it has not run are refused: first by itself, and from then on by
//! any CPU that finds it offline. Each call is run or refused once.
//!
//! Contexts: [`smp_call`] waits, so it is called with interrupts unmasked, no lock held and not from a handler; two CPUs
//! that call each other serve each other. [`smp_call_async`] never waits, and may be called anywhere. The function
//! itself runs in the interrupt, masked, and must not wait.

use super::{cpus, interrupts};
use crate::addr::{CpuId, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::irq;
use crate::driver::timer;
use crate::global;
use crate::hal::wait::{Atomic, Context};
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence};

/// Maximum number of queued asynchronous calls of one CPU.
pub const ASYNC_CALLS: usize = 4;

const FREE: u8 = 0;
/// On a list.
const SENT: u8 = 1;
const DONE: u8 = 2;
/// The CPU was offline.
const REFUSED: u8 = 3;

/// A call.
///
/// # Invariants
///
/// - `CALL-1`: while it is [`SENT`] it is on one list, it is not moved or freed, and `function` and `argument` are a pair that
///   belongs together.
struct Call {
    next: AtomicPtr<Call>,
    /// A `fn(usize)`, or null.
    function: AtomicPtr<()>,
    argument: AtomicUsize,
    state: AtomicU8,
    /// Whether no caller waits: the record is free again once the call has run.
    is_async: bool,
}

impl Call {
    const fn new(is_async: bool) -> Self {
        Self {
            next: AtomicPtr::new(core::ptr::null_mut()),
            function: AtomicPtr::new(core::ptr::null_mut()),
            argument: AtomicUsize::new(0),
            state: AtomicU8::new(FREE),
            is_async,
        }
    }

    fn fill(&self, function: fn(usize), argument: usize) {
        self.function.store(function as *mut (), Ordering::Relaxed);
        self.argument.store(argument, Ordering::Relaxed);
    }

    /// The last access to a call that is on no list any more.
    fn finish(&self, state: u8) {
        // Release pairs with the acquire of the waiter.
        self.state.store(if self.is_async { FREE } else { state }, Ordering::Release);
    }
}

/// Calls queued to each CPU, the latest first.
static LISTS: [AtomicPtr<Call>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
/// Records for each CPU's asynchronous calls.
static ASYNC: [[Call; ASYNC_CALLS]; MAX_CPUS] = [const { [const { Call::new(true) }; ASYNC_CALLS] }; MAX_CPUS];

/// Reason why a call was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The CPU is not online.
    Offline(CpuId),
    /// The caller may not wait.
    Atomic(Option<Atomic>),
    /// All records of this CPU are in use.
    Busy,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(cpu) => write!(f, "{cpu:?} is not online"),
            Self::Atomic(Some(why)) => write!(f, "the caller may not wait: {why}"),
            Self::Atomic(None) => f.write_str("the caller may not wait: interrupts are masked"),
            Self::Busy => write!(f, "{ASYNC_CALLS} calls are under way"),
        }
    }
}

impl core::error::Error for CallError {}

/// Calls `function` with `argument` on `cpu`, in an interrupt, and waits until it has returned; on this CPU at once, masked.
/// Where sleeping is allowed. A CPU that lets this one wait for more than a second is reported each second; the wait goes on,
/// as the argument is still in use.
///
/// # Errors
///
/// [`CallError::Offline`], [`CallError::Atomic`]; the function has not been called then.
pub fn smp_call<T: Sync>(cpu: CpuId, function: fn(&T), argument: &T) -> Result<(), CallError> {
    struct Pair<'t, T>(fn(&T), &'t T);
    fn call<T>(pair: usize) {
        let pair = core::ptr::with_exposed_provenance::<Pair<'_, T>>(pair);
        // SAFETY: made below from a pair of this type, which lives until the call has run.
        let Pair(function, argument) = unsafe { &*pair };
        function(argument);
    }
    global::might_sleep("smp_call").map_err(|_| CallError::Atomic(global::context().atomic()))?;
    let pair = Pair(function, argument);
    let record = Call::new(false);
    record.fill(call::<T>, (&raw const pair).expose_provenance());
    {
        // Masked before the CPU number is read, so that it stays valid.
        let _masked = irq::local_irq_save();
        if cpu == cpu::current() {
            function(argument);
            return Ok(());
        }
    }
    push(cpu, &record)?;
    let mut patience = cpus::patience();
    loop {
        match record.state.load(Ordering::Acquire) {
            DONE => return Ok(()),
            REFUSED => return Err(CallError::Offline(cpu)),
            _ => {}
        }
        if !global::is_online(cpu) {
            refuse(cpu);
        }
        if !patience.is_left(timer::ticks()) {
            patience = cpus::patience();
            cpus::no_answer(cpu);
        }
        cpu::relax();
    }
}

/// Calls `function` with `argument` on `cpu`, in an interrupt, without waiting for it. A CPU that goes offline meanwhile does
/// not call it. Any context.
///
/// # Errors
///
/// [`CallError::Offline`], [`CallError::Busy`]; the function will not be called then.
pub fn smp_call_async(cpu: CpuId, function: fn(usize), argument: usize) -> Result<(), CallError> {
    let masked = irq::local_irq_save();
    let own = ASYNC.get(to_usize(u64::from(cpu::current().get()))).ok_or(CallError::Offline(cpu))?;
    // Acquire pairs with the release in `finish`.
    let record = own.iter().find(|call| call.state.load(Ordering::Acquire) == FREE).ok_or(CallError::Busy)?;
    record.fill(function, argument);
    push(cpu, record)?;
    drop(masked);
    if !global::is_online(cpu) {
        refuse(cpu);
    }
    Ok(())
}

/// Puts a call onto the list of a CPU and interrupts it.
fn push(cpu: CpuId, call: &Call) -> Result<(), CallError> {
    let list = LISTS.get(to_usize(u64::from(cpu.get()))).filter(|_| global::is_online(cpu));
    let list = list.ok_or(CallError::Offline(cpu))?;
    // INVARIANT: CALL-1.
    call.state.store(SENT, Ordering::Relaxed);
    let pointer = (&raw const *call).cast_mut();
    let mut first = list.load(Ordering::Relaxed);
    loop {
        call.next.store(first, Ordering::Relaxed);
        // Release: the CPU that takes the list sees the call. SeqCst with the look at `is_online` that follows, and with the
        // CPU's own look at its list after it has left: one of the two sees the other.
        match list.compare_exchange_weak(first, pointer, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => first = now,
        }
    }
    fence(Ordering::SeqCst);
    interrupts::kick(cpu);
    Ok(())
}

/// Takes the list of a CPU: the calls in the order in which they came.
fn take(cpu: CpuId) -> impl Iterator<Item = &'static Call> {
    let list = LISTS.get(to_usize(u64::from(cpu.get())));
    let mut at = list.map_or(core::ptr::null_mut(), |list| list.swap(core::ptr::null_mut(), Ordering::SeqCst));
    let mut reversed: *mut Call = core::ptr::null_mut();
    while !at.is_null() {
        // SAFETY: CALL-1: on the list that was just taken, so it is there until it is finished.
        let call = unsafe { &*at };
        let next = call.next.swap(reversed, Ordering::Relaxed);
        reversed = at;
        at = next;
    }
    core::iter::from_fn(move || {
        // SAFETY: CALL-1: null, or on the list that was just taken, so it is there until it is finished.
        let call = unsafe { reversed.as_ref() }?;
        // Read before it is finished: afterwards it may be freed.
        reversed = call.next.load(Ordering::Relaxed);
        Some(call)
    })
}

/// Runs the calls queued to this CPU: in the interrupt's handler, masked.
pub(super) fn run_pending() {
    for call in take(cpu::current()) {
        let function = call.function.load(Ordering::Relaxed);
        let argument = call.argument.load(Ordering::Relaxed);
        // SAFETY: CALL-1: `fill` stored a `fn(usize)`.
        let function = unsafe { core::mem::transmute::<*mut (), fn(usize)>(function) };
        function(argument);
        call.finish(DONE);
    }
}

/// Refuses the calls queued to a CPU that is offline. Any context.
pub(super) fn refuse(cpu: CpuId) {
    take(cpu).for_each(|call| call.finish(REFUSED));
}
