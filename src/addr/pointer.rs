//! Memory names that raw calls accept: a pointer of any type, or an address.
#![forbid(unsafe_code)]

use super::VirtAddr;
use core::ptr::NonNull;

mod sealed {
    pub trait Sealed {}
}

/// Name that a reading raw call accepts: any pointer, or an address. Sealed.
pub trait Address: Copy + sealed::Sealed {
    /// The address. The provenance of a pointer is exposed, so that the address may be used as the pointer.
    #[must_use]
    fn at(self) -> VirtAddr;
}

/// Name that a raw call accepts for memory to be freed, moved, unmapped or changed: an [`Address`], except a pointer to
/// read-only data. The allocating calls return `NonNull<u8>`, which is a [`Pointer`], as is a pointer that may be null. Sealed.
pub trait Pointer: Address {}

impl sealed::Sealed for VirtAddr {}
impl Address for VirtAddr {
    #[inline(always)]
    fn at(self) -> VirtAddr {
        self
    }
}
impl Pointer for VirtAddr {}

impl<T: ?Sized> sealed::Sealed for *const T {}
impl<T: ?Sized> Address for *const T {
    #[inline(always)]
    fn at(self) -> VirtAddr {
        VirtAddr::new(self.cast::<u8>().expose_provenance() as u64)
    }
}

impl<T: ?Sized> sealed::Sealed for *mut T {}
impl<T: ?Sized> Address for *mut T {
    #[inline(always)]
    fn at(self) -> VirtAddr {
        self.cast_const().at()
    }
}
impl<T: ?Sized> Pointer for *mut T {}

impl<T: ?Sized> sealed::Sealed for NonNull<T> {}
impl<T: ?Sized> Address for NonNull<T> {
    #[inline(always)]
    fn at(self) -> VirtAddr {
        self.as_ptr().at()
    }
}
impl<T: ?Sized> Pointer for NonNull<T> {}
