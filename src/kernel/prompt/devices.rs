//! Commands about device memory and DMA.
#![forbid(unsafe_code)]

use crate::kernel::command::{Command, no_words};
use crate::kernel::line::offer_shown;
use crate::kernel::machine::machine;
use crate::kernel::{dma, io, reserved, screen};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "ioremap",
        arguments: "PHYS SIZE [TYPE]",
        help: "maps device memory of SIZE bytes; TYPE is the memory type",
        example: "ioremap 0x9000000 0x1000 ngnre",
        words: |before, offer| {
            if before.split_whitespace().count() == 2 {
                io::TYPES.iter().for_each(|name| offer(name));
            }
        },
        run: |_, rest| io::map(rest),
    },
    Command {
        name: "iounmap",
        arguments: "ADDR",
        help: "unmaps device memory, by the address that ioremap printed",
        example: "iounmap 0xffff800080010000",
        words: no_words,
        run: |_, rest| io::unmap(rest),
    },
    Command {
        name: "iomaps",
        arguments: "",
        help: "the device memory that is mapped",
        example: "iomaps",
        words: no_words,
        run: |machine, _| screen::list(machine, io::list),
    },
    Command {
        name: "readl",
        arguments: "ADDR",
        help: "the register of 4 bytes at a virtual address",
        example: "readl 0xffff800080010018",
        words: no_words,
        run: |_, rest| io::read(rest),
    },
    Command {
        name: "regions",
        arguments: "",
        help: "the memory that the device tree sets aside, and the devices it is for",
        example: "regions",
        words: no_words,
        run: |machine, _| screen::list(machine, reserved::list),
    },
    Command {
        name: "ioregion",
        arguments: "NODE [INDEX] [TYPE]",
        help: "maps a device's memory-region",
        example: "ioregion /soc/gpu 0 wc",
        words: owners,
        run: |machine, rest| reserved::map(machine, rest),
    },
    Command {
        name: "dma",
        arguments: "[CPUS PAGES]",
        help: "bounce slots and uncached memory; with numbers, how long mapping such buffers takes there",
        example: "dma 1 16",
        words: no_words,
        run: |_, rest| dma::command(rest),
    },
];

/// The devices that have a memory-region; behind it and its number, the memory types.
fn owners(before: &str, offer: &mut dyn FnMut(&str)) {
    match before.split_whitespace().count() {
        0 => {
            let nodes = machine().into_iter().flat_map(|machine| machine.tree.nodes());
            nodes.filter(|node| node.has("memory-region")).for_each(|node| offer_shown(node.path(), offer));
        }
        2 => io::TYPES.iter().for_each(|name| offer(name)),
        _ => {}
    }
}
