//! Waiting: an allocator's interface to a kernel that lets a context sleep, and to one that cannot; and the protocol that loses
//! no wake-up, with any kind of sleep.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Result of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Waited {
    /// The condition held.
    Woken,
    /// The condition did not hold, and no CPU is left that could make it hold: the wait would never end.
    WouldNeverWake,
}

/// The only way in which `mm` waits.
pub trait Wait {
    /// Waits until `condition` holds, which is checked at the start and after each [`Wait::wake`] of this queue, by the waiting
    /// context. Only where [`Context::atomic`] permits it.
    ///
    /// An embedding kernel blocks the thread; [`WaitQueue::wait_with`] has the protocol and needs only the sleep.
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited;

    /// Something has changed that a waiter of this queue may have been waiting for. Any context. Cheap if nobody waits.
    fn wake(&self, queue: &WaitQueue);
}

/// State in which a context is restricted or obliged, as long as it is inside (Linux: `preempt_count` and the `PF_MEMALLOC*`
/// flags of a task).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Scope {
    /// An interrupt is being handled.
    Interrupt = 0,
    /// A lock is held.
    Lock = 1,
    /// Memory is being reclaimed: allocations may use all of the reserve, and start no reclaim of their own.
    Reclaim = 2,
    /// Allocations may use all of the reserve: the context is about to free memory (Linux: `PF_MEMALLOC`).
    Memalloc = 3,
    /// Reclaim may not start input or output, nor call into file systems (Linux: `PF_MEMALLOC_NOIO`).
    NoIo = 4,
    /// Reclaim may not call into file systems (Linux: `PF_MEMALLOC_NOFS`).
    NoFs = 5,
    /// The context runs deferred work. A CPU that waits runs deferred work meanwhile, so this work must not wait itself: it
    /// would wait inside a wait.
    Deferred = 6,
    /// The context stays on its CPU: between `get_cpu` and `put_cpu` (Linux: preemption is disabled).
    Cpu = 7,
}

impl Scope {
    /// Number of scopes.
    pub const COUNT: usize = 8;

    /// Whether a context inside may not wait.
    #[must_use]
    pub const fn forbids_waiting(self) -> bool {
        matches!(self, Self::Interrupt | Self::Lock | Self::Reclaim | Self::Deferred | Self::Cpu)
    }
}

/// Reason why a context may not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Atomic {
    /// Interrupts are masked.
    Masked,
    /// It handles an interrupt.
    Interrupt,
    /// It holds a lock.
    Lock,
    /// It reclaims memory.
    Reclaim,
    /// It does deferred work.
    Deferred,
    /// It has to stay on its CPU.
    Cpu,
}

impl core::fmt::Display for Atomic {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Masked => "interrupts are masked",
            Self::Interrupt => "in an interrupt handler",
            Self::Lock => "a lock is held",
            Self::Reclaim => "inside a reclaimer",
            Self::Deferred => "in work that was put off",
            Self::Cpu => "between get_cpu and put_cpu",
        })
    }
}

/// Scopes of the running context. A kernel without threads keeps them per CPU; one with threads does, too, and exchanges them
/// at each switch ([`switch_thread`](crate::sync::switch_thread)).
pub trait Context {
    /// The context enters the scope once more.
    fn enter(&self, scope: Scope);

    /// The context leaves the scope, once for each [`Context::enter`], in reverse order.
    fn leave(&self, scope: Scope);

    /// Whether the context is inside.
    fn is_inside(&self, scope: Scope) -> bool;

    /// Reason why it may not wait, or `None` if it may.
    fn atomic(&self) -> Option<Atomic>;
}

/// A word of a [`WaitQueue`]: an atomic of 32 bits. There are others than [`AtomicU32`] where a model checker runs the
/// protocol.
pub trait WaitWord {
    /// Its value.
    fn get(&self) -> u32;
    /// Adds, with wrapping.
    fn add(&self, value: u32);
    /// A barrier that all CPUs see in one order.
    fn barrier();
}

impl WaitWord for AtomicU32 {
    fn get(&self) -> u32 {
        self.load(Ordering::SeqCst)
    }

    fn add(&self, value: u32) {
        self.fetch_add(value, Ordering::SeqCst);
    }

    fn barrier() {
        fence(Ordering::SeqCst);
    }
}

/// Count of the waiters for an event, and of its wake-ups.
///
/// # Invariants
///
/// - `WAIT-1`: a waiter is counted before it asks its condition, and the waker makes the condition true before it reads the
///   count. One of the two sees the other.
/// - `WAIT-2`: a waiter reads the generation before it asks its condition and sleeps only while it is the same, and a
///   waker changes the generation before it ends any sleep.
#[derive(Debug)]
pub struct WaitQueue<W = AtomicU32> {
    waiters: W,
    generation: W,
}

impl WaitQueue {
    /// A queue without waiters.
    pub const fn new() -> Self {
        Self::from_words(AtomicU32::new(0), AtomicU32::new(0))
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl<W> WaitQueue<W> {
    /// A queue of two words that are zero.
    pub const fn from_words(waiters: W, generation: W) -> Self {
        Self { waiters, generation }
    }
}

impl<W: WaitWord> WaitQueue<W> {
    /// A number that changes with each wake-up for which a waiter waits.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Whether any context waits.
    pub fn is_awaited(&self) -> bool {
        self.waiters.get() != 0
    }

    /// The waiter's side. `sleep(seen)` sleeps until [`WaitQueue::generation`] is no longer `seen`, or for a shorter time, and
    /// returns whether waiting on makes sense; between its check of the generation and its sleep no wake-up may be lost. Every
    /// kind of sleep has a means for that: a mutex around both, or a latched event.
    pub fn wait_with(&self, condition: &mut dyn FnMut() -> bool, mut sleep: impl FnMut(u32) -> bool) -> Waited {
        // INVARIANT: WAIT-1.
        self.waiters.add(1);
        W::barrier();
        let answer = loop {
            // INVARIANT: WAIT-2.
            let seen = self.generation.get();
            if condition() {
                break Waited::Woken;
            }
            if !sleep(seen) {
                break if condition() { Waited::Woken } else { Waited::WouldNeverWake };
            }
        };
        self.waiters.add(1_u32.wrapping_neg());
        answer
    }

    /// The waker's side, after the change has been made: `rouse` ends the sleep of all waiters.
    pub fn wake_with(&self, rouse: impl FnOnce()) {
        // INVARIANT: WAIT-1.
        W::barrier();
        if self.is_awaited() {
            // INVARIANT: WAIT-2.
            self.generation.add(1);
            rouse();
        }
    }
}
