//! The kernel's `alloc`: an early heap over one grant of memblock, and `kmalloc` as soon as that is up.

use crate::addr::VirtRange;
use crate::global::Kmalloc;
use crate::mm::alloc::GlobalHeap;

/// Bytes of the early heap.
pub(crate) const EARLY_HEAP_SIZE: u64 = 256 << 10;

#[global_allocator]
static HEAP: GlobalHeap<Kmalloc> = GlobalHeap::new(Kmalloc);

/// Gives the early heap its memory. Allocations before this fail.
///
/// # Safety
///
/// `range` is mapped read-write for good and nobody else uses it. Called once.
pub unsafe fn init(range: VirtRange) {
    // SAFETY: by this function's `# Safety`, the range is mapped for good and nobody else's; one CPU, interrupts masked.
    unsafe { HEAP.grant(range) };
}

/// Lets `kmalloc` serve from here on. Boot CPU, once, when it is up.
pub fn hand_over() {
    HEAP.hand_over();
}

/// The memory of the early heap; `None` before it has any.
#[must_use]
pub fn range() -> Option<VirtRange> {
    HEAP.early_range()
}

/// Bytes of the early heap in use and free.
#[must_use]
pub fn usage() -> (usize, usize) {
    HEAP.early_usage()
}
