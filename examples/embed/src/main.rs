//! A small kernel that is not Quarry's: it reads the device tree, keeps its memory in a memblock, builds page tables
//! with exact permissions, switches the MMU on, checks W^X, and then lives on `kmalloc`, by the heap of one CPU.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then
//! `qemu-system-aarch64 -machine virt -cpu cortex-a72 -nic none -nographic -kernel target/…/debug/embed`.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;

use core::arch::{asm, global_asm};
use core::cell::RefCell;
use core::fmt::{self, Write};
use core::ptr::NonNull;
use quarry::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::aarch64::mair::mair_el1;
use quarry::arch::aarch64::mmu::{El1Mmu, TableWindow};
use quarry::fdt::{self, Tree};
use quarry::gfp::Gfp;
use quarry::hal::frame::{FrameSource, NoFrame};
use quarry::hal::prot::Prot;
use quarry::hal::{BootMemory, Unreachable};
use quarry::mm::alloc::{Cache, KBox, KVec};
use quarry::mm::memblock::{Memblock, Surroundings, Window};
use quarry::mm::pgtable::{MapFlags, PageTable, Space, wx};
use quarry::mm::slab::SlabFlags;

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
    static __text: u8;
    static __rodata: u8;
    static __data: u8;
    static __end: u8;
}

/// QEMU's virt: where the tree lies for an ELF kernel, and the serial port.
const TREE: usize = 0x4000_0000;
const UART: u64 = 0x0900_0000;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the data register of the PL011 of QEMU's virt machine, mapped as it is throughout.
            unsafe { (UART as *mut u32).write_volatile(byte.into()) };
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "embed: {info}");
    power_off()
}

/// PSCI SYSTEM_OFF.
fn power_off() -> ! {
    // SAFETY: the machine ends here.
    unsafe { asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

/// Memory is reached at its physical address: the MMU is off, and later maps it there.
struct Identity;

// SAFETY: memory is reached at its physical address; frames of RAM are not at address zero on this machine.
unsafe impl TableWindow for Identity {
    unsafe fn window(&self, table: PhysAddr) -> NonNull<u64> {
        // SAFETY: RAM starts at 1 GiB.
        unsafe { NonNull::new_unchecked(table.get() as *mut u64) }
    }
}

impl BootMemory<'static> for Identity {
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable> {
        // SAFETY: memblock asks for free memory only.
        unsafe { (range.start().get() as *mut u8).write_bytes(0, range.size() as usize) };
        Ok(())
    }

    fn claim<T: Copy + 'static>(&mut self, range: PhysRange, fill: T) -> Result<&'static mut [T], Unreachable> {
        let (start, count) = (range.start().get() as *mut T, range.size() as usize / size_of::<T>());
        for index in 0..count {
            // SAFETY: memblock asks for free memory only, page aligned.
            unsafe { start.add(index).write(fill) };
        }
        // SAFETY: free memory that memblock gave, page aligned, of which each element has been written.
        Ok(unsafe { core::slice::from_raw_parts_mut(start, count) })
    }
}

/// Frames for tables, from this kernel's memblock.
struct Frames(RefCell<Memblock<'static, Identity>>);

// SAFETY: memblock gives pages that nobody else has.
unsafe impl FrameSource for Frames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        let page = self.0.borrow_mut().alloc_raw(PAGE_SIZE, PAGE_SIZE, Window::ANYWHERE);
        page.map(PhysRange::start).map_err(|_| NoFrame)
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        let page = PhysRange::from_size(table, PAGE_SIZE).unwrap_or_default();
        let _ = self.0.borrow_mut().free(page);
    }
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).unwrap_or_default()
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: QEMU leaves a tree of at most 1 MiB at the start of RAM, which nobody writes.
    let blob = unsafe { core::slice::from_raw_parts(TREE as *const u8, 1 << 20) };
    let size = fdt::totalsize(blob.first_chunk().unwrap()).unwrap();
    let tree = Tree::from_read_only(&blob[..size as usize]).unwrap();

    let place = |symbol: *const u8| symbol as u64;
    let (text, rodata) = (place(&raw const __text), place(&raw const __rodata));
    let (data, end) = (place(&raw const __data), place(&raw const __end));
    let mut memblock = Memblock::new(Identity);
    let around = Surroundings {
        image: range(text, end),
        boot_only: PhysRange::EMPTY,
        device_tree: range(TREE as u64, TREE as u64 + size),
        end: PhysAddr::new(1 << 40),
        span: 1 << 40,
        ..Surroundings::NONE
    };
    memblock.discover(&tree, &around).unwrap();
    let _ = writeln!(Serial, "embed: {} MiB of RAM", memblock.usable_size().unwrap() >> 20);

    let ram = memblock.start_of_dram().unwrap().get()..memblock.end_of_dram().unwrap().get();
    let frames = Frames(RefCell::new(memblock));
    // SAFETY: nothing else edits these tables; each frame is mapped once.
    let table = unsafe { PageTable::new(El1Mmu::with_window(Identity), &frames, Space::Identity) }.unwrap();
    for (part, prot) in [
        (range(UART, UART + PAGE_SIZE), Prot::KERNEL_DEVICE),
        (range(ram.start, text), Prot::KERNEL_RW),
        (range(text, rodata), Prot::KERNEL_RX),
        (range(rodata, data), Prot::KERNEL_RO),
        (range(data, ram.end), Prot::KERNEL_RW),
    ] {
        let virt = VirtRange::from_size(VirtAddr::new(part.start().get()), part.size()).unwrap();
        // SAFETY: the tables are in no use yet, and each address leads where it leads without them.
        unsafe { table.map(&frames, virt, part.start(), prot, MapFlags::empty()) }.unwrap();
    }
    let report = wx::check(&[&table]).unwrap();
    let census = table.check().unwrap();
    // SAFETY: the tables map everything in use where it is.
    unsafe { mmu_on(table.root()) };
    let _ = writeln!(Serial, "embed: MMU on, W^X ok: {} entries, {census:?}", report.entries);

    let _ = table;
    let memblock = frames.0.into_inner();
    machine::start(memblock.free_ranges().max_by_key(|range| range.size()).unwrap());
    // The first round also makes what the allocators keep for themselves.
    live();
    let before = machine::free_pages();
    live();
    assert_eq!(machine::free_pages(), before);
    let _ = writeln!(Serial, "embed: all memory is back");
    power_off()
}

struct Task {
    name: KBox<[u8], &'static machine::Slabs>,
    number: u32,
}

/// The daily work of a kernel, over `kmalloc`.
fn live() {
    let slabs = machine::slabs();
    let cache = Cache::create_in("task", SlabFlags::empty(), slabs).unwrap();
    let mut tasks = KVec::new_in(slabs);
    for number in 0..1000 {
        let mut name = KVec::new_in(slabs);
        name.extend_from_slice(b"task", Gfp::KERNEL).unwrap();
        let name = name.into_boxed_slice(Gfp::KERNEL).unwrap();
        tasks.push(cache.alloc(Task { name, number }, Gfp::KERNEL).unwrap(), Gfp::KERNEL).unwrap();
    }
    // Work of a crate that knows `alloc` alone.
    let sum: u32 = tasks.iter().filter(|task| &*task.name == b"task").map(|task| task.number).sum();
    let text = alloc::format!("{sum}");
    let boxed = KBox::new_in(text, Gfp::ATOMIC, slabs).unwrap();
    let _ = writeln!(Serial, "embed: kmalloc up, {} tasks, sum {boxed}", tasks.len());
    drop((tasks, boxed));
    cache.destroy().map_err(|(_, left)| left).unwrap();
    slabs.check().unwrap();
}

/// Switches MMU and caches on, with tables in TTBR0 for a 48-bit lower half.
unsafe fn mmu_on(root: PhysAddr) {
    let tcr: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
    // SAFETY: `root` maps the running code, its stack and its devices where they are: the caller has just filled it.
    unsafe {
        asm!(
            "msr mair_el1, {mair}", "msr tcr_el1, {tcr}", "msr ttbr0_el1, {root}", "isb",
            "tlbi vmalle1", "dsb nsh", "isb",
            "mrs {tcr}, sctlr_el1", "orr {tcr}, {tcr}, {on}", "msr sctlr_el1, {tcr}", "isb",
            mair = in(reg) mair_el1(false), tcr = inout(reg) tcr => _, root = in(reg) root.get(),
            on = in(reg) 1_u64 | 1 << 2 | 1 << 12,
        );
    }
}
