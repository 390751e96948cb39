//! A stretch of memory of a process, read or written from its start to its end.
#![forbid(unsafe_code)]

use super::copy::{clear_user, copy_from_user, copy_to_user, strncpy_from_user};
use super::error::UserAccessError;
use super::pointer::{UserData, UserPtr};
use crate::addr::UserAddr;
use crate::hal::user::{USER_END, UserAccess};
use core::fmt;

/// Memory that a process named, by address and length: what a `read` or `write` of a driver gets. It is accessed through a
/// [`UserReader`] or a [`UserWriter`], which move on: code that reads a byte twice, while the process may change it, has to ask
/// for a second reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserSlice {
    start: UserAddr,
    bytes: usize,
}

impl fmt::Debug for UserSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserSlice({:#x}, {} bytes)", self.start, self.bytes)
    }
}

impl UserSlice {
    /// Names `bytes` bytes from `start` on. Nothing is checked before they are accessed.
    #[must_use]
    pub const fn new(start: UserAddr, bytes: usize) -> Self {
        Self { start, bytes }
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> UserAddr {
        self.start
    }

    /// The length.
    #[must_use]
    pub const fn len(self) -> usize {
        self.bytes
    }

    /// Whether it has no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// Reads it from the start on.
    pub const fn reader<A: UserAccess>(self, access: A) -> UserReader<A> {
        UserReader { access, rest: self }
    }

    /// Writes it from the start on.
    pub const fn writer<A: UserAccess>(self, access: A) -> UserWriter<A> {
        UserWriter { access, rest: self }
    }

    /// Cuts `bytes` bytes off the front.
    fn advance(&mut self, bytes: usize) -> Result<(), UserAccessError> {
        let left = self.bytes.checked_sub(bytes).ok_or(UserAccessError::BeyondEnd { available: self.bytes })?;
        // Beyond the end of all addresses nothing can be accessed either way.
        self.start = self.start.checked_add(bytes as u64).unwrap_or(USER_END);
        self.bytes = left;
        Ok(())
    }

    fn admit(self, bytes: usize) -> Result<(), UserAccessError> {
        if bytes <= self.bytes { Ok(()) } else { Err(UserAccessError::BeyondEnd { available: self.bytes }) }
    }

    /// Cuts off what an access of `bytes` bytes has done.
    fn account(&mut self, bytes: usize, result: Result<(), UserAccessError>) -> Result<(), UserAccessError> {
        let done = match result {
            Ok(()) => bytes,
            Err(UserAccessError::Fault { left }) => bytes.saturating_sub(left),
            Err(_) => 0,
        };
        self.advance(done)?;
        result
    }
}

macro_rules! position {
    ($Name:ident) => {
        impl<A: UserAccess> $Name<A> {
            /// The bytes that are left.
            #[must_use]
            pub const fn remaining(&self) -> usize {
                self.rest.bytes
            }

            /// Whether none is left.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.rest.bytes == 0
            }

            /// The next address.
            #[must_use]
            pub const fn position(&self) -> UserAddr {
                self.rest.start
            }

            /// Passes over `bytes` bytes.
            ///
            /// # Errors
            ///
            /// [`UserAccessError::BeyondEnd`]; it stays where it is then.
            pub fn skip(&mut self, bytes: usize) -> Result<(), UserAccessError> {
                self.rest.advance(bytes)
            }

            /// The same, of which at most the next `bytes` bytes are left.
            #[must_use]
            pub fn limit(mut self, bytes: usize) -> Self {
                self.rest.bytes = self.rest.bytes.min(bytes);
                self
            }
        }

        impl<A> fmt::Debug for $Name<A> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($Name)).field(&self.rest).finish()
            }
        }
    };
}

/// Reads a [`UserSlice`] from its start to its end. After a fault it stands at the byte that could not be read. Calls are for any
/// context; where it may not sleep, memory that is not there yet is an error.
pub struct UserReader<A> {
    access: A,
    rest: UserSlice,
}

position!(UserReader);

impl<A: UserAccess> UserReader<A> {
    /// Fills `to`.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::BeyondEnd`], upon which nothing is read; [`UserAccessError::Fault`], upon which the rest of `to` is zero.
    pub fn read_slice(&mut self, to: &mut [u8]) -> Result<(), UserAccessError> {
        self.rest.admit(to.len())?;
        let result = copy_from_user(&self.access, to, self.rest.start);
        self.rest.account(to.len(), result)
    }

    /// Reads as much as there is room for in `to`, and as is left: how many bytes.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::Fault`], if not all of them can be read.
    pub fn read_some(&mut self, to: &mut [u8]) -> Result<usize, UserAccessError> {
        let bytes = to.len().min(self.rest.bytes);
        self.read_slice(to.get_mut(..bytes).unwrap_or_default())?;
        Ok(bytes)
    }

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::BeyondEnd`], [`UserAccessError::Fault`].
    pub fn read<T: UserData>(&mut self) -> Result<T, UserAccessError> {
        let bytes = size_of::<T>();
        self.rest.admit(bytes)?;
        let value = UserPtr::<T>::new(self.rest.start).read(&self.access);
        self.rest.account(bytes, value.map(drop))?;
        value
    }

    /// Reads a string up to its NUL, which is passed over, too: its length without it. The length of `to`, or what is left if
    /// that is less, says that there was none.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::Fault`].
    pub fn read_string(&mut self, to: &mut [u8]) -> Result<usize, UserAccessError> {
        let room = to.len().min(self.rest.bytes);
        let length = strncpy_from_user(&self.access, to.get_mut(..room).unwrap_or_default(), self.rest.start)?;
        self.rest.advance(room.min(length + 1))?;
        Ok(length)
    }
}

/// Writes a [`UserSlice`] from its start to its end. After a fault it stands at the byte that could not be written. Contexts as
/// for [`UserReader`].
pub struct UserWriter<A> {
    access: A,
    rest: UserSlice,
}

position!(UserWriter);

impl<A: UserAccess> UserWriter<A> {
    /// Writes all of `from`.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::BeyondEnd`], upon which nothing is written; [`UserAccessError::Fault`].
    pub fn write_slice(&mut self, from: &[u8]) -> Result<(), UserAccessError> {
        self.rest.admit(from.len())?;
        let result = copy_to_user(&self.access, self.rest.start, from);
        self.rest.account(from.len(), result)
    }

    /// Writes as much of `from` as there is room for: how many bytes.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::Fault`], if not all of them can be written.
    pub fn write_some(&mut self, from: &[u8]) -> Result<usize, UserAccessError> {
        let bytes = from.len().min(self.rest.bytes);
        self.write_slice(from.get(..bytes).unwrap_or_default())?;
        Ok(bytes)
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`UserAccessError::BeyondEnd`], [`UserAccessError::Fault`].
    pub fn write<T: UserData>(&mut self, value: &T) -> Result<(), UserAccessError> {
        let bytes = size_of::<T>();
        self.rest.admit(bytes)?;
        let result = UserPtr::<T>::new(self.rest.start).write(&self.access, value);
        self.rest.account(bytes, result)
    }

    /// Writes zeros.
    ///
    /// # Errors
    ///
    /// As for [`UserWriter::write_slice`].
    pub fn fill_zero(&mut self, bytes: usize) -> Result<(), UserAccessError> {
        self.rest.admit(bytes)?;
        let result = clear_user(&self.access, self.rest.start, bytes);
        self.rest.account(bytes, result)
    }
}
