//! The interrupt controller: GICv2 and GICv3 behind one value, through crate `arm-gic`.
//!
//! Interrupts between CPUs and private ones are set up on the CPU that is to take them. All interrupts have one
//! priority: none interrupts the handler of another. A CPU can be sent an interrupt once it has called
//! [`Gic::init_cpu`], which is when the controller's name for it becomes known.

mod v2;
mod v3;

use crate::addr::{CpuId, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::irq;
use crate::driver::waker::Unresponsive;
use crate::sync::{OrderedLock, class};
use arm_gic::IntId as ArmIntId;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use v2::V2;
use v3::V3;

/// The INTIDs that can carry an interrupt are below this: GICv2, and GICv3 without extended ranges and LPIs.
pub(crate) const INTIDS: u32 = 1020;
/// Regions that the redistributors of a GICv3 may lie in; boards have one, QEMU with more than 123 CPUs two.
pub const REGIONS: usize = 4;
/// The lowest INTID of a shared interrupt.
const FIRST_SHARED: u32 = 32;
/// The lowest INTID that is not one of the interrupts between CPUs.
const FIRST_PRIVATE_DEVICE: u32 = 16;

/// The number of an interrupt: 0 to 15 between CPUs, 16 to 31 private to a CPU, from 32 shared.
///
/// # Invariants
///
/// - `INTID-1`: below `INTIDS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IntId(u32);

impl IntId {
    /// The interrupt `raw`, or `None` at or above `INTIDS`.
    #[must_use]
    pub const fn new(raw: u32) -> Option<Self> {
        // INVARIANT: INTID-1 by the comparison.
        if raw < INTIDS { Some(Self(raw)) } else { None }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether any CPU can take it, and not only one.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.0 >= FIRST_SHARED
    }

    /// Whether another CPU makes it pending, and not a line.
    #[must_use]
    pub const fn is_between_cpus(self) -> bool {
        self.0 < FIRST_PRIVATE_DEVICE
    }

    /// Whether a line makes it pending, and not another CPU.
    const fn has_trigger(self) -> bool {
        !self.is_between_cpus()
    }

    fn to_arm(self) -> Result<ArmIntId, GicError> {
        ArmIntId::try_from(self.0).map_err(|_| GicError::Refused(self))
    }
}

/// Condition that makes an interrupt pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// A change of the line.
    Edge,
    /// The line's level, until the device lets it go.
    Level,
}

impl Trigger {
    /// The trigger that a device tree's flags ask for: 1 and 2 are edges, 4 and 8 levels.
    #[must_use]
    pub const fn from_flags(flags: u32) -> Self {
        if flags & 3 == 0 { Self::Level } else { Self::Edge }
    }

    const fn to_arm(self) -> arm_gic::Trigger {
        match self {
            Self::Edge => arm_gic::Trigger::Edge,
            Self::Level => arm_gic::Trigger::Level,
        }
    }
}

/// Reason why the controller refused a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GicError {
    /// No redistributor in the mapped range belongs to this CPU.
    NoRedistributor,
    /// The controller does not have this interrupt, or does not let it be enabled.
    Refused(IntId),
    /// The CPU takes no interrupts: it has not called [`Gic::init_cpu`].
    UnknownCpu(CpuId),
    /// Interrupts between CPUs do not reach a CPU of this affinity: its lowest field is 16 or more.
    Unreachable(u64),
    /// The redistributor of this CPU did not complete its request in time.
    Unresponsive(Unresponsive),
}

impl fmt::Display for GicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRedistributor => f.write_str("no redistributor belongs to this CPU"),
            Self::Refused(intid) => write!(f, "the interrupt controller refuses interrupt {}", intid.0),
            Self::Unreachable(affinity) => write!(f, "affinity {affinity:#x} is out of reach of other CPUs"),
            Self::Unresponsive(error) => error.fmt(f),
            Self::UnknownCpu(cpu) => write!(f, "{cpu:?} takes no interrupts"),
        }
    }
}

impl core::error::Error for GicError {}

/// A kind of controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicVersion {
    /// GICv2, as GIC-400.
    V2,
    /// GICv3, or GICv4 used as such.
    V3,
}

impl GicVersion {
    /// The driver for one string of a node's `compatible` property.
    #[must_use]
    pub fn for_compatible(compatible: &str) -> Option<Self> {
        match compatible {
            "arm,gic-400" | "arm,cortex-a15-gic" | "arm,cortex-a9-gic" | "arm,cortex-a7-gic" => Some(Self::V2),
            "arm,gic-v3" => Some(Self::V3),
            _ => None,
        }
    }
}

impl fmt::Display for GicVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "GICv2",
            Self::V3 => "GICv3",
        })
    }
}

/// An interrupt that a CPU has taken and not ended yet. The number that ends it also names the CPU that asked for it.
#[derive(Debug)]
#[must_use = "an interrupt that is not ended never comes again"]
pub struct Acknowledged {
    word: ArmIntId,
    intid: IntId,
}

impl Acknowledged {
    /// Which interrupt it is.
    #[must_use]
    pub const fn intid(&self) -> IntId {
        self.intid
    }
}

/// An interrupt controller.
#[derive(Debug)]
pub struct Gic {
    backend: Backend,
    /// Held while registers are changed that several CPUs share.
    configuration: OrderedLock<(), class::InterruptController, cpu::Relax>,
    /// The controller's number of each CPU, plus one; zero for a CPU that takes no interrupts.
    names: [AtomicU64; MAX_CPUS],
}

#[derive(Debug)]
enum Backend {
    V2(V2),
    V3(V3),
}

impl Gic {
    /// The controller whose distributor is mapped at `distributor`, and in `others` the CPU interface, first (GICv2), or
    /// the redistributors (GICv3; one that lies outside is not found). Nothing is written yet.
    ///
    /// # Safety
    ///
    /// At `distributor`, not zero, its registers are mapped as Device memory, for ever: 4 KiB on GICv2, 64 KiB on GICv3.
    /// So is each of `others` that is not empty, which starts at the first register. No other driver uses them.
    #[must_use]
    pub const unsafe fn new(version: GicVersion, distributor: VirtAddr, others: [VirtRange; REGIONS]) -> Self {
        let [first, ..] = others;
        let backend = match version {
            // SAFETY: by this function's `# Safety`, the registers of both parts are mapped for good and no other driver's.
            GicVersion::V2 => Backend::V2(unsafe { V2::new(distributor, first.start()) }),
            // SAFETY: by this function's `# Safety`, the registers of all parts are mapped for good and no other driver's.
            GicVersion::V3 => Backend::V3(unsafe { V3::new(distributor, others) }),
        };
        Self { backend, configuration: OrderedLock::new(()), names: [const { AtomicU64::new(0) }; MAX_CPUS] }
    }

    /// Which kind this is.
    #[must_use]
    pub const fn version(&self) -> GicVersion {
        match self.backend {
            Backend::V2(_) => GicVersion::V2,
            Backend::V3(_) => GicVersion::V3,
        }
    }

    /// Brings the shared part into a known state, every interrupt off. Once, on the boot CPU, before
    /// [`init_cpu`](Self::init_cpu).
    pub fn init(&self) {
        match &self.backend {
            Backend::V2(gic) => gic.init(),
            Backend::V3(gic) => gic.init(),
        }
    }

    /// Lets this CPU take interrupts. Once on each CPU, interrupts masked.
    ///
    /// # Errors
    ///
    /// [`GicError::NoRedistributor`], [`GicError::Unreachable`], [`GicError::Unresponsive`].
    pub fn init_cpu(&self) -> Result<(), GicError> {
        let _lock = self.configuration.lock();
        let name = match &self.backend {
            Backend::V2(gic) => gic.init_cpu(),
            Backend::V3(gic) => gic.init_cpu()?,
        };
        if let Some(place) = self.names.get(to_usize(u64::from(cpu::current().get()))) {
            place.store(name + 1, Ordering::Release);
        }
        Ok(())
    }

    /// This CPU takes no interrupts from now on, and can be sent none, until it calls [`init_cpu`](Self::init_cpu) again.
    /// Interrupts masked.
    ///
    /// # Errors
    ///
    /// [`GicError::NoRedistributor`], [`GicError::Unresponsive`]; the CPU takes no interrupts all the same.
    pub fn leave_cpu(&self) -> Result<(), GicError> {
        if let Some(place) = self.names.get(to_usize(u64::from(cpu::current().get()))) {
            place.store(0, Ordering::Release);
        }
        let _lock = self.configuration.lock();
        match &self.backend {
            Backend::V2(gic) => {
                gic.leave_cpu();
                Ok(())
            }
            Backend::V3(gic) => gic.leave_cpu(),
        }
    }

    /// Makes `intid`, one of the interrupts between CPUs, pending on `cpu`, be it this one. Any context; takes no lock. The
    /// handler sees all earlier writes.
    ///
    /// # Errors
    ///
    /// [`GicError::UnknownCpu`], [`GicError::Refused`] for an interrupt that is not between CPUs.
    pub fn send(&self, intid: IntId, cpu: CpuId) -> Result<(), GicError> {
        let arm = intid.to_arm().ok().filter(|_| intid.is_between_cpus()).ok_or(GicError::Refused(intid))?;
        let place = self.names.get(to_usize(u64::from(cpu.get())));
        let name = place.and_then(|place| place.load(Ordering::Acquire).checked_sub(1));
        let name = name.ok_or(GicError::UnknownCpu(cpu))?;
        match &self.backend {
            Backend::V2(gic) => gic.send(arm, name),
            Backend::V3(gic) => gic.send(arm, name).map_err(|_| GicError::Refused(intid))?,
        }
        Ok(())
    }

    /// Lets `intid` through to this CPU. Any context; takes the controller's lock.
    ///
    /// # Errors
    ///
    /// [`GicError::Refused`] if the controller does not have it, [`GicError::NoRedistributor`].
    pub fn enable(&self, intid: IntId, trigger: Trigger) -> Result<(), GicError> {
        self.configure(|| match &self.backend {
            Backend::V2(gic) => gic.enable(intid, trigger),
            Backend::V3(gic) => gic.enable(intid, trigger),
        })
    }

    /// Holds `intid` back. One that is already on its way can still arrive. Any context; takes the controller's lock.
    ///
    /// # Errors
    ///
    /// As for [`enable`](Self::enable).
    pub fn disable(&self, intid: IntId) -> Result<(), GicError> {
        self.configure(|| match &self.backend {
            Backend::V2(gic) => gic.disable(intid),
            Backend::V3(gic) => gic.disable(intid),
        })
    }

    /// Takes the pending interrupt, if there is one. In an interrupt handler; takes no lock.
    #[must_use]
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        match &self.backend {
            Backend::V2(gic) => gic.acknowledge(),
            Backend::V3(gic) => gic.acknowledge(),
        }
    }

    /// Ends an interrupt, so that it can become pending again. On the CPU that took it, the last taken first.
    pub fn end(&self, taken: Acknowledged) {
        match &self.backend {
            Backend::V2(gic) => gic.end(taken),
            Backend::V3(gic) => gic.end(taken),
        }
    }

    fn configure<T>(&self, change: impl FnOnce() -> T) -> T {
        let _irqs = irq::local_irq_save();
        let _lock = self.configuration.lock();
        change()
    }
}
