//! Stepping through code, one instruction at a time, with a visitor that is called for each (Arm ARM D2.11): for tests that let
//! something happen at every instruction of a path. The boot stub has opened the OS lock, which holds debug exceptions back.
//!
//! A step is an exception like any other, taken on the stack of the code. The way to step over a pair of exclusive
//! accesses is a breakpoint behind them ([`exclusive`]); the pair counts as one step. A test that knows the path already has the
//! visitor called at one place of it: code runs up to a breakpoint a thousand times faster than it is stepped.

use super::exclusive::{self, EXITS};
use super::frame::TrapFrame;
use super::irq;
use super::{cpu, rseq};
use crate::addr::{CpuId, VirtAddr};
use crate::sync::{OrderedLock, class};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{MDSCR_EL1, SPSR_EL1};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use tock_registers::interfaces::ReadWriteable;

/// The instruction about to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The instruction.
    pub pc: VirtAddr,
    /// Whether an interrupt would be taken here.
    pub interruptible: bool,
    /// Whether it is in a restartable sequence, and not at a place where it resumes anyway.
    pub in_sequence: bool,
}

/// Way to continue the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Then {
    /// With this instruction; the visitor has touched nothing that the code may depend on.
    Step,
    /// As after an interrupt: a restartable sequence resumes where such sequences do.
    Restart,
    /// With this instruction, and without being stepped any more.
    Run,
}

/// Told of every instruction before it is executed. Runs as an exception handler does, everything masked.
pub type Visitor = fn(&Step) -> Then;

#[derive(Clone, Copy)]
struct Visit {
    /// The CPU that is stepped.
    cpu: CpuId,
    visitor: Visitor,
    /// The only place at which the visitor is called; without it, every instruction.
    place: Option<VirtAddr>,
}

static VISIT: OrderedLock<Option<Visit>, class::StepVisitor, cpu::Relax> = OrderedLock::new(None);
/// Breakpoints are set. Written by the CPU that is stepped.
static BROKEN: AtomicBool = AtomicBool::new(false);
/// A pair of exclusive accesses was met that cannot be stepped over: the code has run on.
static LOST: AtomicBool = AtomicBool::new(false);

/// `DBGBCR<n>_EL1`: enabled, at EL1, for a whole instruction.
const BREAK_AT_EL1: u64 = 1 | 0b01 << 1 | 0xf << 5;
const DEBUG_MASKED: u32 = 1 << 3;

/// Runs `body` on this CPU, and tells `visitor` of every instruction of it until that wants no more. Where code masks
/// debug exceptions it runs through. One CPU at a time; not from an exception handler. `None` if something in the code
/// could not be stepped over, so that the visitor has not been called for all.
pub fn step_through<R>(visitor: Visitor, body: impl FnOnce() -> R) -> Option<R> {
    visit(Visit { cpu: cpu::current(), visitor, place: None }, body)
}

/// As [`step_through`], but `visitor` is told of the instruction at `place` alone, each time that `body` comes there.
pub fn stop_at<R>(place: VirtAddr, visitor: Visitor, body: impl FnOnce() -> R) -> Option<R> {
    visit(Visit { cpu: cpu::current(), visitor, place: Some(place) }, body)
}

fn visit<R>(visit: Visit, body: impl FnOnce() -> R) -> Option<R> {
    set_visit(Some(visit));
    LOST.store(false, Ordering::Relaxed);
    MDSCR_EL1.modify(MDSCR_EL1::KDE::AllDebugExceptionsEnabled + MDSCR_EL1::MDE::SET);
    match visit.place {
        Some(place) => set_breakpoints([Some(place), None, None, None]),
        None => MDSCR_EL1.modify(MDSCR_EL1::SS::SoftwareStepEnabled),
    }
    barrier::isb(barrier::SY);
    // SAFETY: the vectors save and restore the whole state. The first step is taken right here.
    unsafe { asm!("msr daifclr, {}", const DEBUG_MASKED, options(nostack, preserves_flags)) };
    let result = body();
    // SAFETY: masking exceptions breaks no invariant of safe code.
    unsafe { asm!("msr daifset, {}", const DEBUG_MASKED, options(nostack, preserves_flags)) };
    MDSCR_EL1.modify(MDSCR_EL1::SS::CLEAR + MDSCR_EL1::KDE::CLEAR + MDSCR_EL1::MDE::CLEAR);
    set_breakpoints([None; EXITS]);
    set_visit(None);
    (!LOST.load(Ordering::Relaxed)).then_some(result)
}

/// With interrupts masked, as [`handle`] runs with.
fn set_visit(visit: Option<Visit>) {
    let _masked = irq::local_irq_save();
    *VISIT.lock() = visit;
}

/// Takes a step or a breakpoint that belongs to [`step_through`] or [`stop_at`]. Returns whether it did.
pub(super) fn handle(frame: &mut TrapFrame) -> bool {
    let visit = match *VISIT.lock() {
        Some(visit) if visit.cpu == cpu::current() => visit,
        _ => return false,
    };
    // The step that led over the place has been taken.
    if let Some(place) = visit.place.filter(|place| *place != frame.elr) {
        set_breakpoints([Some(place), None, None, None]);
        return stop(frame);
    }
    let step = Step {
        pc: frame.elr,
        interruptible: frame.spsr & SPSR_EL1::I.mask << SPSR_EL1::I.shift == 0,
        in_sequence: rseq::resumption(frame.elr).is_some_and(|resume| resume != frame.elr),
    };
    set_breakpoints([None; EXITS]);
    match (visit.visitor)(&step) {
        Then::Run => return stop(frame),
        Then::Restart => rseq::rewind(&mut frame.elr),
        Then::Step => {}
    }
    if !exclusive::is_load(instruction(frame.elr)) {
        MDSCR_EL1.modify(MDSCR_EL1::SS::SoftwareStepEnabled);
        frame.spsr |= SPSR_EL1::SS.mask << SPSR_EL1::SS.shift;
        return true;
    }
    match exclusive::exits(frame.elr, instruction) {
        Some(exits) => set_breakpoints(exits),
        None => LOST.store(true, Ordering::Relaxed),
    }
    stop(frame)
}

fn stop(frame: &mut TrapFrame) -> bool {
    MDSCR_EL1.modify(MDSCR_EL1::SS::CLEAR);
    frame.spsr &= !(SPSR_EL1::SS.mask << SPSR_EL1::SS.shift);
    true
}

/// The instruction at `pc`, which has just been, or is about to be, executed here.
fn instruction(pc: VirtAddr) -> u32 {
    // SAFETY: kernel text is mapped readable, and the few instructions behind one that is executed are text too.
    unsafe { pc.as_ptr::<u32>().read() }
}

/// Sets a breakpoint at each of `places`, and none besides.
fn set_breakpoints(places: [Option<VirtAddr>; EXITS]) {
    let any = places.iter().any(Option::is_some);
    if !BROKEN.swap(any, Ordering::Relaxed) && !any {
        return;
    }
    macro_rules! set {
        ($place:expr, $value:literal, $control:literal) => {
            // SAFETY: a breakpoint changes no state but by its exception, which `handle` takes.
            unsafe {
                asm!(
                    concat!("msr ", $value, ", {place}"),
                    concat!("msr ", $control, ", {control}"),
                    place = in(reg) $place.unwrap_or(VirtAddr::ZERO).get(),
                    control = in(reg) if $place.is_some() { BREAK_AT_EL1 } else { 0 },
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    let [first, second, third, fourth] = places;
    set!(first, "dbgbvr0_el1", "dbgbcr0_el1");
    set!(second, "dbgbvr1_el1", "dbgbcr1_el1");
    set!(third, "dbgbvr2_el1", "dbgbcr2_el1");
    set!(fourth, "dbgbvr3_el1", "dbgbcr3_el1");
    barrier::isb(barrier::SY);
}
