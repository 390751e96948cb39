//! Caches of one type, and its values out of them (Linux: `KMEM_CACHE`).

use super::allocator::Stateless;
use super::kbox::KBox;
use super::kmem::Kmem;
use crate::gfp::Gfp;
use crate::mm::slab::{CacheSpec, CreateError, DestroyError, SlabAllocError, SlabFlags};
use core::fmt;
use core::marker::PhantomData;
use core::mem::needs_drop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A cache for values of `T`. Dropping it keeps the cache for good; [`Cache::destroy`] takes it back.
///
/// # Invariants
///
/// - `TYPE-1`: `cache` is one of `kmem`, made for the size and the alignment of `T`.
pub struct Cache<T, K: Kmem + Copy> {
    cache: K::Cache,
    kmem: K,
    /// It makes them, and owns none.
    makes: PhantomData<fn() -> T>,
}

fn spec<T>(name: &'static str, flags: SlabFlags) -> Result<CacheSpec, CreateError> {
    let size = u32::try_from(size_of::<T>()).map_err(|_| CreateError::TooLarge)?;
    let align = u32::try_from(align_of::<T>()).map_err(|_| CreateError::Align)?;
    Ok(CacheSpec { name, size, align, flags, constructor: None })
}

impl<T, K: Kmem + Copy + Stateless> Cache<T, K> {
    /// Makes a cache of the machine's slab allocator; see [`Cache::create_in`]. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn create(name: &'static str, flags: SlabFlags) -> Result<Self, CreateError> {
        Self::create_in(name, flags, K::THE)
    }
}

impl<T, K: Kmem + Copy> Cache<T, K> {
    /// Makes a cache; see [`SlabAllocator::create`](crate::mm::slab::SlabAllocator::create). The name is kept, not copied.
    /// Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; types without bytes have no cache.
    pub fn create_in(name: &'static str, flags: SlabFlags, kmem: K) -> Result<Self, CreateError> {
        // INVARIANT: TYPE-1.
        Ok(Self { cache: kmem.create(&spec::<T>(name, flags)?)?, kmem, makes: PhantomData })
    }

    /// The cache, for untyped calls.
    pub const fn cache(&self) -> &K::Cache {
        &self.cache
    }

    /// A box of `value`.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the value is dropped then.
    #[inline]
    pub fn alloc(&self, value: T, gfp: Gfp) -> Result<CacheBox<T, K>, SlabAllocError> {
        let object = self.object(gfp)?;
        // SAFETY: TYPE-1: room for a `T`, without another owner.
        unsafe { object.write(value) };
        // SAFETY: written just now.
        Ok(unsafe { self.own(object) })
    }

    #[inline]
    fn object(&self, gfp: Gfp) -> Result<NonNull<T>, SlabAllocError> {
        self.kmem.alloc_object(&self.cache, gfp).map(NonNull::cast)
    }

    /// # Safety
    ///
    /// The object belongs to this cache, has no other owner, and holds a value.
    #[inline]
    unsafe fn own(&self, object: NonNull<T>) -> CacheBox<T, K> {
        // SAFETY: BOX-1: `kfree`, which frees blocks of `kmem`, frees objects of its caches too.
        CacheBox(unsafe { KBox::from_raw_in(object.as_ptr(), self.kmem) })
    }

    /// Destroys the cache. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// The cache, and why it stays: its boxes, also forgotten ones. It has been reported.
    pub fn destroy(self) -> Result<(), (Self, DestroyError)> {
        let kmem = self.kmem;
        kmem.destroy(self.cache).map_err(|(cache, left)| (Self { cache, kmem, makes: PhantomData }, left))
    }
}

impl<T, K: Kmem + Copy> fmt::Debug for Cache<T, K>
where
    K::Cache: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}

/// Owns a value in an object of a cache, which it outlives. Dropping it drops the value and frees the object.
pub struct CacheBox<T, K: Kmem>(KBox<T, K>);

impl<T, K: Kmem> Deref for CacheBox<T, K> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, K: Kmem> DerefMut for CacheBox<T, K> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: fmt::Debug, K: Kmem> fmt::Debug for CacheBox<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A type whose values are made once for each object of a slab, and stay valid while the object is free: the next user finds
/// the values that the previous one left. They are never dropped, so they must not need that.
pub trait Constructed {
    /// The value of an object of a new slab.
    fn construct() -> Self;
}

fn construct<T: Constructed>(object: NonNull<u8>) {
    // SAFETY: the slab allocator calls this with memory of the size and the alignment that the cache was made for (TYPE-1).
    unsafe { object.cast::<T>().write(T::construct()) };
}

/// A cache whose objects hold values at all times.
pub struct ConstructedCache<T: Constructed, K: Kmem + Copy>(Cache<T, K>);

impl<T: Constructed, K: Kmem + Copy + Stateless> ConstructedCache<T, K> {
    /// Makes a cache of the machine's slab allocator. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn create(name: &'static str, flags: SlabFlags) -> Result<Self, CreateError> {
        Self::create_in(name, flags, K::THE)
    }
}

impl<T: Constructed, K: Kmem + Copy> ConstructedCache<T, K> {
    const NOTHING_TO_DROP: () = assert!(!needs_drop::<T>(), "a constructor's work is never undone");

    /// Makes a cache. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn create_in(name: &'static str, flags: SlabFlags, kmem: K) -> Result<Self, CreateError> {
        let () = Self::NOTHING_TO_DROP;
        let spec = CacheSpec { constructor: Some(construct::<T>), ..spec::<T>(name, flags)? };
        // INVARIANT: TYPE-1.
        Ok(Self(Cache { cache: kmem.create(&spec)?, kmem, makes: PhantomData }))
    }

    /// A box of the value that its last user left, or of the constructor's.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; [`SlabAllocError::ZeroConstructed`] for [`Gfp::ZERO`].
    pub fn alloc(&self, gfp: Gfp) -> Result<CacheBox<T, K>, SlabAllocError> {
        let object = self.0.object(gfp)?;
        // SAFETY: the constructor has put a value there, which nobody has dropped since: there is nothing to drop.
        Ok(unsafe { self.0.own(object) })
    }

    /// Destroys the cache. Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// As for [`Cache::destroy`].
    pub fn destroy(self) -> Result<(), (Self, DestroyError)> {
        self.0.destroy().map_err(|(cache, left)| (Self(cache), left))
    }
}
