//! The bridge to collections that are written against the `allocator-api2` trait.

use super::allocator::{Allocator, Stateless};
use crate::gfp::Gfp;
use allocator_api2::alloc as api;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// An [`Allocator`] with the flags that its users would not know to pass: `Vec<T, WithGfp<Kmalloc>>`. `GFP` is
/// [`Gfp::bits`]. Takes no room beyond the allocator's.
///
/// `allocator-api2`'s own `Vec` and `Box` decide their behaviour when memory is short: most of their methods abort,
/// `try_reserve` and `try_new_in` do not.
#[derive(Clone, Copy, Debug, Default)]
pub struct WithGfp<A, const GFP: u32 = { Gfp::KERNEL.bits() }>(A);

impl<A, const GFP: u32> WithGfp<A, GFP> {
    /// The flags.
    pub const GFP: Gfp = Gfp::from_bits_truncate(GFP);

    /// `allocator` with these flags.
    pub const fn new(allocator: A) -> Self {
        Self(allocator)
    }
}

impl<A: Stateless, const GFP: u32> WithGfp<A, GFP> {
    /// The machine's allocator with these flags.
    pub const THE: Self = Self(A::THE);
}

/// A block of no bytes.
fn nothing(layout: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
    NonNull::new(ptr::without_provenance_mut(layout.align())).map(|at| block(at, layout)).ok_or(api::AllocError)
}

fn block(at: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(at, layout.size())
}

impl<A: Allocator, const GFP: u32> WithGfp<A, GFP> {
    fn get(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<[u8]>, api::AllocError> {
        if layout.size() == 0 {
            return nothing(layout);
        }
        self.0.allocate(layout, gfp).map(|at| block(at, layout)).map_err(|_| api::AllocError)
    }

    /// # Safety
    ///
    /// As for `grow` and `shrink`.
    unsafe fn change(
        &self,
        at: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<[u8]>, api::AllocError> {
        if old.size() == 0 {
            return self.get(new, gfp);
        }
        if new.size() == 0 {
            // SAFETY: `# Safety` of `shrink`: the block has the layout `old`, and nobody uses it after a success.
            unsafe { self.0.free(at, old) };
            return nothing(new);
        }
        // SAFETY: `# Safety` of `grow` and `shrink`: the block has the layout `old`, and nobody uses it after a success.
        unsafe { self.0.resize(at, old, new, gfp) }.map(|at| block(at, new)).map_err(|_| api::AllocError)
    }
}

// SAFETY: what `Allocator` promises, blocks of no bytes apart, which are nowhere. Copies of an allocator are the same one.
unsafe impl<A: Allocator, const GFP: u32> api::Allocator for WithGfp<A, GFP> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
        self.get(layout, Self::GFP)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
        self.get(layout, Self::GFP | Gfp::ZERO)
    }

    unsafe fn deallocate(&self, at: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: `api::Allocator::deallocate`: the block came from here with this layout, and nobody uses it afterwards.
            unsafe { self.0.free(at, layout) };
        }
    }

    unsafe fn grow(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
        // SAFETY: this function's `# Safety` is that of `change`.
        unsafe { self.change(at, old, new, Self::GFP) }
    }

    unsafe fn grow_zeroed(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
        // SAFETY: this function's `# Safety` is that of `change`.
        unsafe { self.change(at, old, new, Self::GFP | Gfp::ZERO) }
    }

    unsafe fn shrink(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, api::AllocError> {
        // SAFETY: this function's `# Safety` is that of `change`.
        unsafe { self.change(at, old, new, Self::GFP) }
    }
}
