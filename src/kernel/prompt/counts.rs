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
        run: |machine, _| screen::list(machine, |f| writeln!(f, "{}", *global::memblock())),
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
        arguments: "[CACHE]",
        help: "the caches of the slab allocator, sizes in bytes; with a name, one of them in words",
        example: "slabinfo kmalloc-64",
        words: |before, offer| {
            if before.is_empty() {
                // It refuses where sleeping is not allowed, and offers nothing then.
                let _ = global::slab_allocator().for_each(|cache| offer(cache.name()));
            }
        },
        run: |machine, name| match name {
            "" => screen::page(machine, &global::slab_allocator().slabinfo()),
            name => cache(name),
        },
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

fn cache(name: &str) {
    let slabs = global::slab_allocator();
    let mut any = false;
    let shown = slabs.for_each(|cache| {
        if cache.name() != name {
            return;
        }
        any = true;
        let info = slabs.info(cache);
        kprintln!("{name}: objects of {} bytes, {} with what surrounds each", cache.object_size(), cache.size());
        kprintln!(
            "  {} objects in use of {}, in {} slabs of {} pages in all",
            info.active_objects,
            info.objects,
            info.slabs,
            info.pages
        );
        kprintln!("  {} allocations and {} frees by the fast path", info.fast_allocs, info.fast_frees);
        kprintln!("  {} allocations and {} frees by the slow path", info.slow_allocs, info.slow_frees);
    });
    match shown {
        Err(error) => kprintln!("{error}"),
        Ok(()) if !any => kprintln!("no cache {name:?}; slabinfo lists them, such as kmalloc-64"),
        Ok(()) => {}
    }
}
