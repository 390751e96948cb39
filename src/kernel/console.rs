//! The console: up to two serial ports that get the same text, and the lock that keeps lines whole.
//!
//! Text that comes before the first port is known waits in a small buffer. The lock masks interrupts and may be taken again by
//! its owner: an exception while a line is half out can still report, and never deadlocks with itself. Text is made before the
//! lock is taken, a line at a time: formatting may take other locks to read state, and the holder of one of those may be about
//! to log.

use crate::arch::aarch64::{cpu, irq};
use crate::driver::timer;
use crate::driver::uart::Uart;
use crate::hal::patience;
use crate::sync::Once;
use crate::sync::{Watched, class};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Ports that the console can hold.
pub(crate) const MAX_PORTS: usize = 2;
/// Bytes of early text that are kept.
const EARLY_BYTES: usize = 4096;
/// Bytes of a line that are printed without interruption.
const LINE_BYTES: usize = 256;

static PORTS: [PortSlot; MAX_PORTS] =
    [const { PortSlot { port: Once::new(), stuck: AtomicBool::new(false) } }; MAX_PORTS];
static OWNER: AtomicU32 = AtomicU32::new(FREE);
static EARLY: EarlyText = EarlyText { bytes: [const { AtomicU8::new(0) }; EARLY_BYTES], written: AtomicUsize::new(0) };

/// A port, if there is one.
struct PortSlot {
    port: Once<Uart, cpu::Relax>,
    /// Set when the last byte found no room in time. Until a byte does, nobody waits for the port: a dead port costs one pause.
    stuck: AtomicBool,
}

/// [`OWNER`] while nobody writes; otherwise it is the writer's CPU number plus one.
const FREE: u32 = 0;

/// Adds a port and hands it the early text if it is the first. Returns whether there was room.
///
/// Called while the boot CPU is alone; takes no memory.
pub fn add_port(port: Uart) -> bool {
    let _lock = Lock::acquire(Patience::Endless);
    let Some((index, slot)) = PORTS.iter().enumerate().find(|(_, slot)| slot.port.get().is_none()) else {
        return false;
    };
    slot.port.call_once(|| port);
    if index == 0 {
        EARLY.replay(slot);
    }
    true
}

/// The ports of the console, in the order in which they were added.
pub fn ports() -> impl Iterator<Item = Uart> {
    PORTS.iter().filter_map(|slot| slot.port.get().copied())
}

/// Writes `text`, each line of up to 256 bytes in one piece. Any context; waits for another CPU that is writing.
pub fn print(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_BYTES], used: 0 };
    // The writer returns no error of its own; one from a `Display` impl has cut the text, which shows.
    let _ = line.write_fmt(text);
    line.send();
}

/// The console as a writer: each piece is printed for itself.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print(format_args!("{text}"));
        Ok(())
    }
}

/// As [`print`], for reports: waits at most a tenth of a second for another CPU, then writes all the same. If formatting fails,
/// the part formatted so far is out.
pub fn print_urgent(text: fmt::Arguments<'_>) {
    let _lock = Lock::acquire(Patience::TenthOfSecond);
    let _ = Writer.write_fmt(text);
}

/// Waits until everything written has left the ports, within each port's patience.
pub fn flush() {
    ports().for_each(Uart::flush);
}

/// Writes formatted text to the console, in one piece.
#[macro_export]
macro_rules! kprint {
    ($($arg:tt)*) => { $crate::kernel::console::print(core::format_args!($($arg)*)) };
}

/// Writes a line of formatted text to the console, in one piece.
#[macro_export]
macro_rules! kprintln {
    () => { $crate::kprint!("\n") };
    ($($arg:tt)*) => { $crate::kprint!("{}\n", core::format_args!($($arg)*)) };
}

/// Text that waits for the end of its line.
struct Line {
    bytes: [u8; LINE_BYTES],
    used: usize,
}

impl Line {
    fn send(&mut self) {
        let _lock = Lock::acquire(Patience::Endless);
        let used = core::mem::take(&mut self.used);
        Writer.send(self.bytes.get(..used).unwrap_or_default());
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut used = self.used;
        for &byte in text.as_bytes() {
            if let Some(place) = self.bytes.get_mut(used) {
                *place = byte;
                used += 1;
            }
            if byte == b'\n' || used == LINE_BYTES {
                self.used = used;
                self.send();
                used = 0;
            }
        }
        self.used = used;
        Ok(())
    }
}

/// Patience of a wait for the console.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Endless,
    TenthOfSecond,
}

/// Ownership of the console for writing, with interrupts masked.
struct Lock {
    /// Whether this took the lock; false if this CPU held it already or patience ran out.
    outermost: bool,
    _held: Option<Watched<class::Console, cpu::Relax>>,
    _irqs: irq::IrqGuard,
}

impl Lock {
    fn acquire(patience: Patience) -> Self {
        let irqs = irq::local_irq_save();
        let me = cpu::current().get() + 1;
        let mut limit = patience::Patience::new(timer::ticks(), timer::frequency() / 10);
        if OWNER.load(Ordering::Relaxed) == me {
            return Self { outermost: false, _held: None, _irqs: irqs };
        }
        let held = Watched::taking((&raw const OWNER).addr());
        loop {
            // Acquire pairs with the release in `drop`: a line begins after the line before has ended.
            match OWNER.compare_exchange(FREE, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Self { outermost: true, _held: Some(held), _irqs: irqs },
                Err(_) => {
                    let is_over = !limit.is_left(timer::ticks());
                    let limited = patience == Patience::TenthOfSecond || cpu::waits_no_more();
                    if limited && is_over {
                        return Self { outermost: false, _held: Some(held), _irqs: irqs };
                    }
                    cpu::relax();
                }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.outermost {
            OWNER.store(FREE, Ordering::Release);
        }
    }
}

/// Every port, or the early text; under the lock.
struct Writer;

impl Writer {
    fn send(&self, text: &[u8]) {
        let mut any = false;
        for slot in PORTS.iter().filter(|slot| slot.port.get().is_some()) {
            any = true;
            slot.send(text);
        }
        if !any {
            EARLY.append(text);
        }
    }
}

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

impl PortSlot {
    /// Sends `text` with the carriage returns that terminals want.
    fn send(&self, text: &[u8]) {
        let Some(port) = self.port.get() else { return };
        for &byte in text {
            if byte == b'\n' {
                self.put(*port, b'\r');
            }
            self.put(*port, byte);
        }
    }

    fn put(&self, port: Uart, byte: u8) {
        let stuck = self.stuck.load(Ordering::Relaxed);
        let sent = if stuck { port.try_put(byte) } else { port.put(byte) };
        if sent == stuck {
            self.stuck.store(!sent, Ordering::Relaxed);
        }
    }
}

/// Text written before there was a port; bytes that do not fit are counted. Guarded by the console's lock; where a report has
/// lost patience with that lock, bytes can get mixed and nothing worse.
struct EarlyText {
    bytes: [AtomicU8; EARLY_BYTES],
    written: AtomicUsize,
}

impl EarlyText {
    fn append(&self, text: &[u8]) {
        let used = self.written.fetch_add(text.len(), Ordering::Relaxed);
        for (slot, &byte) in self.bytes.iter().skip(used).zip(text) {
            slot.store(byte, Ordering::Relaxed);
        }
    }

    fn replay(&self, slot: &PortSlot) {
        let used = self.written.load(Ordering::Relaxed);
        for byte in self.bytes.iter().take(used) {
            slot.send(&[byte.load(Ordering::Relaxed)]);
        }
        if used > EARLY_BYTES {
            let _ = write!(Direct(slot), "\n[{} bytes of early text lost]\n", used - EARLY_BYTES);
        }
    }
}

/// One port as a writer, for text that the other ports do not get.
struct Direct<'a>(&'a PortSlot);

impl Write for Direct<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send(text.as_bytes());
        Ok(())
    }
}
