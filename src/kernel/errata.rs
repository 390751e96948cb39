//! Errata of this machine's CPUs: the log's lines about them, and the end of the workarounds that none of them needs.

use super::cpus;
use crate::addr::{CpuId, PAGE_SIZE, VirtAddr};
use crate::arch::aarch64::boot::BootInfo;
use crate::arch::aarch64::errata::{self, Handling, Rows};
use crate::arch::aarch64::mmu::TableWindow;
use crate::arch::aarch64::{alternative, break_window};
use crate::global;
use crate::kprintln;
use ::log::{info, warn};

/// Logs errata that a CPU is the first to have.
pub(super) fn report(cpu: CpuId, rows: Rows) {
    for row in rows.iter() {
        match row.handling {
            Handling::Not(_) => warn!("{cpu:?}: {row}"),
            _ => info!("{cpu:?}: {row}"),
        }
    }
}

/// Prints the rows of the table that CPUs of this machine have met: the prompt's command.
pub(super) fn list() {
    for row in errata::met().iter() {
        kprintln!("{row}");
    }
    let (sites, exchanged) = alternative::census();
    kprintln!("{exchanged} of {sites} instructions that only some cores need have been exchanged");
}

/// Takes the workarounds out that no CPU needs, if every CPU has shown itself. Boot CPU, once, when booting is over and interrupts
/// are unmasked. A CPU that comes later and needs one is refused.
pub(super) fn settle(boot: &BootInfo) {
    if !global::possible_cpus().all(global::is_online) {
        info!("errata: all workarounds stay, as some CPUs are not online");
        return;
    }
    let mut exchanged = 0;
    let held = cpus::hold_others(&mut || {
        // SAFETY: the other CPUs are held, and this code changes no table meanwhile.
        let Some(slots) = (unsafe { break_window::open() }) else { return };
        let writable = |at: VirtAddr| {
            let page = boot.image_phys(VirtAddr::new(at.get() - at.offset_in(PAGE_SIZE)));
            // SAFETY: a page of the image is RAM.
            let window = unsafe { slots.window(page) };
            VirtAddr::of(window.as_ptr()).checked_add(at.offset_in(PAGE_SIZE))
        };
        // SAFETY: every CPU is online and has been looked up; the others are held, in registers, and synchronise when they
        // leave. The window is writable, and moves only when it is asked for another page.
        exchanged = unsafe { alternative::settle(errata::met(), writable) };
    });
    if held {
        info!("errata: {exchanged} of {} instructions exchanged, as no CPU needs the former", alternative::census().0);
    } else {
        warn!("errata: all workarounds stay, as a CPU does not answer");
    }
}
