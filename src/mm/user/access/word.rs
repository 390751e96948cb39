//! Single words of a process, and atomic changes of them.

use super::copy::check_range;
use super::error::UserAccessError;
use crate::addr::UserAddr;
use crate::hal::user::{Exchange, UserAccess};

mod sealed {
    pub trait Sealed {}
}

/// An integer that one access reads or writes: `u8` to `u64`, `i8` to `i64`.
pub trait UserWord: sealed::Sealed + Copy {
    /// The low bytes of `bits`.
    #[doc(hidden)]
    fn from_bits(bits: u64) -> Self;

    /// The value in the low bytes.
    #[doc(hidden)]
    fn bits(self) -> u64;
}

macro_rules! words {
    ($($word:ty as $unsigned:ty),*) => {$(
        impl sealed::Sealed for $word {}

        #[expect(clippy::allow_attributes, reason = "which of the casts does anything depends on the type")]
        #[allow(
            clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap, clippy::cast_lossless,
            clippy::unnecessary_cast, trivial_numeric_casts,
            reason = "the bits of the word, whatever its sign"
        )]
        impl UserWord for $word {
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as $unsigned as Self
            }

            #[inline(always)]
            fn bits(self) -> u64 {
                self as $unsigned as u64
            }
        }
    )*};
}

words!(u8 as u8, u16 as u16, u32 as u32, u64 as u64, i8 as u8, i16 as u16, i32 as u32, i64 as u64);

/// Reads a word of a process (Linux: `get_user`): in one access if `from` is aligned. Any context; where it may not sleep, memory
/// that is not there yet is an error.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn get_user<A: UserAccess, W: UserWord>(access: &A, from: UserAddr) -> Result<W, UserAccessError> {
    let size = size_of::<W>();
    check_range(from, size)?;
    // SAFETY: checked by the line above.
    let bits = unsafe { access.load(from, size) };
    bits.map(W::from_bits).ok_or(UserAccessError::Fault { left: size })
}

/// Writes a word of a process (Linux: `put_user`): in one access if `to` is aligned. Contexts as for [`get_user`].
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn put_user<A: UserAccess, W: UserWord>(access: &A, to: UserAddr, value: W) -> Result<(), UserAccessError> {
    let size = size_of::<W>();
    check_range(to, size)?;
    // SAFETY: checked by the line above.
    let stored = unsafe { access.store(to, size, value.bits()) };
    if stored { Ok(()) } else { Err(UserAccessError::Fault { left: size }) }
}

macro_rules! exchange {
    ($(#[$about:meta])* $name:ident, $method:ident, $word:ty) => {
        $(#[$about])*
        ///
        /// # Errors
        ///
        /// [`UserAccessError::Misaligned`], [`UserAccessError::Fault`], [`UserAccessError::Contended`].
        pub fn $name<A: UserAccess>(
            access: &A,
            at: UserAddr,
            expected: $word,
            new: $word,
        ) -> Result<$word, UserAccessError> {
            let size = size_of::<$word>();
            check_range(at, size)?;
            if !at.is_aligned(size as u64) {
                return Err(UserAccessError::Misaligned);
            }
            // SAFETY: checked by the lines above.
            match unsafe { access.$method(at, expected, new) } {
                Exchange::Found(found) => Ok(found),
                Exchange::Fault => Err(UserAccessError::Fault { left: size }),
                Exchange::Contended => Err(UserAccessError::Contended),
            }
        }
    };
}

exchange! {
    /// Exchanges a 32-bit word of a process for `new` if it is `expected`, with acquire and release: what it was (Linux:
    /// `futex_atomic_cmpxchg_inatomic`). Contexts as for [`get_user`].
    cmpxchg_user_u32, compare_exchange_u32, u32
}

exchange! {
    /// Exchanges a 64-bit word of a process for `new` if it is `expected`, with acquire and release: what it was.
    /// Contexts as for [`get_user`].
    cmpxchg_user_u64, compare_exchange_u64, u64
}
