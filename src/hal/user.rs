//! The machine interface by which the kernel reaches memory of the process that runs on this CPU.

use crate::addr::UserAddr;

/// One past the highest address that a process can have: the half that `TTBR0_EL1` translates (Linux: `TASK_SIZE`).
pub const USER_END: UserAddr = UserAddr::new(1 << 48);

/// How the copy of a string ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StringEnd {
    /// With the NUL, which has been copied, too.
    Nul,
    /// There was no NUL in as many bytes as there is room for.
    Full,
    /// The next byte cannot be read.
    Fault,
}

/// How a compare-and-exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange<W> {
    /// It found this value, and exchanged it if it was the expected one.
    Found(W),
    /// The word cannot be read or written.
    Fault,
    /// Other CPUs were faster, too often.
    Contended,
}

/// A CPU's way to the memory of the process that it runs: accesses with the rights of EL0. An access that faults is first shown to
/// the kernel's handler of user faults, as one of the process would be, and made again if that has resolved it; otherwise it
/// is an answer. All calls are for any context; where the context may not sleep, the handler is not asked.
///
/// # Safety
///
/// A call writes nothing but what its text says, and reads the kernel's memory nowhere but in its arguments.
pub unsafe trait UserAccess {
    /// Copies to `to`. Returns how many bytes were not copied: the last ones.
    ///
    /// # Safety
    ///
    /// The bytes at `from`, as many as `to` has, lie below [`USER_END`].
    unsafe fn copy_in(&self, to: &mut [u8], from: UserAddr) -> usize;

    /// Copies from `from`. Returns how many bytes were not copied: the last ones.
    ///
    /// # Safety
    ///
    /// The bytes at `to`, as many as `from` has, lie below [`USER_END`].
    unsafe fn copy_out(&self, to: UserAddr, from: &[u8]) -> usize;

    /// Zeroes `bytes` bytes. Returns how many were not zeroed: the last ones.
    ///
    /// # Safety
    ///
    /// The bytes lie below [`USER_END`].
    unsafe fn clear(&self, to: UserAddr, bytes: usize) -> usize;

    /// Copies a string up to its NUL, or until `to` is full. Returns the bytes copied, without the NUL, and how it ended.
    /// Bytes of `to` behind the NUL may become zero.
    ///
    /// # Safety
    ///
    /// As for [`UserAccess::copy_in`].
    unsafe fn copy_string(&self, to: &mut [u8], from: UserAddr) -> (usize, StringEnd);

    /// Loads 1, 2, 4 or 8 bytes (`size`; another one is a fault), in one access if aligned. `None` if that faults.
    ///
    /// # Safety
    ///
    /// The bytes lie below [`USER_END`].
    unsafe fn load(&self, from: UserAddr, size: usize) -> Option<u64>;

    /// Stores the low bytes of `value`; as [`UserAccess::load`]. Whether it did.
    ///
    /// # Safety
    ///
    /// As for [`UserAccess::load`].
    unsafe fn store(&self, to: UserAddr, size: usize, value: u64) -> bool;

    /// Exchanges the 32-bit word at `at` for `new` if it is `expected`, with acquire and release.
    ///
    /// # Safety
    ///
    /// As for [`UserAccess::load`]; `at` is a multiple of 4.
    unsafe fn compare_exchange_u32(&self, at: UserAddr, expected: u32, new: u32) -> Exchange<u32>;

    /// The same for a 64-bit word.
    ///
    /// # Safety
    ///
    /// As for [`UserAccess::load`]; `at` is a multiple of 8.
    unsafe fn compare_exchange_u64(&self, at: UserAddr, expected: u64, new: u64) -> Exchange<u64>;
}
