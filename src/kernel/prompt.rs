//! The prompt: a person at the serial line explores the memory of the machine.

use super::bootargs::parse_number;
use super::init::Machine;
use super::{console, faults, memory_map, power, tables};
use crate::addr::VirtAddr;
use crate::arch::aarch64::{cpu, probe};
use crate::instance;
use crate::mm::layout;
use crate::{kprint, kprintln};
use core::fmt;

/// The longest line that is read.
const LINE: usize = 128;

/// A command: its name, what follows it, what it does.
struct Command {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    run: fn(&Machine, &str),
}

const COMMANDS: [Command; 14] = [
    Command { name: "help", argument: "", help: "this list", run: |_, _| help() },
    Command { name: "memmap", argument: "", help: "who has each byte of RAM", run: |machine, _| memmap(machine) },
    Command {
        name: "layout",
        argument: "",
        help: "the kernel's address map",
        run: |_, _| kprint!("{}", layout::AddressMap),
    },
    Command { name: "ptdump", argument: "", help: "the live page tables", run: |_, _| ptdump() },
    Command { name: "what", argument: "ADDR", help: "how a virtual address is mapped", run: |_, rest| what(rest) },
    Command { name: "peek", argument: "ADDR", help: "the 8 bytes at a virtual address", run: |_, rest| peek(rest) },
    Command { name: "cpu", argument: "", help: "what this CPU can do", run: |machine, _| kprintln!("{}", machine.cpu) },
    Command {
        name: "memblock",
        argument: "",
        help: "the boot allocator's lists",
        run: |_, _| kprintln!("{}", *instance::memblock()),
    },
    Command {
        name: "buddyinfo",
        argument: "",
        help: "free blocks by order",
        run: |_, _| kprint!("{}", instance::page_allocator().buddyinfo()),
    },
    Command {
        name: "zoneinfo",
        argument: "",
        help: "all about every zone",
        run: |_, _| kprint!("{}", instance::page_allocator().zoneinfo()),
    },
    Command {
        name: "meminfo",
        argument: "",
        help: "memory in use and free",
        run: |_, _| kprint!("{}", instance::page_allocator().meminfo()),
    },
    Command {
        name: "pagetypeinfo",
        argument: "",
        help: "free blocks by migrate type",
        run: |_, _| kprint!("{}", instance::page_allocator().pagetypeinfo()),
    },
    Command {
        name: "faults",
        argument: "...",
        help: "which allocations are made to fail; SITE and settings change it",
        run: |_, rest| faults::command(rest),
    },
    Command { name: "quit", argument: "", help: "switch the machine off", run: |_, _| power::leave(power::SUCCESS) },
];

/// Reads and runs commands for ever.
pub(super) fn run(machine: &Machine) -> ! {
    kprintln!("\nType help for a list of commands.");
    let mut line = [0; LINE];
    loop {
        kprint!("quarry> ");
        let text = read_line(&mut line).trim();
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        if name.is_empty() {
            continue;
        }
        match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => (command.run)(machine, rest.trim()),
            None => kprintln!("no command {name:?}; try help"),
        }
    }
}

/// Reads a line with echo; backspace takes a character back. What does not fit is not echoed and lost.
fn read_line(line: &mut [u8; LINE]) -> &str {
    let mut length = 0;
    loop {
        let Some(byte) = console::read_byte() else {
            if !instance::idle() {
                cpu::relax();
            }
            continue;
        };
        match byte {
            b'\r' | b'\n' => {
                kprintln!();
                break;
            }
            0x08 | 0x7f if length > 0 => {
                length -= 1;
                kprint!("\x08 \x08");
            }
            b' '..=b'~' => {
                if let Some(place) = line.get_mut(length) {
                    *place = byte;
                    length += 1;
                    kprint!("{}", char::from(byte));
                }
            }
            _ => {}
        }
    }
    line.get(..length).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
}

fn help() {
    for command in &COMMANDS {
        kprintln!("  {:<12} {:<5} {}", command.name, command.argument, command.help);
    }
}

fn memmap(machine: &Machine) {
    match memory_map::account(machine) {
        Ok(account) => kprintln!("{account}"),
        Err(error) => kprintln!("memory does not add up: {error}"),
    }
}

/// The console as the writer that `ptdump` wants.
struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        kprint!("{text}");
        Ok(())
    }
}

fn ptdump() {
    if let Some(table) = instance::kernel_tables() {
        // The console takes everything.
        let _ = table.dump(&mut Out, &tables::markers());
    }
}

fn address(text: &str) -> Option<VirtAddr> {
    let addr = parse_number(text).map(VirtAddr::new);
    if addr.is_none() {
        kprintln!("an address is a number, such as 0xffff800080000000");
    }
    addr
}

fn what(text: &str) {
    let Some(addr) = address(text) else { return };
    match layout::region_of(addr) {
        Some(region) => kprintln!("{addr} is {:#x} bytes into the {}", addr.get() - region.start.get(), region.name),
        None => kprintln!("{addr} is in no region of the address map"),
    }
    match instance::kernel_tables().and_then(|table| table.translate(addr)) {
        Some(found) => kprintln!("{found:?}"),
        None => kprintln!("nothing is mapped there"),
    }
}

fn peek(text: &str) {
    let Some(addr) = address(text) else { return };
    match probe::load_u64(addr.align_down(8)) {
        Some(value) => kprintln!("{}: {value:#018x}", addr.align_down(8)),
        None => kprintln!("{addr} cannot be read"),
    }
}
