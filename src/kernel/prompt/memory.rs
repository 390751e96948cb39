//! Commands that look at an address, a frame, a table, or at everything at once.

use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use crate::arch::aarch64::probe;
use crate::gfp::ZoneType;
use crate::global;
use crate::kernel::bootargs::parse_number;
use crate::kernel::command::{Command, no_words};
use crate::kernel::machine::Machine;
use crate::kernel::whereabouts::Whereabouts;
use crate::kernel::{io, machine_account, process, wx_check};
use crate::mm::layout;
use crate::mm::page::PageMap;
use crate::mm::zone::PageHal;
use crate::{kprint, kprintln};
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
        arguments: "ADDR|PFN",
        help: "the use of a frame: by its address in the linear map, its number, or its physical address",
        example: "page 0x40200",
        words: no_words,
        run: page,
    },
    Command {
        name: "layout",
        arguments: "",
        help: "the kernel's address map",
        example: "layout",
        words: no_words,
        run: |_, _| kprint!("{}", layout::AddressMap),
    },
    Command {
        name: "ptdump",
        arguments: "",
        help: "the live page tables",
        example: "ptdump",
        words: no_words,
        run: |_, _| ptdump(),
    },
    Command {
        name: "what",
        arguments: "ADDR",
        help: "the object, area or region at a virtual address, and how it is mapped",
        example: "what 0xffff800080000000",
        words: no_words,
        run: |_, rest| what(rest),
    },
    Command {
        name: "peek",
        arguments: "ADDR",
        help: "the 8 bytes at a virtual address",
        example: "peek 0xffff800080000000",
        words: no_words,
        run: |_, rest| peek(rest),
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
