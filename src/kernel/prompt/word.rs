//! `peek` and `poke`: a word of memory is read, or written after a question.

use super::memory::translate;
use crate::addr::VirtAddr;
use crate::arch::aarch64::probe;
use crate::kernel::address::address;
use crate::kernel::bootargs::parse_number;
use crate::kernel::command::{Command, addresses};
use crate::kernel::input;
use crate::kernel::whereabouts::Whereabouts;
use crate::{kprint, kprintln};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "peek",
        arguments: "ADDR",
        help: "the 8 bytes at a virtual address",
        example: "peek phys:0x40200000",
        words: addresses,
        run: |_, rest| peek(rest),
    },
    Command {
        name: "poke",
        arguments: "ADDR VALUE",
        help: "writes 8 bytes at a virtual address; asks first",
        example: "poke phys:0x48000000 0x1234",
        words: addresses,
        run: |_, rest| poke(rest),
    },
];

fn peek(text: &str) {
    let Some(addr) = address(text) else { return };
    match probe::load_u64(addr.align_down(8)) {
        Some(value) => show(addr.align_down(8), value),
        None => kprintln!("{addr} cannot be read"),
    }
}

fn show(addr: VirtAddr, value: u64) {
    kprintln!("{addr}: {value:#018x}");
}

fn poke(rest: &str) {
    let Some((place, value)) = rest.split_once(' ') else {
        return kprintln!("an address and a value, such as poke phys:0x48000000 0x1234");
    };
    let Some(value) = parse_number(value.trim()) else {
        return kprintln!("{value} is no value; a value is a number of up to 64 bits, such as 0x1234");
    };
    let Some(addr) = address(place) else { return };
    if !addr.is_aligned(8) {
        return kprintln!("{addr} is not a multiple of 8, as the address of 8 bytes is; {} is", addr.align_down(8));
    }
    let (Some(mapping), Some(old)) = (translate(addr), probe::load_u64(addr)) else {
        return kprintln!("not written: nothing can be read at {addr}, which is {}", Whereabouts(addr));
    };
    if !mapping.leaf.prot.is_writable() {
        return kprintln!("not written: {addr} is {}, which is mapped read-only", Whereabouts(addr));
    }
    kprintln!("{addr} is {}", Whereabouts(addr));
    kprint!("write {value:#018x} over {old:#018x}? Memory that is in use may be damaged. [y/N] ");
    // The line feed that some terminals send behind a carriage return is no answer.
    let answer = Some(input::read()).filter(|byte| *byte != b'\n').unwrap_or_else(input::read);
    let is_yes = matches!(answer, b'y' | b'Y');
    kprintln!("{}", if is_yes { "y" } else { "n" });
    if !is_yes {
        return kprintln!("nothing is written");
    }
    write(addr, value);
}

/// Writes the word.
fn write(addr: VirtAddr, value: u64) {
    // SAFETY: the person at the prompt has read the owner of the word, and has answered that nobody relies on it.
    match unsafe { probe::store_u64(addr, value) } {
        true => show(addr, value),
        false => kprintln!("not written: the store faulted"),
    }
}
