//! Many live blocks of mixed sizes, of which random ones are replaced.

use super::random::Random;
use super::{FAILED, Heap, Unable, layout};
use core::ptr::NonNull;

/// Where a block is kept.
#[derive(Clone, Copy, Default)]
pub(crate) struct ChurnSlot {
    block: Option<NonNull<u8>>,
    size: u32,
}

impl ChurnSlot {
    /// Fills the empty slot with a new block; whether there was one.
    #[inline(always)]
    pub(crate) fn fill<H: Heap>(&mut self, heap: &mut H, size: u32) -> bool {
        self.block = heap.alloc(layout(size));
        self.size = size;
        self.block.is_some()
    }

    /// Bytes that were asked for.
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// Frees its block; whether it had one.
    #[inline(always)]
    pub(crate) fn free<H: Heap>(&mut self, heap: &mut H) -> bool {
        let Some(block) = self.block.take() else { return false };
        // SAFETY: `fill` had it from this heap with this layout.
        unsafe { heap.dealloc(block, layout(self.size())) };
        true
    }
}

/// One replacement: which slot, and the size of the new block.
#[derive(Clone, Copy, Default)]
pub(crate) struct Step {
    slot: u16,
    size: u16,
}

impl Step {
    /// Any slot of `slots`, any size.
    pub(crate) fn random(random: &mut Random, slots: u16) -> Self {
        let slot = u16::try_from(random.below(u32::from(slots))).unwrap_or(0);
        Self { slot, size: u16::try_from(random.layout().size()).unwrap_or(8) }
    }

    /// The slot of the step.
    #[inline(always)]
    pub(crate) fn slot(self, slots: &mut [ChurnSlot]) -> Option<&mut ChurnSlot> {
        slots.get_mut(usize::from(self.slot))
    }

    /// The size of the block.
    #[inline(always)]
    pub(crate) const fn size(self) -> u32 {
        self.size as u32
    }

    /// Frees the slot's block and fills it again; whether all went well.
    #[inline(always)]
    pub(crate) fn replace<H: Heap>(self, slots: &mut [ChurnSlot], heap: &mut H) -> bool {
        let Some(slot) = self.slot(slots) else { return false };
        slot.free(heap) & slot.fill(heap, self.size())
    }
}

/// Fills every slot with a block of random size.
pub(crate) fn fill<H: Heap>(heap: &mut H, slots: &mut [ChurnSlot], random: &mut Random) -> Result<(), Unable> {
    let size = |random: &mut Random| u32::try_from(random.layout().size()).unwrap_or(8);
    let complete = slots.iter_mut().fold(true, |complete, slot| complete & slot.fill(heap, size(random)));
    if complete { Ok(()) } else { Err(FAILED) }
}
