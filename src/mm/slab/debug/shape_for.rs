//! The shape of a cache with the debugging that the boot argument asks for.
#![forbid(unsafe_code)]

use super::super::error::CreateError;
use super::super::object::{Shape, SlabFlags};
use super::super::{SlabAllocator, SlabHal};
use super::choice::Wanted;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// The shape of the cache `name`, made by `make` from `flags` and the flags of the boot argument. If these make its objects
    /// larger than the largest slab, or with `O` its slabs larger, the boot argument's flags are left out.
    ///
    /// # Errors
    ///
    /// Those of `make` with `flags` alone.
    pub(in crate::mm::slab) fn shape_for(
        &self,
        name: &str,
        flags: SlabFlags,
        make: impl Fn(SlabFlags) -> Result<Shape, CreateError>,
    ) -> Result<Shape, CreateError> {
        let plain = make(flags)?;
        let wanted = self.debug.get().map_or_else(Wanted::default, |choice| choice.wanted(name));
        if (wanted.flags - flags).is_empty() {
            return Ok(plain);
        }
        match make(flags | wanted.flags) {
            Ok(shape) if !wanted.keeps_order || shape.min_order <= plain.min_order => Ok(shape),
            Err(_) if !wanted.keeps_order => {
                log::warn!("slab: objects of {name} are too large to be debugged");
                Ok(plain)
            }
            _ => make(flags | wanted.flags.intersection(SlabFlags::CONSISTENCY_CHECKS)).or(Ok(plain)),
        }
    }
}
