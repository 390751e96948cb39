//! Choice of the console's serial ports: the one that the device tree names, the Pi's PL011 beside it, and without a tree the
//! board's known port.

use super::{console, input};
use crate::addr::{PAGE_SIZE, PhysRange};
use crate::arch::aarch64::probe;
use crate::board::{Board, FallbackUart};
use crate::boot::early_map::EarlyMap;
use crate::driver::uart::{Line, Uart, UartKind};
use crate::fdt::{Node, Tree};

/// Opens the console that `tree` names, and on a Pi the PL011 as well if nothing else uses it. Returns the number of open
/// ports.
pub(super) fn open(tree: &Tree<'_>, board: Board, early: &EarlyMap) -> usize {
    let stdout = tree.chosen().and_then(|chosen| chosen.stdout());
    let mut open = 0;
    if let Some(stdout) = stdout {
        open += usize::from(open_node(stdout.node, stdout.options, early));
    }
    if board == Board::RaspberryPi4 || open == 0 {
        let free = |node: &Node<'_, '_>| {
            node.is_available() && node.children().next().is_none() && stdout.is_none_or(|stdout| stdout.node != *node)
        };
        for node in tree.nodes().filter(|node| kind_of(*node) == Some(UartKind::Pl011)).filter(free).take(1) {
            open += usize::from(open_node(node, None, early));
        }
    }
    open
}

/// The driver for a node. A child, on a serial port, is a device that is wired to it, such as Bluetooth.
fn kind_of(node: Node<'_, '_>) -> Option<UartKind> {
    node.compatible().find_map(UartKind::for_compatible)
}

fn open_node(node: Node<'_, '_>, options: Option<&str>, early: &EarlyMap) -> bool {
    let Some(kind) = kind_of(node) else { return false };
    let Some(Ok(registers)) = node.phys_ranges().next() else { return false };
    let mut line = Line::default();
    if let Some(baud) = options.and_then(leading_number) {
        line.baud = baud;
    }
    open_at(kind, registers, line, early) && {
        input::remember(input::line_of(node));
        true
    }
}

fn open_at(kind: UartKind, registers: PhysRange, line: Line, early: &EarlyMap) -> bool {
    let Ok(virt) = early.device(registers) else { return false };
    if virt.start().get() == 0 || !virt.start().is_aligned(4) {
        return false;
    }
    // SAFETY: the registers are mapped as Device memory by the line above, for good: the final tables take the fixmap's
    // mappings over. This file is the only one that opens ports.
    console::add_port(unsafe { Uart::open(kind, virt.start(), line) })
}

/// Opens the port that the board is known for, so that last words are heard even without a device tree, or with a tree of that
/// board that names no console. On any other board these addresses have another use.
pub(super) fn open_fallback(board: Board, early: &EarlyMap) {
    for uart in board.fallback_uarts() {
        let Some(page) = PhysRange::from_size(uart.registers.align_down(PAGE_SIZE), PAGE_SIZE) else { continue };
        let Some(kind) = UartKind::for_compatible(uart.compatible) else { continue };
        // A port that is off is not mapped for good.
        let Ok(look) = early.early_ioremap(page) else { continue };
        let on = is_on(uart, look.start());
        if early.early_iounmap(look.start()).is_err() || !on {
            continue;
        }
        let Ok(virt) = early.device(page) else { continue };
        let Some(base) = virt.start().checked_add(uart.registers.offset_in(PAGE_SIZE)) else { continue };
        // SAFETY: as in `open_at`.
        if console::add_port(unsafe { Uart::open(kind, base, Line::default()) }) {
            input::remember(None);
        }
    }
}

/// Whether the status word, if there is one, says that the port is on.
fn is_on(uart: &FallbackUart, page: crate::addr::VirtAddr) -> bool {
    uart.enabled.is_none_or(|(offset, mask)| {
        let word = page.checked_add(offset).and_then(probe::load_u32);
        word.is_some_and(|word| word & mask != 0)
    })
}

/// The number that `text` starts with: the baud rate of `115200n8`.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..digits)?.parse().ok()
}
