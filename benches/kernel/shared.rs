//! Host only: heaps that two threads share, and the C library's.

use crate::heap::{Heap, Memory, Unable};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::alloc::System;
use std::sync::{Arc, Mutex, PoisonError};

/// A heap that was made for one thread, behind a lock. Each clone is another way to the same heap.
pub(crate) struct Locked<H>(Arc<Mutex<H>>);

// SAFETY: only the thread that holds the lock touches the heap, and none of the heaps knows threads.
unsafe impl<H> Send for Locked<H> {}

impl<H> Clone for Locked<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Heap> Heap for Locked<H> {
    const NAME: &'static str = H::NAME;

    fn new(memory: Memory) -> Result<Self, Unable> {
        Ok(Self(Arc::new(Mutex::new(H::new(memory)?))))
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).alloc(layout)
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { self.0.lock().unwrap_or_else(PoisonError::into_inner).dealloc(block, layout) }
    }

    fn taken(&self) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).taken()
    }
}

/// The C library's heap, which has threads of its own accord.
#[derive(Clone)]
pub(crate) struct Libc;

impl Heap for Libc {
    const NAME: &'static str = "libc";

    fn new(_: Memory) -> Result<Self, Unable> {
        Ok(Self)
    }

    #[inline]
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout here is empty.
        NonNull::new(unsafe { System.alloc(layout) })
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: `Heap::dealloc`: the block came from `alloc`, and nobody uses it afterwards.
        unsafe { System.dealloc(block.as_ptr(), layout) }
    }

    #[inline]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout here is empty.
        NonNull::new(unsafe { System.alloc_zeroed(layout) })
    }

    /// It has memory of its own.
    fn taken(&self) -> Option<usize> {
        Some(0)
    }
}
