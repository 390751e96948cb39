//! How much of a heap's memory its user gets.

use crate::heap::churn::ChurnSlot;
use crate::heap::random::Random;
use crate::heap::{FAILED, Heap, Memory, Unable};
use quarry::mm::slab::{KmallocCacheType, kmalloc_index, kmalloc_size};

/// Bytes requested of live blocks, what they come to in the classes of `kmalloc`, and bytes that the heap has for them, when
/// no more fits.
pub(crate) struct Filled {
    pub(crate) requested: usize,
    pub(crate) in_classes: usize,
    pub(crate) taken: usize,
}

/// Fills the heap with blocks of random size until one does not fit, frees half of them at random, and fills it again. A
/// heap with memory of its own has as much as it takes for this, once that is `memory`'s size.
///
/// # Errors
///
/// If `slots` are too few.
pub(crate) fn fill_half_and_fill<H: Heap>(memory: Memory, slots: &mut [ChurnSlot]) -> Result<Filled, Unable> {
    let mut heap = H::new(memory)?;
    let mut random = Random::new(2);
    slots.fill(ChurnSlot::default());
    let mut live = until_full(&mut heap, memory, slots, 0, &mut random)?;
    let Some(filled) = slots.get_mut(..live) else { return Err(FAILED) };
    random.shuffle(filled);
    let kept = live / 2;
    for slot in filled.iter_mut().skip(kept) {
        slot.free(&mut heap);
    }
    live = until_full(&mut heap, memory, slots, kept, &mut random)?;
    let blocks = slots.get_mut(..live).ok_or(FAILED)?;
    let requested = blocks.iter().map(|slot| slot.size() as usize).sum();
    let in_classes =
        blocks.iter().map(|slot| kmalloc_size(kmalloc_index(KmallocCacheType::Normal, slot.size() as usize))).sum();
    let filled = Filled { requested, in_classes, taken: heap.taken().unwrap_or(memory.size()) };
    for slot in blocks {
        slot.free(&mut heap);
    }
    Ok(filled)
}

/// Fills slots from `next` on, and returns how many are full.
fn until_full<H: Heap>(
    heap: &mut H,
    memory: Memory,
    slots: &mut [ChurnSlot],
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
