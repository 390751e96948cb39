//! Fault injection, from the boot arguments and from the prompt.

use super::bootargs::BootArgs;
use super::machine::Machine;
use super::screen;
use crate::global;
use crate::kprintln;
use crate::mm::fault_inject::{FaultAttr, FaultSite};
use ::log::{info, warn};
use core::fmt;

/// Applies the boot arguments, `fail_page_alloc=` and those of the other sites. Called when the allocators are up: from here on
/// allocations fail.
pub(super) fn init(args: BootArgs<'_>) {
    for site in FaultSite::ALL {
        let Some(text) = args.value(site.name()) else { continue };
        match FaultAttr::parse(site, text) {
            Ok(attr) => {
                global::configure_faults(site, &attr);
                info!("{}={attr}", site.name());
            }
            Err(error) => warn!("boot argument {}: {error}", site.name()),
        }
    }
}

/// The names of all sites.
struct Sites;

impl fmt::Display for Sites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FaultSite::ALL
            .iter()
            .enumerate()
            .try_for_each(|(index, site)| write!(f, "{}{}", if index == 0 { "" } else { ", " }, site.name()))
    }
}

/// The prompt's command: without words the settings and statistics of every site; `SITE off` and `SITE SETTINGS` change
/// them.
pub(super) fn command(machine: &Machine, words: &str) {
    if let Some((name, settings)) = words.split_once(' ') {
        let Some(site) = FaultSite::from_name(name) else {
            kprintln!("no site {name:?}; there are {}", Sites);
            return;
        };
        let parsed = match settings.trim() {
            "off" => Ok(FaultAttr::off(site)),
            text => FaultAttr::parse(site, text),
        };
        match parsed {
            Ok(attr) => global::configure_faults(site, &attr),
            Err(error) => {
                kprintln!("{error}; nothing has changed");
                return;
            }
        }
    } else if !words.is_empty() {
        kprintln!("faults SITE off, faults SITE interval,probability,space,times[,name=value...]");
        return;
    }
    screen::page(machine, &global::fault_injector().report());
}
