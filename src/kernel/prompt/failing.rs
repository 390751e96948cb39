//! Commands that make calls fail.
#![forbid(unsafe_code)]

use crate::kernel::command::Command;
use crate::kernel::fault_injection;
use crate::mm::fault_inject::FaultSite;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "faults",
    arguments: "[SITE off | SITE SETTINGS]",
    help: "the allocations that are made to fail, and how often each site has failed",
    example: "faults failslab 100,10,0,-1",
    words: |before, offer| match before.split_whitespace().count() {
        0 => FaultSite::ALL.iter().for_each(|site| offer(site.name())),
        1 => offer("off"),
        _ => {}
    },
    run: fault_injection::command,
}];
