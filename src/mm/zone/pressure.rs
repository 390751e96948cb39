//! Shortage of memory: the interface between the page allocator and the code that frees memory for it.
#![forbid(unsafe_code)]

use super::blocks::Reach;
use crate::addr::Order;
use crate::gfp::{Gfp, ZoneType};

/// An allocation that found no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Permissions of the caller.
    pub gfp: Gfp,
    /// Order of the request.
    pub order: Order,
    /// The highest zone that it may come from.
    pub zone: ZoneType,
    /// How often [`Pressure::relieve`] has been called for it, this time not counted.
    pub attempt: u32,
    /// How many of the last of these calls freed nothing.
    pub fruitless: u32,
}

impl Shortage {
    /// How deep into the reserves it may reach. A request that must not fail, and has tried once, may go below `min` (Linux:
    /// the end of `__alloc_pages_slowpath`).
    pub(super) fn reach(&self) -> Reach {
        let reach = Reach::of(self.gfp, self.order.get());
        let desperate = self.gfp.contains(Gfp::NOFAIL) && self.attempt > 0;
        if desperate { reach | Reach::MIN_RESERVE } else { reach }
    }
}

/// Result of [`Pressure::relieve`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Relief {
    /// Memory was freed: the allocation tries again.
    Retry,
    /// None was freed here, but there may be some: the allocation tries again, and counts.
    Fruitless,
    /// Nothing more can be done: the allocation fails.
    GiveUp,
}

/// Frees memory when the page allocator runs short.
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

    /// The flags of an allocation as the running context allows them (Linux: `current_gfp_context`): on the slow path only,
    /// since a list of this CPU asks nothing of memory. [`scoped_gfp`](super::scoped_gfp) is the usual body.
    fn scoped(&self, gfp: Gfp) -> Gfp {
        gfp
    }

    /// Pages have come back to a zone while an allocation waits for some. Any context.
    fn freed(&self) {}

    /// A test wants this allocation to fail. Asked only while the allocator is told to take the slow path
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

    /// `call`, which may sleep, was called where that is not legal; it is refused.
    fn sleeps_in_atomic(&self, call: &'static str) {
        log::error!("sleeping function called in atomic context: {call}");
    }
}
