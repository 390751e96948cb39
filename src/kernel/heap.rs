//! The early heap: `alloc` before there is a `kmalloc`, over one grant of memblock.

use crate::addr::{VirtRange, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::irq;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use spin::mutex::SpinMutex;
use spin::once::Once;

/// Bytes that the early heap is given.
pub const EARLY_HEAP_SIZE: u64 = 256 << 10;

#[cfg_attr(feature = "global-allocator", global_allocator)]
static HEAP: EarlyHeap = EarlyHeap(SpinMutex::new(Heap::empty()));
static GRANT: Once<VirtRange, Relax> = Once::new();

/// A first-fit heap behind a lock that masks interrupts.
struct EarlyHeap(SpinMutex<Heap, Relax>);

/// Gives the heap its memory. Allocations before this fail.
///
/// # Safety
///
/// `range` is mapped read-write for good and nobody else uses it. Called once.
pub unsafe fn init(range: VirtRange) {
    let _masked = irq::local_irq_save();
    // SAFETY: the caller's promise.
    unsafe { HEAP.0.lock().init(range.start().as_ptr(), to_usize(range.size())) };
    GRANT.call_once(|| range);
}

/// The memory of the heap; `None` before it has any.
#[must_use]
pub fn range() -> Option<VirtRange> {
    GRANT.get().copied()
}

/// Bytes in use and bytes free.
#[must_use]
pub fn usage() -> (usize, usize) {
    let _masked = irq::local_irq_save();
    let heap = HEAP.0.lock();
    (heap.used(), heap.free())
}

// SAFETY: `Heap` hands out blocks of its own memory that fit the layout and do not overlap; the lock keeps it whole, and
// masked interrupts keep a handler from finding it taken.
unsafe impl GlobalAlloc for EarlyHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _masked = irq::local_irq_save();
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        let _masked = irq::local_irq_save();
        // SAFETY: by the contract of `GlobalAlloc` the block came from here with this layout.
        unsafe { self.0.lock().deallocate(block, layout) };
    }
}
