//! The prompt: a person at the serial line explores the memory of the machine.

use super::bootargs::parse_number;
use super::line::{LineReader, Refusal, Step};
use super::machine::Machine;
use super::whereabouts::Whereabouts;
use super::{dma, errata, fault_injection, input, io, machine_account, power, process, record, reserved, wx_check};
use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use crate::arch::aarch64::probe;
use crate::gfp::ZoneType;
use crate::global;
use crate::mm::layout;
use crate::mm::page::PageMap;
use crate::mm::zone::PageHal;
use crate::{kprint, kprintln};
use core::fmt;

/// A command: its name, its arguments, its effect.
struct Command {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    run: fn(&Machine, &str),
}

const COMMANDS: [Command; 32] = [
    Command { name: "help", argument: "", help: "this list", run: |_, _| help() },
    Command {
        name: "check",
        argument: "",
        help: "every invariant of the memory subsystem, and the sum of all RAM",
        run: |machine, _| check(machine),
    },
    Command {
        name: "page",
        argument: "ADDR|PFN",
        help: "what a frame is used for: its address in the linear map, its number, or its physical address",
        run: |machine, rest| page(machine, rest),
    },
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
    Command {
        name: "ioremap",
        argument: "PHYS SIZE",
        help: "maps device memory; a third word names the memory type",
        run: |_, rest| io::map(rest),
    },
    Command { name: "iounmap", argument: "ADDR", help: "unmaps it", run: |_, rest| io::unmap(rest) },
    Command { name: "iomaps", argument: "", help: "the device memory that is mapped", run: |_, _| io::list() },
    Command {
        name: "regions",
        argument: "",
        help: "what the device tree sets aside, and for which devices",
        run: |_, _| reserved::list(),
    },
    Command {
        name: "ioregion",
        argument: "NODE",
        help: "maps a device's memory-region; further words: which one, and the memory type",
        run: |machine, rest| reserved::map(machine, rest),
    },
    Command {
        name: "iomem",
        argument: "",
        help: "what is at which physical address",
        run: |_, _| kprint!("{}", global::iomem_resource().iomem()),
    },
    Command {
        name: "readl",
        argument: "ADDR",
        help: "the register at a virtual address",
        run: |_, rest| io::read(rest),
    },
    Command { name: "cpu", argument: "", help: "what this CPU can do", run: |machine, _| kprintln!("{}", machine.cpu) },
    Command {
        name: "errata",
        argument: "",
        help: "what the CPUs cannot do, and what is done",
        run: |_, _| errata::list(),
    },
    Command {
        name: "memblock",
        argument: "",
        help: "the boot allocator's lists",
        run: |_, _| kprintln!("{}", *global::memblock()),
    },
    Command {
        name: "buddyinfo",
        argument: "",
        help: "free blocks by order",
        run: |_, _| kprint!("{}", global::page_allocator().buddyinfo()),
    },
    Command {
        name: "zoneinfo",
        argument: "",
        help: "all about every zone",
        run: |_, _| kprint!("{}", global::page_allocator().zoneinfo()),
    },
    Command {
        name: "meminfo",
        argument: "",
        help: "memory in use and free",
        run: |_, _| kprint!("{}", global::page_allocator().meminfo()),
    },
    Command {
        name: "pagetypeinfo",
        argument: "",
        help: "free blocks by migrate type",
        run: |_, _| kprint!("{}", global::page_allocator().pagetypeinfo()),
    },
    Command {
        name: "slabinfo",
        argument: "",
        help: "the caches of the slab allocator",
        run: |_, _| kprint!("{}", global::slab_allocator().slabinfo()),
    },
    Command {
        name: "vmallocinfo",
        argument: "",
        help: "the areas of vmalloc, and who asked for them",
        run: |_, _| kprint!("{}{}", global::execmem_space().info(), global::vmap_space().info()),
    },
    Command {
        name: "dma",
        argument: "[CPUS PAGES]",
        help: "bounce slots and uncached memory; with numbers, how long mapping such buffers takes there",
        run: |_, rest| dma::command(rest),
    },
    Command {
        name: "faults",
        argument: "...",
        help: "which allocations are made to fail; SITE and settings change it",
        run: |_, rest| fault_injection::command(rest),
    },
    Command {
        name: "exec",
        argument: "NAME ...",
        help: "runs a program at EL0, behind the prompt with & at the end; without a name lists them",
        run: |_, rest| process::exec(rest),
    },
    Command { name: "ps", argument: "", help: "the processes; sizes in KiB", run: |_, _| process::ps() },
    Command { name: "maps", argument: "PID", help: "the areas of a process", run: |_, rest| process::maps(rest) },
    Command { name: "kill", argument: "PID", help: "ends a process", run: |_, rest| process::kill_command(rest) },
    Command {
        name: "record",
        argument: "[ROUNDS]",
        help: "a stress on all CPUs, recorded as lines of JSON for make report",
        run: |_, rest| record::command(rest),
    },
    Command { name: "quit", argument: "", help: "switch the machine off", run: |_, _| power::leave(power::SUCCESS) },
];

/// Reads and runs commands for ever.
pub(super) fn run(machine: &Machine) -> ! {
    kprintln!("\nType help for a list of commands.");
    let mut line = LineReader::new();
    // Drops bytes that came while nobody read, at other speeds, or before the line was plugged in.
    input::take_lost();
    loop {
        kprint!("quarry> ");
        match read_line(&mut line) {
            Ok(text) => execute(machine, text),
            Err(refusal) => kprintln!("{refusal}"),
        }
        line.clear();
    }
}

/// Runs one line, as it is typed. Boot CPU, at the prompt or from a test that imitates it.
pub fn execute(machine: &Machine, line: &str) {
    let text = line.trim();
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(machine, rest.trim()),
        None if name.is_empty() => {}
        None => kprintln!("no command {name:?}; try help"),
    }
}

/// Reads a line with echo.
fn read_line(line: &mut LineReader) -> Result<&str, Refusal> {
    loop {
        match line.feed(input::read()) {
            Step::Nothing => {}
            Step::Echo(byte) => kprint!("{}", char::from(byte)),
            Step::Erase(count) => (0..count).for_each(|_| kprint!("\x08 \x08")),
            Step::Bell => kprint!("\x07"),
            Step::Cancelled => {
                kprint!("^C\nquarry> ");
                input::take_lost();
            }
            Step::Complete => {
                kprintln!();
                return match input::take_lost() {
                    0 => Ok(line.text()),
                    lost => Err(Refusal::Lost(lost)),
                };
            }
            Step::Refused(refusal) => {
                kprintln!();
                return Err(refusal);
            }
        }
    }
}

fn help() {
    for command in &COMMANDS {
        kprintln!("  {:<12} {:<8} {}", command.name, command.argument, command.help);
    }
}

fn memmap(machine: &Machine) {
    match machine_account::account(machine) {
        Ok(account) => kprintln!("{account}"),
        Err(error) => kprintln!("memory does not add up: {error}"),
    }
}

/// Runs every checker, each part separately: a broken part does not hide the next.
fn check(machine: &Machine) {
    let mut tell = |part: &'static str, result: Result<(), &dyn fmt::Display>| match result {
        Ok(()) => kprintln!("{part}: ok"),
        Err(error) => kprintln!("{part}: {error}"),
    };
    global::check_all(&mut tell);
    global::check_part("W^X", wx_check::check_tables(&machine.boot).map(drop), &mut tell);
    global::check_part("processes", process::check(), &mut tell);
    global::check_part("sum of all RAM", machine_account::account(machine).map(drop), &mut tell);
}

/// Prints a frame's descriptor; for memory that was in use before there were descriptors, its owner.
fn page(machine: &Machine, text: &str) {
    let Some(number) = parse_number(text) else {
        return kprintln!("an address or a frame number, such as 0xffff000040200000, 0x40200000 or 0x40200");
    };
    let is_ram = |phys| global::pfn_to_page(Pfn::containing(phys)).is_some();
    let phys = match global::virt_to_phys(VirtAddr::new(number)) {
        Some(phys) => phys,
        None if number < layout::LINEAR_MAP_SIZE >> PAGE_SHIFT && is_ram(Pfn::new(number).start()) => {
            Pfn::new(number).start()
        }
        // No frame has this number, and there is RAM at this physical address: so the argument is an address.
        None if number < layout::LINEAR_MAP_SIZE && is_ram(PhysAddr::new(number)) => {
            kprintln!("{number:#x} taken for a physical address: RAM has no frame of that number");
            PhysAddr::new(number)
        }
        None if number < layout::LINEAR_MAP_SIZE >> PAGE_SHIFT => Pfn::new(number).start(),
        None => return kprintln!("{number:#x} is no address in the linear map or of RAM, and no frame number"),
    };
    let pfn = Pfn::containing(phys);
    let Some(page) = global::pfn_to_page(pfn) else { return kprintln!("{pfn:?} has no descriptor: no RAM is near") };
    let pages = global::page_allocator();
    match pages.head(page) {
        Ok((head, state)) => {
            let zone = global::page_zone(page).map_or("no zone", ZoneType::name);
            kprintln!("{pfn:?} at {}, zone {zone}: {state:?}", pfn.start());
            let (first, owner) = (global::page_to_pfn(head), pages.hal().map().get(head).owner());
            kprintln!(
                "  block of {} pages from {first:?}, {}, owner {owner:#x}",
                state.order().pages(),
                state.memory_type().name()
            );
        }
        Err(error) => kprintln!("{pfn:?}: {error}"),
    }
    match machine_account::account(machine) {
        Ok(account) => {
            let row = account.map.rows().iter().find(|row| row.range.contains(pfn.start()));
            row.map_or_else(|| kprintln!("  no RAM"), |row| kprintln!("{row}"));
        }
        Err(error) => kprintln!("memory does not add up: {error}"),
    }
}

/// The console as the writer for `ptdump`.
struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        kprint!("{text}");
        Ok(())
    }
}

fn ptdump() {
    if let Some(table) = global::kernel_tables() {
        // The console accepts everything.
        let _ = table.dump(&mut Out, &crate::boot::tables::markers());
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
    kprintln!("{addr} is {}", Whereabouts(addr));
    match global::kernel_tables().and_then(|table| table.translate(addr)) {
        Some(found) => kprintln!("{found:?}"),
        None => kprintln!("nothing is mapped there"),
    }
    io::what(addr);
}

fn peek(text: &str) {
    let Some(addr) = address(text) else { return };
    match probe::load_u64(addr.align_down(8)) {
        Some(value) => kprintln!("{}: {value:#018x}", addr.align_down(8)),
        None => kprintln!("{addr} cannot be read"),
    }
}
