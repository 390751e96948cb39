//! Many objects at once (Linux: `kmem_cache_alloc_bulk`, `kmem_cache_free_bulk`).
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::error::{AllocError, Misuse};
use super::{SlabAllocator, SlabHal};
use crate::addr::VirtAddr;
use crate::gfp::Gfp;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Allocates an object for each place of `objects`: all of them or none. Context as for
    /// [`SlabAllocator::alloc_object`].
    ///
    /// # Errors
    ///
    /// Those of [`SlabAllocator::alloc_object`].
    pub fn alloc_bulk(&self, cache: &Cache<H>, gfp: Gfp, objects: &mut [VirtAddr]) -> Result<(), AllocError> {
        for index in 0..objects.len() {
            match self.alloc_object(cache, gfp) {
                Ok(object) => {
                    if let Some(place) = objects.get_mut(index) {
                        *place = object;
                    }
                }
                Err(error) => {
                    self.free_bulk(cache, objects.get(..index).unwrap_or_default());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Frees objects of this cache, whatever slabs they are in. What is wrong with one is reported, and it is left out: how
    /// many there were. Any context.
    pub fn free_bulk(&self, cache: &Cache<H>, objects: &[VirtAddr]) -> usize {
        let mut wrong = 0;
        for object in objects {
            if let Err(misuse) = self.free_object(cache, *object) {
                self.report(&misuse);
                wrong += 1;
            }
        }
        wrong
    }

    /// Frees one object, and reports what is wrong with it.
    ///
    /// # Errors
    ///
    /// As for [`SlabAllocator::free_object`].
    pub fn free_checked(&self, cache: &Cache<H>, object: VirtAddr) -> Result<(), Misuse> {
        self.free_object(cache, object).inspect_err(|misuse| self.report(misuse))
    }
}
