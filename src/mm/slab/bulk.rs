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
    #[inline]
    pub fn alloc_bulk<T>(
        &self,
        cache: &Cache<H>,
        gfp: Gfp,
        objects: &mut [T],
        name: impl Fn(VirtAddr) -> T,
        addr: impl Fn(&T) -> VirtAddr,
    ) -> Result<(), AllocError> {
        for index in 0..objects.len() {
            match self.alloc_object(cache, gfp) {
                Ok(object) => {
                    if let Some(place) = objects.get_mut(index) {
                        *place = name(object);
                    }
                }
                Err(error) => {
                    self.free_bulk(cache, objects.get(..index).unwrap_or_default(), addr);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Frees objects of this cache, whatever slabs they are in. What is wrong with one is reported, and it is left out: how
    /// many there were. Any context.
    #[inline]
    pub fn free_bulk<T>(&self, cache: &Cache<H>, objects: &[T], addr: impl Fn(&T) -> VirtAddr) -> usize {
        let mut wrong = 0;
        for object in objects {
            if let Err(misuse) = self.free_object(cache, addr(object)) {
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
