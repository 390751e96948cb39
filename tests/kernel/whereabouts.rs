//! Reports say what the address of a fault is, and which rule was broken: one test for each kind of address.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

extern crate alloc;

use core::arch::asm;
use core::fmt;
use quarry::addr::{Address, CpuId, PAGE_BYTES, PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::arch::aarch64::boot;
use quarry::gfp::Gfp;
use quarry::global::{self, KernelStack};
use quarry::kernel::cpus;
use quarry::kernel::whereabouts;
use quarry::ktest;
use quarry::mm::layout;

fn store(addr: VirtAddr) {
    // SAFETY: the store faults, which is what the tests are about, and ends the machine.
    unsafe { addr.as_ptr::<u8>().write_volatile(1) };
}

fn execute(addr: VirtAddr) {
    // SAFETY: the fetch faults and ends the machine.
    unsafe { asm!("blr {}", in(reg) addr.get(), clobber_abi("C")) };
}

ktest!(
    a_freed_area_is_named,
    report = "fault: data abort, write: translation fault",
    report = "fault: in the vmalloc region, where there is no area: it was freed, or never allocated",
    exit = 1
);
fn a_freed_area_is_named() {
    let area = global::vmalloc(4 * PAGE_BYTES).expect("memory").at();
    raw!(global::try_vfree(area)).expect("allocated above");
    global::vmap_space().purge_all();
    store(area);
}

ktest!(
    the_guard_page_of_an_area_is_named_with_its_owner,
    report = "fault: data abort, write: translation fault",
    report = "fault: guard page after vmalloc area 0x",
    report = "16384 bytes (4 pages), from tests/kernel/whereabouts.rs:",
    exit = 1
);
fn the_guard_page_of_an_area_is_named_with_its_owner() {
    let area = global::vmalloc(4 * PAGE_BYTES).expect("memory").at();
    store(VirtAddr::new(area.get() + 4 * PAGE_SIZE));
}

ktest!(
    execution_of_an_object_breaks_a_rule,
    report = "fault: instruction abort",
    report = "permission fault",
    report = "fault: in the linear map, of physical address 0x",
    report = " of the cache kmalloc-64 of 64 bytes, in use, byte 0 of it",
    report = "fault: instruction fetch from non-executable memory (W^X)",
    exit = 1
);
fn execution_of_an_object_breaks_a_rule() {
    let object = global::kmalloc(64, Gfp::KERNEL).expect("memory");
    execute(VirtAddr::of(object.as_ptr()));
}

ktest!(
    a_write_to_constants_breaks_a_rule,
    report = "permission fault, level 3",
    report = "fault: in the kernel's rodata",
    report = "fault: write to a read-only mapping",
    exit = 1
);
fn a_write_to_constants_breaks_a_rule() {
    store(boot::rodata_start());
}

ktest!(
    a_no_map_region_is_named,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb",
    report = "translation fault",
    report = ": the no-map region secure@49000000 ",
    report = "which is its owner's alone: no device's memory-region names it",
    exit = 1
);
fn a_no_map_region_is_named() {
    let tree = &quarry::kernel::init::machine().expect("booted").tree;
    let region =
        tree.reserved_memory().find(|region| region.is_enabled() && region.is_no_map() && region.ranges().count() > 0);
    let range = region.and_then(|region| region.ranges().flatten().next()).expect("the tree has one");
    store(layout::phys_to_virt(range.start()).expect("in reach"));
}

ktest!(
    a_no_map_region_that_was_placed_is_named_with_its_owner,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb",
    report = ": the no-map region scratch ",
    report = "which is its owner's alone: /dsp",
    exit = 1
);
fn a_no_map_region_that_was_placed_is_named_with_its_owner() {
    let regions = global::io_space().reserved().ranges();
    let scratch = regions.iter().find(|region| region.name == "scratch").expect("the tree has one");
    store(layout::phys_to_virt(scratch.range.start()).expect("in reach"));
}

ktest!(
    an_address_of_the_linear_map_without_ram_is_named,
    report = "translation fault",
    report = "fault: in the linear map, of physical address 0x10000000: no RAM, or none that the kernel may use",
    exit = 1
);
fn an_address_of_the_linear_map_without_ram_is_named() {
    store(layout::phys_to_virt(PhysAddr::new(0x1000_0000)).expect("in reach"));
}

ktest!(
    a_freed_object_that_is_written_to_is_named_with_who_had_it,
    machine = "append=slub_debug=U",
    report = "of the cache kmalloc-256 of 256 bytes, free, byte 8 of it, allocated in ",
    report = ", freed in "
);
fn a_freed_object_that_is_written_to_is_named_with_who_had_it() {
    let object = global::kmalloc(256, Gfp::KERNEL).expect("memory");
    // SAFETY: the test's own; only its address is used afterwards.
    unsafe { global::kfree(object.as_ptr()) };
    let machine = quarry::kernel::init::machine().expect("booted");
    quarry::kernel::prompt::execute(machine, &alloc::format!("what {:#x}", object.addr().get() + 8));
}

/// The first bytes of a text.
struct Text([u8; 160], usize);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (place, byte) in self.0.iter_mut().skip(self.1).zip(text.bytes()) {
            *place = byte;
        }
        self.1 += text.len();
        Ok(())
    }
}

/// Whether the description of `addr` has `what` in it.
fn says(addr: VirtAddr, what: &str) -> bool {
    let mut text = Text([0; 160], 0);
    whereabouts::describe(addr, &mut text).expect("a text takes everything");
    core::str::from_utf8(&text.0).expect("ASCII").contains(what)
}

ktest!(the_engine_of_the_reports_can_be_asked, machine = "smp=2");
fn the_engine_of_the_reports_can_be_asked() {
    let here = 0_u64;
    assert!(says(VirtAddr::of(&raw const here), "on the kernel stack of CPU 0"));
    assert!(says(VirtAddr::new(8), "near address zero"));
    assert!(says(boot::image_start(), "in the kernel's text"));
    let stack = KernelStack::new("asked").expect("memory");
    assert!(says(stack.range().start(), "on the stack of thread asked"));
    assert!(says(VirtAddr::new(stack.range().start().get() - 1), "in a guard page, below the stack of thread asked"));
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    assert!(says(global::page_address(page), ": Block, block of 1 pages"));
    raw!(global::try_free_page(page)).expect("allocated above");
    assert!(says(VirtAddr::new(0x10_0000), "in the user half"));
    let object = global::kmalloc(100, Gfp::KERNEL).expect("memory");
    let inside = VirtAddr::of(object.as_ptr()).checked_add(5).expect("no wrap");
    assert!(says(inside, "of the cache kmalloc-128 of 128 bytes, in use, byte 5 of it"));
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::kfree(object.as_ptr()) };
    assert!(says(inside, "of the cache kmalloc-128 of 128 bytes, free, byte 5 of it"));
    cpus::run_everywhere(&|cpu: CpuId| {
        let here = 0_u64;
        let whose = alloc::format!("on the kernel stack of CPU {}", cpu.get());
        assert!(cpu == CpuId::BOOT || says(VirtAddr::of(&raw const here), &whose));
    });
}
