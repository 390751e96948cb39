//! Boxes, rows and bridges over an allocator that keeps a ledger: what it gave out comes back once, with its layout. They
//! need no machine, so Miri runs them too.

mod bridge;
mod kbox;
mod kvec;
mod kvec_model;
mod size;
mod system;

pub(crate) use system::{TheSystem, resize_elsewhere};

use quarry::gfp::Gfp;
use quarry::mm::alloc::{Allocator, KBox, KVec};
use quarry::mm::slab::SlabAllocError;
use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;

const KERNEL: Gfp = Gfp::KERNEL;

/// Blocks that an allocator has given out.
#[derive(Default)]
struct Ledger {
    live: RefCell<HashMap<usize, Layout>>,
    /// Allocations made.
    made: Cell<usize>,
    /// Allocations until the next one fails.
    left: Cell<Option<usize>>,
    /// Attempts by callers that may wait.
    waited: Cell<usize>,
    /// The largest block that there is.
    limit: Cell<Option<usize>>,
}

impl Ledger {
    /// Runs `f`, which must give back all that it takes.
    fn run(f: impl FnOnce(&Self)) {
        let ledger = Self::default();
        f(&ledger);
        assert!(ledger.live.borrow().is_empty(), "left: {:?}", ledger.live.borrow());
    }

    fn live(&self) -> usize {
        self.live.borrow().len()
    }

    fn bytes(&self) -> usize {
        self.live.borrow().values().map(Layout::size).sum()
    }

    fn fail_after(&self, allocations: usize) {
        self.left.set(Some(allocations));
    }

    fn never_fail(&self) {
        self.left.set(None);
    }
}

/// The system's allocator, with a ledger.
#[derive(Clone, Copy)]
struct Audited<'l>(&'l Ledger);

// SAFETY: blocks of the system's allocator.
unsafe impl Allocator for Audited<'_> {
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        self.0.waited.set(self.0.waited.get() + usize::from(gfp.contains(Gfp::DIRECT_RECLAIM)));
        match self.0.left.get() {
            Some(0) => return Err(SlabAllocError::OutOfMemory),
            left => self.0.left.set(left.map(|left| left - 1)),
        }
        if self.0.limit.get().is_some_and(|limit| layout.size() > limit) {
            return Err(SlabAllocError::TooLarge);
        }
        let block = TheSystem.allocate(layout, gfp)?;
        self.0.made.set(self.0.made.get() + 1);
        assert_eq!(self.0.live.borrow_mut().insert(block.addr().get(), layout), None);
        Ok(block)
    }

    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError> {
        // SAFETY: `Allocator::resize`: the block has the layout `old`, and is not used after the move.
        unsafe { resize_elsewhere(self, block, old, new, gfp) }
    }

    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        assert_eq!(self.0.live.borrow_mut().remove(&block.addr().get()), Some(layout), "not what was given out");
        // SAFETY: given out with this layout.
        unsafe { TheSystem.free(block, layout) };
    }
}

/// Counts how often it is dropped, and panics then if it is told to.
struct Dropped<'c> {
    count: &'c Cell<usize>,
    panics: bool,
}

impl<'c> Dropped<'c> {
    const fn new(count: &'c Cell<usize>) -> Self {
        Self { count, panics: false }
    }
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get() + 1);
        assert!(!self.panics, "on purpose");
    }
}

/// Whether `f` panicked, without a word about it.
fn panics(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}

fn row<'l, T>(ledger: &'l Ledger, values: impl IntoIterator<Item = T>) -> KVec<T, Audited<'l>> {
    let mut row = KVec::new_in(Audited(ledger));
    for value in values {
        row.push(value, KERNEL).unwrap();
    }
    row
}

fn boxed<T>(ledger: &Ledger, value: T) -> KBox<T, Audited<'_>> {
    KBox::new_in(value, KERNEL, Audited(ledger)).unwrap()
}
