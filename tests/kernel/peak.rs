//! What a peak leaves behind: memory is as free as before, in blocks as large.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use alloc::vec::Vec;
use quarry::addr::{MAX_ORDER, Order, PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::hal::prot::Prot;
use quarry::instance::{self, KernelStack, ThisKernel};
use quarry::mm::fault_inject::FaultTarget;
use quarry::mm::page::Page;
use quarry::mm::percpu::{PerCpuPtr, UNIT_SIZE};
use quarry::{kprintln, ktest};

/// Where no machine has anything, and the CPU reaches.
const NOWHERE: u64 = 1 << 39;
/// Pages that every kind leaves to the next one.
const LEFT: u64 = 2_000;

/// Pages that are free, and of how many blocks of the largest order.
fn free() -> (u64, usize) {
    instance::percpu_trim();
    instance::drain_kernel_stacks();
    instance::vmap_space().purge_all();
    instance::slab_allocator().shrink_all();
    instance::drain_all_pages();
    let pages = instance::nr_free_pages();
    let largest = Order::new(MAX_ORDER).expect("an order");
    let mut blocks: [Option<Page>; 64] = [None; 64];
    for block in &mut blocks {
        *block = instance::alloc_pages(Gfp::NOWAIT, largest).ok();
    }
    let count = blocks.iter().flatten().count();
    blocks.into_iter().flatten().for_each(|block| raw!(instance::free_pages(block, largest)).expect("live"));
    (pages, count)
}

/// Everything of some kinds.
#[derive(Default)]
struct Peak {
    per_cpu: Vec<PerCpuPtr>,
    areas: Vec<VirtAddr>,
    stacks: Vec<KernelStack>,
    devices: Vec<VirtAddr>,
    brief: Vec<VirtAddr>,
}

impl Peak {
    /// Lists that need no more memory.
    fn new() -> Self {
        let mut peak = Self::default();
        peak.per_cpu.reserve(4_000);
        peak.areas.reserve(40_000);
        peak.stacks.reserve(8_000);
        peak.devices.reserve(40_000);
        peak.brief.reserve(40_000);
        peak
    }

    /// Until memory is short.
    fn fill(&mut self, kind: usize, page: Page) {
        let mut number = 0;
        while instance::nr_free_pages() > LEFT && number < 39_999 {
            number += 1;
            let done = match kind {
                0 => instance::alloc_percpu_gfp(UNIT_SIZE, 8, Gfp::KERNEL | Gfp::NOWARN)
                    .map(|ptr| self.per_cpu.push(ptr))
                    .is_ok(),
                1 => instance::vmalloc_gfp(PAGE_SIZE, Gfp::KERNEL | Gfp::NOWARN).map(|at| self.areas.push(at)).is_ok(),
                2 => KernelStack::new("peak").map(|stack| self.stacks.push(stack)).is_ok(),
                3 => instance::ioremap(PhysAddr::new(NOWHERE + 2 * number * PAGE_SIZE), PAGE_SIZE)
                    .map(|at| self.devices.push(at))
                    .is_ok(),
                _ => instance::vm_map_ram(&[page], Prot::KERNEL_RW).map(|at| self.brief.push(at)).is_ok(),
            };
            if !done {
                break;
            }
        }
    }

    fn free(&mut self) {
        self.per_cpu.drain(..).for_each(|ptr| raw!(instance::free_percpu(ptr)).expect("live"));
        self.areas.drain(..).for_each(|at| raw!(instance::vfree(at)).expect("live"));
        self.stacks.clear();
        self.devices.drain(..).for_each(|at| raw!(instance::iounmap(at)).expect("live"));
        self.brief.drain(..).for_each(|at| raw!(instance::vm_unmap_ram(at, 1)).expect("live"));
    }
}

// Promise 1. What may stay: records of areas, which stay for good, a table for each block of vm_map_ram, rows of stacks.
ktest!(a_peak_leaves_memory_in_large_blocks, machine one = "mem=128M", machine four = "mem=128M smp=4", timeout = 240);
fn a_peak_leaves_memory_in_large_blocks() {
    let mut peak = Peak::new();
    let page = instance::alloc_page(Gfp::KERNEL).expect("memory");
    let before = free();
    for kind in 0..5 {
        peak.fill(kind, page);
        let held = (peak.per_cpu.len(), peak.areas.len(), peak.stacks.len(), peak.devices.len(), peak.brief.len());
        peak.free();
        let after = free();
        kprintln!("peak: kind {kind}, {held:?}: {before:?} free pages and largest blocks before, {after:?} after");
    }
    // And all of them together, each with a fifth of what is left by those before.
    for round in 0..2 {
        for kind in 0..5 {
            peak.fill(kind, page);
            // Makes room for the next.
            if kind == 0 {
                let half = peak.per_cpu.len() / 2;
                peak.per_cpu.drain(..half).for_each(|ptr| raw!(instance::free_percpu(ptr)).expect("live"));
                instance::percpu_trim();
            }
            let half = peak.areas.len() / 2;
            peak.areas.drain(..half).for_each(|at| raw!(instance::vfree(at)).expect("live"));
            instance::vmap_space().purge_all();
        }
        peak.free();
        let after = free();
        kprintln!("peak: all, round {round}: {before:?} free pages and largest blocks before, {after:?} after");
    }
    let after = free();
    assert!(after.0 + 2_000 >= before.0, "{} pages stay away", before.0 - after.0);
    assert!(2 * after.1 >= before.1, "{} blocks of the largest order, and {} before", after.1, before.1);
    raw!(instance::free_page(page)).expect("live");
    ThisKernel.check().expect("sound");
    instance::check_vmalloc().expect("sound");
}
