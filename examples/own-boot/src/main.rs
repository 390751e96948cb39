//! A kernel that is not Quarry's: its own boot, page tables, vectors, console and CPUs. Its memory is Quarry's: all that it
//! has to do for that is in `memory.rs`.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then `qemu-system-aarch64 -machine virt -cpu cortex-a72
//! -smp 4 -m 1G -nic none -nographic -kernel target/…/debug/own-boot`.
#![no_std]
#![no_main]

mod memory;

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use quarry::arch::aarch64::esr::Esr;
use quarry::arch::aarch64::exception::Exception;
use quarry::prelude::*;

global_asm!(include_str!("boot.S"));

const CPUS: u32 = 4;
/// QEMU's virt with 1 GiB: the RAM, the serial port, the real-time clock.
const RAM: (u64, u64) = (0x4000_0000, 1 << 30);
const UART: usize = 0x0900_0000;
const RTC: u64 = 0x0901_0000;

unsafe extern "C" {
    static __image: u8;
    static __image_end: u8;
    static secondary: u8;
}

fn ram() -> PhysRange {
    PhysRange::from_size(PhysAddr::new(RAM.0), RAM.1).unwrap_or_default()
}

fn image() -> PhysRange {
    let at = |symbol: *const u8| PhysAddr::new(symbol as u64);
    PhysRange::new(at(&raw const __image), at(&raw const __image_end)).unwrap_or_default()
}

pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the data register of the machine's PL011, mapped where it is.
            unsafe { (UART as *mut u32).write_volatile(byte.into()) };
        }
        Ok(())
    }
}

/// Set while a CPU prints, so that the others' lines do not come between its own.
static PRINTING: AtomicBool = AtomicBool::new(false);

fn print(line: fmt::Arguments<'_>) {
    while PRINTING.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let _ = writeln!(Console, "own-boot: {line}");
    PRINTING.store(false, Ordering::Release);
}

macro_rules! say {
    ($($what:tt)*) => { print(format_args!($($what)*)) };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Without the lock: the CPU that holds it may be this one.
    let _ = writeln!(Console, "own-boot: {info}");
    psci(0x8400_0008, [0; 3]);
    loop {}
}

/// Asks the firmware.
fn psci(function: u64, [one, two, three]: [u64; 3]) -> i64 {
    let answer;
    // SAFETY: a call of PSCI, which changes these registers and no memory of ours.
    unsafe { asm!("hvc #0", inout("x0") function => answer, in("x1") one, in("x2") two, in("x3") three) };
    answer
}

/// x0 to x30, as boot.S has stored them.
#[repr(C)]
struct Frame([u64; 31]);

fn elr() -> VirtAddr {
    let elr;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, elr_el1", out(reg) elr) };
    VirtAddr::new(elr)
}

/// Synchronous exceptions: first those that Quarry expects.
#[unsafe(no_mangle)]
extern "C" fn on_sync(frame: &mut Frame) -> VirtAddr {
    let (esr, far, spsr): (u64, u64, u64);
    // SAFETY: reads three registers.
    unsafe { asm!("mrs {}, esr_el1", "mrs {}, far_el1", "mrs {}, spsr_el1", out(reg) esr, out(reg) far, out(reg) spsr) };
    let mut at = elr();
    let (esr, far) = (Esr::new(esr), VirtAddr::new(far));
    if quarry::repair(&mut Exception { x: &mut frame.0, elr: &mut at, spsr, esr, far }) {
        return quarry::resume_at(at);
    }
    panic!("{esr} at {at}, address {far}");
}

/// Interrupts: there are none here; a kernel that has some handles them before it goes back.
#[unsafe(no_mangle)]
extern "C" fn on_irq(_: &mut Frame) -> VirtAddr {
    quarry::resume_at(elr())
}

#[unsafe(no_mangle)]
extern "C" fn fatal(_: &mut Frame) -> VirtAddr {
    panic!("an exception that nobody expects, at {}", elr());
}

define_per_cpu! {
    /// Tasks that each CPU has made.
    static MADE: AtomicU32 = AtomicU32::new(0);
}

static READY: AtomicU32 = AtomicU32::new(1);
static DONE: AtomicU32 = AtomicU32::new(0);

/// Every CPU comes here from boot.S, on its own stack, interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn main(cpu: u32) -> ! {
    if cpu != 0 {
        memory::join(cpu);
        READY.fetch_add(1, Ordering::Release);
        work(cpu);
        DONE.fetch_add(1, Ordering::Release);
        loop {
            quarry::idle();
        }
    }
    let up = memory::start(CPUS);
    say!("{} pages, vmalloc from {}", up.pages.managed, up.vmalloc.start());
    for other in 1..CPUS {
        let entry = &raw const secondary as u64;
        let told = psci(0xc400_0003, [other.into(), entry, other.into()]);
        assert_eq!(told, 0, "CPU {other} is started");
    }
    while READY.load(Ordering::Acquire) != CPUS {
        quarry::idle();
    }
    // SAFETY: the registers of the machine's clock, which nobody else uses.
    let clock = unsafe { IoMem::<0x1000>::request(PhysAddr::new(RTC), 0x1000, MemoryType::DeviceNGnRE, "rtc") };
    say!("the clock has {:#x} for its part number", clock.map(|clock| clock.read::<u32, 0xfe0>()).unwrap_or_default());
    // RAM has its own address here, so that is where it is remapped to.
    let page = Pages::new(Gfp::KERNEL, Order::ZERO).expect("a page");
    let phys = page_to_phys(page.page());
    assert_eq!(memremap(phys, PAGE_SIZE, MemoryType::WriteBack).map(Address::at), Ok(VirtAddr::new(phys.get())));
    work(0);
    while DONE.load(Ordering::Acquire) != CPUS - 1 {
        quarry::idle();
    }
    quarry::check_all(&mut |part, sound| {
        if let Err(broken) = sound {
            panic!("{part}: {broken}");
        }
    });
    let made: u32 = MADE.iter().map(|(_, made)| made.load(Ordering::Relaxed)).sum();
    assert_eq!(made, CPUS * 50 * 200);
    say!("{CPUS} CPUs, all invariants hold");
    psci(0x8400_0008, [0; 3]);
    loop {}
}

struct Task {
    name: KBox<[u8]>,
    number: u32,
}

/// The daily work of a kernel: objects, large buffers, pages, per-CPU counters.
fn work(cpu: u32) {
    let counts = PerCpu::new(Gfp::KERNEL, |_| AtomicU32::new(0)).expect("per-CPU memory");
    for round in 0..50 {
        let mut tasks = KVec::new();
        for number in 0..200 {
            let mut name = KVec::new();
            name.extend_from_slice(b"a task", Gfp::KERNEL).expect("memory");
            let name = name.into_boxed_slice(Gfp::KERNEL).expect("memory");
            tasks.push(KBox::new(Task { name, number }, Gfp::KERNEL).expect("memory"), Gfp::KERNEL).expect("memory");
            counts.with_this_cpu(|count| count.fetch_add(1, Ordering::Relaxed));
            this_cpu_inc(&MADE);
        }
        let sum: u32 = tasks.iter().filter(|task| &*task.name == b"a task").map(|task| task.number).sum();
        assert_eq!(sum, 199 * 100);
        let table = VVec::<u64>::from_elem(round, 100_000, Gfp::KERNEL).expect("addresses and pages");
        assert!(table.iter().all(|entry| *entry == round));
        let pages = Pages::new(Gfp::KERNEL | Gfp::ZERO, Order::ZERO).expect("a page");
        assert_eq!(virt_to_phys(pages.address()), Some(page_to_phys(pages.page())));
    }
    let counted = counts.with_this_cpu(|count| count.load(Ordering::Relaxed));
    say!("CPU {cpu} has made {counted} tasks");
}
