//! The invariants of a pool, by their tags.
#![forbid(unsafe_code)]

use super::backing::Backing;
use super::pool::{PoolHal, RawMempool};
use crate::addr::VirtAddr;
use core::fmt;
use core::sync::atomic::Ordering;

/// An invariant of a pool that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolBroken {
    /// Its tag.
    pub tag: &'static str,
    /// The element that it is about, if any.
    pub element: Option<VirtAddr>,
}

impl fmt::Display for PoolBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken", self.tag)?;
        self.element.map_or(Ok(()), |at| write!(f, ": the element at {at}"))
    }
}

impl core::error::Error for PoolBroken {}

impl<H: PoolHal, B: Backing> RawMempool<'_, H, B> {
    /// Tests every invariant. O(reserve²). Any context; nobody resizes the pool meanwhile.
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), PoolBroken> {
        let seen = self.lacking.load(Ordering::Relaxed);
        self.locked(|reserve| {
            let broken = |tag, element| Err(PoolBroken { tag, element });
            let elements = reserve.elements();
            if reserve.count() > reserve.wanted() || elements.len() > reserve.room() {
                return broken("POOL-1", None);
            }
            if seen != reserve.lacking() {
                return broken("POOL-2", None);
            }
            if reserve.owed() > reserve.lacking() {
                return broken("POOL-3", None);
            }
            for (index, element) in elements.iter().enumerate() {
                let at = Some(element.addr());
                if elements.iter().skip(index + 1).any(|other| other == element) {
                    return broken("POOL-1", at);
                }
                if self.backing().verify(element.pointer()).is_err() || element.damage(self.poison()).is_some() {
                    return broken("POOL-4", at);
                }
            }
            Ok(())
        })
    }
}
