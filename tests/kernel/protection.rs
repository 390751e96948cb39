//! Protections of the kernel from user pages, and those that each CPU has switched on.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{Readable, TTBR0_EL1, Writeable};
use core::arch::asm;
use quarry::addr::{CpuId, PAGE_SIZE, VirtAddr, VirtRange};
use quarry::arch::aarch64::esr::Access as AccessKind;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::protect::{self, Barriers};
use quarry::gfp::Gfp;
use quarry::global::{self, BuddyFrames};
use quarry::hal::mmu::Asid;
use quarry::hal::prot::{Access, Prot};
use quarry::kernel::cpus;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::pgtable::{MapFlags, PageTable, Space};

// Behaviour 400. BTI is not switched on anywhere: see docs/behaviours.md.
ktest!(
    every_cpu_has_switched_on_what_it_has,
    machine a72 = "smp=2",
    machine neoverse_n1 = "smp=2 cpu=neoverse-n1 gic=3",
    machine max = "smp=2 cpu=max gic=3",
);
fn every_cpu_has_switched_on_what_it_has() {
    let features = IdRegisters::read();
    let expected = Barriers { pan: features.has_pan(), epan: features.has_epan(), e0pd: features.has_e0pd() };
    match features.core_name() {
        "Cortex-A72" => assert_eq!(expected, Barriers { pan: false, epan: false, e0pd: false }),
        "Neoverse-N1" => assert_eq!(expected, Barriers { pan: true, epan: false, e0pd: false }),
        _ => assert_eq!(expected, Barriers { pan: true, epan: true, e0pd: true }),
    }
    let ran = cpus::run_everywhere(&|cpu: CpuId| {
        assert_eq!(protect::barriers(&IdRegisters::read()), expected, "{cpu:?}");
    });
    assert!(ran >= 2, "{ran}");
    assert_eq!(ran as usize, global::online_cpus().count());
}

/// A page that user code may read and write, in the lower half of this CPU.
fn user_page(prot: Prot) -> VirtAddr {
    let mmu = *global::kernel_tables().expect("the final tables").mmu();
    // SAFETY: these tables and the page that they map are this test's, which ends with the machine.
    let tables = unsafe { PageTable::new(mmu, &BuddyFrames::ATOMIC, Space::User(Asid::new(1))) }.expect("memory");
    let page = VirtRange::from_size(VirtAddr::new(0x40_0000), PAGE_SIZE).expect("no wrap");
    let memory = global::page_to_phys(global::alloc_page(Gfp::KERNEL | Gfp::ZERO).expect("memory"));
    raw!(tables.map(&BuddyFrames::ATOMIC, page, memory, prot, MapFlags::empty())).expect("nothing is there");
    // The lower half was empty, and this test alone uses it.
    TTBR0_EL1.set(tables.root().get() | 1 << 48);
    barrier::isb(barrier::SY);
    page.start()
}

fn load(addr: VirtAddr) -> u64 {
    // SAFETY: mapped by the test, or faults and ends the machine.
    unsafe { addr.as_ptr::<u64>().read_volatile() }
}

fn store(addr: VirtAddr) {
    // SAFETY: as for `load`.
    unsafe { addr.as_ptr::<u64>().write_volatile(1) };
}

// Behaviour 451
ktest!(
    a_user_page_is_not_read_by_the_kernel,
    machine neoverse_n1 = "cpu=neoverse-n1 gic=3",
    machine max = "cpu=max"
);
fn a_user_page_is_not_read_by_the_kernel() {
    let page = user_page(Prot::user(Access::ReadWrite).with_dirty(true));
    expect_fault(FaultKind::Permission(AccessKind::Read), page);
    load(page);
}

// Behaviour 451
ktest!(a_user_page_is_not_written_by_the_kernel, machine = "cpu=max");
fn a_user_page_is_not_written_by_the_kernel() {
    let page = user_page(Prot::user(Access::ReadWrite).with_dirty(true));
    expect_fault(FaultKind::Permission(AccessKind::Write), page);
    store(page);
}

// Behaviour 451: a CPU without PAN cannot be kept from it, which shows that PAN is what the tests above see.
ktest!(a_cpu_without_pan_reads_user_pages);
fn a_cpu_without_pan_reads_user_pages() {
    let before = TTBR0_EL1.get();
    let page = user_page(Prot::user(Access::ReadWrite).with_dirty(true));
    store(page);
    assert_eq!(load(page), 1);
    TTBR0_EL1.set(before);
    barrier::isb(barrier::SY);
}

// Behaviour 450
ktest!(a_user_page_is_not_executed_by_the_kernel, machine a72 = "", machine max = "cpu=max");
fn a_user_page_is_not_executed_by_the_kernel() {
    let page = user_page(Prot::user(Access::Execute));
    expect_fault(FaultKind::Permission(AccessKind::Execute), page);
    // SAFETY: the fetch faults and ends the machine.
    unsafe { asm!("blr {}", in(reg) page.get(), clobber_abi("C")) };
}
