//! The reference kernel, as the memory subsystem sees it.

use super::symbol::Symbol;
use super::{cpus, interrupts, pressure, process, report, report_json};
use crate::addr::{CpuId, VirtAddr};
use crate::global::{AddressSpace, Machine};
use crate::kprintln;
use crate::mm::zone::Shortage;
use core::fmt::{self, Display};

struct ReferenceKernel;

crate::machine!(ReferenceKernel);

// SAFETY: MACH-1: the final tables map all RAM so; pages are handed over once they are live. MACH-2: by `cpus::hold_others`.
unsafe impl Machine for ReferenceKernel {
    fn kick(&self, cpu: CpuId) -> bool {
        interrupts::kick(cpu);
        true
    }

    fn print(&self, text: fmt::Arguments<'_>) {
        report_json::misuse(text);
        kprintln!("{text}");
    }

    fn print_backtrace(&self) {
        report::print_callers();
    }

    fn fmt_code(&self, at: VirtAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Symbol::of_return_address(at).fmt(f)
    }

    fn no_answer(&self, cpu: CpuId) {
        cpus::no_answer(cpu);
    }

    fn rouse(&self) {
        cpus::rouse();
    }

    fn hold_others(&self, work: &mut dyn FnMut()) -> bool {
        cpus::hold_others(work)
    }

    fn with_current_space(&self, f: &mut dyn FnMut(&AddressSpace)) {
        process::with_current_space(f);
    }

    fn may_free_memory(&self) -> bool {
        interrupts::may_free_memory()
    }

    fn allocation_failed(&self, shortage: &Shortage) {
        pressure::allocation_failed(shortage);
    }
}
