//! Describes the object that an address lies in, in one line: for reports about addresses (Linux: `kmem_dump_obj`).
#![forbid(unsafe_code)]

use super::super::{SlabAllocator, SlabHal};
use super::report::Code;
use super::track::{Event, Track};
use crate::addr::VirtAddr;
use core::fmt;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Writes the cache and the object that `at` lies in, the byte of the object, whether the object is in use, and its last
    /// owner, if the cache records owners. `None` if `at` lies in no slab. Any context; takes no lock, so the text may be wrong
    /// if another CPU changes the object meanwhile.
    pub fn dump_object(&self, at: VirtAddr, out: &mut dyn fmt::Write) -> Option<fmt::Result> {
        let place = self.place(at)?;
        let (cache, slot, shape) = (place.cache, place.object, &place.cache.shape);
        let free = cache.is_free(slot);
        let mut write = || {
            let state = if free { "free" } else { "in use" };
            write!(out, "object {} of the cache {} of {} bytes, {state}", place.index, cache.name, shape.object_size)?;
            match place.offset.checked_sub(shape.object) {
                Some(byte) if byte < shape.object_size => write!(out, ", byte {byte} of it")?,
                Some(byte) => write!(out, ", {} bytes behind it", byte - shape.object_size + 1)?,
                None => write!(out, ", {} bytes before it", shape.object - place.offset)?,
            }
            for (what, event) in [("allocated", Event::Alloc), ("freed", Event::Free)] {
                let Some(track) = Track::load(shape, slot, event) else { continue };
                write!(out, ", {what} in {} on CPU {}", Code(self.hal(), track.caller), track.cpu)?;
            }
            Ok(())
        };
        Some(write())
    }
}
