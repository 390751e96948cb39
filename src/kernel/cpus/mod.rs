//! The CPUs: which there are, in which state each is, and the way up and down (docs/cpus.md).
//!
//! The boot CPU is number 0, in any order of the device tree; the others follow in that order. A CPU is in one of these states,
//! and moves only along the arrows:
//!
//! ```text
//!   Off, Waiting, Parked ──▶ Starting ──▶ Arrived ──▶ Online ◀──▶ Leaving ◀──▶ Stopping ──▶ Parked ──▶ Off
//!                               │            │
//!                               └────▶ Late ◀┘
//! ```

mod hold;
mod idle;
mod start;
mod work;

pub(super) use hold::hold_others;
pub(super) use start::remember_places;
pub use start::{cpu_down, cpu_up};
pub use work::run_everywhere;

use super::interrupts;
use crate::addr::{CpuId, PhysAddr, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::psci;
use crate::arch::aarch64::secondary::AFFINITY;
use crate::arch::aarch64::stack::StackError;
use crate::driver::timer;
use crate::fdt::{Cpu, EnableMethod, Tree};
use crate::global::{self, StackAllocError};
use crate::hal::wait::Atomic;
use crate::sync::{OrderedLock, class};
use ::log::{error, info, warn};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use work::Job;

/// How long another CPU may take for anything before it is reported: a second, in ticks of the counter.
pub(super) fn patience() -> u64 {
    timer::frequency()
}

/// Where a CPU is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CpuState {
    /// There is no such CPU, or no way to start it.
    Absent = 0,
    /// Switched off; firmware starts it.
    Off = 1,
    /// It polls its word of the loader's spin table.
    Waiting = 2,
    /// It has been told to start.
    Starting = 3,
    /// It runs the kernel, and gets ready.
    Arrived = 4,
    /// It takes part.
    Online = 5,
    /// It has been asked to go.
    Leaving = 6,
    /// It goes, unless somebody has sent it something in this very moment.
    Stopping = 7,
    /// It has gone, as far as it can: firmware switches it off, or it polls its state, everything masked.
    Parked = 8,
    /// It did not come in time, or cannot be used. Should it come still, it stops.
    Late = 9,
}

impl CpuState {
    /// The state that a number stands for.
    const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Off,
            2 => Self::Waiting,
            3 => Self::Starting,
            4 => Self::Arrived,
            5 => Self::Online,
            6 => Self::Leaving,
            7 => Self::Stopping,
            8 => Self::Parked,
            9 => Self::Late,
            _ => Self::Absent,
        }
    }
}

/// State of one CPU.
struct Record {
    affinity: AtomicU64,
    /// Where its word of the spin table is, plus one; zero for a CPU that firmware starts.
    release: AtomicU64,
    state: AtomicU8,
    /// Job that it runs when it is idle.
    job: AtomicPtr<Job>,
    /// Whether it is about to sleep until an interrupt.
    idle: AtomicBool,
}

static RECORDS: [Record; MAX_CPUS] = [const {
    Record {
        affinity: AtomicU64::new(0),
        release: AtomicU64::new(0),
        state: AtomicU8::new(CpuState::Absent as u8),
        job: AtomicPtr::new(core::ptr::null_mut()),
        idle: AtomicBool::new(false),
    }
}; MAX_CPUS];

/// Held while a CPU is started or stopped.
static HOTPLUG: OrderedLock<(), class::Hotplug, cpu::Relax> = OrderedLock::new(());

impl Record {
    fn of(cpu: CpuId) -> Option<&'static Self> {
        RECORDS.get(to_usize(u64::from(cpu.get())))
    }

    fn state(&self) -> CpuState {
        CpuState::from_raw(self.state.load(Ordering::SeqCst))
    }

    fn set(&self, state: CpuState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Moves from one state to another; whether it was in the one.
    fn go(&self, from: CpuState, to: CpuState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

/// Why a CPU was not started or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CpuError {
    /// There is no such CPU, or it was given up.
    NoSuchCpu(CpuId, CpuState),
    /// It is not in the state for that.
    State(CpuId, CpuState),
    /// The boot CPU, and the one that asks, cannot be stopped.
    Refused(CpuId),
    /// The caller may not wait.
    Atomic(Option<Atomic>),
    /// No stacks for it.
    Stack(StackAllocError),
    /// Its stacks do not suit the vectors.
    BadStack(StackError),
    /// Firmware refused.
    Firmware(psci::Error),
    /// The word of the spin table cannot be written.
    Release(PhysAddr, ReleaseError),
    /// The kernel is not on its final tables.
    NoTables,
    /// It did not come, or did not go, within a second.
    NoAnswer(CpuId),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu(cpu, state) => write!(f, "{cpu:?} cannot be had: {state:?}"),
            Self::State(cpu, state) => write!(f, "{cpu:?} is {state:?}"),
            Self::Refused(cpu) => write!(f, "{cpu:?} has to stay"),
            Self::Atomic(Some(why)) => write!(f, "the caller may not wait: {why}"),
            Self::Atomic(None) => f.write_str("the caller may not wait: interrupts are masked"),
            Self::Stack(error) => error.fmt(f),
            Self::BadStack(error) => error.fmt(f),
            Self::Firmware(error) => write!(f, "firmware: {error}"),
            Self::Release(at, why) => write!(f, "its cpu-release-addr {at} {why}"),
            Self::NoTables => f.write_str("no page tables"),
            Self::NoAnswer(cpu) => write!(f, "{cpu:?} did not answer within a second"),
        }
    }
}

impl core::error::Error for CpuError {}

/// Why the word of a spin table, which the device tree names, cannot be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It is no multiple of 8.
    Misaligned,
    /// It lies in the kernel's image.
    InImage,
    /// It lies in the device tree.
    InTree,
    /// It is no RAM that the kernel uses; what the device tree has there, if anything.
    NoRam(Option<&'static str>),
    /// It is RAM that may have become somebody's.
    NotReserved,
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned => f.write_str("is no multiple of 8"),
            Self::InImage => f.write_str("lies in the kernel's image"),
            Self::InTree => f.write_str("lies in the device tree"),
            Self::NoRam(Some(name)) => write!(f, "lies in {name}, which is no RAM that the kernel maps"),
            Self::NoRam(None) => f.write_str("lies in no RAM that the kernel maps"),
            Self::NotReserved => f.write_str("lies in RAM that is not reserved"),
        }
    }
}

impl core::error::Error for ReleaseError {}

/// Says that a CPU lets others wait. The wait goes on.
pub(super) fn no_answer(cpu: CpuId) {
    let state = Record::of(cpu).map_or(CpuState::Absent, Record::state);
    error!("{:?} has waited a second for {cpu:?}, which is {state:?}", cpu::current());
}

/// Wakes a CPU that sleeps because it has nothing to do, if there is one.
pub(super) fn rouse() {
    let sleeper = global::online_cpus().find(|cpu| Record::of(*cpu).is_some_and(|r| r.idle.load(Ordering::Relaxed)));
    if let Some(cpu) = sleeper {
        interrupts::kick(cpu);
    }
}

/// The state of a CPU.
#[must_use]
pub fn state(cpu: CpuId) -> CpuState {
    Record::of(cpu).map_or(CpuState::Absent, Record::state)
}

/// The affinity fields of a CPU's `MPIDR_EL1`.
#[must_use]
pub fn affinity(cpu: CpuId) -> u64 {
    Record::of(cpu).map_or(0, |record| record.affinity.load(Ordering::Relaxed))
}

/// Reads which CPUs there are, gives this one its interrupt stack, and starts the others, but no more than `limit` CPUs
/// together. One that does not come is reported and left out. Boot CPU, once, interrupts masked, when stacks can be had and
/// the interrupt controller is up.
pub(super) fn init(tree: &Tree<'_>, limit: Option<u64>) {
    if let Err(error) = start::prepare_boot_cpu() {
        warn!("interrupts are handled on the stack that they interrupt: {error}");
    }
    survey(tree);
    let wanted = limit.unwrap_or(u64::MAX).saturating_sub(1);
    let others = global::possible_cpus().filter(|cpu| *cpu != CpuId::BOOT).take(to_usize(wanted));
    for cpu in others {
        if let Err(error) = start::bring_up(cpu) {
            warn!("{cpu:?} is left out: {error}");
        }
    }
    let possible = global::possible_cpus().count();
    if possible > 1 {
        info!("CPUs: {} of {possible} are up", global::online_cpus().count());
    }
}

/// Notes which CPU is which.
fn survey(tree: &Tree<'_>) {
    let own = cpu::affinity();
    if let Some(boot) = Record::of(CpuId::BOOT) {
        boot.affinity.store(own, Ordering::Relaxed);
        boot.set(CpuState::Online);
    }
    let is_own = |cpu: Cpu<'_, '_>| cpu.mpidr().is_ok_and(|mpidr| mpidr & AFFINITY == own);
    if !tree.cpus().any(is_own) {
        warn!("the device tree does not list the CPU that booted, with affinity {own:#x}");
    }
    let mut numbers = global::possible_cpus().filter(|cpu| *cpu != CpuId::BOOT);
    for described in tree.cpus().filter(|cpu| cpu.is_enabled()) {
        let affinity = match described.mpidr() {
            Ok(mpidr) => mpidr & AFFINITY,
            Err(error) => {
                warn!("a CPU is left out: {}", tree.locate(error));
                continue;
            }
        };
        if affinity == own {
            continue;
        }
        let Some((cpu, record)) = numbers.next().and_then(|cpu| Some((cpu, Record::of(cpu)?))) else {
            warn!("the CPU with affinity {affinity:#x} is left out: there are too many");
            continue;
        };
        record.affinity.store(affinity, Ordering::Relaxed);
        match described.enable_method() {
            Ok(Some(EnableMethod::Psci)) if psci::is_present() => record.set(CpuState::Off),
            Ok(Some(EnableMethod::SpinTable { release })) => {
                record.release.store(release.get().saturating_add(1), Ordering::Relaxed);
                record.set(CpuState::Waiting);
            }
            Ok(method) => warn!("{cpu:?}: no way to start it ({method:?})"),
            Err(error) => warn!("{cpu:?}: {}", tree.locate(error)),
        }
    }
}
