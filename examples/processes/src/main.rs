//! A kernel with processes that is not Quarry's: its threads and its system calls are its own, the memory of its processes is
//! Quarry's. `memory.rs` is all that it does for that; `sched.rs` has its threads, `programs.rs` what runs at EL0.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then `qemu-system-aarch64 -machine virt -cpu cortex-a72 -nic
//! none -nographic -kernel target/…/debug/processes`.
#![no_std]
#![no_main]

mod memory;
mod programs;
mod sched;

use core::cell::OnceCell;
use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use memory::{End, Process};
use quarry::mm::user::SpaceFault;
use quarry::prelude::*;

quarry::entry!(main);

/// The registers of the board's serial port.
struct Uart(OnceCell<IoMem<0x1000>>);

// SAFETY: one CPU, and no interrupt handler prints.
unsafe impl Sync for Uart {}

static UART: Uart = Uart(OnceCell::new());

impl Write for &Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let uart = self.0.get().ok_or(core::fmt::Error)?;
        text.bytes().for_each(|byte| uart.write::<u32, 0>(byte.into()));
        Ok(())
    }
}

/// Prints a line.
pub fn print(text: Arguments<'_>) {
    let _ = writeln!(&UART, "{text}");
}

macro_rules! say {
    ($($what:tt)*) => { $crate::print(format_args!($($what)*)) };
}
pub(crate) use say;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("{info}");
    leave()
}

fn leave() -> ! {
    // SAFETY: PSCI's SYSTEM_OFF: the machine ends here.
    unsafe { core::arch::asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

/// The thread of the process that greets: what it exits with.
static GREETED: AtomicU64 = AtomicU64::new(0);
/// Areas of that process that another thread has read, while it made more.
static READ: AtomicU32 = AtomicU32::new(0);
/// Processes that were killed.
static KILLED: AtomicU32 = AtomicU32::new(0);

fn greet(process: &Process) {
    match process.run(programs::greeter()) {
        End::Exited(value) => GREETED.store(value, Ordering::Relaxed),
        End::Fault(fault) => panic!("{fault}"),
    }
}

/// Reads the areas slowly: a thread that changes them meanwhile waits for this one, which has to get its turn.
fn read_areas(process: &Process) {
    for _ in 0..4 {
        let read = process.space.with_map(|map| {
            map.areas().for_each(|_| {
                READ.fetch_add(1, Ordering::Relaxed);
                sched::yield_now();
            });
        });
        read.unwrap_or_else(|busy| panic!("{busy:?}"));
        sched::yield_now();
    }
}

fn leak(process: &Process) {
    match process.run(programs::leaker()) {
        End::Fault(SpaceFault::Killed | SpaceFault::OutOfMemory) => KILLED.fetch_add(1, Ordering::Relaxed),
        end => panic!("{end:?}"),
    };
}

fn reach_for_the_kernel(process: &Process) {
    match process.run(programs::reacher()) {
        End::Fault(SpaceFault::Denied(at)) => say!("a process that reads {:#x} ends, and the kernel goes on", at.get()),
        end => panic!("{end:?}"),
    }
}

fn main(_: &'static quarry::boot::Booted) -> ! {
    // SAFETY: the registers of the board's serial port, which nobody else uses.
    let uart = unsafe { IoMem::request(PhysAddr::new(0x900_0000), 0x1000, MemoryType::DeviceNGnRE, "uart") };
    UART.0.get_or_init(|| uart.unwrap_or_else(|_| leave()));
    memory::start();
    // Caches keep what the first round has made.
    round();
    let free = free_pages();
    round();
    assert!(free_pages() == free, "{} of {free}", free_pages());
    quarry::check_all(&mut |part, sound| assert!(sound.is_ok(), "{part}"));
    say!("the largest process was killed when memory was used up; every page is back, all invariants hold");
    leave()
}

/// Three processes and their four threads, from the first to the last.
fn round() {
    {
        let [one, two, three] = [(); 3].map(|()| Process::new());
        let _stacks = [
            sched::spawn("greeter", greet, &one),
            sched::spawn("reader", read_areas, &one),
            sched::spawn("leaker", leak, &two),
            sched::spawn("reacher", reach_for_the_kernel, &three),
        ];
        while sched::yield_now() {}
        for process in [&one, &two, &three] {
            process.space.check().unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
    sched::forget_all();
    let [greeted, read] = [GREETED.swap(0, Ordering::Relaxed), READ.swap(0, Ordering::Relaxed).into()];
    assert!(greeted == 8 && read >= 12 && KILLED.swap(0, Ordering::Relaxed) == 1, "{greeted} {read}");
    let blocked = sched::blocked();
    say!("memory mapped {greeted} times while {read} areas were read: threads waited {blocked} times for each other");
    assert!(blocked != 0);
}

/// Free pages, with all that is kept for later given back.
fn free_pages() -> u64 {
    quarry::drain_kernel_stacks();
    quarry::slab_allocator().shrink_all();
    quarry::drain_all_pages();
    quarry::nr_free_pages()
}
