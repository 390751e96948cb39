//! Reports as JSON, one line each, for tools: with the boot argument `report=json`, behind the report for people.
//! `docs/fault-reports.md` has the members.
//!
//! As there, nothing allocates, takes a lock or trusts the state that it prints.

use super::bootargs::BootArgs;
use super::callers::{self, Caller};
use super::cause::{self, Cause};
use super::json::{Array, Object};
use super::symbol::Symbol;
use super::{console, describers};
use crate::addr::VirtAddr;
use crate::arch::aarch64::cpu;
use crate::arch::aarch64::trap::{self, Fatal, TrapFrame};
use crate::driver::timer;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// Functions that a backtrace holds at most.
const MAX_CALLERS: usize = 64;
/// Beginning of the first line of a report of misuse.
const MISUSE: &str = "BUG ";

static WANTED: AtomicBool = AtomicBool::new(false);

/// Reads `report=`. Boot CPU.
pub(super) fn init(args: BootArgs<'_>) {
    WANTED.store(args.json("report"), Ordering::Relaxed);
}

fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// The line of an exception that ends the kernel.
pub(super) fn fault(frame: &TrapFrame, why: Fatal) {
    line("fault", |report| {
        report.text("cause", Behind(cause::PREFIX, format_args!("{}", Cause(frame, why))))?;
        report.text("syndrome", frame.esr)?;
        if frame.esr.has_fault_address() {
            report.text("address", frame.far)?;
            report.array("about", |about| {
                describers::all().try_for_each(|describe| about.text_if_any(|out| describe(frame.far, out)))
            })?;
        }
        if let Some(rule) = cause::rule(frame.esr) {
            report.text("rule", rule)?;
        }
        report.object("pc", |pc| symbol(pc, Symbol::of_instruction(frame.elr)))?;
        report.object("lr", |lr| symbol(lr, Symbol::of_return_address(frame.link())))?;
        report.text("sp", Hex(frame.sp.get()))?;
        report.text("spsr", Hex(frame.spsr))?;
        report.text("esr", Hex(frame.esr.get()))?;
        report.text("far", Hex(frame.far.get()))?;
        report.array("x", |x| frame.x.iter().try_for_each(|value| x.text(Hex(*value))))?;
        backtrace(report, Some((frame.elr, frame.link())), frame.frame_pointer())
    });
}

/// The line of a panic; `fp` is the frame pointer of the panic handler.
pub(super) fn panic(info: &PanicInfo<'_>, fp: VirtAddr) {
    line("panic", |report| {
        report.text("message", info.message())?;
        if let Some(place) = info.location() {
            report.text("place", place)?;
        }
        backtrace(report, None, fp)
    });
}

/// A line of a report without more than its message.
pub(super) fn short(kind: &str, message: fmt::Arguments<'_>) {
    line(kind, |report| report.text("message", message));
}

/// The line of misuse, if `text` is the first line of its report. Its callers are those of this function.
pub(super) fn misuse(text: fmt::Arguments<'_>) {
    if !is_wanted() || !begins_with_misuse(text) {
        return;
    }
    line("misuse", |report| {
        report.text("message", Behind(MISUSE, text))?;
        backtrace(report, None, trap::frame_pointer())
    });
}

/// A whole line, in one piece. An error cuts the line, which a reader of JSON sees.
fn line(kind: &str, members: impl Fn(&mut Object<'_>) -> fmt::Result) {
    if is_wanted() {
        console::print_urgent(format_args!("{}\n", Line { kind, members }));
    }
}

struct Line<'a, F> {
    kind: &'a str,
    members: F,
}

impl<F: Fn(&mut Object<'_>) -> fmt::Result> fmt::Display for Line<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut report = Object::begin(f)?;
        report.text("report", self.kind)?;
        report.number("cpu", cpu::current().get().into())?;
        report.number("microseconds", timer::microseconds())?;
        (self.members)(&mut report)?;
        report.end()
    }
}

/// A 64-bit value, which a JSON number cannot hold in every reader.
struct Hex(u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

fn symbol(out: &mut Object<'_>, symbol: Symbol) -> fmt::Result {
    out.text("at", Hex(symbol.address().get()))?;
    match symbol.place() {
        Some(place) => {
            out.text("function", place.name)?;
            out.number("offset", place.offset)?;
            out.number("size", place.size)
        }
        None => Ok(()),
    }
}

fn backtrace(out: &mut Object<'_>, interrupted: Option<(VirtAddr, VirtAddr)>, fp: VirtAddr) -> fmt::Result {
    let caller = |list: &mut Array<'_>, Caller { frame, more, .. }: Caller| {
        list.object(|out| {
            symbol(out, Symbol::of_frame(frame))?;
            out.number("times", 1 + more as u64)
        })
    };
    out.array("backtrace", |list| {
        callers::folded(interrupted, fp).take(MAX_CALLERS).try_for_each(|one| caller(list, one))
    })
}

/// Whether the text begins as a report of misuse does.
fn begins_with_misuse(text: fmt::Arguments<'_>) -> bool {
    /// Takes text as long as it is the expected one.
    struct Expect(&'static str);
    impl Write for Expect {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let len = self.0.len().min(text.len());
            let (Some(expected), Some(found)) = (self.0.get(..len), text.get(..len)) else { return Err(fmt::Error) };
            if expected != found {
                return Err(fmt::Error);
            }
            self.0 = self.0.get(len..).unwrap_or_default();
            Ok(())
        }
    }
    let mut expect = Expect(MISUSE);
    expect.write_fmt(text).is_ok() && expect.0.is_empty()
}

/// A text without its first words, which are ASCII.
struct Behind<'a>(&'static str, fmt::Arguments<'a>);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Leaves out so many bytes of ASCII.
        struct Skip<'a, 'f>(usize, &'a mut fmt::Formatter<'f>);
        impl Write for Skip<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let skipped = self.0.min(text.len());
                self.0 -= skipped;
                self.1.write_str(text.get(skipped..).unwrap_or_default())
            }
        }
        Skip(self.0.len(), f).write_fmt(self.1)
    }
}
