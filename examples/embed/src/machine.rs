//! This kernel's heap: one CPU, interrupts always masked, memory at its physical address.

use quarry::addr::PhysRange;
use quarry::single::{Heap, OneCpu, Pages};

pub use quarry::single::Slabs;

static PAGES: Pages = Pages::new(OneCpu::new());
/// Small objects, and what is behind the crate `alloc`.
#[global_allocator]
static HEAP: Heap = Heap::new(&PAGES);

/// Gives the heap its memory.
pub fn start(memory: PhysRange) {
    // SAFETY: RAM that the memblock has free, mapped where it is; this is the one CPU.
    unsafe { HEAP.start(memory.start().get() as *mut u8, memory.size() as usize) }.unwrap();
}

/// `kmalloc` and caches.
pub fn slabs() -> &'static Slabs {
    HEAP.slabs()
}

/// Free pages, with all caches drained.
pub fn free_pages() -> u64 {
    slabs().shrink_all();
    slabs().pages().drain_all();
    slabs().pages().free_page_count()
}
