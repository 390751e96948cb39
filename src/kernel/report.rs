//! Layout of a fault report: the exception in words, its place, every register, the backtrace.
//!
//! Nothing here allocates, takes a lock or trusts the state that it prints: a report must come out of any state.

use super::console;
use super::symbol::Symbol;
use crate::addr::{CpuId, VirtAddr};
use crate::arch::aarch64::backtrace::{Frame, Left};
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::esr::{Abort, Access, FaultStatus};
use crate::arch::aarch64::stack::{self, StackOwner};
use crate::arch::aarch64::trap::{self, Fatal, TrapFrame};
use crate::sync::Once;
use core::fmt;
use core::panic::PanicInfo;

/// The longest backtrace that is printed.
const MAX_LINES: usize = 64;

/// Maximum number of describers.
const MAX_DESCRIBERS: usize = 8;

/// Describes in words a part of the kernel's knowledge about an address, for instance which of its areas it belongs to. Writes
/// nothing if it knows nothing. Called from reports: it must take no lock that it does not find free.
pub type Describe = fn(VirtAddr, &mut dyn fmt::Write) -> fmt::Result;

static DESCRIBERS: [Once<Describe, cpu::Relax>; MAX_DESCRIBERS] = [const { Once::new() }; MAX_DESCRIBERS];

/// Adds `describe` to the functions that reports call with the fault address, after the existing ones. Returns whether there
/// was room. Called while the boot CPU is alone.
pub fn add_describer(describe: Describe) -> bool {
    let free = DESCRIBERS.iter().find(|slot| slot.get().is_none());
    free.map(|slot| slot.call_once(|| describe)).is_some()
}

macro_rules! line {
    ($($arg:tt)*) => { console::print_urgent(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints the report of an exception that ends the kernel.
pub(super) fn print_fault(frame: &TrapFrame, why: Fatal) {
    line!("");
    match why {
        Fatal::BadStack(_) => print_bad_stack(frame.sp),
        Fatal::Unhandled(vector) => line!("fault: {vector}"),
    }
    line!("fault: {}", frame.esr);
    if frame.esr.has_fault_address() {
        line!("fault: at address {}", frame.far);
        for describe in DESCRIBERS.iter().filter_map(Once::get) {
            let mut note = Note { begun: false };
            // The note has no errors of its own; an error of `describe` has cut it, which is visible.
            let _ = describe(frame.far, &mut note);
            if note.begun {
                line!("");
            }
        }
    }
    if let Some(rule) = frame.esr.abort().and_then(rule) {
        line!("fault: {rule}");
    }
    line!("on {:?}", cpu::current());
    line!("pc  {}", Symbol::of_instruction(frame.elr));
    line!("lr  {}", Symbol::of_return_address(frame.link()));
    print_registers(frame);
    print_backtrace(Some((frame.elr, frame.link())), frame.frame_pointer());
}

/// The memory rule that an access has broken, if there is one.
const fn rule(abort: Abort) -> Option<&'static str> {
    match (abort.status, abort.access) {
        (FaultStatus::Permission(_), Access::Write) => Some("write to a read-only mapping"),
        (FaultStatus::Permission(_), Access::Execute) => Some("instruction fetch from non-executable memory (W^X)"),
        (FaultStatus::TagCheck, _) => Some("access through a pointer whose tag is not the memory's"),
        (FaultStatus::Alignment, _) => Some("access to device memory at an address that is not a multiple of its size"),
        _ => None,
    }
}

/// Prints the report of a panic; `fp` is the frame pointer of the panic handler.
pub(super) fn print_panic(info: &PanicInfo<'_>, fp: VirtAddr) {
    line!("");
    match info.location() {
        Some(location) => line!("panic at {location}: {}", info.message()),
        None => line!("panic: {}", info.message()),
    }
    line!("on {:?}", cpu::current());
    print_backtrace(None, fp);
}

fn print_bad_stack(sp: VirtAddr) {
    // The vectors found no room for the frame below sp: sp itself may still be the last bytes of the stack.
    let frame = sp.checked_sub(size_of::<TrapFrame>() as u64).unwrap_or_default();
    if let Some(stack) = stack::overflowed(frame) {
        match stack.owner {
            StackOwner::Thread(name) => line!("fault: stack overflow of thread {name}, on its stack {}", stack.range),
            StackOwner::Cpu(..) => line!("fault: stack overflow on the {stack}"),
        }
    } else if !sp.is_aligned(16) {
        line!("fault: stack pointer {sp} is not a multiple of 16");
    } else if let Some(stack) = stack::containing(sp) {
        line!("fault: exception on the {stack}");
    } else {
        line!("fault: stack pointer {sp} is in no kernel stack");
    }
}

fn print_registers(frame: &TrapFrame) {
    line!("sp  {:#018x}  spsr {:#x} ({})", frame.sp, frame.spsr, Spsr(frame.spsr));
    line!("esr {:#018x}  far {:#018x}", frame.esr.get(), frame.far);
    let mut number = 0;
    for row in frame.x.chunks(4) {
        match row {
            [a, b, c, d] => line!(
                "x{:<2} {a:#018x}  x{:<2} {b:#018x}  x{:<2} {c:#018x}  x{:<2} {d:#018x}",
                number,
                number + 1,
                number + 2,
                number + 3
            ),
            [a, b, c] => line!("x{:<2} {a:#018x}  x{:<2} {b:#018x}  x{:<2} {c:#018x}", number, number + 1, number + 2),
            _ => {}
        }
        number += 4;
    }
}

/// Prints the callers of this function, innermost first.
pub(super) fn print_callers() {
    print_backtrace(None, trap::frame_pointer());
}

/// Prints the chain of callers, frames of one recursion in a single line. `interrupted` is where the innermost function
/// was interrupted, if it was, and its link register, which names its caller as long as it has no frame of its own.
pub(super) fn print_backtrace(interrupted: Option<(VirtAddr, VirtAddr)>, fp: VirtAddr) {
    line!("backtrace:");
    let pc = interrupted.map(|(pc, _)| Frame { pc, left: Left::Exception });
    let caller = interrupted.filter(|(pc, _)| Symbol::of_instruction(*pc).is_entry());
    let caller = caller.map(|(_, link)| Frame { pc: link, left: Left::Call });
    let mut frames = pc.into_iter().chain(caller).chain(trap::backtrace(fp)).enumerate().peekable();
    for _ in 0..MAX_LINES {
        let Some((number, frame)) = frames.next() else { return };
        let mut more = 0;
        while frames.next_if(|&(_, next)| next == frame).is_some() {
            more += 1;
        }
        match more {
            0 => line!("  #{number:<3} {}", Symbol::of_frame(frame)),
            _ => line!("  #{number:<3} {}, and {more} times more", Symbol::of_frame(frame)),
        }
    }
    line!("  and more");
}

/// A line that prints its prefix only before its first text, so that it stays empty if there is none.
struct Note {
    begun: bool,
}

impl fmt::Write for Note {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.begun && !text.is_empty() {
            self.begun = true;
            console::print_urgent(format_args!("fault: "));
        }
        console::print_urgent(format_args!("{text}"));
        Ok(())
    }
}

/// SPSR_EL1 in words (Arm ARM C5.2.20): flags as letters, capital where set, then the masks and the mode.
struct Spsr(u64);

impl fmt::Display for Spsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit: u32, name: char| if self.0 & 1 << bit == 0 { name.to_ascii_lowercase() } else { name };
        for (bit, name) in [(31, 'N'), (30, 'Z'), (29, 'C'), (28, 'V')] {
            write!(f, "{}", letter(bit, name))?;
        }
        f.write_str(" ")?;
        for (bit, name) in [(9, 'D'), (8, 'A'), (7, 'I'), (6, 'F')] {
            write!(f, "{}", letter(bit, name))?;
        }
        f.write_str(match self.0 & 0x1f {
            0x00 => " EL0",
            0x04 => " EL1t",
            0x05 => " EL1h",
            _ => " unknown mode",
        })
    }
}

/// Prints the line of a CPU that fails while another one reports.
pub(super) fn print_second(what: fmt::Arguments<'_>) {
    line!("{:?} fails as well: {what}", cpu::current());
}

/// Reports that a CPU goes on while another one reports.
pub(super) fn print_not_stopped(cpu: CpuId) {
    line!("\n{cpu:?} did not stop within a tenth of a second, and may go on while this is printed");
}

/// The last words about a fault inside a report: no symbols, no walk.
pub(super) fn print_nested(what: fmt::Arguments<'_>) {
    line!("\nfault inside a fault report on {:?}: {what}; stopping", cpu::current());
}
