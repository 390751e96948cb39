//! Handlers of interrupts: the controller that the device tree names, a table of handlers, and the interrupts that CPUs send
//! each other.

use super::{panic, smp_call};
use crate::addr::{CpuId, PhysRange, VirtRange, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::early_fixmap::FixmapError;
use crate::arch::aarch64::irq;
use crate::boot::early_map::EarlyMap;
use crate::driver::gic::{Gic, GicError, GicVersion, INTIDS, IntId, REGIONS, Trigger};
use crate::fdt::{Node, Tree};
use crate::global::{self, BuddyFrames};
use crate::hal::prot::Prot;
use crate::mm::pgtable::{MapFlags, PgtableError};
use crate::mm::vmalloc::{AreaError, AreaRequest, VmFlags};
use crate::sync::Once;
use ::log::{info, warn};
use aarch64_cpu::asm::barrier;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Handler of an interrupt: runs with interrupts masked, on the CPU's interrupt stack, and must not wait. A level-triggered
/// source must be quiet when it returns.
pub type Handler = fn(IntId);

/// Bytes of a redistributor with all its frames.
const REDISTRIBUTOR_MAX: u64 = 256 << 10;
/// Sent to a CPU that must answer requests and run its calls.
const CALL: u32 = 0;
/// Sent to a CPU that must stop for good.
const STOP: u32 = 1;
/// Bytes of a GICv2's register block that the driver uses; trees state up to 64 KiB.
const V2_BLOCK: u64 = 8 << 10;

static GIC: Once<Gic, cpu::Relax> = Once::new();

/// A [`Handler`] by INTID, or null.
///
/// - `IRQ-1`: every pointer but null was a `Handler`.
static HANDLERS: [AtomicPtr<()>; INTIDS as usize] = [const { AtomicPtr::new(core::ptr::null_mut()) }; INTIDS as usize];

/// Number of handlers known to free no memory.
static QUIET: AtomicUsize = AtomicUsize::new(0);

/// Reason why an interrupt cannot be requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InterruptError {
    /// The device tree names no interrupt controller that the kernel knows.
    NoController,
    /// The controller's registers could not be mapped.
    Fixmap(FixmapError),
    /// No addresses are left for them.
    Area(AreaError),
    /// No memory is left for their tables.
    Tables(PgtableError),
    /// It has a handler already.
    Taken(IntId),
    /// The controller refused the request.
    Controller(GicError),
    /// The call sleeps, and sleeping is not allowed here.
    Atomic,
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoController => f.write_str("no interrupt controller that this kernel knows"),
            Self::Fixmap(error) => write!(f, "interrupt controller: {error}"),
            Self::Area(error) => write!(f, "interrupt controller: {error}"),
            Self::Tables(error) => write!(f, "interrupt controller: {error}"),
            Self::Taken(intid) => write!(f, "interrupt {} has a handler already", intid.get()),
            Self::Controller(error) => error.fmt(f),
            Self::Atomic => f.write_str("the call sleeps, and sleeping is not allowed here"),
        }
    }
}

impl core::error::Error for InterruptError {}

/// Maps the controller of `tree` and sets it up, on this CPU too. Interrupts stay masked. Boot CPU, once.
///
/// # Errors
///
/// [`InterruptError::NoController`], [`InterruptError::Fixmap`], [`InterruptError::Controller`].
pub(super) fn init(tree: &Tree<'_>, early: &EarlyMap) -> Result<(), InterruptError> {
    let version_of = |node: Node<'_, '_>| node.compatible().find_map(GicVersion::for_compatible);
    let usable = |node: Node<'_, '_>| version_of(node).is_some() && node.is_enabled();
    let node = tree.find_by(usable).ok_or(InterruptError::NoController)?;
    let version = version_of(node).ok_or(InterruptError::NoController)?;
    let mut ranges = node.phys_ranges();
    let (Some(Ok(first)), Some(Ok(second))) = (ranges.next(), ranges.next()) else {
        return Err(InterruptError::NoController);
    };
    let mut others = [VirtRange::default(); REGIONS];
    let distributor = match version {
        GicVersion::V2 => {
            let [cpu_interface, ..] = &mut others;
            *cpu_interface = map(second, V2_BLOCK, early)?;
            map(first, V2_BLOCK, early)?
        }
        GicVersion::V3 => {
            let cpus = tree.cpus().count().clamp(1, MAX_CPUS) as u64;
            // Behind the redistributors come the registers of the virtual CPU interface.
            let count = node.u32("#redistributor-regions").unwrap_or(1);
            let further = ranges.flatten().take(to_usize(u64::from(count.saturating_sub(1))));
            let mut places = others.iter_mut();
            for region in core::iter::once(second).chain(further) {
                match places.next() {
                    Some(place) => *place = map_redistributors(region, cpus * REDISTRIBUTOR_MAX)?,
                    None => warn!("interrupts: redistributors at {region} are left out: more than {REGIONS} regions"),
                }
            }
            map(first, 64 << 10, early)?
        }
    };
    // SAFETY: all are mapped as Device memory by the lines above, for good, at addresses that are not zero, or empty; this
    // is the only driver of the controller, and the only call.
    let gic = GIC.call_once(|| unsafe { Gic::new(version, distributor.start(), others) });
    gic.init().map_err(InterruptError::Controller)?;
    init_cpu()?;
    info!("interrupts: {version} at {first}");
    Ok(())
}

/// Maps the first `size` bytes of `range`, or all of it if it is smaller.
fn map(range: PhysRange, size: u64, early: &EarlyMap) -> Result<VirtRange, InterruptError> {
    let part = PhysRange::from_size(range.start(), range.size().min(size)).unwrap_or(range);
    early.device(part).map_err(InterruptError::Fixmap)
}

/// Maps the first `size` bytes of `range`: more than the fixmap has room for. In entries of 4 KiB, as one of the pages must not
/// be read.
fn map_redistributors(range: PhysRange, size: u64) -> Result<VirtRange, InterruptError> {
    let (start, size) = (range.start(), range.size().min(size));
    // It is never completed, so that nobody unmaps it by its address.
    let flags = VmFlags::IOREMAP | VmFlags::UNINITIALIZED;
    let area = global::vmap_space().alloc(&AreaRequest::new(size, flags)).map_err(InterruptError::Area)?;
    area.set_phys(start);
    let virt = VirtRange::from_size(area.start(), size).unwrap_or_default();
    let tables = global::kernel_tables().ok_or(InterruptError::NoController)?;
    let flags = MapFlags::NO_HUGE | MapFlags::NO_CONT;
    tables.do_map(&BuddyFrames::ATOMIC, virt, start, Prot::KERNEL_DEVICE, flags).map_err(InterruptError::Tables)?;
    Ok(virt)
}

/// Enables interrupts on this CPU, first of all those of other CPUs. On each CPU, interrupts masked.
pub(super) fn init_cpu() -> Result<(), InterruptError> {
    let gic = GIC.get().ok_or(InterruptError::NoController)?;
    gic.init_cpu().map_err(InterruptError::Controller)?;
    for intid in [CALL, STOP].into_iter().filter_map(IntId::new) {
        gic.enable(intid, Trigger::Edge).map_err(InterruptError::Controller)?;
    }
    Ok(())
}

/// Disables all interrupts on this CPU. Masked.
pub(super) fn leave_cpu() {
    if let Some(Err(error)) = GIC.get().map(Gic::leave_cpu) {
        log::error!("{:?} goes offline, but {error}", cpu::current());
    }
}

/// Makes a CPU answer its requests and run its calls soon. Any context. It has no effect on a CPU that takes no interrupts.
pub(super) fn kick(cpu: CpuId) {
    send(CALL, cpu);
}

/// Stops a CPU for good, as soon as it takes interrupts. Any context.
pub(super) fn send_stop(cpu: CpuId) {
    send(STOP, cpu);
}

fn send(number: u32, cpu: CpuId) {
    if let (Some(gic), Some(intid)) = (GIC.get(), IntId::new(number)) {
        // Such a CPU is offline, or not online yet; it checks when it comes.
        let _ = gic.send(intid, cpu);
    }
}

/// Enables the private interrupt `intid`, which has a handler, on this CPU too. Any context.
///
/// # Errors
///
/// [`InterruptError::NoController`], [`InterruptError::Controller`].
pub(crate) fn enable_here(intid: IntId, trigger: Trigger) -> Result<(), InterruptError> {
    let gic = GIC.get().ok_or(InterruptError::NoController)?;
    gic.enable(intid, trigger).map_err(InterruptError::Controller)
}

/// Makes `handler` take the interrupt `intid`, and enables it on this CPU (Linux: `request_irq`); a private one that other CPUs
/// must take too is enabled there by `enable_here`. Any context.
///
/// # Errors
///
/// [`InterruptError::NoController`], [`InterruptError::Taken`], [`InterruptError::Controller`]; nothing has changed then.
pub fn request(intid: IntId, trigger: Trigger, handler: Handler) -> Result<(), InterruptError> {
    let gic = GIC.get().ok_or(InterruptError::NoController)?;
    let slot = slot(intid).ok_or(InterruptError::NoController)?;
    let null = core::ptr::null_mut();
    // INVARIANT: IRQ-1. Release pairs with the acquire in `handle`: the handler sees all setup made for it.
    slot.compare_exchange(null, handler as *mut (), Ordering::Release, Ordering::Relaxed)
        .map_err(|_| InterruptError::Taken(intid))?;
    gic.enable(intid, trigger).map_err(|error| {
        slot.store(null, Ordering::Relaxed);
        InterruptError::Controller(error)
    })
}

/// [`request`] for a handler that never frees memory and never wakes anybody who waits for it, for good: no context sleeps
/// until such an interrupt comes.
///
/// # Errors
///
/// As for [`request`].
pub(super) fn request_quiet(intid: IntId, trigger: Trigger, handler: Handler) -> Result<(), InterruptError> {
    request(intid, trigger, handler)?;
    QUIET.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Disables the interrupt and removes its handler (Linux: `free_irq`). On the CPU that requested it; the handler may still be
/// running on another.
///
/// # Errors
///
/// [`InterruptError::NoController`], [`InterruptError::Controller`].
pub fn release(intid: IntId) -> Result<(), InterruptError> {
    let gic = GIC.get().ok_or(InterruptError::NoController)?;
    gic.disable(intid).map_err(InterruptError::Controller)?;
    if let Some(slot) = slot(intid) {
        slot.store(core::ptr::null_mut(), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether any interrupt has a handler that may free memory, so that a CPU that waits for some may be woken by one. Any
/// context.
pub(super) fn may_free_memory() -> bool {
    let requested = HANDLERS.iter().filter(|slot| !slot.load(Ordering::Relaxed).is_null()).count();
    requested > QUIET.load(Ordering::Relaxed)
}

/// Handles one pending interrupt; a second one brings the CPU here again. From the vectors, interrupts masked.
pub(super) fn handle() {
    let Some(gic) = GIC.get() else { return };
    let Some(taken) = gic.acknowledge() else { return };
    let intid = taken.intid();
    if intid.is_between_cpus() {
        // Ended first, so that an event from now on interrupts again.
        gic.end(taken);
        match intid.get() {
            CALL => {
                smp_call::run_pending();
                answer_requests();
            }
            STOP => panic::stop_here(),
            other => warn!("interrupt {other} from another CPU means nothing"),
        }
        return;
    }
    match slot(intid).and_then(handler_in) {
        Some(handler) => handler(intid),
        None => {
            warn!("interrupt {} has no handler; it is held back from now on", intid.get());
            if let Err(error) = gic.disable(intid) {
                warn!("{error}");
            }
        }
    }
    gic.end(taken);
}

/// Answers the requests of other CPUs, and lets other interrupts in between any two parts of that: there may be as many parts
/// as caches. In a handler, after the end of its interrupt.
fn answer_requests() {
    /// CPUs that are answering: a handler that interrupts them leaves the rest to them.
    static ANSWERING: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
    let Some(answering) = ANSWERING.get(to_usize(u64::from(cpu::current().get()))) else { return };
    if answering.swap(true, Ordering::Relaxed) {
        return;
    }
    while global::answer_request() {
        irq::local_irq_enable();
        barrier::isb(barrier::SY);
        irq::local_irq_disable();
    }
    // Still masked: a request that comes now interrupts when this handler has returned.
    answering.store(false, Ordering::Relaxed);
}

fn slot(intid: IntId) -> Option<&'static AtomicPtr<()>> {
    HANDLERS.get(to_usize(u64::from(intid.get())))
}

fn handler_in(slot: &AtomicPtr<()>) -> Option<Handler> {
    let pointer = slot.load(Ordering::Acquire);
    // SAFETY: IRQ-1: not null, so it was a `Handler`.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Handler>(pointer) })
}
