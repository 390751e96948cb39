//! Commands that allocate memory for the person at the prompt, who keeps it until `free` or `quit`.
#![forbid(unsafe_code)]

use crate::addr::{Bytes, Order, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::global::{self, KVec, Pages, SpinLock, VVec};
use crate::kernel::address::{Typed, address};
use crate::kernel::bootargs::parse_number;
use crate::kernel::command::Command;
use crate::kernel::machine::Machine;
use crate::kernel::whereabouts::Whereabouts;
use crate::kernel::{gfp_names, screen};
use crate::kprintln;
use crate::mm::slab::SlabAllocError;
use core::fmt;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "kmalloc",
        arguments: "BYTES [GFP]",
        help: "allocates an object and keeps it until free or quit",
        example: "kmalloc 100 KERNEL|ZERO",
        words: flags,
        run: |_, rest| kmalloc(rest),
    },
    Command {
        name: "vmalloc",
        arguments: "BYTES [GFP]",
        help: "allocates an area and keeps it until free or quit",
        example: "vmalloc 65536",
        words: flags,
        run: |_, rest| vmalloc(rest),
    },
    Command {
        name: "alloc",
        arguments: "ORDER [GFP]",
        help: "allocates 2^ORDER pages of 4 KiB and keeps them until free or quit",
        example: "alloc 3",
        words: flags,
        run: |_, rest| alloc(rest),
    },
    Command {
        name: "free",
        arguments: "[HANDLE | ADDR | all]",
        help: "frees memory that a command allocated; without an argument lists it",
        example: "free 1",
        words: |before, offer| {
            if before.is_empty() {
                offer("all");
            }
        },
        run: free,
    },
];

/// Allocations that can be kept at a time.
const KEPT: usize = 64;

static ALLOCATIONS: SpinLock<Allocations> = global::spin_lock(Allocations { places: [const { None }; KEPT], last: 0 });

/// Memory of one of the three allocators. Dropped, it is freed.
pub(super) enum Memory {
    Object(KVec<u8>),
    Area(VVec<u8>),
    Block(Pages),
}

/// An allocation with the number that names it.
struct Allocation {
    handle: u64,
    memory: Memory,
}

struct Allocations {
    places: [Option<Allocation>; KEPT],
    last: u64,
}

impl Memory {
    fn start(&self) -> VirtAddr {
        match self {
            Self::Object(object) => VirtAddr::of(object.as_slice().as_ptr()),
            Self::Area(area) => VirtAddr::of(area.as_slice().as_ptr()),
            Self::Block(block) => block.address(),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "kmalloc of {} bytes", object.capacity()),
            Self::Area(area) => write!(f, "vmalloc of {} bytes", area.capacity()),
            Self::Block(block) => {
                write!(f, "order {}, {}", block.order().get(), Bytes(block.order().bytes()))
            }
        }
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {}", self.handle, self.memory, self.memory.start())
    }
}

/// Keeps memory, and says under which number. Memory that finds no place is freed, which is said.
fn keep(memory: Memory) {
    let start = memory.start();
    let kept = {
        let mut allocations = ALLOCATIONS.lock();
        allocations.last += 1;
        let handle = allocations.last;
        let allocation = Allocation { handle, memory };
        match allocations.places.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(allocation);
                Ok(handle)
            }
            None => Err(allocation),
        }
    };
    match kept {
        Ok(handle) => {
            kprintln!("{handle}: {start}, {}", Whereabouts(start));
        }
        Err(_) => kprintln!("{KEPT} allocations are kept already, so this one was freed again; free one first"),
    }
}

/// Takes an allocation out that fits, so that it is freed outside of the lock.
fn take(fits: impl Fn(&Allocation) -> bool) -> Option<Allocation> {
    let mut allocations = ALLOCATIONS.lock();
    allocations.places.iter_mut().find(|place| place.as_ref().is_some_and(&fits)).and_then(Option::take)
}

/// The two arguments, a number and flags. Says on the console what would be right if they are not.
fn number_and_flags(rest: &str, unit: &str, example: &str) -> Option<(u64, Gfp)> {
    let (number, flags) = rest.split_once(' ').unwrap_or((rest, ""));
    let Some(number) = parse_number(number) else {
        kprintln!("{unit}, such as {example}");
        return None;
    };
    match gfp_names::parse(flags.trim()) {
        Ok(flags) => Some((number, flags)),
        Err(error) => {
            kprintln!("{error}");
            None
        }
    }
}

/// Allocates a number of bytes and keeps them.
fn keep_bytes(rest: &str, example: &str, allocate: fn(usize, Gfp) -> Result<Memory, SlabAllocError>) {
    match number_and_flags(rest, "a number of bytes, then allocation flags", example) {
        None => {}
        Some((0, _)) => kprintln!("an allocation of no bytes has no memory; at least 1 byte"),
        Some((bytes, gfp)) => match allocate(to_usize(bytes), gfp) {
            Ok(memory) => keep(memory),
            Err(error) => kprintln!("{error}"),
        },
    }
}

fn kmalloc(rest: &str) {
    keep_bytes(rest, "kmalloc 100 KERNEL|ZERO", |bytes, gfp| KVec::with_capacity(bytes, gfp).map(Memory::Object));
}

fn vmalloc(rest: &str) {
    keep_bytes(rest, "vmalloc 65536", |bytes, gfp| VVec::with_capacity(bytes, gfp).map(Memory::Area));
}

fn alloc(rest: &str) {
    let Some((order, gfp)) = number_and_flags(rest, "an order, then allocation flags", "alloc 3 KERNEL") else {
        return;
    };
    let Some(order) = u8::try_from(order).ok().and_then(Order::new) else {
        return kprintln!(
            "an order from 0 to {}: {} to {}",
            Order::MAX.get(),
            Bytes(Order::ZERO.bytes()),
            Bytes(Order::MAX.bytes())
        );
    };
    match Pages::new(gfp, order) {
        Ok(block) => keep(Memory::Block(block)),
        Err(error) => kprintln!("{error}"),
    }
}

fn free(machine: &Machine, rest: &str) {
    let taken = match (rest, parse_number(rest)) {
        ("", _) => return screen::list(machine, list),
        ("all", _) => return free_all("freed "),
        (_, Some(number)) => take(|one| one.handle == number || one.memory.start() == VirtAddr::new(number)),
        _ => match Typed::parse(rest).ok().and_then(|_| address(rest)) {
            Some(addr) => take(|one| one.memory.start() == addr),
            None => {
                return kprintln!("the number or the address of an allocation, such as free 1; free alone lists them");
            }
        },
    };
    match taken {
        Some(allocation) => kprintln!("freed {allocation}"),
        None => kprintln!("nothing is kept under {rest}; free alone lists what is"),
    }
}

fn list(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut any = false;
    for place in 0..KEPT {
        // A line at a time: printing waits for the console, and looking for the place takes other locks.
        let line =
            ALLOCATIONS.lock().places.get(place).and_then(Option::as_ref).map(|one| (one.handle, one.memory.start()));
        if let Some((handle, start)) = line {
            any = true;
            writeln!(f, "{handle}: {start}, {}", Whereabouts(start))?;
        }
    }
    if any { Ok(()) } else { writeln!(f, "nothing is kept; kmalloc, vmalloc and alloc allocate") }
}

/// Frees everything, and says so for each.
pub(super) fn free_all(word: &str) {
    while let Some(allocation) = take(|_| true) {
        kprintln!("{word}{allocation}");
    }
}

fn flags(before: &str, offer: &mut dyn FnMut(&str)) {
    if before.contains(' ') {
        gfp_names::names().for_each(offer);
    }
}
