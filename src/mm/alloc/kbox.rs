//! One value in memory of its own (Linux: `rust/kernel/alloc/kbox.rs`).

use super::allocator::{Allocator, Stateless};
use crate::gfp::Gfp;
use crate::mm::slab::SlabAllocError;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::{self, NonNull};

/// Owns a value in a block of an allocator. Dropping it drops the value and frees the block, where freeing is allowed: that
/// is everywhere for `kmalloc`.
///
/// A box of a trait object is made of one of a sized value: `KBox::from_raw(KBox::into_raw(value) as *mut dyn Trait)`.
///
/// A freed value cannot be used:
///
/// ```compile_fail,E0382
/// fn free_twice<A: quarry::mm::alloc::Allocator>(value: quarry::mm::alloc::KBox<u32, A>) {
///     drop(value);
///     drop(value);
/// }
/// ```
///
/// # Invariants
///
/// - `BOX-1`: `at` points to a value, and if that has bytes, to a block of `allocator` with the value's layout. Both belong to
///   this box alone.
pub struct KBox<T: ?Sized, A: Allocator> {
    at: NonNull<T>,
    allocator: A,
    owns: PhantomData<T>,
}

// SAFETY: BOX-1: the value belongs to this box alone, and is reached only through it.
unsafe impl<T: Send + ?Sized, A: Allocator + Send> Send for KBox<T, A> {}
// SAFETY: BOX-1: the value belongs to this box alone, and is reached only through it.
unsafe impl<T: Sync + ?Sized, A: Allocator + Sync> Sync for KBox<T, A> {}

// The value stays where it is when its box moves.
impl<T: ?Sized, A: Allocator> Unpin for KBox<T, A> {}

impl<T, A: Allocator + Stateless> KBox<T, A> {
    /// A box of `value`.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the value is dropped then. [`KBox::uninit`] and [`KBox::write`] keep it.
    #[inline]
    pub fn new(value: T, gfp: Gfp) -> Result<Self, SlabAllocError> {
        Self::new_in(value, gfp, A::THE)
    }

    /// Room for a value. With [`Gfp::ZERO`] it is zeroed.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline]
    pub fn uninit(gfp: Gfp) -> Result<KBox<MaybeUninit<T>, A>, SlabAllocError> {
        Self::uninit_in(gfp, A::THE)
    }

    /// Zeroed room for a value.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline]
    pub fn zeroed(gfp: Gfp) -> Result<KBox<MaybeUninit<T>, A>, SlabAllocError> {
        Self::uninit(gfp | Gfp::ZERO)
    }

    /// A box of `value`, which stays where it is from here on.
    ///
    /// # Errors
    ///
    /// As for [`KBox::new`].
    #[inline]
    pub fn pin(value: T, gfp: Gfp) -> Result<Pin<Self>, SlabAllocError>
    where
        A: 'static,
    {
        Self::new(value, gfp).map(Self::into_pin)
    }
}

impl<T, A: Allocator> KBox<T, A> {
    /// A box of `value` in memory of `allocator`.
    ///
    /// # Errors
    ///
    /// As for [`KBox::new`].
    #[inline]
    pub fn new_in(value: T, gfp: Gfp, allocator: A) -> Result<Self, SlabAllocError> {
        Self::uninit_in(gfp, allocator).map(|room| room.write(value))
    }

    /// Room for a value in memory of `allocator`.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    #[inline]
    pub fn uninit_in(gfp: Gfp, allocator: A) -> Result<KBox<MaybeUninit<T>, A>, SlabAllocError> {
        let layout = Layout::new::<T>();
        let at = if layout.size() == 0 { NonNull::dangling() } else { allocator.allocate(layout, gfp)?.cast() };
        // INVARIANT: BOX-1: room with any content is a value of `MaybeUninit`.
        Ok(KBox { at, allocator, owns: PhantomData })
    }

    /// The value, out of its box.
    #[must_use]
    pub fn into_inner(self) -> T {
        let room: KBox<MaybeUninit<T>, A> = self.into_room();
        // SAFETY: the room held a value until now, and its box does not drop it.
        unsafe { room.assume_init_read() }
    }

    /// The box, without its value, which the caller must drop.
    fn into_room(self) -> KBox<MaybeUninit<T>, A> {
        let (at, allocator) = Self::into_raw_with_allocator(self);
        // SAFETY: BOX-1 with another type of the same layout.
        unsafe { KBox::from_raw_in(at.cast(), allocator) }
    }
}

impl<T, A: Allocator> KBox<MaybeUninit<T>, A> {
    /// Puts a value into the room.
    #[inline]
    pub fn write(mut self, value: T) -> KBox<T, A> {
        (*self).write(value);
        // SAFETY: written just now.
        unsafe { self.assume_init() }
    }

    /// Takes the value out of its room.
    ///
    /// # Safety
    ///
    /// It is one.
    #[inline]
    #[must_use]
    pub unsafe fn assume_init(self) -> KBox<T, A> {
        let (at, allocator) = Self::into_raw_with_allocator(self);
        // SAFETY: BOX-1: by this function's `# Safety`, the place holds a value.
        unsafe { KBox::from_raw_in(at.cast(), allocator) }
    }
}

impl<T: ?Sized, A: Allocator + Stateless> KBox<T, A> {
    /// Gives the box up: the caller owns the value and its memory, for [`KBox::from_raw`].
    #[must_use = "the value would never be dropped"]
    pub fn into_raw(this: Self) -> *mut T {
        Self::into_raw_with_allocator(this).0
    }

    /// The box of a pointer from [`KBox::into_raw`].
    ///
    /// # Safety
    ///
    /// `raw` came from there, of a box with the same allocator, once; it may have been unsized since.
    #[must_use]
    pub const unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: by this function's `# Safety`, `raw` came from such a box, once; `A::THE` is its allocator.
        unsafe { Self::from_raw_in(raw, A::THE) }
    }
}

impl<T: ?Sized, A: Allocator> KBox<T, A> {
    /// Gives the box up, for [`KBox::from_raw_in`].
    #[must_use = "the value would never be dropped"]
    pub fn into_raw_with_allocator(this: Self) -> (*mut T, A) {
        let this = ManuallyDrop::new(this);
        // SAFETY: `this` is neither used nor dropped afterwards.
        let allocator = unsafe { ptr::read(&raw const this.allocator) };
        (this.at.as_ptr(), allocator)
    }

    /// The box of a pointer from [`KBox::into_raw_with_allocator`].
    ///
    /// # Safety
    ///
    /// `raw` came from there, of a box with this allocator, once; it may have been unsized since.
    #[must_use]
    pub const unsafe fn from_raw_in(raw: *mut T, allocator: A) -> Self {
        // SAFETY: a box's pointer is not null.
        let at = unsafe { NonNull::new_unchecked(raw) };
        // INVARIANT: BOX-1 is the caller's promise.
        Self { at, allocator, owns: PhantomData }
    }

    /// Leaks the value: it stays for good, or as long as its allocator lives.
    #[must_use = "the value would be lost"]
    pub fn leak<'a>(this: Self) -> &'a mut T
    where
        A: 'a,
    {
        let (at, allocator) = Self::into_raw_with_allocator(this);
        // Data that the allocator refers to must live as long as the value, and does: `A: 'a`.
        let _ = ManuallyDrop::new(allocator);
        // SAFETY: BOX-1, and nobody frees the block.
        unsafe { &mut *at }
    }

    /// The value stays where it is from here on.
    #[must_use]
    pub fn into_pin(this: Self) -> Pin<Self>
    where
        A: 'static,
    {
        // SAFETY: the value is not moved with its box, and its memory is used for nothing else until it has been
        // dropped, not even if the box is forgotten, since the allocator is never dropped.
        unsafe { Pin::new_unchecked(this) }
    }
}

/// A block that is freed in any case, even if its value is moved out or its drop panics.
struct Block<'a, A: Allocator> {
    at: NonNull<u8>,
    layout: Layout,
    allocator: &'a A,
}

impl<A: Allocator> Drop for Block<'_, A> {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: BOX-1: the block belongs to the box that is being dropped.
            unsafe { self.allocator.free(self.at, self.layout) };
        }
    }
}

impl<T: ?Sized, A: Allocator> Drop for KBox<T, A> {
    #[inline]
    fn drop(&mut self) {
        let layout = Layout::for_value::<T>(self);
        let _block = Block { at: self.at.cast(), layout, allocator: &self.allocator };
        // SAFETY: BOX-1, and the value is not used afterwards.
        unsafe { self.at.drop_in_place() };
    }
}

impl<T: ?Sized, A: Allocator> Deref for KBox<T, A> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: BOX-1.
        unsafe { self.at.as_ref() }
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for KBox<T, A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: BOX-1.
        unsafe { self.at.as_mut() }
    }
}

impl<T: fmt::Debug + ?Sized, A: Allocator> fmt::Debug for KBox<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display + ?Sized, A: Allocator> fmt::Display for KBox<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
