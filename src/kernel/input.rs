//! Typed input: from the receive interrupts of the console's ports to the reader, which sleeps meanwhile.

use super::interrupts::InterruptError;
use super::ring::Ring;
use super::{console, interrupts, process, tick};
use crate::arch::aarch64::{cpu, irq};
use crate::driver::gic::{IntId, Trigger};
use crate::driver::timer;
use crate::driver::uart::{Received, Uart};
use crate::fdt::Node;
use crate::global;
use crate::sync::Once;
use ::log::warn;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes that may wait for the reader: several pasted lines.
const WAITING: usize = 1024;

/// Ctrl-C.
const CANCEL: u8 = 3;
/// How many of the bytes that wait to be read are Ctrl-C.
static CANCELS: AtomicU32 = AtomicU32::new(0);

static RING: Ring<WAITING> = Ring::new();
/// The interrupt of each port of the console, in the order of the ports.
static LINES: [Once<Option<(IntId, Trigger)>, cpu::Relax>; console::MAX_PORTS] =
    [const { Once::new() }; console::MAX_PORTS];
/// Set when a port has no usable interrupt, so that all are polled.
static POLLED: AtomicBool = AtomicBool::new(false);

/// The interrupt that a port's node names, if the controller is a GIC.
pub(super) fn line_of(node: Node<'_, '_>) -> Option<(IntId, Trigger)> {
    let line = node.interrupts().next()?.ok()?;
    let intid = line.gic_intid().and_then(IntId::new)?;
    Some((intid, Trigger::from_flags(line.gic_flags().unwrap_or(4))))
}

/// Records the interrupt of the console's next port. Boot CPU, once for each port, in the order of [`console::add_port`].
pub(super) fn remember(line: Option<(IntId, Trigger)>) {
    if let Some(place) = LINES.iter().find(|place| place.get().is_none()) {
        place.call_once(|| line);
    }
}

/// Lets the console's ports interrupt this CPU when something is typed. Boot CPU, once, when interrupts work. A port that
/// cannot interrupt is polled, which keeps this CPU busy; a line says so.
pub(super) fn init() {
    let ports = console::ports().zip(&LINES);
    for (port, line) in ports {
        let line = line.get().copied().flatten();
        let Some((intid, trigger)) = line else {
            warn!("console: the {} has no interrupt, so its input is polled", port.kind());
            POLLED.store(true, Ordering::Relaxed);
            continue;
        };
        match interrupts::request_quiet(intid, trigger, on_input) {
            Ok(()) => port.interrupt_on_input(),
            Err(error) => {
                warn!("console: {error}; the {}'s input is polled", port.kind());
                POLLED.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Takes the bytes that have arrived at every port. Boot CPU alone, interrupts masked: the one writer of the ring.
fn collect() {
    for port in console::ports() {
        drain(port);
    }
}

fn drain(port: Uart) {
    // At most one FIFO's contents, so that a port which is never empty keeps nobody here.
    for _ in 0..64 {
        match port.receive() {
            Received::Nothing => break,
            Received::Byte(byte) => {
                if byte == CANCEL {
                    CANCELS.fetch_add(1, Ordering::Relaxed);
                }
                RING.push(byte);
            }
            Received::Damaged => RING.lose(1),
            Received::Overrun(byte) => {
                RING.lose(1);
                byte.into_iter().for_each(|byte| RING.push(byte));
            }
        }
    }
}

fn on_input(_: IntId) {
    collect();
}

/// The next byte typed. Sleeps until there is one, and does the background work meanwhile: processes have their turns. Boot CPU; called by the prompt
/// alone.
pub(super) fn read() -> u8 {
    loop {
        if let Some(byte) = take() {
            return byte;
        }
        if global::idle() || process::run_here() {
            continue;
        }
        sleep();
    }
}

/// As [`read`], until the counter has passed `deadline`: `None` then.
pub(super) fn read_before(deadline: u64) -> Option<u8> {
    // Whether the tick is ours, which ends the sleep.
    let mut ticks = false;
    let byte = loop {
        if let Some(byte) = take() {
            break Some(byte);
        }
        let Some(left) = deadline.checked_sub(timer::ticks()).filter(|left| *left != 0) else { break None };
        if global::idle() {
            continue;
        }
        if process::run_here() {
            // Processes have a tick of their own, and stop the tick when they have ended.
            ticks = false;
            continue;
        }
        if !ticks {
            match tick::start(left, || {}) {
                Ok(()) => ticks = true,
                Err(InterruptError::Taken(_)) => {}
                Err(_) => {
                    cpu::relax();
                    continue;
                }
            }
        }
        sleep();
    };
    if ticks {
        // It was started above.
        let _ = tick::stop();
    }
    byte
}

/// The byte that waits the longest.
fn take() -> Option<u8> {
    if POLLED.load(Ordering::Relaxed) {
        let _masked = irq::local_irq_save();
        collect();
    }
    let byte = RING.pop()?;
    if byte == CANCEL {
        let _masked = irq::local_irq_save();
        // None is left in an empty ring, even if one was lost on its way there.
        let left = if RING.is_empty() { 0 } else { CANCELS.load(Ordering::Relaxed).saturating_sub(1) };
        CANCELS.store(left, Ordering::Relaxed);
    }
    Some(byte)
}

/// Sleeps until an interrupt comes, or not at all where input is polled.
fn sleep() {
    if POLLED.load(Ordering::Relaxed) {
        return cpu::relax();
    }
    irq::local_irq_disable();
    // An interrupt from here on is pending, and ends the sleep although it is masked (Arm ARM D1.6.2, WFI).
    if RING.is_empty() {
        global::asleep(cpu::wait_for_interrupt);
    }
    irq::local_irq_enable();
}

/// Whether something was typed that nobody has read. Boot CPU.
pub(super) fn is_waiting() -> bool {
    if POLLED.load(Ordering::Relaxed) {
        let _masked = irq::local_irq_save();
        collect();
    }
    !RING.is_empty()
}

/// Whether Ctrl-C is among the bytes that wait to be read. Boot CPU.
pub(super) fn is_cancelled() -> bool {
    if POLLED.load(Ordering::Relaxed) {
        let _masked = irq::local_irq_save();
        collect();
    }
    CANCELS.load(Ordering::Relaxed) != 0
}

/// Number of typed characters lost since the last call.
pub(super) fn take_lost() -> u64 {
    RING.take_lost()
}
