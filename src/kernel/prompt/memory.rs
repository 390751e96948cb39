//! Commands that look at an address, a frame, a table, or at everything at once.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use crate::gfp::ZoneType;
use crate::global;
use crate::kernel::address::{Typed, address};
use crate::kernel::command::{Command, addresses, no_words};
use crate::kernel::machine::Machine;
use crate::kernel::whereabouts::Whereabouts;
use crate::kernel::{io, machine_account, process, screen, wx_check};
use crate::kprintln;
use crate::mm::layout;
use crate::mm::page::PageMap;
use crate::mm::pgtable::Translation;
use crate::mm::zone::PageHal;
use core::fmt;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "check",
        arguments: "",
        help: "every invariant of the memory subsystem, and the sum of all RAM",
        example: "check",
        words: no_words,
        run: |machine, _| check(machine),
    },
    Command {
        name: "page",
        arguments: "ADDR",
        help: "the use of a frame; of a number alone, also the frame's number or physical address",
        example: "page pfn:0x40200",
        words: addresses,
        run: page,
    },
    Command {
        name: "layout",
        arguments: "",
        help: "the kernel's address map",
        example: "layout",
        words: no_words,
        run: |machine, _| screen::page(machine, &layout::AddressMap),
    },
    Command {
        name: "ptdump",
        arguments: "",
        help: "the live page tables",
        example: "ptdump",
        words: no_words,
        run: |machine, _| screen::list(machine, ptdump),
    },
    Command {
        name: "what",
        arguments: "ADDR",
        help: "the object, area or region at a virtual address, and how it is mapped",
        example: "what exception_vectors",
        words: addresses,
        run: |_, rest| what(rest),
    },
];

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

/// The place that a person means who asks for a frame: of a number alone, an address of the linear map, a frame's number, or a physical
/// address, whichever there is.
fn place(text: &str) -> Option<PhysAddr> {
    let number = match Typed::parse(text) {
        Ok(Typed::Virtual(addr)) => addr.get(),
        Ok(Typed::Physical(phys)) => return Some(phys),
        Ok(Typed::Frame(pfn)) => return Some(pfn.start()),
        Ok(Typed::Symbol(..)) => address(text)?.get(),
        Err(_) => {
            kprintln!("an address or a frame number, such as 0xffff000040200000, phys:0x40200000 or pfn:0x40200");
            return None;
        }
    };
    let is_ram = |phys| global::pfn_to_page(Pfn::containing(phys)).is_some();
    // Text, data and areas have addresses outside of the linear map, and frames all the same.
    let mapped = || translate(VirtAddr::new(number));
    match global::virt_to_phys(VirtAddr::new(number)) {
        Some(phys) => Some(phys),
        None if number < layout::LINEAR_MAP_SIZE >> PAGE_SHIFT && is_ram(Pfn::new(number).start()) => {
            Some(Pfn::new(number).start())
        }
        // No frame has this number, and there is RAM at this physical address: so the argument is an address.
        None if number < layout::LINEAR_MAP_SIZE && is_ram(PhysAddr::new(number)) => {
            kprintln!("{number:#x} taken for a physical address: RAM has no frame of that number");
            Some(PhysAddr::new(number))
        }
        None if number < layout::LINEAR_MAP_SIZE >> PAGE_SHIFT => Some(Pfn::new(number).start()),
        None => {
            let phys = mapped().map(|found| found.phys);
            if phys.is_none() {
                kprintln!("{number:#x} is no address in the linear map or of RAM, and no frame number");
            }
            phys
        }
    }
}

/// Prints a frame's descriptor; for memory that was in use before there were descriptors, its owner.
fn page(machine: &Machine, text: &str) {
    let Some(phys) = place(text) else { return };
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

fn ptdump(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    global::kernel_tables().map_or(Ok(()), |table| table.dump(f, &crate::boot::tables::markers()))
}

/// The kernel's mapping of an address.
pub(super) fn translate(addr: VirtAddr) -> Option<Translation> {
    global::kernel_tables()?.translate(addr)
}

fn what(text: &str) {
    let Some(addr) = address(text) else { return };
    kprintln!("{addr} is {}", Whereabouts(addr));
    match translate(addr) {
        Some(found) => kprintln!("{found:?}"),
        None => kprintln!("nothing is mapped there"),
    }
    io::what(addr);
}
