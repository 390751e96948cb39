//! Choice of the console's serial ports: the one that the device tree names, on a Pi the other one beside it where it is to be
//! had, and without a tree the board's known port.

use super::{console, input};
use crate::addr::{PAGE_SIZE, PhysRange};
use crate::arch::aarch64::probe;
use crate::board::{Board, FallbackUart};
use crate::boot::early_map::EarlyMap;
use crate::driver::uart::{Line, Uart, UartKind};
use crate::driver::watchdog::Watchdog;
use crate::fdt::{Node, Tree};

/// Opens the console that `tree` names; and on a Pi the PL011 as well if nothing else uses it, and the mini-UART if the firmware has
/// switched it on (`enable_uart=1`), whatever the tree says of it. Returns the number of open ports.
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
    let has_mini = console::ports().any(|port| port.kind() == UartKind::Mini);
    for uart in board.fallback_uarts().iter().filter(|uart| !has_mini && uart.enabled.is_some()) {
        if open_known(uart, early) {
            // A node that is disabled still says which interrupt the port has.
            let node = tree.nodes().find(|node| kind_of(*node) == Some(UartKind::Mini));
            input::remember(node.and_then(input::line_of));
            open += 1;
        }
    }
    open
}

/// The machine's watchdog, if it has one of a kind that the kernel knows.
pub(super) fn watchdog(tree: &Tree<'_>, early: &EarlyMap) -> Option<Watchdog> {
    let node = tree.nodes().find(|node| node.is_compatible(Watchdog::COMPATIBLE) && node.is_available())?;
    let registers = node.phys_ranges().next()?.ok()?;
    let registers = PhysRange::from_size(registers.start(), Watchdog::SIZE.min(registers.size()))?;
    let virt = early.device(registers).ok().filter(|virt| virt.size() == Watchdog::SIZE)?;
    if virt.start().get() == 0 || !virt.start().is_aligned(4) {
        return None;
    }
    // SAFETY: the registers are mapped as Device memory by the lines above, for good; nothing else drives them.
    Some(unsafe { Watchdog::new(virt.start()) })
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
        if open_known(uart, early) {
            input::remember(None);
        }
    }
}

/// Opens a port by its known address, if it is on.
fn open_known(uart: &FallbackUart, early: &EarlyMap) -> bool {
    let Some(page) = PhysRange::from_size(uart.registers.align_down(PAGE_SIZE), PAGE_SIZE) else { return false };
    let Some(kind) = UartKind::for_compatible(uart.compatible) else { return false };
    // A port that is off is not mapped for good.
    let Ok(look) = early.early_ioremap(page) else { return false };
    let on = is_on(uart, look.start());
    if early.early_iounmap(look.start()).is_err() || !on {
        return false;
    }
    let Ok(virt) = early.device(page) else { return false };
    let Some(base) = virt.start().checked_add(uart.registers.offset_in(PAGE_SIZE)) else { return false };
    // SAFETY: as in `open_at`.
    console::add_port(unsafe { Uart::open(kind, base, Line::default()) })
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
