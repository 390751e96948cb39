//! Requirements on a CPU that joins: `bring_up` and `join_cpu` refuse others by name, and change nothing.

use core::arch::asm;
use quarry::addr::{CpuId, Order};
use quarry::arch::aarch64::cpu::{self, Relax};
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::held_locks::held_locks;
use quarry::arch::aarch64::mair::mair_el1;
use quarry::arch::aarch64::{irq, mem};
use quarry::gfp::Gfp;
use quarry::global::{self, BringUpError, CpuRefused, Memory, Options, Setup, Tables};
use quarry::ktest;
use quarry::sync::{OrderedLock, class};

/// Runs `f` with interrupts masked and a system register changed, in bits that nothing rests on meanwhile.
macro_rules! with_register {
    ($name:literal, $change:expr, $f:expr) => {{
        let _masked = irq::local_irq_save();
        let before: u64;
        // SAFETY: reads a register.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) before) };
        let changed: u64 = $change(before);
        // SAFETY: the caller knows what rests on it.
        unsafe { asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) changed) };
        let answer = $f();
        // SAFETY: as it was.
        unsafe { asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) before) };
        (answer, changed)
    }};
}

fn bring_up_again() -> Result<(), BringUpError> {
    let setup = Setup { memory: Memory::Known, tables: Tables::Adopt, cpus: 1, seed: 0, options: Options::DEFAULT };
    raw!(global::bring_up(&setup)).map(|_| ())
}

fn join(cpu: u32) -> Result<(), CpuRefused> {
    raw!(global::join_cpu(CpuId::new(cpu)))
}

/// This CPU is the one that it was, and has its memory.
fn is_whole() {
    assert_eq!(global::this_cpu(), CpuId::BOOT);
    assert!(cpu::is_numbered() && global::is_online(CpuId::BOOT));
    let page = global::alloc_pages(Gfp::KERNEL, Order::ZERO);
    assert!(page.is_ok_and(|page| raw!(global::try_free_pages(page, Order::ZERO)).is_ok()));
}

ktest!(registers_that_nothing_works_with_are_refused_by_name);
fn registers_that_nothing_works_with_are_refused_by_name() {
    assert_eq!(bring_up_again(), Err(BringUpError::NotMasked));
    assert_eq!(join(1), Err(CpuRefused::Registers(BringUpError::NotMasked)));
    // Write-through memory, of which there is none.
    for asked in [bring_up_again as fn() -> _, || {
        join(1).map_err(|refused| match refused {
            CpuRefused::Registers(error) => error,
            other => panic!("{other}"),
        })
    }] {
        let (answer, mair) = with_register!("mair_el1", |mair| mair ^ 0xff << 40, asked);
        assert_eq!(answer, Err(BringUpError::Mair(mair, mair_el1(false))));
        // The cache of instructions.
        let (answer, sctlr) = with_register!("sctlr_el1", |sctlr| sctlr & !(1 << 12), asked);
        assert_eq!(answer, Err(BringUpError::MmuOff(sctlr)));
    }
    is_whole();
}

ktest!(a_number_without_data_or_of_a_cpu_that_runs_is_refused, machine = "smp=2");
fn a_number_without_data_or_of_a_cpu_that_runs_is_refused() {
    let masked = irq::local_irq_save();
    // The register holds 16 bits of a number: the second one would be taken for CPU 0, the last for CPU 1.
    let behind = global::possible_cpus().map(CpuId::get).max().unwrap_or(0) + 1;
    for number in [behind, 1 << 16, 255, 256, u32::MAX, (1 << 16) + 1] {
        assert_eq!(join(number), Err(CpuRefused::Number(CpuId::new(number))));
        assert_eq!(global::this_cpu(), CpuId::BOOT, "it keeps its own");
    }
    for number in [0, 1] {
        assert_eq!(join(number), Err(CpuRefused::Taken(CpuId::new(number))));
    }
    drop(masked);
    is_whole();
}

// The copy routines of the boot CPU would be undefined on a CPU without the instructions.
ktest!(
    a_cpu_that_lacks_instructions_in_use_is_told_so,
    machine plain = "",
    machine max = "cpu=max",
);
fn a_cpu_that_lacks_instructions_in_use_is_told_so() {
    let own = IdRegisters::read();
    assert!(mem::can_run_on(&own));
    assert_eq!(mem::can_run_on(&IdRegisters { isar2: 0, ..own }), !own.has_mops());
    assert!(mem::can_run_on(&IdRegisters { isar2: 1 << 16, ..own }), "more than is used does no harm");
}

static ZONE: OrderedLock<u32, class::Zone, Relax> = OrderedLock::new(1);
static NODE: OrderedLock<u32, class::SlabNode, Relax> = OrderedLock::new(2);

// Two CPUs without numbers would be taken for one that takes its own lock again.
ktest!(the_locks_of_a_cpu_without_a_number_are_nobodys);
fn the_locks_of_a_cpu_without_a_number_are_nobodys() {
    let locks = || {
        assert!(!cpu::is_numbered() && held_locks().is_none());
        // In the wrong order: nobody can tell.
        let (zone, node) = (ZONE.lock(), NODE.lock());
        *zone + *node
    };
    // As after reset: any number, that nobody has set.
    let (sum, _) = with_register!("tpidrro_el0", |number| number & 0xffff_ffff, locks);
    assert_eq!(sum, 3);
    assert_eq!(held_locks().map(|held| held.iter().count()), Some(0), "nothing was put down to a CPU");
    let _masked = irq::local_irq_save();
    let zone = ZONE.lock();
    assert_eq!(held_locks().map(|held| held.iter().count()), Some(1));
    drop(zone);
}
