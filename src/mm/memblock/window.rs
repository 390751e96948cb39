//! Where allocations lie.
#![forbid(unsafe_code)]

use super::region::PHYS_END;
use crate::addr::{PhysAddr, PhysRange};

/// One past the highest "low" address until [`Memblock::set_low_limit`](super::Memblock::set_low_limit) says otherwise: the limit of a device with 32 address
/// bits reaches.
pub(super) const LOW_LIMIT: PhysAddr = PhysAddr::new(1 << 32);

/// From which end of memory allocations are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// The highest free range that fits, which keeps low memory for devices.
    #[default]
    TopDown,
    /// The lowest one.
    BottomUp,
}

/// Range for an allocation. The upper limit always applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub(super) min: PhysAddr,
    pub(super) max: PhysAddr,
    pub(super) min_binds: bool,
}

impl Window {
    /// Anywhere in memory.
    pub const ANYWHERE: Self = Self::between(PhysAddr::ZERO, PHYS_END);

    /// At or above `min`, or below it if there is no room above.
    #[must_use]
    pub const fn at_least(min: PhysAddr) -> Self {
        Self::between(min, PHYS_END)
    }

    /// Below `max`.
    #[must_use]
    pub const fn below(max: PhysAddr) -> Self {
        Self::between(PhysAddr::ZERO, max)
    }

    /// Below `max`, and at or above `min` if there is room.
    #[must_use]
    pub const fn between(min: PhysAddr, max: PhysAddr) -> Self {
        Self { min, max, min_binds: false }
    }

    /// Inside `range` and nowhere else.
    #[must_use]
    pub const fn exactly(range: PhysRange) -> Self {
        Self { min: range.start(), max: range.end(), min_binds: true }
    }
}
