//! The interrupt controller: GICv2, through crate `arm-gic`, and GICv3 behind one value.
//!
//! Interrupts between CPUs and private ones are set up on the CPU that is to take them. All interrupts have one
//! priority: none interrupts the handler of another. A CPU can be sent an interrupt once it has called
//! [`Gic::init_cpu`], which is when the controller's name for it becomes known.

mod interrupt;
mod v2;
mod v3;

use crate::addr::{CpuId, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS};
use crate::arch::aarch64::irq;
use crate::sync::{OrderedLock, class};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) use interrupt::INTIDS;
pub use interrupt::{Acknowledged, GicError, IntId, REGIONS, Trigger};
use v2::V2;
use v3::V3;

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
    ///
    /// # Errors
    ///
    /// [`GicError::V3`]: it does not complete what was written.
    pub fn init(&self) -> Result<(), GicError> {
        match &self.backend {
            Backend::V2(gic) => {
                gic.init();
                Ok(())
            }
            Backend::V3(gic) => gic.init(),
        }
    }

    /// Lets this CPU take interrupts. Once on each CPU, interrupts masked.
    ///
    /// # Errors
    ///
    /// [`GicError::V3`].
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
    /// [`GicError::V3`]; the CPU takes no interrupts all the same.
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
        if !intid.is_between_cpus() {
            return Err(GicError::Refused(intid));
        }
        let place = self.names.get(to_usize(u64::from(cpu.get())));
        let name = place.and_then(|place| place.load(Ordering::Acquire).checked_sub(1));
        let name = name.ok_or(GicError::UnknownCpu(cpu))?;
        match &self.backend {
            Backend::V2(gic) => gic.send(intid.to_arm()?, name),
            Backend::V3(gic) => gic.send(intid, name),
        }
        Ok(())
    }

    /// Lets `intid` through to this CPU. Any context; takes the controller's lock.
    ///
    /// # Errors
    ///
    /// [`GicError::Refused`] if the controller does not have it or firmware keeps it, [`GicError::V3`].
    pub fn enable(&self, intid: IntId, trigger: Trigger) -> Result<(), GicError> {
        self.configure(|| match &self.backend {
            Backend::V2(gic) => gic.enable(intid, trigger),
            Backend::V3(gic) => gic.enable(intid, trigger),
        })
    }

    /// Holds `intid` back. One that is already on its way can still arrive; on GICv3 none is when this returns. Any context; takes
    /// the controller's lock.
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
            Backend::V3(gic) => gic.end(&taken),
        }
    }

    fn configure<T>(&self, change: impl FnOnce() -> T) -> T {
        let _irqs = irq::local_irq_save();
        let _lock = self.configuration.lock();
        change()
    }
}
