//! Role of a thread of a test: a CPU, with interrupts open or masked, and the events where they are open.

use super::machine::Slabs;
use std::cell::Cell;

std::thread_local! {
    /// The CPU that this thread plays, and whether its interrupts are masked.
    static CPU: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// Event at this thread wherever its interrupts are open.
    static OPEN: Cell<Option<&'static dyn Fn()>> = const { Cell::new(None) };
    /// How often this thread has looked at another CPU's array with interrupts masked, as code that changes one does.
    static FOREIGN: Cell<u32> = const { Cell::new(0) };
    /// Event when this thread interrupts a CPU.
    static KICK: Cell<Option<&'static dyn Fn(u32)>> = const { Cell::new(None) };
}

/// Lets this thread play another CPU.
pub(crate) fn run_on(cpu: u32) {
    CPU.set((cpu, false));
}

/// The CPU that this thread plays.
pub(crate) fn here() -> u32 {
    CPU.get().0
}

pub(crate) fn is_masked() -> bool {
    CPU.get().1
}

/// This thread looks at an array of a CPU.
pub(crate) fn note_array(cpu: u32) {
    if is_masked() && cpu != here() {
        FOREIGN.set(FOREIGN.get() + 1);
    }
}

/// How often this thread has looked at another CPU's array with interrupts masked, since the last time.
pub(crate) fn foreign_arrays() -> u32 {
    FOREIGN.take()
}

/// Masks interrupts; whether they were.
pub(crate) fn mask() -> bool {
    open_point();
    let (cpu, masked) = CPU.get();
    CPU.set((cpu, true));
    masked
}

/// Masks or opens them, as they were.
pub(crate) fn unmask(saved: bool) {
    let (cpu, masked) = CPU.get();
    assert!(masked, "somebody unmasked interrupts in between");
    CPU.set((cpu, saved));
    open_point();
}

/// Runs `f` with interrupts masked, as a handler does.
pub(crate) fn in_interrupt<R>(f: impl FnOnce() -> R) -> R {
    in_interrupt_of(here(), f)
}

/// The same on another CPU.
pub(crate) fn in_interrupt_of<R>(cpu: u32, f: impl FnOnce() -> R) -> R {
    let before = CPU.replace((cpu, true));
    let result = f();
    CPU.set(before);
    result
}

/// Takes the hooks away that were set.
struct Unhook;

impl Drop for Unhook {
    fn drop(&mut self) {
        OPEN.set(None);
        KICK.set(None);
    }
}

/// Runs `f`, and `hook` at every point of it where interrupts are open and it matters what happens there: before they are
/// masked and after that, and before it is looked which CPU this is. `hook` is an interrupt, or moves the thread to another
/// CPU.
pub(crate) fn at_open_points<R>(hook: &dyn Fn(), f: impl FnOnce() -> R) -> R {
    // SAFETY: the reference is dropped before this returns.
    OPEN.set(Some(unsafe { std::mem::transmute::<&dyn Fn(), &'static dyn Fn()>(hook) }));
    let _unhook = Unhook;
    f()
}

/// Runs `f`, and `hook` for each CPU that it interrupts.
pub(crate) fn at_kicks<R>(hook: &dyn Fn(u32), f: impl FnOnce() -> R) -> R {
    // SAFETY: the reference is dropped before this returns.
    KICK.set(Some(unsafe { std::mem::transmute::<&dyn Fn(u32), &'static dyn Fn(u32)>(hook) }));
    let _unhook = Unhook;
    f()
}

/// A point where an interrupt may come, unless they are masked.
pub(crate) fn open_point() {
    if !is_masked()
        && let Some(hook) = OPEN.take()
    {
        hook();
        OPEN.set(Some(hook));
    }
}

/// This thread interrupts a CPU.
pub(crate) fn kick(cpu: u32) {
    if let Some(hook) = KICK.take() {
        hook(cpu);
        KICK.set(Some(hook));
    }
}

/// Runs `f` as a thread that moves on to the next CPU at every point where interrupts are open. All CPUs are online, and
/// answer at once when they are asked.
pub(crate) fn migrating<R>(slabs: &Slabs<'_, '_>, cpus: u32, f: impl FnOnce() -> R) -> R {
    (0..cpus).for_each(|cpu| slabs.hal().set_online(cpu, true));
    let move_on = || run_on((here() + 1) % cpus);
    let answer = |cpu| {
        in_interrupt_of(cpu, || {
            slabs.pages().answer_requests();
            slabs.answer_requests();
        });
    };
    let result = at_kicks(&answer, || at_open_points(&move_on, f));
    (0..cpus).for_each(|cpu| slabs.hal().set_online(cpu, false));
    run_on(0);
    result
}
