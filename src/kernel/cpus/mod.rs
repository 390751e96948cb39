//! The CPUs: their number, their states, and bringing them up and down (docs/cpus.md).
//!
//! The boot CPU is number 0, in any order of the device tree; the others follow in that order. A CPU is in one of these states,
//! and moves only along the arrows:
//!
//! ```text
//!   Off, Waiting, Parked ──▶ Starting ──▶ Arrived ──▶ Online ◀──▶ Leaving ◀──▶ Stopping ──▶ Parked ──▶ Off
//!                               │            │
//!                               └────▶ Late ◀┘
//! ```

mod idle;
mod start;
mod stop_machine;
mod work;

pub(super) use start::remember_places;
pub use start::{cpu_down, cpu_up};
pub(super) use stop_machine::hold_others;
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
use crate::hal::patience::Patience;
use crate::hal::wait::Atomic;
use crate::sync::{OrderedLock, class};
use ::log::{error, info, warn};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use work::Job;

/// The time that any step of another CPU may take before it is reported: a second from now on.
pub(super) fn patience() -> Patience {
    Patience::new(timer::ticks(), timer::frequency())
}

/// State of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CpuState {
    /// There is no such CPU, or it cannot be started.
    Absent = 0,
    /// Switched off; firmware starts it.
    Off = 1,
    /// It polls its word of the loader's spin table.
    Waiting = 2,
    /// It has been told to start.
    Starting = 3,
    /// It runs the kernel, and gets ready.
    Arrived = 4,
    /// It is online.
    Online = 5,
    /// It has been asked to go offline.
    Leaving = 6,
    /// It is going offline, unless a job was sent to it in this very moment.
    Stopping = 7,
    /// It is offline: firmware switches it off, or it polls its state, everything masked.
    Parked = 8,
    /// It did not start in time, or cannot be used. If it still starts later, it stops.
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
    /// Address of its word of the spin table, plus one; zero for a CPU that firmware starts.
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

    /// Moves from one state to another. Returns whether it was in the first one.
    fn go(&self, from: CpuState, to: CpuState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

/// Reason why a CPU was not started or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CpuError {
    /// There is no such CPU, or it was given up.
    NoSuchCpu(CpuId, CpuState),
    /// Its state does not permit that.
    State(CpuId, CpuState),
    /// The boot CPU and the calling CPU cannot be stopped.
    Refused(CpuId),
    /// The caller may not wait.
    Atomic(Option<Atomic>),
    /// No memory for its stacks.
    Stack(StackAllocError),
    /// Its stacks do not have the layout that the vectors need.
    BadStack(StackError),
    /// Firmware refused.
    Firmware(psci::Error),
    /// The word of the spin table cannot be written.
    Release(PhysAddr, ReleaseError),
    /// The kernel is not on its final tables.
    NoTables,
    /// It did not start, or did not stop, within a second.
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

/// Reason why a word of a spin table, which the device tree names, is not usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It is not a multiple of 8.
    Misaligned,
    /// It lies in the kernel's image.
    InImage,
    /// It lies in the device tree.
    InTree,
    /// It is not in RAM that the kernel uses, even if the device tree names it.
    NoRam(Option<&'static str>),
    /// It is in RAM that may have an owner by now.
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

/// Reports that a CPU makes others wait. The wait continues.
pub(super) fn no_answer(cpu: CpuId) {
    let state = Record::of(cpu).map_or(CpuState::Absent, Record::state);
    error!("{:?} has waited a second for {cpu:?}, which is {state:?}", cpu::current());
}

/// Wakes an idle CPU that sleeps, if there is one.
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

/// Reads the CPUs of the device tree, gives this one its interrupt stack, and starts the others, up to `limit` CPUs in total. A
/// CPU that does not start is reported and left out. Boot CPU, once, interrupts masked, when stacks can be allocated and the
/// interrupt controller is up.
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

/// Records the numbers of the CPUs.
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
