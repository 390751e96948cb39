//! Starting a CPU, its first steps, and stopping it.

use super::{CpuError, CpuState, HOTPLUG, Record, ReleaseError, idle, patience, work};
use crate::addr::{CpuId, PhysAddr, PhysRange, VirtAddr, to_usize};
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::stack::{self, StackUse};
use crate::arch::aarch64::{
    alternative, cpu, dcache, errata, irq, mem, protect, psci, secondary, spin_table, tlb, trap, uaccess,
};
use crate::driver::timer;
use crate::global;
use crate::hal::patience::Patience;
use crate::hal::wait::Context;
use crate::kernel::errata::report;
use crate::kernel::{interrupts, smp_call, tick};
use crate::mm::io::resource::{ResourceInfo, Span};
use crate::mm::layout;
use ::log::{error, info};
use core::sync::atomic::{AtomicU64, Ordering};

/// Entry point of a CPU that is started.
static ENTRY: AtomicU64 = AtomicU64::new(0);
/// The kernel's image and the device tree, where no spin-table word may lie.
static KEPT: [[AtomicU64; 2]; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];

/// Records the places of the image and the device tree. Boot CPU, before the first CPU is started.
pub(in crate::kernel) fn remember_places(boot: &BootInfo, tree: PhysRange) {
    ENTRY.store(boot.image_phys(boot::secondary_entry_point()).get(), Ordering::Relaxed);
    for ([start, end], range) in KEPT.iter().zip([boot.image_range(), tree]) {
        start.store(range.start().get(), Ordering::Relaxed);
        end.store(range.end().get(), Ordering::Relaxed);
    }
}

/// Gives the boot CPU its interrupt stack.
pub(super) fn prepare_boot_cpu() -> Result<(), CpuError> {
    give_stack(CpuId::BOOT, StackUse::Interrupt)
}

fn give_stack(cpu: CpuId, stack_use: StackUse) -> Result<(), CpuError> {
    if stack::of_cpu(cpu, stack_use).is_some() {
        return Ok(());
    }
    let range = global::alloc_stack(to_usize(stack_use.size()), "a CPU").map_err(CpuError::Stack)?;
    stack::register(cpu, stack_use, range.end()).map_err(CpuError::BadStack)
}

/// Starts a CPU that is off or offline (Linux: `cpu_up`). When this returns it is online. Where sleeping is allowed.
///
/// # Errors
///
/// [`CpuError`].
pub fn cpu_up(cpu: CpuId) -> Result<(), CpuError> {
    might_sleep("cpu_up")?;
    bring_up(cpu)
}

pub(super) fn bring_up(cpu: CpuId) -> Result<(), CpuError> {
    let _one = HOTPLUG.lock();
    let record = Record::of(cpu).ok_or(CpuError::NoSuchCpu(cpu, CpuState::Absent))?;
    let before = record.state();
    match before {
        CpuState::Off | CpuState::Waiting | CpuState::Parked => {}
        CpuState::Absent | CpuState::Late => return Err(CpuError::NoSuchCpu(cpu, before)),
        _ => return Err(CpuError::State(cpu, before)),
    }
    for stack_use in [StackUse::Kernel, StackUse::Interrupt, StackUse::Overflow] {
        give_stack(cpu, stack_use)?;
    }
    let tables = global::kernel_tables().ok_or(CpuError::NoTables)?;
    let stack = stack::of_cpu(cpu, StackUse::Kernel).ok_or(CpuError::NoTables)?;
    let affinity = record.affinity.load(Ordering::Relaxed);
    secondary::prepare(cpu, affinity, tables.root(), stack.range.end());
    let entry = PhysAddr::new(ENTRY.load(Ordering::Relaxed));
    record.set(CpuState::Starting);
    let told = match before {
        CpuState::Off => psci::cpu_on(affinity, entry).map_err(CpuError::Firmware),
        CpuState::Waiting => release(record, entry),
        _ => {
            cpu::send_event();
            Ok(())
        }
    };
    if let Err(error) = told {
        record.set(before);
        return Err(error);
    }
    let mut patience = patience();
    while record.state() != CpuState::Online {
        let waited = !patience.is_left(timer::ticks());
        let given_up =
            waited && (record.go(CpuState::Starting, CpuState::Late) || record.go(CpuState::Arrived, CpuState::Late));
        if given_up || record.state() == CpuState::Late {
            return Err(CpuError::NoAnswer(cpu));
        }
        cpu::relax();
    }
    Ok(())
}

/// Writes the entry into the CPU's word of the spin table, through the linear map.
fn release(record: &Record, entry: PhysAddr) -> Result<(), CpuError> {
    let word = PhysAddr::new(record.release.load(Ordering::Relaxed).saturating_sub(1));
    let virt = release_word(word).map_err(|why| CpuError::Release(word, why))?;
    // SAFETY: the device tree says that the word is the spin table's, and it is RAM that is mapped, neither the image nor
    // the tree, as `release_word` saw. Discovery has reserved it for good: no allocator ever had it.
    unsafe { spin_table::release(virt, entry) };
    Ok(())
}

/// The address of a word of the spin table in the linear map, if the device tree's value is possible.
fn release_word(word: PhysAddr) -> Result<VirtAddr, ReleaseError> {
    if !word.is_aligned(8) {
        return Err(ReleaseError::Misaligned);
    }
    let [in_image, in_tree] = KEPT.each_ref().map(|[start, end]| {
        let [start, end] = [start, end].map(|at| at.load(Ordering::Relaxed));
        // The tree need not be aligned.
        (start.saturating_sub(7)..end).contains(&word.get())
    });
    if in_image {
        return Err(ReleaseError::InImage);
    }
    if in_tree {
        return Err(ReleaseError::InTree);
    }
    let mapped = |virt: &VirtAddr| {
        let found = global::kernel_tables().and_then(|tables| tables.translate(*virt));
        found.is_some_and(|found| found.phys == word)
    };
    let Some(virt) = layout::phys_to_virt(word).filter(mapped) else {
        let place = Span::new(word, word);
        let is_there = |found: &ResourceInfo<'_>| found.depth == 1 && place.is_some_and(|at| found.span.contains(at));
        let device = global::iomem_resource().with(|tree| tree.iter().find(is_there).map(|found| found.name));
        return Err(ReleaseError::NoRam(device));
    };
    let reserved = global::memblock().reserved().find(word).is_some();
    reserved.then_some(virt).ok_or(ReleaseError::NotReserved)
}

fn might_sleep(call: &'static str) -> Result<(), CpuError> {
    global::might_sleep(call).map_err(|_| CpuError::Atomic(global::context().atomic()))
}

/// The first Rust code of a CPU that the kernel has started, on its own stack, exceptions masked.
#[unsafe(no_mangle)]
extern "C" fn quarry_secondary_main(cpu: u32) -> ! {
    let cpu = CpuId::new(cpu);
    trap::init(cpu);
    let Some(record) = Record::of(cpu) else { cpu::park() };
    if !record.go(CpuState::Starting, CpuState::Arrived) {
        // Too late: the kernel has given this CPU up.
        let _refused = psci::cpu_off();
        cpu::park();
    }
    let features = IdRegisters::read();
    let met = errata::note(features.errata());
    if !alternative::suits(features.errata()) {
        give_up(cpu, record, format_args!("it has an erratum whose workaround has been taken out"));
    }
    tlb::init_cpu(false);
    dcache::init_cpu(false);
    protect::init_cpu(&features);
    if !global::start_tags_on_cpu() || !mem::can_run_on(&features) || !uaccess::can_run_on(&features) {
        give_up(cpu, record, format_args!("it lacks what the boot CPU has"));
    }
    come_online(cpu, record);
    report(cpu, met);
    idle::run(cpu, record)
}

/// Brings this CPU online. Exceptions masked.
fn come_online(cpu: CpuId, record: &Record) {
    if let Err(error) = interrupts::init_cpu() {
        give_up(cpu, record, format_args!("{error}"));
    }
    // SAFETY: this CPU has just come, masked, on its own stack; its caches of the last time were drained before it was started.
    if !unsafe { global::bring_cpu_online() } {
        give_up(cpu, record, format_args!("it has no data of its own"));
    }
    global::forbid_waiting_in_atomic(true);
    // Answers the requests made while it was offline.
    global::answer_requests();
    if !record.go(CpuState::Arrived, CpuState::Online) {
        // SAFETY: masked, and it stops below without another call.
        unsafe { global::take_cpu_offline() };
        give_up(cpu, record, format_args!("it came too late"));
    }
    tick::start_here();
    irq::unmask_serror();
    irq::local_irq_enable();
}

fn give_up(cpu: CpuId, record: &Record, why: core::fmt::Arguments<'_>) -> ! {
    error!("{cpu:?} cannot be used: {why}");
    record.set(CpuState::Late);
    cpu::park()
}

/// Stops a CPU (Linux: `cpu_down`): it finishes its current work, its pages, objects and stacks go back to where all CPUs find
/// them, and it is switched off, or parked where firmware cannot do that. Where sleeping is allowed.
///
/// # Errors
///
/// [`CpuError::Refused`] for the boot CPU and the caller's own, [`CpuError::State`] if it is not online,
/// [`CpuError::NoAnswer`] if it is busy for more than a second; it stays online then.
pub fn cpu_down(cpu: CpuId) -> Result<(), CpuError> {
    might_sleep("cpu_down")?;
    let _one = HOTPLUG.lock();
    let record = Record::of(cpu).ok_or(CpuError::NoSuchCpu(cpu, CpuState::Absent))?;
    if cpu == CpuId::BOOT || cpu == cpu::current() {
        return Err(CpuError::Refused(cpu));
    }
    if !record.go(CpuState::Online, CpuState::Leaving) {
        return Err(CpuError::State(cpu, record.state()));
    }
    interrupts::kick(cpu);
    let (mut leaving, mut stopping) = (patience(), Patience::new(timer::ticks(), 2 * timer::frequency()));
    let parked = loop {
        match record.state() {
            CpuState::Parked => break record,
            CpuState::Leaving if !leaving.is_left(timer::ticks()) => {
                // It may have begun to leave in this very moment: the first change of the state decides.
                if record.go(CpuState::Leaving, CpuState::Online) {
                    return Err(CpuError::NoAnswer(cpu));
                }
            }
            // It takes no interrupts any more. It keeps its cached memory, for when it comes back.
            CpuState::Stopping if !stopping.is_left(timer::ticks()) => {
                error!("{cpu:?} has begun to go offline, and does not end");
                return Err(CpuError::NoAnswer(cpu));
            }
            _ => {
                global::idle();
                cpu::relax();
            }
        }
    };
    global::drain_offline_cpu(cpu);
    if record.release.load(Ordering::Relaxed) == 0 {
        // Firmware takes it from here: it is off when firmware says so.
        let affinity = parked.affinity.load(Ordering::Relaxed);
        let mut patience = patience();
        while !psci::is_off(affinity).map_err(CpuError::Firmware)? {
            if !patience.is_left(timer::ticks()) {
                error!("{cpu:?} has stopped, but firmware does not say that it is off");
                parked.set(CpuState::Late);
                return Err(CpuError::NoAnswer(cpu));
            }
            cpu::relax();
        }
        parked.set(CpuState::Off);
    }
    info!("{cpu:?} is offline");
    Ok(())
}

/// Takes this CPU offline, which was asked for, when it has no work left. Returns when it is back, or if it stays online.
pub(super) fn leave(cpu: CpuId, record: &Record) {
    irq::local_irq_disable();
    // From here on nobody sends work; work sent before is done first.
    if !record.go(CpuState::Leaving, CpuState::Stopping) || !work::is_free(record) {
        record.go(CpuState::Stopping, CpuState::Leaving);
        irq::local_irq_enable();
        return;
    }
    timer::stop();
    // SAFETY: interrupts are masked since the start of this function. The code below allocates nothing.
    unsafe { global::take_cpu_offline() };
    smp_call::refuse(cpu);
    interrupts::leave_cpu();
    irq::mask_all();
    record.set(CpuState::Parked);
    if record.release.load(Ordering::Relaxed) == 0 {
        let refused = psci::cpu_off();
        error!("{cpu:?} is not switched off: {refused:?}");
        cpu::park();
    }
    while !record.go(CpuState::Starting, CpuState::Arrived) {
        cpu::wait_for_event();
    }
    come_online(cpu, record);
}
