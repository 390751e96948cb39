//! The threads of this kernel: they run one after the other on one CPU, each until it yields or waits.

use crate::memory::Process;
use core::cell::Cell;
use core::ptr;
use quarry::arch::aarch64::irq;
use quarry::hal::wait::WaitQueue;
use quarry::{KernelStack, ThreadContext};

const THREADS: usize = 6;

type Body = fn(&Process);

/// A thread; the first is the one that booted.
struct Thread {
    /// What Quarry keeps of it while it does not run.
    context: ThreadContext,
    sp: Cell<u64>,
    is_alive: Cell<bool>,
    /// The queue on which it waits.
    waits: Cell<*const WaitQueue>,
    /// Its process, whose memory the CPU sees while it runs.
    process: Cell<*const Process>,
    body: Cell<Option<Body>>,
}

struct Threads {
    all: [Thread; THREADS],
    current: Cell<usize>,
    blocked: Cell<u32>,
}

// SAFETY: one CPU, and no interrupt handler looks at them.
unsafe impl Sync for Threads {}

static THREADS_OF_ALL: Threads = Threads {
    all: [const {
        Thread {
            context: ThreadContext::new(),
            sp: Cell::new(0),
            is_alive: Cell::new(false),
            waits: Cell::new(ptr::null()),
            process: Cell::new(ptr::null()),
            body: Cell::new(None),
        }
    }; THREADS],
    current: Cell::new(0),
    blocked: Cell::new(0),
};

core::arch::global_asm!(
    // x0: where the stack pointer of the thread that leaves is kept; x1: that of the one that comes.
    ".global example_switch",
    "example_switch: stp x19, x20, [sp, #-96]!",
    "stp x21, x22, [sp, #16]",
    "stp x23, x24, [sp, #32]",
    "stp x25, x26, [sp, #48]",
    "stp x27, x28, [sp, #64]",
    "stp x29, x30, [sp, #80]",
    "mov x9, sp",
    "str x9, [x0]",
    "mov sp, x1",
    "ldp x21, x22, [sp, #16]",
    "ldp x23, x24, [sp, #32]",
    "ldp x25, x26, [sp, #48]",
    "ldp x27, x28, [sp, #64]",
    "ldp x29, x30, [sp, #80]",
    "ldp x19, x20, [sp], #96",
    "ret",
);

unsafe extern "C" {
    fn example_switch(from: *mut u64, to: u64);
}

fn of(number: usize) -> &'static Thread {
    &THREADS_OF_ALL.all[number]
}

fn me() -> &'static Thread {
    of(THREADS_OF_ALL.current.get())
}

/// Starts a thread of a process. Its stack and the process have to live until all threads have ended.
pub fn spawn(name: &str, body: Body, process: &Process) -> KernelStack {
    let stack = KernelStack::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let free = (1..THREADS).map(of).find(|thread| thread.body.get().is_none());
    let thread = free.unwrap_or_else(|| panic!("{name}: too many threads"));
    thread.body.set(Some(body));
    thread.process.set(process);
    let sp = stack.top().get() - 96;
    // SAFETY: the upper end of a stack that nobody uses yet; x30 of the first switch.
    unsafe { *(sp as *mut u64).add(11) = begin as *const () as u64 };
    thread.sp.set(sp);
    thread.is_alive.set(true);
    stack
}

extern "C" fn begin() -> ! {
    irq::local_irq_enable();
    let thread = me();
    // SAFETY: `spawn` was told that it lives.
    let process = unsafe { &*thread.process.get() };
    if let Some(body) = thread.body.get() {
        body(process);
    }
    thread.is_alive.set(false);
    thread.process.set(ptr::null());
    yield_now();
    unreachable!("a thread that has ended")
}

/// The thread that runs next, if it is not this one.
fn next() -> Option<usize> {
    let current = THREADS_OF_ALL.current.get();
    let others = (1..THREADS).map(|step| (current + step) % THREADS);
    others.into_iter().find(|&number| {
        let thread = of(number);
        (number == 0 || thread.is_alive.get()) && thread.waits.get().is_null()
    })
}

/// Lets another thread run. Whether there was one besides the first.
pub fn yield_now() -> bool {
    next().map(switch_to).is_some()
}

fn switch_to(number: usize) {
    let (from, to) = (me(), of(number));
    let masked = irq::local_irq_save();
    // SAFETY: this CPU executes `from` until here, and `to` next; both live for good.
    let switched = unsafe { quarry::switch_thread(&from.context, &to.context) };
    switched.unwrap_or_else(|error| panic!("{error}"));
    THREADS_OF_ALL.current.set(number);
    match current_process() {
        // SAFETY: no space is dropped before its threads have ended, and the CPU has changed to the first thread then.
        Some(process) => unsafe { quarry::activate(&process.space) }.unwrap_or_else(|error| panic!("{error}")),
        None => quarry::leave_mm(),
    }
    // SAFETY: `sp` is that of a thread that has left here, or that `spawn` has made.
    unsafe { example_switch(from.sp.as_ptr(), to.sp.get()) };
    drop(masked);
}

/// The process of the running thread.
pub fn current_process() -> Option<&'static Process> {
    // SAFETY: `spawn` was told that it lives, and it is null when the thread has ended.
    unsafe { me().process.get().as_ref() }
}

/// The processes that have threads.
pub fn processes() -> impl Iterator<Item = &'static Process> {
    // SAFETY: `spawn` was told that a process lives as long as its threads.
    (0..THREADS).filter_map(|number| unsafe { of(number).process.get().as_ref() })
}

/// The running thread waits until `queue` is woken, unless that has happened since `seen`. `false`: there is no other thread
/// to run.
pub fn block(queue: &WaitQueue, seen: u32) -> bool {
    if queue.generation() != seen {
        return true;
    }
    let Some(other) = next() else { return false };
    me().waits.set(queue);
    THREADS_OF_ALL.blocked.set(THREADS_OF_ALL.blocked.get() + 1);
    switch_to(other);
    true
}

/// Wakes the threads that wait for `queue`.
pub fn wake(queue: &WaitQueue) {
    let waiting = THREADS_OF_ALL.all.iter().filter(|thread| ptr::eq(thread.waits.get(), queue));
    waiting.for_each(|thread| thread.waits.set(ptr::null()));
}

/// The places of threads are free again, when all of them have ended.
pub fn forget_all() {
    THREADS_OF_ALL.all.iter().for_each(|thread| thread.body.set(None));
}

/// How often threads have waited since the last call.
pub fn blocked() -> u32 {
    THREADS_OF_ALL.blocked.replace(0)
}
