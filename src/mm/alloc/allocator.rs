//! Interface of a source of memory for Rust types, and the error that returns a value for which there was no room.

use crate::gfp::Gfp;
use crate::mm::slab::SlabAllocError;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

/// A source of memory whose calls take flags (Linux: `kernel::alloc::Allocator`).
///
/// Layouts have at least one byte: an owner without bytes makes no request. A block may be freed by another CPU and in another
/// context than it was allocated in.
///
/// # Safety
///
/// An allocated block has the size and the alignment of its layout, is mapped read-write, shares no byte with any other, and
/// stays so until it is freed, even if the allocator itself is moved meanwhile.
pub unsafe trait Allocator {
    /// Allocates a block. With [`Gfp::ZERO`] it is zeroed, else its content is undefined.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; nothing has changed then.
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError>;

    /// Gives a block another layout, in place or by moving it. The contents up to the smaller size are kept; with [`Gfp::ZERO`]
    /// new bytes are zero.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the block is then unchanged.
    ///
    /// # Safety
    ///
    /// This allocator allocated `block` with the layout `old`. If this succeeds, nobody uses it afterwards.
    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError>;

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// This allocator allocated `block` with this layout. Nobody uses it afterwards. In the checking build a block of the slab
    /// allocator that cannot have this layout is reported, and stays.
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout);
}

/// An allocator of which the machine has exactly one, so that its owners need not store which one they use.
pub trait Stateless: Allocator + Sized {
    /// The allocator. Any two are the same: one may free the blocks of another.
    const THE: Self;
}

/// A value that did not find room, and the error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refused<T, E = SlabAllocError> {
    /// The value, unchanged.
    pub value: T,
    /// The error.
    pub error: E,
}

impl<T, E: fmt::Debug> fmt::Debug for Refused<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T, E: fmt::Display> fmt::Display for Refused<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T, E: fmt::Debug + fmt::Display> core::error::Error for Refused<T, E> {}

impl<T> From<Refused<T>> for SlabAllocError {
    fn from(refused: Refused<T>) -> Self {
        refused.error
    }
}
