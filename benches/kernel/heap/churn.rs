//! Many live blocks of mixed sizes, of which random ones are replaced; and a heap that is filled to the brim.

use super::random::Random;
use super::{FAILED, Heap, Memory, Unable, layout};
use core::ptr::NonNull;

/// Where a block is kept.
#[derive(Clone, Copy, Default)]
pub(crate) struct Slot {
    block: Option<NonNull<u8>>,
    size: u32,
}

impl Slot {
    /// Fills the empty slot with a new block; whether there was one.
    #[inline(always)]
    pub(crate) fn fill<H: Heap>(&mut self, heap: &mut H, size: u32) -> bool {
        self.block = heap.alloc(layout(size));
        self.size = size;
        self.block.is_some()
    }

    /// Frees its block; whether it had one.
    #[inline(always)]
    pub(crate) fn free<H: Heap>(&mut self, heap: &mut H) -> bool {
        let Some(block) = self.block.take() else { return false };
        // SAFETY: `fill` had it from this heap with this layout.
        unsafe { heap.dealloc(block, layout(self.size)) };
        true
    }

    /// Whether there is a block in it.
    pub(crate) const fn is_full(&self) -> bool {
        self.block.is_some()
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
    pub(crate) fn slot(self, slots: &mut [Slot]) -> Option<&mut Slot> {
        slots.get_mut(usize::from(self.slot))
    }

    /// The size of the block.
    #[inline(always)]
    pub(crate) const fn size(self) -> u32 {
        self.size as u32
    }

    /// Frees the slot's block and fills it again; whether all went well.
    #[inline(always)]
    pub(crate) fn replace<H: Heap>(self, slots: &mut [Slot], heap: &mut H) -> bool {
        let Some(slot) = self.slot(slots) else { return false };
        slot.free(heap) & slot.fill(heap, self.size())
    }
}

/// Fills every slot with a block of random size.
pub(crate) fn fill<H: Heap>(heap: &mut H, slots: &mut [Slot], random: &mut Random) -> Result<(), Unable> {
    let size = |random: &mut Random| u32::try_from(random.layout().size()).unwrap_or(8);
    let complete = slots.iter_mut().fold(true, |complete, slot| complete & slot.fill(heap, size(random)));
    if complete { Ok(()) } else { Err(FAILED) }
}

/// Bytes requested of live blocks, and bytes that the heap has for them, when no more fits.
pub(crate) struct Filled {
    pub(crate) requested: usize,
    pub(crate) taken: usize,
}

/// Fills the heap with blocks of random size until one does not fit, frees half of them at random, and fills it again. A
/// heap with memory of its own has as much as it takes for this, once that is `memory`'s size.
///
/// # Errors
///
/// If `slots` are too few.
pub(crate) fn fill_half_and_fill<H: Heap>(memory: Memory, slots: &mut [Slot]) -> Result<Filled, Unable> {
    let mut heap = H::new(memory)?;
    let mut random = Random::new(2);
    slots.fill(Slot::default());
    let mut live = until_full(&mut heap, memory, slots, 0, &mut random)?;
    let Some(filled) = slots.get_mut(..live) else { return Err(FAILED) };
    random.shuffle(filled);
    let kept = live / 2;
    for slot in filled.iter_mut().skip(kept) {
        slot.free(&mut heap);
    }
    live = until_full(&mut heap, memory, slots, kept, &mut random)?;
    let blocks = slots.get_mut(..live).ok_or(FAILED)?;
    let requested = blocks.iter().map(|slot| slot.size as usize).sum();
    let filled = Filled { requested, taken: heap.taken().unwrap_or(memory.size()) };
    for slot in blocks {
        slot.free(&mut heap);
    }
    Ok(filled)
}

/// Fills slots from `next` on, and returns how many are full.
fn until_full<H: Heap>(
    heap: &mut H,
    memory: Memory,
    slots: &mut [Slot],
    next: usize,
    random: &mut Random,
) -> Result<usize, Unable> {
    for (index, slot) in slots.iter_mut().enumerate().skip(next) {
        let size = u32::try_from(random.layout().size()).unwrap_or(8);
        if heap.taken().is_some_and(|taken| taken >= memory.size()) || !slot.fill(heap, size) {
            return Ok(index);
        }
    }
    Err("more blocks than the benchmark keeps")
}
