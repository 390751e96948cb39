//! The allocator behind `alloc`: an early heap over a grant of boot memory, and `kmalloc` as soon as it is up.

use super::allocator::Allocator;
use super::kmem::Kmem;
use crate::addr::{PAGE_SIZE, VirtAddr, VirtRange, to_usize};
use crate::gfp::Gfp;
use crate::mm::slab::{KMALLOC_MAX_SIZE, SlabAllocError};
use crate::sync::{OrderedLock, class};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use linked_list_allocator::Heap;

/// Type of a kernel's `#[global_allocator]`.
///
/// It has no memory until [`GlobalHeap::grant`], serves from the grant until [`GlobalHeap::hand_over`], and from `kmalloc` from
/// there on; blocks of the grant are recognised by their addresses and go back to it at any time. Without memory it returns
/// null and never panics; `alloc` aborts on a null, so a kernel's own code should use [`KBox`](super::KBox) and
/// [`KVec`](super::KVec), which return an error.
///
/// `alloc` has no flags for its caller's context. It tries the CPU's caches first; if they are empty, the caller waits where
/// that is legal, and takes from the reserve where it is not. Any context. Blocks larger than [`KMALLOC_MAX_SIZE`] come from
/// `vmalloc`, if `kmem` has it.
///
/// # Invariants
///
/// - `HEAP-1`: the addresses from `start` on, `size` of them, belong to the early heap alone.
pub struct GlobalHeap<K: Kmem> {
    early: OrderedLock<Heap, class::EarlyHeap, K::Relax>,
    start: AtomicU64,
    size: AtomicU64,
    /// Whether `kmem` is up.
    serving: AtomicBool,
    kmem: K,
}

impl<K: Kmem> GlobalHeap<K> {
    /// A heap without memory.
    pub const fn new(kmem: K) -> Self {
        Self {
            early: OrderedLock::new(Heap::empty()),
            start: AtomicU64::new(0),
            size: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            kmem,
        }
    }

    /// Gives the early heap its memory.
    ///
    /// # Safety
    ///
    /// `range` is mapped read-write for good and nobody else uses it. Called once, before any other CPU or interrupt
    /// handler uses the heap.
    pub unsafe fn grant(&self, range: VirtRange) {
        self.kmem.masked(|| {
            // SAFETY: by this function's `# Safety`, the range is mapped for good and nobody else's, and this is the only call.
            unsafe { self.early.lock().init(range.start().as_ptr(), to_usize(range.size())) };
        });
        // INVARIANT: HEAP-1.
        self.start.store(range.start().get(), Ordering::Relaxed);
        self.size.store(range.size(), Ordering::Release);
    }

    /// From here on `kmalloc` serves; it must be up.
    pub fn hand_over(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// The memory of the early heap; `None` before it has any.
    #[must_use]
    pub fn early_range(&self) -> Option<VirtRange> {
        let size = self.size.load(Ordering::Acquire);
        VirtRange::from_size(VirtAddr::new(self.start.load(Ordering::Relaxed)), size).filter(|_| size != 0)
    }

    /// Bytes in use and bytes free of the early heap.
    #[must_use]
    pub fn early_usage(&self) -> (usize, usize) {
        self.kmem.masked(|| {
            let heap = self.early.lock();
            (heap.used(), heap.free())
        })
    }

    /// Whether a block belongs to the early heap.
    #[inline]
    fn is_early(&self, block: NonNull<u8>) -> bool {
        let distance = (block.addr().get() as u64).wrapping_sub(self.start.load(Ordering::Relaxed));
        distance < self.size.load(Ordering::Relaxed)
    }

    fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    #[inline]
    fn get(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        if !self.is_serving() {
            return self.get_early(layout, gfp);
        }
        if is_large(layout) {
            return self.insist(|context| self.kmem.vmalloc(layout.size(), context | gfp));
        }
        self.insist(|context| self.kmem.allocate(layout, context | gfp))
    }

    /// Runs an attempt on the CPU's caches, and if that fails, once more with everything that the context permits.
    #[inline]
    fn insist(&self, attempt: impl Fn(Gfp) -> Result<NonNull<u8>, SlabAllocError>) -> Option<NonNull<u8>> {
        match attempt(Gfp::NOWAIT) {
            Ok(block) => Some(block),
            Err(SlabAllocError::OutOfMemory) => {
                attempt(if self.kmem.may_wait() { Gfp::KERNEL } else { Gfp::ATOMIC }).ok()
            }
            Err(_) => None,
        }
    }

    #[cold]
    fn get_early(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let block = self.kmem.masked(|| self.early.lock().allocate_first_fit(layout)).ok()?;
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the block has that many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        Some(block)
    }

    /// # Safety
    ///
    /// This heap allocated the block with this layout, and it is not used afterwards.
    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        if self.is_early(block) {
            // SAFETY: HEAP-1: it came from there.
            self.kmem.masked(|| unsafe { self.early.lock().deallocate(block, layout) });
        } else if is_large(layout) {
            // SAFETY: by this function's `# Safety`, this heap allocated the block; one of this layout came from there.
            unsafe { self.kmem.vfree(block) };
        } else {
            // SAFETY: by this function's `# Safety`, the block has this layout and is not used afterwards.
            unsafe { self.kmem.free(block, layout) };
        }
    }

    /// # Safety
    ///
    /// As for [`GlobalAlloc::realloc`].
    unsafe fn change(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        if !self.is_early(block) && !is_large(old) && !is_large(new) {
            // SAFETY: `GlobalAlloc::realloc`: the block has the layout `old`; a block of `kmem` is untouched if an attempt fails.
            return self.insist(|context| unsafe { self.kmem.resize(block, old, new, context) });
        }
        let moved = self.get(new, Gfp::empty())?;
        // SAFETY: both have that many bytes, and are distinct.
        unsafe { moved.copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: `GlobalAlloc::realloc`: the block has the layout `old`, and is not used after the move.
        unsafe { self.give(block, old) };
        Some(moved)
    }
}

/// Whether blocks of a layout are larger than the largest of `kmalloc`.
const fn is_large(layout: Layout) -> bool {
    layout.size() > KMALLOC_MAX_SIZE && layout.align() <= to_usize(PAGE_SIZE)
}

fn or_null(block: Option<NonNull<u8>>) -> *mut u8 {
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: the early heap hands out blocks of its own memory that fit the layout and do not overlap; the lock keeps it whole,
// and masked interrupts keep a handler from finding it taken. `Allocator` promises as much. By HEAP-1 each block goes
// back to where it came from.
unsafe impl<K: Kmem> GlobalAlloc for GlobalHeap<K> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(self.get(layout, Gfp::empty()))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(self.get(layout, Gfp::ZERO))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: `GlobalAlloc::dealloc`: this heap allocated the block with this layout, and it is not used afterwards.
            unsafe { self.give(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, old: Layout, size: usize) -> *mut u8 {
        let (Some(block), Ok(new)) = (NonNull::new(block), Layout::from_size_align(size, old.align())) else {
            return ptr::null_mut();
        };
        // SAFETY: `GlobalAlloc::realloc` asks for what `change` asks for.
        or_null(unsafe { self.change(block, old, new) })
    }
}
