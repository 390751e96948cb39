//! `malloc`: blocks below 128 KiB from the heap that `brk` grows, larger ones each from a mapping of its own, as in Linux's C
//! libraries (`M_MMAP_THRESHOLD`).

use crate::call;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

/// From so many bytes on a block has a mapping of its own.
pub const MMAP_THRESHOLD: usize = 128 << 10;
/// In front of each block: the bytes that it takes, this header included, a power of two or the size of its mapping.
const HEADER: usize = 16;
const PAGE: usize = 4096;
/// Sizes of blocks on the heap: 32 bytes to 256 KiB, so that a block of almost the threshold has its header.
const SMALLEST: usize = 5;
const SIZES: usize = 14;
/// The heap grows by so much at least.
const STEP: usize = 64 << 10;

struct State {
    /// Free blocks of each size: the address of the first, in which that of the next is.
    free: [*mut u8; SIZES],
    /// The part of the heap that has never been given out.
    top: usize,
    end: usize,
}

struct Heap {
    locked: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: the state is used with the lock alone.
unsafe impl Sync for Heap {}

static HEAP: Heap = Heap {
    locked: AtomicBool::new(false),
    state: UnsafeCell::new(State { free: [ptr::null_mut(); SIZES], top: 0, end: 0 }),
};

/// Runs `f` while no other thread changes the heap.
pub fn with_lock<R>(f: impl FnOnce() -> R) -> R {
    while HEAP.locked.swap(true, Ordering::Acquire) {
        call::sched_yield();
    }
    let result = f();
    HEAP.locked.store(false, Ordering::Release);
    result
}

fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    with_lock(|| {
        // SAFETY: one thread at a time is here, and `f` does not come back here.
        let state = unsafe { &mut *HEAP.state.get() };
        f(state)
    })
}

/// The number of the smallest size that has `bytes`.
fn size_for(bytes: usize) -> usize {
    (bytes.next_power_of_two().trailing_zeros() as usize).saturating_sub(SMALLEST)
}

impl State {
    fn take(&mut self, number: usize) -> *mut u8 {
        let Some(first) = self.free.get_mut(number) else { return ptr::null_mut() };
        if !first.is_null() {
            let block = *first;
            // SAFETY: a free block, at least as large as a pointer.
            *first = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        let bytes = 1 << (number + SMALLEST);
        if self.end - self.top < bytes && !self.grow(bytes) {
            return ptr::null_mut();
        }
        let block = self.top;
        self.top += bytes;
        ptr::with_exposed_provenance_mut(block)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        if self.end == 0 {
            // SAFETY: it asks.
            self.end = unsafe { call::brk(0) }.next_multiple_of(HEADER);
            self.top = self.end;
        }
        let Some(end) = self.end.checked_add(bytes.max(STEP)) else { return false };
        // SAFETY: nothing behind the end is used.
        if unsafe { call::brk(end) } < end {
            return false;
        }
        self.end = end;
        true
    }
}

/// Allocates `bytes`, aligned to 16; null if there is no memory.
pub fn malloc(bytes: usize) -> *mut u8 {
    let Some(whole) = bytes.checked_add(HEADER) else { return ptr::null_mut() };
    let (block, size) = if bytes >= MMAP_THRESHOLD {
        let Some(size) = whole.checked_next_multiple_of(PAGE) else { return ptr::null_mut() };
        (call::mmap(size, call::READ | call::WRITE).unwrap_or(ptr::null_mut()), size)
    } else {
        let number = size_for(whole);
        (with_state(|state| state.take(number)), 1 << (number + SMALLEST))
    };
    if block.is_null() {
        return block;
    }
    // SAFETY: the block is ours, and has room for its header.
    unsafe { block.cast::<usize>().write(size) };
    // SAFETY: the first bytes that are the caller's.
    let mine = unsafe { block.add(8).cast::<usize>() };
    // SAFETY: inside of the header.
    unsafe { mine.write(usize::from(bytes >= MMAP_THRESHOLD)) };
    // SAFETY: behind its header.
    unsafe { block.add(HEADER) }
}

/// The block of an allocation, its size, and whether it is a mapping of its own.
///
/// # Safety
///
/// `at` is from [`malloc`] and has not been freed.
unsafe fn block_of(at: *mut u8) -> (*mut u8, usize, bool) {
    // SAFETY: its header is in front of it.
    let block = unsafe { at.sub(HEADER) };
    // SAFETY: written by `malloc`.
    let size = unsafe { block.cast::<usize>().read() };
    // SAFETY: as well.
    let mapped = unsafe { block.add(8).cast::<usize>().read() };
    (block, size, mapped != 0)
}

/// Frees an allocation; null is none.
///
/// # Safety
///
/// `at` is from [`malloc`] and not used any more.
pub unsafe fn free(at: *mut u8) {
    if at.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let (block, size, mapped) = unsafe { block_of(at) };
    if mapped {
        // SAFETY: a mapping of its own.
        let _ = unsafe { call::munmap(block, size) };
        return;
    }
    with_state(|state| {
        if let Some(first) = state.free.get_mut(size_for(size)) {
            // SAFETY: the block is nobody's, and at least as large as a pointer.
            unsafe { block.cast::<*mut u8>().write(*first) };
            *first = block;
        }
    });
}

/// Makes an allocation larger or smaller, with its bytes; null if there is no memory, and it is as it was.
///
/// # Safety
///
/// `at` is from [`malloc`]; it is not used any more unless the result is null.
pub unsafe fn realloc(at: *mut u8, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    let (block, size, mapped) = unsafe { block_of(at) };
    let Some(whole) = bytes.checked_add(HEADER) else { return ptr::null_mut() };
    if mapped && bytes >= MMAP_THRESHOLD {
        let Some(new) = whole.checked_next_multiple_of(PAGE) else { return ptr::null_mut() };
        // SAFETY: a mapping of its own, whose old addresses nobody uses.
        let Ok(block) = (unsafe { call::mremap(block, size, new) }) else { return ptr::null_mut() };
        // SAFETY: its header.
        unsafe { block.cast::<usize>().write(new) };
        // SAFETY: behind its header.
        return unsafe { block.add(HEADER) };
    }
    if !mapped && whole <= size {
        return at;
    }
    let to = malloc(bytes);
    if !to.is_null() {
        // SAFETY: two allocations, and the smaller one's bytes.
        unsafe { ptr::copy_nonoverlapping(at, to, bytes.min(size - HEADER)) };
        // SAFETY: nobody uses it any more.
        unsafe { free(at) };
    }
    to
}

/// The allocator behind `alloc`'s collections, for programs that want them.
pub struct Malloc;

// SAFETY: `malloc` gives out memory that nobody else has, aligned to 16; larger alignments are refused.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > HEADER { ptr::null_mut() } else { malloc(layout.size()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, _: Layout) {
        // SAFETY: the caller's promise.
        unsafe { free(at) }
    }

    unsafe fn realloc(&self, at: *mut u8, _: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { realloc(at, bytes) }
    }
}
