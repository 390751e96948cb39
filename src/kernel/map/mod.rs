//! `map`: memory as a picture. Physical memory by zone and use, the slabs of a cache, the areas of vmalloc.
#![forbid(unsafe_code)]

mod areas;
mod physical;
mod slabs;

use super::address::physical;
use super::bootargs::parse_size;
use super::command::Command;
use super::machine::Machine;
use super::screen::{self, Live};
use crate::addr::PhysAddr;
use crate::global;
use crate::kprintln;
pub(super) use physical::Physical;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "map",
    arguments: "[live] [plain] [START END]",
    help: "RAM as a picture; also map slab NAME, map vmalloc",
    example: "map plain",
    words: |before, offer| match before.trim() {
        "" => ["live", "plain", "slab", "vmalloc"].iter().for_each(|word| offer(word)),
        "slab" => {
            // Where sleeping is not allowed, no name is offered.
            let _ = global::slab_allocator().for_each(|cache| offer(cache.name()));
        }
        _ => {}
    },
    run: |machine, rest| run(machine, rest),
}];

/// Answer to words that are none of the command's.
const USAGE: &str =
    "map [live] [plain] [START END], map slab NAME [plain], or map vmalloc [plain]: map 0x40000000 0x48000000";

/// Runs the command with the words behind its name.
fn run(machine: &Machine, rest: &str) {
    let plain = rest.split_whitespace().any(|word| word == "plain");
    let style = screen::style(machine, plain);
    let live = rest.split_whitespace().any(|word| word == "live");
    let mut words = rest.split_whitespace().filter(|word| !["plain", "live"].contains(word));
    let words = (words.next(), words.next(), words.next());
    match words {
        (Some("slab"), Some(name), None) if !live => slabs::show(machine, name, style),
        (Some("vmalloc"), None, None) if !live => screen::page(machine, &areas::Areas { style }),
        (None, None, None) => show(machine, Physical { machine, style, range: None }, live),
        (Some(start), Some(end), None) => match (place(start), place(end)) {
            (Some(start), Some(end)) if start < end => {
                show(machine, Physical { machine, style, range: Some((start, end)) }, live);
            }
            _ => kprintln!("{USAGE}"),
        },
        _ => kprintln!("{USAGE}"),
    }
}

/// A physical address, as a number, `phys:0x…`, `pfn:N`, or a size from address zero on.
fn place(text: &str) -> Option<u64> {
    physical(text).map(PhysAddr::get).or_else(|| parse_size(text))
}

fn show(machine: &Machine, picture: Physical<'_>, live: bool) {
    if live {
        Live::begin(machine, "it").until_a_key(&picture);
    } else {
        screen::page(machine, &picture);
    }
}
