//! Threads and the scheduler: one list of threads that are ready, taken in turn by every CPU, so that threads go from CPU
//! to CPU all the time.
//!
//! A thread is left and goes on in exceptions alone: the timer's interrupt, or an SVC of its own. The vectors have saved its
//! registers in a frame, and continue with the contents of the frame when the handler returns; so a switch exchanges the frame,
//! and Quarry's state of a thread.

use crate::{board, memory};
use board::Locked;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use quarry::ThreadContext;
use quarry::arch::aarch64::stack;
use quarry::hal::wait::WaitQueue;
use quarry::prelude::*;

pub const CPUS: usize = 4;
/// Threads that there may be at once, behind those that CPUs run when they have nothing to do.
const THREADS: usize = 32;
const SLOTS: usize = CPUS + THREADS;

/// Registers of what was interrupted, as boot.S stores them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    pub x: [u64; 31],
    sp: u64,
    pub elr: VirtAddr,
    pub spsr: u64,
}

impl Frame {
    const EMPTY: Self = Self { x: [0; 31], sp: 0, elr: VirtAddr::ZERO, spsr: 0 };
    /// EL1 on SP_EL0; all is masked but interrupts. (FIQ is masked for good: Quarry counts on that bit.)
    const SPSR: u64 = 0x344;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Ready,
    Running,
    /// Until this queue is woken.
    Blocked(usize, Waits),
    /// Its stack is still there.
    Ended,
}

/// Reason why a thread is blocked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Another thread has to free some.
    ForMemory,
    /// It will free memory when it is told to, or does nothing.
    ForWork,
}

struct Thread {
    name: &'static str,
    state: State,
    frame: Frame,
    context: ThreadContext,
    stack: Option<KernelStack>,
    entry: fn(u64),
    /// Where it ran last.
    cpu: Option<usize>,
}

/// Counters of events so far.
#[derive(Clone, Copy)]
pub struct Counts {
    /// Switches from one thread to another, those to and from idle threads among them.
    pub switches: u64,
    /// Of those: by the timer, at an arbitrary instruction of the thread.
    pub preemptions: u64,
    /// Times that a thread went on on another CPU.
    pub migrations: u64,
    /// Times that a thread went on inside of a sequence that had to begin again.
    pub restarts: u64,
    /// Threads that were blocked because memory was short.
    pub blocked: u64,
    /// And woken.
    pub woken: u64,
    /// Threads that were ended because their stack had overflowed.
    pub overflows: u64,
}

struct Scheduler {
    threads: [Thread; SLOTS],
    /// The slots of threads that are ready, the first in, first out.
    ready: [usize; SLOTS],
    first: usize,
    count: usize,
    current: [usize; CPUS],
    counts: Counts,
}

static SCHEDULER: Locked<Scheduler> = Locked::new(Scheduler {
    threads: [const {
        Thread {
            name: "idle",
            state: State::Free,
            frame: Frame::EMPTY,
            context: ThreadContext::new(),
            stack: None,
            entry: |_| {},
            cpu: None,
        }
    }; SLOTS],
    ready: [0; SLOTS],
    first: 0,
    count: 0,
    current: [0, 1, 2, 3],
    counts: Counts { switches: 0, preemptions: 0, migrations: 0, restarts: 0, blocked: 0, woken: 0, overflows: 0 },
});

/// Whether there are threads yet.
static STARTED: AtomicBool = AtomicBool::new(false);

impl Scheduler {
    fn push(&mut self, slot: usize) {
        self.threads[slot].state = State::Ready;
        self.ready[(self.first + self.count) % SLOTS] = slot;
        self.count += 1;
    }

    fn pop(&mut self) -> Option<usize> {
        self.count = self.count.checked_sub(1)?;
        let slot = self.ready[self.first];
        self.first = (self.first + 1) % SLOTS;
        Some(slot)
    }

    /// Makes the threads ready that wait so; how many.
    fn make_ready(&mut self, waits: impl Fn(usize, Waits) -> bool) -> u64 {
        let mut count = 0;
        for slot in CPUS..SLOTS {
            if let State::Blocked(queue, kind) = self.threads[slot].state
                && waits(queue, kind)
            {
                self.push(slot);
                count += u64::from(kind == Waits::ForMemory);
            }
        }
        count
    }

    /// Whether a thread other than this CPU's could do anything.
    fn others_can_run(&self, cpu: usize) -> bool {
        self.count != 0 || self.current.iter().enumerate().any(|(other, slot)| other != cpu && *slot >= CPUS)
    }

    /// The CPU leaves its thread, whose state has been set, for the next one.
    fn switch(&mut self, cpu: usize, frame: &mut Frame) {
        let from = self.current[cpu];
        if from >= CPUS && self.threads[from].state != State::Ready && !self.others_can_run(cpu) {
            // Nobody is left who could free memory: those who wait for some shall find out.
            self.make_ready(|_, kind| kind == Waits::ForMemory);
        }
        let to = self.pop().unwrap_or(cpu);
        self.threads[to].state = State::Running;
        if to == from {
            return;
        }
        self.threads[from].frame = *frame;
        // SAFETY: interrupts are masked; the thread of this CPU is `from`, and goes on as `to` when the handler returns. The
        // scheduler's lock is held.
        let switched = unsafe { quarry::switch_thread(&self.threads[from].context, &self.threads[to].context) };
        switched.unwrap_or_else(|error| panic!("{error}"));
        *frame = self.threads[to].frame;
        self.current[cpu] = to;
        self.counts.switches += 1;
        if to >= CPUS && self.threads[to].cpu.replace(cpu).is_some_and(|last| last != cpu) {
            self.counts.migrations += 1;
        }
    }

    /// The end of each handler: where to go on.
    fn resume(&mut self, frame: &mut Frame) {
        let at = quarry::resume_at(frame.elr);
        self.counts.restarts += u64::from(at != frame.elr);
        frame.elr = at;
    }
}

fn this_cpu() -> usize {
    quarry::this_cpu().get() as usize
}

/// Requests of a thread to the scheduler, by the number of its SVC: to let others run; to be blocked; to end.
const YIELD: u16 = 0;
const BLOCK: u16 = 1;
const END: u16 = 2;

/// Lets other threads run.
pub fn yield_now() {
    // SAFETY: the thread goes on with all registers as they were.
    unsafe { asm!("svc #{}", const YIELD) };
}

/// Blocks the running thread until `queue` is woken, or for a shorter time: whether it did. It does not if that has happened
/// since the queue's generation was `seen`, nor if the thread waits for memory and no other thread could free any.
pub fn block(queue: &WaitQueue, seen: u32, waits: Waits) -> bool {
    if !STARTED.load(Ordering::Relaxed) {
        return false;
    }
    let mut blocks = core::ptr::from_ref(queue) as u64;
    let work = u64::from(waits == Waits::ForWork);
    // SAFETY: the thread goes on with all registers but x0 as they were; the queue is borrowed until then.
    unsafe { asm!("svc #{}", const BLOCK, inout("x0") blocks, in("x1") u64::from(seen), in("x2") work) };
    blocks != 0
}

/// Makes the threads ready that are blocked on `queue`. Any context.
pub fn wake(queue: &WaitQueue) {
    let woken = SCHEDULER.with(|all| {
        let before = all.count;
        let for_memory = all.make_ready(|other, _| other == core::ptr::from_ref(queue) as usize);
        all.counts.woken += for_memory;
        all.count != before
    });
    if woken {
        rouse_others();
    }
}

/// A thread is ready: an idle CPU takes it.
fn rouse_others() {
    board::interrupt((1 << CPUS) - 1 & !(1 << this_cpu()), board::READY);
}

/// Threads that are blocked because memory is short.
pub fn blocked_for_memory() -> usize {
    SCHEDULER.with(|all| {
        let waits = |thread: &&Thread| matches!(thread.state, State::Blocked(_, Waits::ForMemory));
        all.threads.iter().filter(waits).count()
    })
}

/// Begins a thread, on a stack of its own.
pub fn spawn(name: &'static str, entry: fn(u64), argument: u64) {
    let stack = KernelStack::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    SCHEDULER.with(|all| {
        let slot = (CPUS..SLOTS).find(|slot| all.threads[*slot].state == State::Free).expect("so many threads");
        let mut frame = Frame { sp: stack.top().get(), spsr: Frame::SPSR, ..Frame::EMPTY };
        frame.elr = VirtAddr::new(first as *const () as u64);
        (frame.x[0], frame.x[1]) = (slot as u64, argument);
        let context = ThreadContext::new();
        all.threads[slot] = Thread { name, state: State::Ready, frame, context, stack: Some(stack), entry, cpu: None };
        all.push(slot);
    });
    rouse_others();
}

/// Where a thread begins.
extern "C" fn first(slot: u64, argument: u64) -> ! {
    let entry = SCHEDULER.with(|all| all.threads[slot as usize].entry);
    entry(argument);
    end()
}

/// Ends the running thread.
fn end() -> ! {
    // SAFETY: the thread does not go on.
    unsafe { asm!("svc #{}", const END, options(noreturn)) }
}

/// Frees the stacks of threads that have ended; how many are left of the others.
pub fn reap() -> usize {
    loop {
        let ended = SCHEDULER.with(|all| {
            let thread = all.threads.iter_mut().find(|thread| thread.state == State::Ended)?;
            thread.state = State::Free;
            thread.stack.take()
        });
        // Outside of the lock: this unmaps it.
        if ended.is_none() {
            return SCHEDULER.with(|all| all.threads[CPUS..].iter().filter(|t| t.state != State::Free).count());
        }
    }
}

/// The name of the running thread.
pub fn name() -> &'static str {
    SCHEDULER.with(|all| all.threads[all.current[this_cpu()]].name)
}

pub fn counts() -> Counts {
    SCHEDULER.with(|all| all.counts)
}

/// Loop of a CPU at first and whenever it has no thread. Interrupts masked.
pub fn idle() -> ! {
    memory::ready();
    board::start_interrupts();
    STARTED.store(true, Ordering::Relaxed);
    SCHEDULER.with(|all| all.threads[this_cpu()].state = State::Running);
    loop {
        // SAFETY: lets interrupts in, which switch to a thread that is ready.
        unsafe { asm!("msr daifclr, #2", "isb", "msr daifset, #2") };
        if SCHEDULER.with(|all| all.count) == 0 {
            // Masked, so that nothing runs here while this CPU counts as one that sleeps: an interrupt ends it all the same.
            // SAFETY: a hint.
            quarry::asleep(|| unsafe { asm!("wfi") });
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn on_irq(frame: &mut Frame) {
    let taken = board::take_interrupt();
    memory::in_interrupt(|| match taken & 0x3ff {
        board::TIMER => board::start_tick(),
        board::ANSWER => quarry::answer_requests(),
        _ => {}
    });
    board::end_interrupt(taken);
    SCHEDULER.with(|all| {
        let cpu = this_cpu();
        let current = all.current[cpu];
        let is_tick = taken & 0x3ff == board::TIMER;
        // A thread gives way when its time is over, an idle one at once.
        if all.count != 0 && (is_tick || current < CPUS) {
            if current >= CPUS {
                all.push(current);
                all.counts.preemptions += 1;
            }
            all.switch(cpu, frame);
        }
        all.resume(frame);
    });
}

#[unsafe(no_mangle)]
extern "C" fn on_sync(frame: &mut Frame) {
    let (esr, far): (u64, u64);
    // SAFETY: reads two registers.
    unsafe { asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far) };
    let is_svc = esr >> 26 == 0x15;
    if !is_svc && memory::repair(frame, esr, far) {
        SCHEDULER.with(|all| all.resume(frame));
        return;
    }
    let is_thread = frame.spsr & 1 == 0;
    if !is_svc {
        let Some(stack) = stack::overflowed(VirtAddr::new(far)).filter(|_| is_thread) else {
            panic!("syndrome {esr:#x} at {}, address {far:#x}", frame.elr);
        };
        board::print(format_args!("{stack} overflowed at {far:#x}: the thread ends"));
    }
    SCHEDULER.with(|all| {
        let cpu = this_cpu();
        let current = all.current[cpu];
        match (is_svc, esr as u16) {
            (true, YIELD) if all.count == 0 => {}
            (true, YIELD) => {
                if current >= CPUS {
                    all.push(current);
                }
                all.switch(cpu, frame);
            }
            (true, BLOCK) => {
                // SAFETY: the thread borrows the queue while it is here.
                let queue = unsafe { &*(frame.x[0] as *const WaitQueue) };
                let waits = if frame.x[2] != 0 { Waits::ForWork } else { Waits::ForMemory };
                // The generation changes before `wake`, which takes the scheduler's lock.
                let is_over = u64::from(queue.generation()) != frame.x[1];
                let is_alone = waits == Waits::ForMemory && !all.others_can_run(cpu);
                let address = core::mem::replace(&mut frame.x[0], u64::from(is_over || !is_alone));
                if !is_over && !is_alone {
                    all.counts.blocked += u64::from(waits == Waits::ForMemory);
                    all.threads[current].state = State::Blocked(address as usize, waits);
                    all.switch(cpu, frame);
                }
            }
            _ => {
                all.counts.overflows += u64::from(!is_svc);
                all.threads[current].state = State::Ended;
                all.switch(cpu, frame);
            }
        }
        all.resume(frame);
    });
}

#[unsafe(no_mangle)]
extern "C" fn fatal(frame: &mut Frame) {
    panic!("an exception that nobody expects, at {}", frame.elr);
}
