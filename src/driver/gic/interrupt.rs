//! An interrupt as both controllers see it: its number, its trigger, and why a request about it is refused.
#![forbid(unsafe_code)]

use crate::addr::CpuId;
use crate::driver::gicv3::Gicv3Error;
use arm_gic::IntId as ArmIntId;
use core::fmt;

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
    pub(super) const fn has_trigger(self) -> bool {
        !self.is_between_cpus()
    }

    pub(super) fn to_arm(self) -> Result<ArmIntId, GicError> {
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

    pub(super) const fn to_arm(self) -> arm_gic::Trigger {
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
    /// A GICv3 did not do what it was asked for.
    V3(Gicv3Error),
    /// The controller does not have this interrupt, or does not let it be enabled.
    Refused(IntId),
    /// The CPU takes no interrupts: it has not called [`Gic::init_cpu`](super::Gic::init_cpu).
    UnknownCpu(CpuId),
}

impl fmt::Display for GicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V3(error) => error.fmt(f),
            Self::Refused(intid) => write!(f, "the interrupt controller refuses interrupt {}", intid.0),
            Self::UnknownCpu(cpu) => write!(f, "{cpu:?} takes no interrupts"),
        }
    }
}

impl core::error::Error for GicError {}

impl From<Gicv3Error> for GicError {
    fn from(error: Gicv3Error) -> Self {
        Self::V3(error)
    }
}

/// An interrupt that a CPU has taken and not ended yet. The number that ends it also names the CPU that asked for it.
#[derive(Debug)]
#[must_use = "an interrupt that is not ended never comes again"]
pub struct Acknowledged {
    pub(super) word: ArmIntId,
    pub(super) intid: IntId,
}

impl Acknowledged {
    /// Which interrupt it is.
    #[must_use]
    pub const fn intid(&self) -> IntId {
        self.intid
    }
}
