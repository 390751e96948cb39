//! A kernel with threads that is not Quarry's: round robin, preemptive, on four CPUs. Its memory is Quarry's, and so are the
//! stacks of its threads. `memory.rs` is all that it does for that; `sched.rs` is the scheduler, with its one call at each
//! switch; `phases.rs` shows that it works, and `soak.rs` that it goes on doing so.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then `qemu-system-aarch64 -machine virt -cpu cortex-a72
//! -smp 4 -semihosting -nic none -nographic -kernel target/…/debug/threads`.
#![no_std]
#![no_main]

mod board;
mod cache;
mod memory;
mod phases;
mod sched;
mod soak;

use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use quarry::prelude::*;
use sched::CPUS;

global_asm!(include_str!("boot.S"));

/// Of QEMU's 128 MiB: as much as a soak can use up.
const RAM: (u64, u64) = (0x4000_0000, 40 << 20);

macro_rules! say {
    ($($what:tt)*) => { $crate::board::print(format_args!($($what)*)) };
}
pub(crate) use say;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("{info}");
    board::leave(1)
}

fn ram() -> PhysRange {
    PhysRange::from_size(PhysAddr::new(RAM.0), RAM.1).unwrap_or_default()
}

fn image() -> PhysRange {
    unsafe extern "C" {
        static __image: u8;
        static __image_end: u8;
    }
    let at = |symbol: *const u8| PhysAddr::new(symbol as u64);
    PhysRange::new(at(&raw const __image), at(&raw const __image_end)).unwrap_or_default()
}

static CPUS_UP: AtomicUsize = AtomicUsize::new(1);

/// Every CPU comes here from boot.S, on its own stack, interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn main(cpu: u32) -> ! {
    if cpu != 0 {
        memory::join(cpu);
        CPUS_UP.fetch_add(1, Ordering::Release);
        sched::idle();
    }
    let up = memory::start(CPUS as u32, ram(), image());
    (1..CPUS as u64).for_each(board::start_cpu);
    while CPUS_UP.load(Ordering::Acquire) != CPUS {
        quarry::answer_requests();
    }
    say!("{} pages on {CPUS} CPUs", up.pages.managed);
    sched::spawn("reclaimer", memory::reclaimer, 0);
    sched::spawn("main", phases::run, 0);
    sched::idle();
}
