//! The invariants of per-CPU memory.
#![forbid(unsafe_code)]

use super::UNIT_SIZE;
use super::map::PAGES;
use super::{PerCpuAllocator, PerCpuHal};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::ds::Broken;

impl<'a, H: PerCpuHal<'a>> PerCpuAllocator<'_, 'a, H> {
    /// Tests `PCM-1` to `PCM-3` and `PCU-1` to `PCU-4`. Nothing may be allocated or freed meanwhile, on any CPU.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        self.with(|chunks| {
            if !chunks.lists_are_sound() {
                return Err(Broken { tag: "PCU-3", what: "chunks that are not on their lists" });
            }
            if !chunks.parked_is_sound() {
                return Err(Broken { tag: "PCU-4", what: "parked allocations that are none, or there twice" });
            }
            for (number, chunk) in chunks.iter() {
                if chunk.map.check().is_none() {
                    return Err(Broken { tag: "PCM-3", what: "hints or bounds that the bits do not bear out" });
                }
                if chunk.pending != 0 {
                    return Err(Broken { tag: "PCU-2", what: "pages under way, and nobody runs" });
                }
                let Some(area) = chunk.area else { continue };
                for page in 0..PAGES {
                    let there = chunk.populated >> page & 1 != 0;
                    if !there && !chunk.map.is_page_empty(page) {
                        return Err(Broken { tag: "PCU-1", what: "an allocation without pages" });
                    }
                    for cpu in 0..u64::from(self.hal().cpus()) {
                        let at = VirtAddr::new(area.start().get() + cpu * UNIT_SIZE + page as u64 * PAGE_SIZE);
                        if self.chunk_at(at) != there.then_some(number) {
                            return Err(Broken { tag: "PCU-1", what: "pages that are not the chunk's" });
                        }
                    }
                }
            }
            Ok(())
        })
    }
}
