//! Sizes of allocations, and changing them: `ksize`, `krealloc`, `kfree_sensitive`, arrays.
#![forbid(unsafe_code)]

use super::super::error::{Misuse, SlabAllocError};
use super::super::object::Object;
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::hal::Internal;

/// Sizes of an allocation.
#[derive(Clone, Copy)]
struct Extent {
    /// Usable bytes.
    usable: usize,
    /// Bytes requested, as far as they are known.
    asked: usize,
    /// Whether the bytes behind them are a red zone.
    red: bool,
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    fn extent(&self, at: VirtAddr) -> Result<Extent, Misuse> {
        let pointer = at;
        let at = self.untag(pointer);
        if let Some(usable) = self.large_size(at) {
            self.check_tag(pointer, "large kmalloc")?;
            let asked = self.tagged_bytes(at, usable as u64).map_or(usable, to_usize);
            return Ok(Extent { usable, asked, red: asked < usable });
        }
        let Some(place) = self.place(at) else { return Err(self.foreign(at)) };
        let cache = place.cache;
        let shape = &cache.shape;
        if place.offset != shape.object {
            return Err(Misuse::Misaligned { at, cache: cache.name, object: place.object.addr() });
        }
        if cache.is_free(place.object) {
            return Err(Misuse::DoubleFree { at, cache: cache.name });
        }
        let usable = shape.usable() as usize;
        let mut asked = self.requested(cache, place.object).map_or(usable, |asked| asked as usize);
        if cache.is_tagged() {
            self.check_tag(pointer, cache.name)?;
            asked = self.tagged_bytes(at, asked as u64).map_or(asked, to_usize);
        }
        Ok(Extent { usable, asked, red: asked < usable })
    }

    /// Usable bytes of an allocation, at least those requested (Linux: `ksize`). 0 for null and for an allocation of no bytes.
    /// In a cache with red zones the bytes beyond the requested size stay out of bounds, and are not counted.
    ///
    /// # Errors
    ///
    /// [`Misuse`], if there is no such allocation.
    pub fn ksize(&self, at: VirtAddr) -> Result<usize, Misuse> {
        if at == VirtAddr::ZERO || at == Self::ZERO_SIZE {
            return Ok(0);
        }
        let extent = self.extent(at)?;
        Ok(if extent.red { extent.asked } else { extent.usable })
    }

    /// Allocates room for `count` elements of `size` bytes (Linux: `kmalloc_array`; with [`Gfp::ZERO`], `kcalloc`).
    ///
    /// # Errors
    ///
    /// [`SlabAllocError::Overflow`] if the product does not fit, and those of [`SlabAllocator::kmalloc`].
    #[inline]
    pub fn kmalloc_array(&self, count: usize, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        let bytes = count.checked_mul(size).ok_or(SlabAllocError::Overflow)?;
        self.kmalloc(bytes, gfp)
    }

    /// [`Self::krealloc`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(never)]
    pub(crate) fn do_krealloc(&self, at: VirtAddr, size: usize, gfp: Gfp) -> Result<VirtAddr, SlabAllocError> {
        let caller = self.hal().return_address();
        gfp.check().map_err(SlabAllocError::Flags)?;
        // Checked even if the object stays in place, so that a caller that may not wait does not depend on sizes.
        let gfp = self.without_illegal_wait(gfp);
        if at == VirtAddr::ZERO || at == Self::ZERO_SIZE {
            return self.kmalloc(size, gfp);
        }
        let extent = self.extent(at).map_err(|misuse| {
            self.report_from(&misuse, caller);
            SlabAllocError::NotAllocated(at)
        })?;
        if size == 0 {
            self.free_reported(at);
            return Ok(Self::ZERO_SIZE);
        }
        if size <= extent.usable {
            self.resize_in_place(at, size, extent, gfp, caller);
            return Ok(at);
        }
        let new = self.kmalloc(size, gfp)?;
        // The bytes behind the requested size have no owner, and may be a red zone.
        let kept = extent.asked.min(size);
        Object::of_array(new).copy_from(Object::of_array(at), kept);
        self.note_caller(new, caller);
        self.free_reported(at);
        Ok(new)
    }

    fn resize_in_place(&self, at: VirtAddr, size: usize, extent: Extent, gfp: Gfp, caller: VirtAddr) {
        // The bytes behind the requested size are out of bounds for the pointer.
        let at = self.untag(at);
        let place = self.place(at);
        if let Some(place) = &place {
            self.check_used(place, caller);
        }
        let requests = place.as_ref().filter(|place| self.requested(place.cache, place.object).is_some());
        match requests {
            Some(place) => {
                if gfp.contains(Gfp::ZERO) && size > extent.asked {
                    Object::of_array(at).fill_from(extent.asked, 0, size - extent.asked);
                }
                self.note_request(place.cache, at, size);
            }
            // The requested size is not recorded: bytes that the user gives up are zeroed now, so that they are zero when it
            // comes back.
            None if gfp.contains(Gfp::ZERO) => {
                Object::of_array(at).fill_from(size, 0, extent.usable - size);
            }
            None => {}
        }
        self.retag(place.as_ref(), at, size, extent.usable);
    }

    /// [`Self::kfree_sensitive`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_kfree_sensitive(&self, at: VirtAddr) -> Result<(), Misuse> {
        if at == VirtAddr::ZERO || at == Self::ZERO_SIZE {
            return Ok(());
        }
        let extent = self.extent(at)?;
        self.hal().zero_object(Internal::CALL, at, if extent.red { extent.asked } else { extent.usable });
        self.do_kfree(at)
    }

    /// Frees an allocation known to be valid.
    fn free_reported(&self, at: VirtAddr) {
        if let Err(misuse) = self.do_kfree(at) {
            self.report(&misuse);
        }
    }
}
