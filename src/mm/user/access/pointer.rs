//! A typed pointer of a process, which the kernel cannot dereference by mistake.

use super::copy::{copy_from_user, copy_to_user};
use super::error::UserAccessError;
use super::slice::UserSlice;
use crate::addr::UserAddr;
use crate::hal::user::UserAccess;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// A type whose values a process may read and write as bytes.
///
/// # Safety
///
/// Any bytes are a value of the type, and it has no padding: `u32`, `[u64; 4]`, a `repr(C)` structure of such fields without gaps.
/// No `bool`, no `enum`, no reference, nothing with a niche.
pub unsafe trait UserData: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: every pattern of bits is a value, and all bits are its value's.
        unsafe impl UserData for $type {}
    )*};
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

// SAFETY: elements follow on each other without gaps.
unsafe impl<T: UserData, const N: usize> UserData for [T; N] {}

/// A pointer that a process gave, to a `T` or an array of them (Linux: `T __user *`). Nothing is known of it: it may be null, not
/// aligned, a kernel address, or point to memory that is gone at the next instruction. So it has no dereference; each call
/// checks and copies.
///
/// ```compile_fail,E0614
/// use quarry::addr::UserAddr;
/// use quarry::mm::user::access::UserPtr;
/// let pointer = UserPtr::<u32>::new(UserAddr::new(0x1000));
/// let value: u32 = *pointer;
/// ```
pub struct UserPtr<T> {
    addr: UserAddr,
    /// It owns nothing, and any thread may hold it.
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> PartialEq for UserPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.addr == other.addr
    }
}

impl<T> Eq for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPtr({:#x})", self.addr)
    }
}

impl<T> UserPtr<T> {
    /// Names `addr` as a pointer to a `T`.
    #[must_use]
    pub const fn new(addr: UserAddr) -> Self {
        Self { addr, of: PhantomData }
    }

    /// The address.
    #[must_use]
    pub const fn addr(self) -> UserAddr {
        self.addr
    }

    /// Whether it is the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.addr.get() == 0
    }

    /// The same address as a pointer to something else.
    #[must_use]
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }

    /// The pointer to the element `index` of a row, or `None` if its address wraps.
    #[must_use]
    pub const fn element(self, index: u64) -> Option<Self> {
        match index.checked_mul(size_of::<T>() as u64) {
            Some(bytes) => match self.addr.checked_add(bytes) {
                Some(addr) => Some(Self::new(addr)),
                None => None,
            },
            None => None,
        }
    }

    /// The bytes of `count` elements, or `None` if that is more than a length can say.
    #[must_use]
    pub const fn slice(self, count: usize) -> Option<UserSlice> {
        match count.checked_mul(size_of::<T>()) {
            Some(bytes) => Some(UserSlice::new(self.addr, bytes)),
            None => None,
        }
    }
}

impl<T: UserData> UserPtr<T> {
    /// Copies the value from the process. It need not be aligned there. Any context; where it may not sleep, memory that
    /// is not there yet is an error.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::Fault`].
    #[inline]
    pub fn read<A: UserAccess>(self, access: &A) -> Result<T, UserAccessError> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: as many bytes as the value has, all of them initialised, and this is the only reference.
        let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        copy_from_user(access, bytes, self.addr)?;
        // SAFETY: any bytes are a value of `T`.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies the value to the process; as [`UserPtr::read`].
    ///
    /// # Errors
    ///
    /// [`UserAccessError::Fault`]; the first bytes may have been written.
    #[inline]
    pub fn write<A: UserAccess>(self, access: &A, value: &T) -> Result<(), UserAccessError> {
        // SAFETY: a `T` has no padding, so all its bytes are initialised.
        let bytes = unsafe { core::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) };
        copy_to_user(access, self.addr, bytes)
    }
}
