//! Errata of this machine's CPUs: the log's lines about them, and the prompt's command.

use crate::addr::CpuId;
use crate::arch::aarch64::alternative;
use crate::arch::aarch64::errata::{self, Handling, Rows};
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
