//! QEMU's virt machine: serial port, interrupt controller (GICv2), timer, firmware, and the way out. And the lock of this
//! kernel.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

const UART: usize = 0x0900_0000;
const GICD: usize = 0x0800_0000;
const GICC: usize = 0x0801_0000;

/// The interrupt of the virtual timer.
pub const TIMER: u32 = 27;
/// The interrupt that asks a CPU to answer another one.
pub const ANSWER: u32 = 0;
/// The interrupt that tells a CPU that a thread is ready.
pub const READY: u32 = 1;
/// Ticks of the scheduler a second.
const HZ: u64 = 2000;

fn write(register: usize, value: u32) {
    // SAFETY: a register of the machine's devices, mapped where it is; nobody else uses them.
    unsafe { (register as *mut u32).write_volatile(value) };
}

fn read(register: usize) -> u32 {
    // SAFETY: a register of the machine's devices, mapped where it is; nobody else uses them.
    unsafe { (register as *const u32).read_volatile() }
}

/// A spin lock for handlers too: interrupts are masked while it is held.
pub struct Locked<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one CPU at a time reaches the value.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Any context that does not hold it.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        masked(|| {
            while self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
                // SAFETY: a hint.
                unsafe { asm!("yield", options(nomem, nostack)) };
            }
            // SAFETY: the lock is held until the next line.
            let answer = f(unsafe { &mut *self.value.get() });
            self.taken.store(false, Ordering::Release);
            answer
        })
    }
}

/// Runs `f` with interrupts masked.
pub fn masked<R>(f: impl FnOnce() -> R) -> R {
    let daif: u64;
    // SAFETY: masks interrupts.
    unsafe { asm!("mrs {}, daif", "msr daifset, #2", out(reg) daif) };
    let answer = f();
    // SAFETY: restores what was before.
    unsafe { asm!("msr daif, {}", in(reg) daif) };
    answer
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| write(UART, byte.into()));
        Ok(())
    }
}

static CONSOLE: Locked<Console> = Locked::new(Console);

/// Prints a line.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = CONSOLE.with(|console| writeln!(console, "threads: {text}"));
}

/// Leaves the emulator with a status, by semihosting.
pub fn leave(status: u64) -> ! {
    // The reason "application exit", and the status.
    let block = [0x2_0026_u64, status];
    loop {
        // SAFETY: SYS_EXIT reads the block and does not return.
        unsafe { asm!("hlt #0xf000", in("x0") 0x18, in("x1") block.as_ptr()) };
    }
}

/// Starts another CPU at the symbol `secondary`, by PSCI.
pub fn start_cpu(cpu: u64) {
    unsafe extern "C" {
        static secondary: u8;
    }
    let answer: i64;
    let entry = &raw const secondary;
    // SAFETY: CPU_ON, which changes these registers and no memory of ours.
    unsafe { asm!("hvc #0", inout("x0") 0xc400_0003_u64 => answer, in("x1") cpu, in("x2") entry, in("x3") cpu) };
    assert_eq!(answer, 0, "CPU {cpu} is started");
}

/// Lets this CPU's interrupts come, once they are not masked, and starts its timer.
pub fn start_interrupts() {
    write(GICD, 1);
    write(GICD + 0x100, 1 << TIMER | 0xffff);
    write(GICC + 4, 0xff);
    write(GICC, 1);
    start_tick();
}

/// The next tick begins.
pub fn start_tick() {
    // SAFETY: the registers of this CPU's timer.
    unsafe {
        asm!(
            "mrs {0}, cntfrq_el0",
            "udiv {0}, {0}, {1}",
            "msr cntv_tval_el0, {0}",
            "mov {0}, #1",
            "msr cntv_ctl_el0, {0}",
            "isb",
            out(reg) _,
            in(reg) HZ,
        );
    }
}

/// The interrupt that has come, until [`end_interrupt`].
pub fn take_interrupt() -> u32 {
    read(GICC + 0xc)
}

pub fn end_interrupt(taken: u32) {
    write(GICC + 0x10, taken);
}

/// Sends an interrupt to the CPUs whose bits are set. Its handler sees all earlier stores.
pub fn interrupt(cpus: u32, number: u32) {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst") };
    write(GICD + 0xf00, cpus << 16 | number);
}
