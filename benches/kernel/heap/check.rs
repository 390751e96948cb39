//! Whether a heap does what a heap must, before it is measured: blocks are aligned, its own, and nobody else's.

use super::random::Random;
use super::{ALIGN, Heap, Memory, Unable};
use core::alloc::Layout;
use core::ptr::NonNull;

/// Blocks that live at a time.
const LIVE: u8 = 32;
/// How often one of them is replaced.
const REPLACED: u32 = 256;

/// A block with marks at both ends.
#[derive(Clone, Copy)]
struct Marked {
    block: NonNull<u8>,
    layout: Layout,
    mark: u8,
}

impl Marked {
    fn last(&self) -> NonNull<u8> {
        // SAFETY: no layout here is empty.
        unsafe { self.block.add(self.layout.size() - 1) }
    }

    fn write(&self) {
        // SAFETY: the block is allocated.
        unsafe { self.block.write(self.mark) };
        // SAFETY: the block is allocated, and has a last byte.
        unsafe { self.last().write(self.mark) };
    }

    fn is_intact(&self) -> bool {
        // SAFETY: the block is allocated.
        let first = unsafe { self.block.read() };
        // SAFETY: the block is allocated, and has a last byte.
        first == self.mark && unsafe { self.last().read() } == self.mark
    }
}

/// Lets a fresh heap allocate and free blocks of the sizes that `sizes` gives, marked, in random order; and zeroed ones.
#[inline(never)]
pub(crate) fn check<H: Heap>(memory: Memory, mut sizes: impl FnMut(&mut Random) -> Layout) -> Result<(), Unable> {
    let mut heap = H::new(memory)?;
    let mut random = Random::new(1);
    let mut live = [None::<Marked>; LIVE as usize];
    let mut failed = false;
    for (round, mark) in (0..REPLACED).zip((0..=u8::MAX).cycle()) {
        let index = random.below(u32::from(LIVE)) as usize;
        let Some(slot) = live.get_mut(index) else { continue };
        if let Some(old) = slot.take() {
            if !old.is_intact() {
                return Err("two blocks overlap");
            }
            // SAFETY: it came from this heap with this layout.
            unsafe { heap.dealloc(old.block, old.layout) };
        }
        let layout = sizes(&mut random);
        let zeroed = round % 4 == 0;
        let Some(block) = (if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) }) else {
            // Few large blocks fit.
            failed = true;
            continue;
        };
        let offset = block.addr().get().wrapping_sub(memory.addr());
        if !block.addr().get().is_multiple_of(ALIGN) {
            return Err("a block is not aligned");
        }
        if heap.taken().is_none() && offset.checked_add(layout.size()).is_none_or(|end| end > memory.size()) {
            return Err("a block lies outside the heap's memory");
        }
        // SAFETY: the block is allocated, with as many bytes.
        let bytes = unsafe { NonNull::slice_from_raw_parts(block, layout.size()).as_mut() };
        if zeroed && bytes.iter().any(|&byte| byte != 0) {
            return Err("a block is not zeroed");
        }
        bytes.fill(0xa5);
        let marked = Marked { block, layout, mark };
        marked.write();
        *slot = Some(marked);
    }
    let some = live.iter().any(Option::is_some);
    for marked in live.into_iter().flatten() {
        if !marked.is_intact() {
            return Err("two blocks overlap");
        }
        // SAFETY: it came from this heap with this layout.
        unsafe { heap.dealloc(marked.block, marked.layout) };
    }
    if some || !failed { Ok(()) } else { Err(super::FAILED) }
}
