//! How the kernel reads and writes memory of a process.
//!
//! A pointer from a process is a number until it has been checked: [`UserPtr`] and [`UserSlice`] cannot be dereferenced,
//! only read and written by calls that answer with an error where the memory is not there. An error says how many bytes
//! are left, exactly. All calls are generic over the machine's way to user memory
//! ([`UserAccess`](crate::hal::user::UserAccess)); a kernel uses the free functions of `global`.
//!
//! Attacks on the kernel that a process may try by a pointer, and why each fails:
//!
//! - **Name a kernel address**: every call checks that all its bytes lie below [`USER_END`](crate::hal::user::USER_END)
//!   ([`check_range`]). Short accesses also have the rights of EL0. There are no tagged user pointers: a top byte other than zero
//!   is beyond the end, so it bypasses nothing.
//! - **Change the bytes between check and use**: [`UserReader`] moves on as it reads, so that code that reads a byte twice has to say
//!   so.
//! - **Read what the kernel left in a buffer**: a copy from a process that fails in the middle zeroes the rest of the buffer; types
//!   that are copied to a process have no padding ([`UserData`]).
//! - **Have the kernel copy beyond its own object**: the kernel's side of a copy is a slice, whose length is the length of the
//!   copy. There is no second length that could be one too large, which Linux's hardened usercopy looks for at run time.

mod copy;
mod error;
mod pointer;
mod slice;
mod word;

pub use copy::{
    check_range, check_zeroed_user, clear_user, copy_from_user, copy_struct_from_user, copy_to_user, strncpy_from_user,
};
pub use error::UserAccessError;
pub use pointer::{UserData, UserPtr};
pub use slice::{UserReader, UserSlice, UserWriter};
pub use word::{UserWord, cmpxchg_user_u32, cmpxchg_user_u64, get_user, put_user};
