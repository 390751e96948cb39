//! Firmware on one CPU, its MMU off, with 1 MiB for its heap: what `alloc` needs, and `kmalloc` beside it.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then `qemu-system-aarch64 -machine virt -cpu cortex-a72 -nic
//! none -nographic -kernel target/…/debug/firmware`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use quarry::single::{Heap, OneCpu, Pages};

global_asm!(
    ".section .text.start, \"ax\"",
    ".global start",
    "start: adrp x1, __stack_top",
    "add x1, x1, :lo12:__stack_top",
    "mov sp, x1",
    "mov x29, xzr",
    "bl main",
    "b .",
);

unsafe extern "C" {
    static __statics: u8;
    static __statics_end: u8;
}

/// The memory that the firmware sets aside for its heap.
const MEMORY: usize = 0x4100_0000;
const SIZE: usize = 1 << 20;

static PAGES: Pages = Pages::new(OneCpu::new());
#[global_allocator]
static HEAP: Heap = Heap::new(&PAGES);

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the data register of the PL011 of QEMU's virt machine.
            unsafe { (0x0900_0000 as *mut u32).write_volatile(byte.into()) };
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "firmware: {info}");
    power_off()
}

/// PSCI SYSTEM_OFF.
fn power_off() -> ! {
    // SAFETY: the machine ends here.
    unsafe { asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: nobody else uses the memory, and there is one CPU without interrupts.
    unsafe { HEAP.start(MEMORY as *mut u8, SIZE) }.expect("1 MiB is enough");
    let before = free_bytes();
    let mut variables = BTreeMap::new();
    for number in 0..1000_u32 {
        variables.insert(format!("variable-{number}"), number);
    }
    let sum: u32 = variables.values().sum();
    drop(variables);
    let statics = &raw const __statics_end as usize - &raw const __statics as usize;
    let left = free_bytes();
    let _ = writeln!(Serial, "firmware: sum {sum}, {} KiB of statics", statics.div_ceil(1024));
    let _ = writeln!(Serial, "firmware: {} of {} KiB free, {} again", before >> 10, SIZE >> 10, left >> 10);
    power_off()
}

fn free_bytes() -> u64 {
    HEAP.slabs().shrink_all();
    PAGES.drain_all();
    PAGES.free_page_count() << 12
}
