//! Names of the pools that the device tree sets aside, and how many there can be.
#![forbid(unsafe_code)]

/// Pools that there can be.
pub const MAX_DEVICE_POOLS: usize = 16;
/// Restricted pools that there can be.
pub const MAX_RESTRICTED_POOLS: usize = 4;

/// Names a pool of the machine's, for [`Device::set_pool`](super::Device::set_pool).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolId(pub(super) u8);

/// Names a restricted pool of the machine's, for [`Device::set_restricted_pool`](super::Device::set_restricted_pool).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestrictedPool {
    pub(super) number: u8,
    pub(super) pool: PoolId,
}

impl RestrictedPool {
    pub(super) fn index(self) -> usize {
        usize::from(self.number)
    }

    /// The part for coherent memory.
    #[must_use]
    pub const fn coherent(self) -> PoolId {
        self.pool
    }
}
