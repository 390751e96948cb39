//! Restricted pools: memory of its own for a device that is not trusted with any other (Linux: `restricted-dma-pool`,
//! `CONFIG_DMA_RESTRICTED_POOL`).
//!
//! A restricted pool has two parts. Every mapping of its devices is copied through the bounce slots of one; their coherent
//! memory is from the other, a pool as in `device_pool.rs`. So a device whose bus is confined to the pool, by a protection unit
//! that firmware has set up, works, and no address of other memory is ever told to it.
#![forbid(unsafe_code)]

use super::pool_id::{PoolId, RestrictedPool};
use super::swiotlb::SLOT_SIZE;
use super::{BounceStats, Dma, DmaError, DmaHal};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, to_usize};

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    /// [`Self::add_restricted_pool`], for memory that this crate knows to be its own, or that its caller promises to be.
    pub(crate) fn do_add_restricted_pool(&self, range: PhysRange, pool: PoolId) -> Result<RestrictedPool, DmaError> {
        let whole = range.start().is_aligned(PAGE_SIZE) && range.size().is_multiple_of(PAGE_SIZE);
        if range.is_empty() || !whole {
            return Err(DmaError::BadPool(range));
        }
        let [_, restricted @ ..] = &self.bounce;
        let places = || (0_u8..).zip(restricted);
        if places().any(|(_, bounce)| bounce.memory(&self.hal).overlaps(range)) {
            return Err(DmaError::AlreadySetUp);
        }
        let free = |bounce: &super::Bounce<'a, H>| bounce.memory(&self.hal).is_empty();
        // Each try takes records for good, so that none is made without a place for it.
        let (number, place) = places().find(|(_, bounce)| free(bounce)).ok_or(DmaError::TooManyPools)?;
        let records = self.hal.slots(to_usize(range.size() / SLOT_SIZE)).ok_or(DmaError::NoRecords)?;
        if !place.install(&self.hal, range, records) {
            // Another CPU was faster.
            return Err(DmaError::AlreadySetUp);
        }
        Ok(RestrictedPool { number, pool })
    }

    /// The restricted pool whose bounce slots start at a physical address and whose other part is `pool`, if there is one. Any
    /// context.
    #[must_use]
    pub fn restricted_pool_at(&self, start: PhysAddr, pool: PoolId) -> Option<RestrictedPool> {
        let [_, restricted @ ..] = &self.bounce;
        let here = |memory: PhysRange| !memory.is_empty() && memory.start() == start;
        let found = (0_u8..).zip(restricted).find(|(_, bounce)| here(bounce.memory(&self.hal)))?;
        Some(RestrictedPool { number: found.0, pool })
    }

    /// How the bounce slots of a restricted pool are used. Any context.
    #[must_use]
    pub fn restricted_stats(&self, pool: RestrictedPool) -> BounceStats {
        let [_, restricted @ ..] = &self.bounce;
        restricted.get(pool.index()).map_or(BounceStats::default(), |bounce| bounce.stats(&self.hal))
    }
}
