//! The functions that describe an address in a report, each from the knowledge of its own part of the kernel.

use crate::addr::VirtAddr;
use crate::arch::aarch64::cpu;
use crate::sync::Once;
use core::fmt;

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

/// All of them, in the order in which they were added.
pub(super) fn all() -> impl Iterator<Item = &'static Describe> {
    DESCRIBERS.iter().filter_map(Once::get)
}
