//! A kernel that is a `main`: boot, page tables, vectors and memory are Quarry's.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then `qemu-system-aarch64 -machine virt -cpu cortex-a72 -nic
//! none -nographic -kernel target/…/debug/own-main`.
#![no_std]
#![no_main]

use quarry::prelude::*;

struct Kernel;
// SAFETY: one CPU; the boot stub's final tables map all RAM at the usual offset.
unsafe impl quarry::Machine for Kernel {}
quarry::machine!(Kernel);
quarry::entry!(main);

fn main(booted: &'static quarry::boot::Booted) -> ! {
    // SAFETY: the registers of the board's serial port, which nobody else uses.
    let uart = unsafe { IoMem::<0x1000>::request(PhysAddr::new(0x900_0000), 0x1000, MemoryType::DeviceNGnRE, "uart") };
    let uart = uart.expect("the serial port is nobody's");
    let say = |text: &[u8]| text.iter().for_each(|byte| uart.write::<u32, 0>((*byte).into()));
    say(booted.tree.model().unwrap_or("no model").as_bytes());
    let number = KBox::new(42_u64, Gfp::KERNEL).expect("kmalloc");
    let table = VVec::<u64>::from_elem(*number, 1_000_000, Gfp::KERNEL).expect("vmalloc");
    assert!(table.iter().sum::<u64>() == 42_000_000);
    drop((number, table));
    quarry::check_all(&mut |_, sound| assert!(sound.is_ok()));
    say(b": kmalloc, vmalloc and a device\n");
    // SAFETY: PSCI's SYSTEM_OFF: the machine ends here.
    unsafe { core::arch::asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
