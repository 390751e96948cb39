//! Freeing tables that nothing needs: those left by areas that shared their range of addresses with others.
#![forbid(unsafe_code)]

use super::free_tree::Unit;
use super::layout::Layout;
use super::{Area, AreaHal, VmapSpace};
use crate::addr::{PMD_SIZE, VirtAddr, VirtRange};
use crate::ds::rbtree::fit::Gap;
use crate::ds::rbtree::{Owned, Payload};
use crate::hal::Internal;
use core::sync::atomic::Ordering;

/// Bytes that the two lowest levels of tables translate.
const UNITS: (u64, u64) = (PMD_SIZE, PMD_SIZE << 9);

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// Frees the tables of free addresses: each unit is reserved meanwhile, so that nobody maps there. Any context. Cost: a
    /// search for each unit up to the highest address that was in use since the last time.
    pub(super) fn trim_tables(&self, layout: &Layout) {
        let end = self.touched.swap(0, Ordering::Relaxed);
        let (mut at, mut kept) = (layout.region.start().get(), 0);
        while at < end {
            at = match self.with_free(|free| free.alloc_unit(at, end, UNITS)) {
                Unit::Found(unit) => {
                    if unit.key() > at {
                        // Addresses up to here may have been in use.
                        kept = unit.key();
                    }
                    self.trim_unit(unit)
                }
                Unit::After(next) => {
                    kept = next;
                    next
                }
                Unit::None => {
                    kept = end;
                    end
                }
            };
        }
        self.touched.fetch_max(kept, Ordering::Relaxed);
    }

    /// Frees the tables of a unit, and the unit itself. Returns its end.
    fn trim_unit(&self, unit: Owned<'a, Area>) -> u64 {
        let end = unit.end();
        if let Some(range) = VirtRange::from_size(VirtAddr::new(unit.key()), unit.size()) {
            self.hal.free_tables(Internal::CALL, range);
        }
        self.free_addresses(unit);
        end
    }
}
