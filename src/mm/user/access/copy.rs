//! Copies between the kernel and a process, each after a check of its range.

use super::error::{UserAccessError, all_but};
use crate::addr::{UserAddr, to_usize};
use crate::hal::user::{StringEnd, USER_END, UserAccess};

/// Whether `bytes` bytes from `start` on all lie where a process can have memory, so that none of them is the kernel's (Linux:
/// `access_ok`). No byte lies anywhere, whatever `start` is. Any context; O(1).
///
/// # Errors
///
/// [`UserAccessError::Fault`] with all bytes left.
#[inline(always)]
pub const fn check_range(start: UserAddr, bytes: usize) -> Result<(), UserAccessError> {
    let size = bytes as u64;
    // Without a sum, which could wrap.
    if size <= USER_END.get() && start.get() <= USER_END.get() - size || bytes == 0 {
        Ok(())
    } else {
        Err(UserAccessError::Fault { left: bytes })
    }
}

/// Copies from a process. Bytes that cannot be read become zero in `to`, so that nothing old is left there. Any context; where
/// it may not sleep, memory that is not there yet is an error.
///
/// # Errors
///
/// [`UserAccessError::Fault`] with the bytes that were not copied: the last ones.
#[inline]
pub fn copy_from_user<A: UserAccess>(access: &A, to: &mut [u8], from: UserAddr) -> Result<(), UserAccessError> {
    let left = match check_range(from, to.len()) {
        // SAFETY: checked by the line above.
        Ok(()) => unsafe { access.copy_in(to, from) },
        Err(_) => to.len(),
    };
    if left != 0 {
        zero_last(to, left);
    }
    all_but(left)
}

#[cold]
fn zero_last(bytes: &mut [u8], left: usize) {
    let done = bytes.len().saturating_sub(left);
    if let Some(rest) = bytes.get_mut(done..) {
        rest.fill(0);
    }
}

/// Copies to a process. Contexts as for [`copy_from_user`].
///
/// # Errors
///
/// [`UserAccessError::Fault`] with the bytes that were not copied: the last ones.
#[inline]
pub fn copy_to_user<A: UserAccess>(access: &A, to: UserAddr, from: &[u8]) -> Result<(), UserAccessError> {
    check_range(to, from.len())?;
    // SAFETY: checked by the line above.
    all_but(unsafe { access.copy_out(to, from) })
}

/// Zeroes memory of a process. Contexts as for [`copy_from_user`].
///
/// # Errors
///
/// [`UserAccessError::Fault`] with the bytes that were not zeroed: the last ones.
#[inline]
pub fn clear_user<A: UserAccess>(access: &A, to: UserAddr, bytes: usize) -> Result<(), UserAccessError> {
    check_range(to, bytes)?;
    // SAFETY: checked by the line above.
    all_but(unsafe { access.clear(to, bytes) })
}

/// Copies a string from a process to `to`, up to its NUL. Returns its length without the NUL; `to.len()` says that there was none
/// in as many bytes. Nothing behind the NUL is read across a page; bytes of `to` behind it may become zero. Contexts as for
/// [`copy_from_user`].
///
/// # Errors
///
/// [`UserAccessError::Fault`] if a byte in front of the NUL cannot be read, with the bytes of `to` from there on. They are zero then.
#[inline]
pub fn strncpy_from_user<A: UserAccess>(access: &A, to: &mut [u8], from: UserAddr) -> Result<usize, UserAccessError> {
    let room = to.len();
    // A string may end right below the end of user memory, whatever room there is for it.
    let below = USER_END.offset_from(from).map_or(0, to_usize);
    let limit = room.min(below);
    let Some(head) = to.get_mut(..limit) else { return Err(UserAccessError::Fault { left: room }) };
    // SAFETY: cut to what lies below the end.
    let (copied, end) = unsafe { access.copy_string(head, from) };
    match end {
        StringEnd::Nul => Ok(copied),
        StringEnd::Full if limit == room => Ok(room),
        StringEnd::Full | StringEnd::Fault => {
            let left = room.saturating_sub(copied);
            zero_last(to, left);
            Err(UserAccessError::Fault { left })
        }
    }
}

/// Bytes that are looked at a time.
const CHUNK: usize = 64;

/// Whether memory of a process is all zero. Contexts as for [`copy_from_user`].
///
/// # Errors
///
/// [`UserAccessError::Fault`] if a byte cannot be read and all in front of it are zero.
pub fn check_zeroed_user<A: UserAccess>(access: &A, from: UserAddr, bytes: usize) -> Result<bool, UserAccessError> {
    check_range(from, bytes)?;
    let (mut at, mut left) = (from, bytes);
    let mut chunk = [0; CHUNK];
    while left != 0 {
        let size = left.min(CHUNK);
        let part = chunk.get_mut(..size).unwrap_or_default();
        // SAFETY: inside the range that was checked.
        let missing = unsafe { access.copy_in(part, at) };
        let done = size.saturating_sub(missing);
        // In front of a byte that cannot be read, all are looked at.
        if part.iter().take(done).any(|byte| *byte != 0) {
            return Ok(false);
        }
        if missing != 0 {
            return Err(UserAccessError::Fault { left: left.saturating_sub(done) });
        }
        at = at.checked_add(size as u64).unwrap_or(USER_END);
        left -= size;
    }
    Ok(true)
}

/// Copies a structure that has versions, by which it only grows: the process gives the size of the version that it knows.
/// Fields that it does not know become zero in `to`; fields that this kernel does not know must be zero. Contexts as for
/// [`copy_from_user`].
///
/// # Errors
///
/// [`UserAccessError::UnknownTail`], upon which nothing is copied; [`UserAccessError::Fault`].
pub fn copy_struct_from_user<A: UserAccess>(
    access: &A,
    to: &mut [u8],
    from: UserAddr,
    bytes: usize,
) -> Result<(), UserAccessError> {
    check_range(from, bytes)?;
    let known = to.len().min(bytes);
    if bytes > known {
        let tail = from.checked_add(known as u64).unwrap_or(USER_END);
        if !check_zeroed_user(access, tail, bytes - known)? {
            return Err(UserAccessError::UnknownTail);
        }
    }
    let (head, rest) = to.split_at_mut_checked(known).unwrap_or_default();
    rest.fill(0);
    copy_from_user(access, head, from)
}
