//! Errata of this machine's CPUs: the log's lines about them, and the prompt's command.

use crate::addr::CpuId;
use crate::arch::aarch64::alternative;
use crate::arch::aarch64::errata::{self, Handling, Rows};
use ::log::{info, warn};
use core::fmt;

/// Logs errata that a CPU is the first to have.
pub(super) fn report(cpu: CpuId, rows: Rows) {
    for row in rows.iter() {
        match row.handling {
            Handling::Not(_) => warn!("{cpu:?}: {row}"),
            _ => info!("{cpu:?}: {row}"),
        }
    }
}

/// Writes the rows of the table that CPUs of this machine have met: the prompt's command.
pub(super) fn list(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for row in errata::met().iter() {
        writeln!(f, "{row}")?;
    }
    let (sites, exchanged) = alternative::census();
    writeln!(f, "{exchanged} of {sites} instructions that only some cores need have been exchanged")
}
