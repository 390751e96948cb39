//! What happens when memory is short: the seam between the page allocator and whoever frees memory for it.
#![forbid(unsafe_code)]

use crate::addr::Order;
use crate::gfp::{Gfp, ZoneType};

/// An allocation that found no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// What the caller permits.
    pub gfp: Gfp,
    /// What it wants.
    pub order: Order,
    /// The highest zone that it may come from.
    pub zone: ZoneType,
    /// How often [`Pressure::relieve`] has been called for it, this time not counted.
    pub attempt: u32,
}

/// What [`Pressure::relieve`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Relief {
    /// Memory was freed, or may have been: the allocation tries again.
    Retry,
    /// Nothing more can be done: the allocation fails.
    GiveUp,
}

/// Who frees memory when the page allocator runs short.
///
/// All methods are called from the slow path, with no lock held and interrupts as the caller of the allocator has them.
/// The defaults do nothing: an allocator without a reclaimer fails when its memory is used up.
pub trait Pressure {
    /// A zone has fallen below its `low` mark: wake the background reclaimer. Any context.
    fn wake(&self, _zone: ZoneType, _order: Order) {}

    /// There is no memory down to the mark that the caller may reach, and the caller may wait: reclaim, wait, or kill
    /// something. `NOFAIL`, `NORETRY` and `RETRY_MAYFAIL` are for this method to honour.
    fn relieve(&self, _shortage: &Shortage) -> Relief {
        Relief::GiveUp
    }

    /// A test wants this allocation to fail. Asked only while the allocator is told to go the long way
    /// ([`PageAllocator::set_careful`](super::PageAllocator::set_careful)).
    fn should_fail(&self, _gfp: Gfp, _order: Order) -> bool {
        false
    }

    /// An allocation fails without [`Gfp::NOWARN`].
    fn failed(&self, shortage: &Shortage) {
        log::warn!("page allocation failure: order:{}, mode:{}", shortage.order.get(), shortage.gfp);
    }

    /// Somebody who may not wait here says that it may; the allocation goes on without waiting.
    fn waits_in_atomic(&self, gfp: Gfp, order: Order) {
        log::error!("sleeping allocation in atomic context: order:{}, mode:{gfp}", order.get());
    }
}
