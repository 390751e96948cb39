//! Layout of a fault report: the exception in words, its place, every register, the backtrace.
//!
//! Nothing here allocates, waits for a lock or trusts the state that it prints: a report must come out of any state. The lines of
//! a fault, each from what it can do without those above it; interrupts are masked:
//!
//! | step | function | read | lock | if it cannot |
//! |---|---|---|---|---|
//! | 1. the cause | `Cause` | the frame, the registered stacks | none | - |
//! | 2. syndrome and address | `print_fault` | the frame | none | no address: 4 |
//! | 3. whose address it is | `describers::all`, in the kernel `whereabouts::describe` | every allocator's records | only those that are free | the line is cut, or not printed |
//! | 4. the rule that was broken | `cause::rule` | the syndrome | none | no line |
//! | 5. instruction and return address by name | `Symbol` | the image's symbols | none | numbers |
//! | 6. the registers | `print_registers` | the frame | none | - |
//! | 7. the callers | `print_backtrace` | the registered stacks | none | it ends at a frame that is in none |
//! | 8. the same as one line of JSON, if it is wanted | `report_json::fault` | as above | as above | as above |

use super::callers::{self, Caller};
use super::cause::{self, Cause};
pub use super::describers::{Describe, add_describer};
use super::symbol::Symbol;
use super::{console, describers, report_json};
use crate::addr::{CpuId, VirtAddr};
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::trap::{self, Fatal, TrapFrame};
use core::fmt;
use core::panic::PanicInfo;

/// The longest backtrace that is printed.
const MAX_LINES: usize = 64;

macro_rules! line {
    ($($arg:tt)*) => { console::print_urgent(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints the report of an exception that ends the kernel.
pub(super) fn print_fault(frame: &TrapFrame, why: Fatal) {
    line!("");
    line!("{}", Cause(frame, why));
    line!("fault: {}", frame.esr);
    if frame.esr.has_fault_address() {
        line!("fault: at address {}", frame.far);
        for describe in describers::all() {
            let mut note = Note { begun: false };
            // The note has no errors of its own; an error of `describe` has cut it, which is visible.
            let _ = describe(frame.far, &mut note);
            if note.begun {
                line!("");
            }
        }
    }
    if let Some(rule) = cause::rule(frame.esr) {
        line!("fault: {rule}");
    }
    line!("on {:?}", cpu::current());
    line!("pc  {}", Symbol::of_instruction(frame.elr));
    line!("lr  {}", Symbol::of_return_address(frame.link()));
    print_registers(frame);
    print_backtrace(Some((frame.elr, frame.link())), frame.frame_pointer());
    report_json::fault(frame, why);
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
    report_json::panic(info, fp);
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
    let mut callers = callers::folded(interrupted, fp);
    for Caller { number, frame, more } in callers.by_ref().take(MAX_LINES) {
        match more {
            0 => line!("  #{number:<3} {}", Symbol::of_frame(frame)),
            _ => line!("  #{number:<3} {}, and {more} times more", Symbol::of_frame(frame)),
        }
    }
    if callers.next().is_some() {
        line!("  and more");
    }
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
    report_json::short("second", what);
}

/// Reports that a CPU goes on while another one reports.
pub(super) fn print_not_stopped(cpu: CpuId) {
    line!("\n{cpu:?} did not stop within a tenth of a second, and may go on while this is printed");
}

/// The last words about a fault inside a report: no symbols, no walk.
pub(super) fn print_nested(what: fmt::Arguments<'_>) {
    line!("\nfault inside a fault report on {:?}: {what}; stopping", cpu::current());
    report_json::short("nested", what);
}
