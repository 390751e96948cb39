//! Commands that show how much of each part of memory there is and in use.
#![forbid(unsafe_code)]

use crate::global;
use crate::kernel::command::{Command, no_words};
use crate::kernel::{machine_account, screen};
use crate::kprintln;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "memmap",
        arguments: "",
        help: "the owner of each byte of RAM",
        example: "memmap",
        words: no_words,
        run: |machine, _| match machine_account::account(machine) {
            Ok(account) => screen::page(machine, &format_args!("{account}\n")),
            Err(error) => kprintln!("memory does not add up: {error}"),
        },
    },
    Command {
        name: "iomem",
        arguments: "",
        help: "RAM and devices by physical address",
        example: "iomem",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::iomem_resource().iomem()),
    },
    Command {
        name: "memblock",
        arguments: "",
        help: "the boot allocator's lists",
        example: "memblock",
        words: no_words,
        run: |_, _| kprintln!("{}", *global::memblock()),
    },
    Command {
        name: "buddyinfo",
        arguments: "",
        help: "free blocks by order",
        example: "buddyinfo",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::page_allocator().buddyinfo()),
    },
    Command {
        name: "zoneinfo",
        arguments: "",
        help: "all about every zone; counts in pages of 4 KiB",
        example: "zoneinfo",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::page_allocator().zoneinfo()),
    },
    Command {
        name: "meminfo",
        arguments: "",
        help: "memory in use and free",
        example: "meminfo",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::page_allocator().meminfo()),
    },
    Command {
        name: "pagetypeinfo",
        arguments: "",
        help: "free blocks by migrate type and order",
        example: "pagetypeinfo",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::page_allocator().pagetypeinfo()),
    },
    Command {
        name: "slabinfo",
        arguments: "",
        help: "the caches of the slab allocator; sizes in bytes",
        example: "slabinfo",
        words: no_words,
        run: |machine, _| screen::page(machine, &global::slab_allocator().slabinfo()),
    },
    Command {
        name: "vmallocinfo",
        arguments: "",
        help: "the areas of vmalloc with their requesters; sizes in bytes",
        example: "vmallocinfo",
        words: no_words,
        run: |machine, _| {
            screen::page(machine, &format_args!("{}{}", global::execmem_space().info(), global::vmap_space().info()));
        },
    },
];
