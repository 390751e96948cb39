//! Locks that are taken wrongly are reported by name, and a report of the end waits for none.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::interrupts::{wait_for, with_timer};
use core::fmt;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering};
use quarry::addr::{CpuId, Order};
use quarry::arch::aarch64::cpu::{self, Relax};
use quarry::arch::aarch64::held_locks::held_locks;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::step::{Step, Then, step_through};
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, SpinLock, spin_lock};
use quarry::kernel::cpus;
use quarry::ktest;
use quarry::sync::{OrderedLock, class};

type Of<C> = OrderedLock<u32, C, Relax>;

static ZONE: Of<class::Zone> = OrderedLock::new(1);
static OTHER_ZONE: Of<class::Zone> = OrderedLock::new(2);
static NODE: Of<class::SlabNode> = OrderedLock::new(3);
static HOTPLUG: Of<class::Hotplug> = OrderedLock::new(4);
static OWN: SpinLock<u32> = spin_lock(5);
static OTHER_OWN: SpinLock<u32> = spin_lock(6);

ktest!(locks_in_their_order_are_fine);
fn locks_in_their_order_are_fine() {
    let (own, other) = (OWN.lock(), OTHER_OWN.lock());
    let hotplug = HOTPLUG.lock();
    let masked = irq::local_irq_save();
    let (node, zone) = (NODE.lock(), ZONE.lock());
    assert_eq!(held_locks().expect("the tests check locks").iter().count(), 5);
    // Out of their order they may be given back.
    let sum = *own + *other + *hotplug + *node + *zone;
    drop(node);
    drop(zone);
    drop(masked);
    drop(own);
    drop(other);
    drop(hotplug);
    assert_eq!(sum, 19);
    assert_eq!(held_locks().expect("the tests check locks").iter().count(), 0);
}

ktest!(what_nobody_waits_for_may_be_taken_in_any_order);
fn what_nobody_waits_for_may_be_taken_in_any_order() {
    let _masked = irq::local_irq_save();
    let zone = ZONE.lock();
    assert!(ZONE.try_lock().is_none(), "taken, and nobody waits");
    let node = NODE.try_lock().expect("open");
    drop((zone, node));
}

// Behaviour 459
ktest!(
    a_lock_that_its_owner_takes_again_is_a_deadlock_with_a_name,
    report = "panic at tests/kernel/locks.rs:",
    report = "deadlock: lock \"embedding kernel\" at 0x",
    report = ", taken at tests/kernel/locks.rs:",
    report = ", is taken again by the same CPU at tests/kernel/locks.rs:",
    report = "locks::a_lock_that_its_owner_takes_again_is_a_deadlock_with_a_name+",
    exit = 1
);
fn a_lock_that_its_owner_takes_again_is_a_deadlock_with_a_name() {
    let _first = OWN.lock();
    black_box(*OWN.lock());
}

// Behaviour 459, of a lock of the kernel's own, which a callback takes again.
ktest!(
    a_callback_that_takes_its_callers_lock_is_named,
    report = "deadlock: lock \"slab caches\" at 0x",
    report = ", is taken again by the same CPU at src/mm/slab/",
    exit = 1
);
fn a_callback_that_takes_its_callers_lock_is_named() {
    let slabs = global::slab_allocator();
    _ = slabs.for_each(|_| _ = slabs.for_each(|_| {}));
}

// Behaviour 489
ktest!(
    locks_in_the_wrong_order_are_named,
    report = "lock order: \"slab node\" (level ",
    report = ") is taken at tests/kernel/locks.rs:",
    report = " inside of \"zone\" (level ",
    report = "), taken at tests/kernel/locks.rs:",
    exit = 1
);
fn locks_in_the_wrong_order_are_named() {
    let _masked = irq::local_irq_save();
    let _zone = ZONE.lock();
    black_box(*NODE.lock());
}

// Behaviour 489
ktest!(
    two_locks_of_a_kind_at_once_are_named,
    report = "lock order: \"zone\" (level ",
    report = " inside of \"zone\" (level ",
    exit = 1
);
fn two_locks_of_a_kind_at_once_are_named() {
    let _masked = irq::local_irq_save();
    let _zone = ZONE.lock();
    black_box(*OTHER_ZONE.lock());
}

// Behaviour 489
ktest!(
    an_embedders_lock_inside_of_the_kernels_is_named,
    report = "lock order: \"embedding kernel\" (level 0) is taken at tests/kernel/locks.rs:",
    report = " inside of \"memblock\" (level ",
    exit = 1
);
fn an_embedders_lock_inside_of_the_kernels_is_named() {
    let _memblock = global::memblock();
    black_box(*OWN.lock());
}

// Behaviour 489
ktest!(
    a_lock_of_handlers_taken_unmasked_is_named,
    report = "lock \"zone\" is taken at tests/kernel/locks.rs:",
    report = " with interrupts unmasked, and handlers take it too",
    exit = 1
);
fn a_lock_of_handlers_taken_unmasked_is_named() {
    black_box(*ZONE.lock());
}

// Behaviour 489
ktest!(
    a_lock_that_waits_for_cpus_taken_masked_is_named,
    report = "lock \"cpu hotplug\" is taken at tests/kernel/locks.rs:",
    report = " with interrupts masked, and elsewhere without",
    exit = 1
);
fn a_lock_that_waits_for_cpus_taken_masked_is_named() {
    let _masked = irq::local_irq_save();
    black_box(*HOTPLUG.lock());
}

fn take_own(_: IntId) {
    timer::stop();
    black_box(*OWN.lock());
}

fn take_hotplug(_: IntId) {
    timer::stop();
    black_box(*HOTPLUG.lock());
}

fn in_handler(handler: fn(IntId)) {
    with_timer(handler, || {
        timer::arm(0);
        irq::local_irq_enable();
        wait_for(|| false);
    });
}

// Behaviour 489
ktest!(
    a_handler_that_takes_an_embedders_lock_is_named,
    report = "lock \"embedding kernel\" is taken at tests/kernel/locks.rs:",
    report = " in an interrupt handler, and elsewhere without masking",
    report = "locks::take_own+",
    exit = 1
);
fn a_handler_that_takes_an_embedders_lock_is_named() {
    in_handler(take_own);
}

// Behaviour 489
ktest!(
    a_handler_that_takes_a_lock_that_waits_for_cpus_is_named,
    report = "lock \"cpu hotplug\" is taken at tests/kernel/locks.rs:",
    report = " in an interrupt handler, and elsewhere without masking",
    report = "locks::take_hotplug+",
    exit = 1
);
fn a_handler_that_takes_a_lock_that_waits_for_cpus_is_named() {
    in_handler(take_hotplug);
}

// Behaviour 489
ktest!(
    unmasking_inside_of_a_lock_of_handlers_is_named,
    report = "interrupts were unmasked inside of lock \"zone\" at 0x",
    report = ", taken at tests/kernel/locks.rs:",
    exit = 1
);
fn unmasking_inside_of_a_lock_of_handlers_is_named() {
    let _masked = irq::local_irq_save();
    let zone = ZONE.lock();
    irq::local_irq_enable();
    drop(zone);
}

/// A text whose making takes locks, as reports of what the kernel holds do.
struct Caches;

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count = 0;
        global::slab_allocator().for_each(|_| count += 1).map_err(|_| fmt::Error)?;
        let areas = global::vmap_space().iter().count();
        write!(f, "{count} caches, {areas} areas")
    }
}

// The console's lock is the last of all: were it held while text is made, this would be out of order.
ktest!(what_is_printed_may_take_locks, report = "text: ", report = " caches, ", report = "ktest: ok");
fn what_is_printed_may_take_locks() {
    quarry::kprintln!("text: {Caches}");
}

/// Result of allocating in a report of the end: the number of small objects, and the outcome of the other calls.
struct Allocates;

impl fmt::Display for Allocates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut served = 0;
        let refused = loop {
            match global::kmalloc(64, Gfp::ATOMIC | Gfp::NOWARN) {
                Ok(_) => served += 1,
                Err(error) => break error,
            }
            assert!(served < 100_000, "the kernel ends, and memory is given away by the slab");
        };
        writeln!(f, "with {} served at hand: {refused}", if served == 0 { "none" } else { "some" })?;
        let block = global::alloc_pages(Gfp::ATOMIC, Order::new(6).expect("small"));
        writeln!(f, "a block: {}", block.err().ok_or(fmt::Error)?)?;
        let large = global::kmalloc(100 << 10, Gfp::ATOMIC);
        writeln!(f, "a large one: {}", large.err().ok_or(fmt::Error)?)?;
        let area = global::vmalloc_gfp(4096, Gfp::ATOMIC);
        writeln!(f, "an area: {}", area.err().ok_or(fmt::Error)?)
    }
}

fn is_inside(name: &str) -> bool {
    held_locks().is_some_and(|held| held.iter().any(|held| held.class().name == name))
}

fn end_inside_zone(_: &Step) -> Then {
    if is_inside("zone") {
        panic!("inside of the zone: {Allocates}");
    }
    Then::Step
}

fn end_inside_node(_: &Step) -> Then {
    if is_inside("slab node") {
        panic!("inside of the node: {Allocates}");
    }
    Then::Step
}

// Behaviour 462: the code that panics holds the very lock that an allocation wants.
ktest!(
    an_allocation_in_a_report_does_not_wait_for_the_zone,
    report = "inside of the zone: with ",
    report = " served at hand: ",
    report = "a block: ",
    report = "a large one: ",
    report = "an area: ",
    report = "backtrace:",
    exit = 1
);
fn an_allocation_in_a_report_does_not_wait_for_the_zone() {
    global::drain_all_pages();
    let _ = step_through(end_inside_zone, || global::alloc_pages(Gfp::KERNEL, Order::new(7).expect("small")));
}

// Behaviour 462
ktest!(
    an_allocation_in_a_report_does_not_wait_for_the_slabs,
    report = "inside of the node: with ",
    report = " served at hand: ",
    report = "a block: ",
    report = "an area: ",
    report = "backtrace:",
    exit = 1
);
fn an_allocation_in_a_report_does_not_wait_for_the_slabs() {
    // Neither objects nor blocks of any size are cached.
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    let _ = step_through(end_inside_node, || global::kmalloc(64, Gfp::KERNEL));
}

// Behaviours 461 and 462: who has the lock has been stopped with it.
ktest!(
    a_report_does_not_wait_for_a_lock_of_a_cpu_that_was_stopped,
    machine = "smp=2 alone",
    report = "panic at tests/kernel/locks.rs:",
    report = "the end, while another CPU holds memblock",
    report = "fault inside a fault report on CPU 0: panicked at src/arch/aarch64/cpu.rs:",
    report = "a report waits for a lock that nobody gives back",
    report = "stopping",
    exit = 1
);
fn a_report_does_not_wait_for_a_lock_of_a_cpu_that_was_stopped() {
    struct Asks;
    impl fmt::Display for Asks {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the end, while another CPU holds memblock")?;
            write!(f, " with {} regions", global::memblock().memory().regions().len())
        }
    }
    let held = AtomicBool::new(false);
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::BOOT {
            wait_for(|| held.load(Ordering::Acquire));
            panic!("{Asks}");
        }
        let _memblock = global::memblock();
        held.store(true, Ordering::Release);
        loop {
            cpu::relax();
        }
    });
}
