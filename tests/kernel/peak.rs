//! Memory after a peak: it is as free as before, in blocks as large.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use alloc::vec::Vec;
use quarry::addr::{Address, MAX_ORDER, Order, PAGE_BYTES, PAGE_SIZE, PhysAddr, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::global::{self, KernelStack, ThisKernel};
use quarry::hal::prot::Prot;
use quarry::mm::fault_inject::FaultTarget;
use quarry::mm::page::Page;
use quarry::mm::percpu::{PerCpuPtr, UNIT_SIZE};
use quarry::{kprintln, ktest};

/// Where no machine has anything, and the CPU reaches.
const NOWHERE: u64 = 1 << 39;
/// Pages that every kind leaves to the next one.
const LEFT: u64 = 2_000;

/// Bytes of the record of an area, at most. Records stay for good.
const RECORD: u64 = 128;
/// Pages that may stay besides: tables of the blocks of short mappings, rows of stacks, slabs in use in part.
const OTHERS: u64 = 800;

/// Pages that are free, and of how many blocks of the largest order.
fn free() -> (u64, usize) {
    global::percpu_trim();
    global::drain_kernel_stacks();
    global::vmap_space().purge_all();
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    let pages = global::nr_free_pages();
    let largest = Order::new(MAX_ORDER).expect("an order");
    let mut blocks: [Option<Page>; 64] = [None; 64];
    for block in &mut blocks {
        *block = global::alloc_pages(Gfp::NOWAIT, largest).ok();
    }
    let count = blocks.iter().flatten().count();
    blocks.into_iter().flatten().for_each(|block| raw!(global::try_free_pages(block, largest)).expect("live"));
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
    fn fill(&mut self, kind: usize, pages: &[Page]) {
        let (mut number, mut next) = (0, pages.iter().cycle());
        while global::nr_free_pages() > LEFT && number < 39_999 {
            number += 1;
            let done = match kind {
                0 => global::alloc_percpu_gfp(to_usize(UNIT_SIZE), 8, Gfp::KERNEL | Gfp::NOWARN)
                    .map(|ptr| self.per_cpu.push(ptr))
                    .is_ok(),
                1 => global::vmalloc_gfp(PAGE_BYTES, Gfp::KERNEL | Gfp::NOWARN)
                    .map(|area| self.areas.push(area.at()))
                    .is_ok(),
                2 => KernelStack::new("peak").map(|stack| self.stacks.push(stack)).is_ok(),
                3 => global::ioremap(PhysAddr::new(NOWHERE + 2 * number * PAGE_SIZE), PAGE_SIZE)
                    .map(|at| self.devices.push(at))
                    .is_ok(),
                // A page is mapped by so many areas at most.
                _ => global::vm_map_ram(next.next().map(core::slice::from_ref).expect("pages"), Prot::KERNEL_RW)
                    .map(|mapped| self.brief.push(mapped.at()))
                    .is_ok(),
            };
            if !done {
                break;
            }
        }
    }

    fn free(&mut self) {
        self.per_cpu.drain(..).for_each(|ptr| raw!(global::try_free_percpu(ptr)).expect("live"));
        self.areas.drain(..).for_each(|at| raw!(global::try_vfree(at)).expect("live"));
        self.stacks.clear();
        self.devices.drain(..).for_each(|at| raw!(global::try_iounmap(at)).expect("live"));
        self.brief.drain(..).for_each(|at| raw!(global::try_vm_unmap_ram(at, 1)).expect("live"));
    }
}

// Promise 1. What may stay: records of areas, which stay for good, a table for each block of vm_map_ram, arrays of stacks.
ktest!(a_peak_leaves_memory_in_large_blocks, machine one = "mem=128M", machine four = "mem=128M smp=4", timeout = 240);
fn a_peak_leaves_memory_in_large_blocks() {
    let mut peak = Peak::new();
    let pages: Vec<Page> = (0..32).map(|_| global::alloc_page(Gfp::KERNEL).expect("memory")).collect();
    let before = free();
    // The most areas that there were at once.
    let mut most = 0;
    let mut back = |what: &str, peak: &mut Peak| {
        most = most.max(peak.areas.len() + peak.devices.len() + peak.brief.len());
        peak.free();
        let (after, records) = (free(), most as u64 * RECORD / PAGE_SIZE);
        kprintln!("peak: {what}: {before:?} free pages and largest blocks before, {after:?} after, {most} areas");
        let away = before.0.saturating_sub(after.0);
        assert!(away <= OTHERS + records, "{what}: {away} pages stay away, of {most} areas");
        assert!(2 * after.1 >= before.1, "{what}: {} blocks of the largest order, and {} before", after.1, before.1);
    };
    for (kind, what) in ["per-CPU memory", "areas", "stacks", "devices", "short mappings"].into_iter().enumerate() {
        peak.fill(kind, &pages);
        back(what, &mut peak);
    }
    // And all of them together, each with half of what is left by those before.
    for _ in 0..2 {
        for kind in 0..5 {
            peak.fill(kind, &pages);
            // Makes room for the next.
            if kind == 0 {
                let half = peak.per_cpu.len() / 2;
                peak.per_cpu.drain(..half).for_each(|ptr| raw!(global::try_free_percpu(ptr)).expect("live"));
                global::percpu_trim();
            }
            let half = peak.areas.len() / 2;
            peak.areas.drain(..half).for_each(|at| raw!(global::try_vfree(at)).expect("live"));
            global::vmap_space().purge_all();
        }
        back("all together", &mut peak);
    }
    pages.into_iter().for_each(|page| raw!(global::try_free_page(page)).expect("live"));
    ThisKernel.check().expect("sound");
    global::check_vmalloc().expect("sound");
}
