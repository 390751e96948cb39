//! Stacks of threads and of interrupts: guarded, and an overflow says whose it was.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::faults::recurse;
use crate::interrupts::{wait_for, with_timer};
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{Address, CpuId, Order, PAGE_BYTES, PAGE_SIZE, VirtAddr, to_usize};
use quarry::arch::aarch64::esr::Access;
use quarry::arch::aarch64::stack::{self, STACK_ALIGN, StackOwner, StackUse};
use quarry::arch::aarch64::trap::TrapFrame;
use quarry::arch::aarch64::{irq, trap};
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, KEPT_STACKS, KVec, KernelStack, StackAllocError};
use quarry::kernel::cpus;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::vmalloc::AreaError;

fn translate(addr: VirtAddr) -> bool {
    global::kernel_tables().expect("the final tables").translate(addr).is_some()
}

fn owner_of(addr: VirtAddr) -> Option<StackOwner> {
    stack::containing(addr).map(|stack| stack.owner)
}

fn free_pages() -> u64 {
    global::drain_kernel_stacks();
    global::slab_allocator().shrink_all();
    global::vmap_space().purge_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

ktest!(a_thread_runs_on_its_stack);
fn a_thread_runs_on_its_stack() {
    let mut stack = KernelStack::new("worker").expect("memory");
    assert_eq!(stack.range().size(), KernelStack::SIZE as u64);
    assert!(stack.range().start().is_aligned(STACK_ALIGN));
    let (range, mut inside, mut callers) = (stack.range(), false, 0);
    stack.run(|| {
        let here = 0_u64;
        inside = range.contains(VirtAddr::of(&raw const here));
        callers = trap::backtrace(trap::frame_pointer()).count();
        assert_eq!(owner_of(VirtAddr::of(&raw const here)).map(name), Some(true));
    });
    assert!(inside, "on its stack");
    assert!(callers > 4, "a backtrace leads back to who started it: {callers}");
}

fn name(owner: StackOwner) -> bool {
    matches!(owner, StackOwner::Thread(name) if name == stack::ThreadName::new("worker"))
}

ktest!(nothing_is_mapped_around_a_stack);
fn nothing_is_mapped_around_a_stack() {
    let stacks = [0; 5].map(|_| KernelStack::new("one of five").expect("memory"));
    for stack in &stacks {
        let range = stack.range();
        assert!(translate(range.start()) && translate(VirtAddr::new(range.end().get() - 1)));
        for page in 1..=8 {
            assert!(!translate(VirtAddr::new(range.start().get() - page * PAGE_SIZE)), "page {page} below");
        }
        assert!(!translate(range.end()), "nor above");
    }
}

ktest!(stacks_are_kept_and_given_back);
fn stacks_are_kept_and_given_back() {
    let many = || {
        let stacks = [0; 70].map(|_| KernelStack::new("many").expect("memory"));
        let mut starts = [VirtAddr::ZERO; 70];
        for (start, stack) in starts.iter_mut().zip(&stacks) {
            *start = stack.range().start();
        }
        starts.sort_unstable();
        assert!(starts.is_sorted_by(|a, b| a < b), "each its own");
        drop(stacks);
        starts
    };
    // Tables and the record of a second row of slots stay.
    many();
    let before = free_pages();
    let starts = many();
    let kept = starts.iter().filter(|start| translate(**start)).count();
    assert_eq!(kept, KEPT_STACKS, "a few are kept, and the others are not mapped any more");
    let again = KernelStack::new("again").expect("memory");
    assert!(starts.contains(&again.range().start()), "a kept one is used again");
    drop(again);
    assert_eq!(free_pages(), before);
}

ktest!(no_memory_is_lost_where_there_are_no_addresses_for_a_stack, machine = "append='vmalloc=12M'");
fn no_memory_is_lost_where_there_are_no_addresses_for_a_stack() {
    let mut stacks = KVec::new();
    let refused = loop {
        match KernelStack::new("one of all") {
            Ok(stack) => stacks.push(stack, Gfp::KERNEL).expect("memory"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StackAllocError::Area(AreaError::Exhausted));
    let before = free_pages();
    for _ in 0..40 {
        assert_eq!(KernelStack::new("one more").map(drop), Err(refused));
    }
    assert_eq!(free_pages(), before);
}

ktest!(a_stack_of_a_wrong_size_is_refused);
fn a_stack_of_a_wrong_size_is_refused() {
    for size in [1, PAGE_BYTES + 1, 64 << 10] {
        assert_eq!(global::alloc_stack(size, "odd"), Err(StackAllocError::BadSize(size)));
    }
}

/// Bytes of a stack that `deed` has used.
fn bytes_used(name: &str, deed: fn()) -> u64 {
    let mut stack = KernelStack::new(name).expect("memory");
    let bytes = stack.range().start().as_ptr::<u8>();
    let size = KernelStack::SIZE;
    // SAFETY: the stack is mapped, and nobody runs on it.
    unsafe { bytes.write_bytes(0x5a, size) };
    stack.run(deed);
    // SAFETY: the stack is mapped, nobody runs on it, and each byte has been written.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, size) };
    bytes.iter().skip_while(|byte| **byte == 0x5a).count() as u64
}

fn use_objects() {
    for size in [64, 8192, 100 << 10] {
        let object = global::kmalloc(size, Gfp::KERNEL).expect("memory");
        // SAFETY: allocated above, and not used any more.
        unsafe { global::kfree(object.as_ptr()) };
    }
}

fn use_pages() {
    for order in [0, 5, 9].map(|order| Order::new(order).expect("small")) {
        let page = global::alloc_pages(Gfp::KERNEL, order).expect("memory");
        raw!(global::try_free_pages(page, order)).expect("allocated above");
    }
    global::drain_all_pages();
}

fn use_areas() {
    for pages in [1, 40, 700] {
        let area = global::vmalloc(to_usize(pages * PAGE_SIZE)).expect("memory").at();
        raw!(global::try_vfree(area)).expect("allocated above");
    }
    global::vmap_space().purge_all();
}

fn write_a_line() {
    log::info!("a line from a thread, {} bytes of stack", KernelStack::SIZE);
}

// With each size that a build may choose (tools/suite.sh). The rest is for the frames of an interrupt and of a fault in it;
// their handlers run elsewhere.
ktest!(every_call_leaves_room_on_a_threads_stack);
fn every_call_leaves_room_on_a_threads_stack() {
    let deeds: [(&str, fn()); 4] =
        [("objects", use_objects), ("pages", use_pages), ("areas", use_areas), ("a line", write_a_line)];
    for (name, deed) in deeds {
        let used = bytes_used(name, deed);
        quarry::kprintln!("stack: {name}: {used} of {} bytes", KernelStack::SIZE);
        assert!(
            used > 100 && used + 2 * size_of::<TrapFrame>() as u64 <= KernelStack::SIZE as u64,
            "{name}: {used} bytes"
        );
    }
}

ktest!(the_guard_below_a_threads_stack_faults);
fn the_guard_below_a_threads_stack_faults() {
    let stack = KernelStack::new("guarded").expect("memory");
    let guard = VirtAddr::new(stack.range().start().get() - 8);
    expect_fault(FaultKind::Translation(Access::Write), guard);
    // SAFETY: faults, and ends the machine.
    unsafe { guard.as_ptr::<u64>().write_volatile(1) };
}

ktest!(
    a_thread_that_overflows_its_stack_is_named,
    report = "fault: stack overflow of thread deep-diver, on its stack",
    report = "fault: data abort, write: translation fault",
    report = "fault: in a guard page, below the stack of thread deep-diver",
    report = "faults::recurse+",
    report = "times more",
    exit = 1
);
fn a_thread_that_overflows_its_stack_is_named() {
    let mut stack = KernelStack::new("deep-diver").expect("memory");
    stack.run(|| {
        black_box(recurse(0));
    });
}

fn overflow_in_handler(_: IntId) {
    timer::stop();
    black_box(recurse(0));
}

// Behaviour 454, on the interrupt stack.
ktest!(
    an_interrupt_handler_that_overflows_its_stack_is_named,
    report = "fault: stack overflow on the interrupt stack of CPU 0",
    report = "fault: in a guard page, below the interrupt stack of CPU 0",
    report = "faults::recurse+",
    report = "stacks::overflow_in_handler+",
    report = "stacks::an_interrupt_handler_that_overflows_its_stack_is_named",
    exit = 1
);
fn an_interrupt_handler_that_overflows_its_stack_is_named() {
    with_timer(overflow_in_handler, || {
        timer::arm(0);
        irq::local_irq_enable();
        wait_for(|| false);
    });
    // So that the call above is none in tail position, which would leave no frame of this function to be named.
    black_box(0_u8);
}

ktest!(
    a_secondary_cpu_that_overflows_its_stack_is_named,
    machine = "smp=3 alone",
    report = "fault: stack overflow on the kernel stack of CPU 2",
    report = "fault: in a guard page, below the kernel stack of CPU 2",
    report = "on CPU 2",
    exit = 1
);
fn a_secondary_cpu_that_overflows_its_stack_is_named() {
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::new(2) {
            black_box(recurse(0));
        }
    });
}

static ON_STACK: AtomicU32 = AtomicU32::new(0);

fn handler(_: IntId) {
    timer::stop();
    let here = 0_u64;
    if owner_of(VirtAddr::of(&raw const here)) == Some(StackOwner::Cpu(CpuId::BOOT, StackUse::Interrupt)) {
        ON_STACK.fetch_add(1, Ordering::Relaxed);
    }
}

ktest!(a_handler_runs_on_the_interrupt_stack, machine gicv2 = "", machine gicv3 = "gic=3");
fn a_handler_runs_on_the_interrupt_stack() {
    ON_STACK.store(0, Ordering::Relaxed);
    with_timer(handler, || {
        for times in 1..=20 {
            timer::arm(timer::frequency() / 10_000);
            irq::local_irq_enable();
            wait_for(|| ON_STACK.load(Ordering::Relaxed) >= times);
            irq::local_irq_disable();
        }
    });
}
