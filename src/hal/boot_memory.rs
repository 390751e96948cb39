//! Access of the boot-time memory manager to the bytes of its memory: zeroing a range, and turning a range into storage of its
//! own. All unsafe code for that is in the implementor.

use crate::addr::PhysRange;

/// Authority over the bytes of free physical memory during boot.
///
/// The methods are safe to call because the *value* is the authority: the caller that makes one for real memory (through an
/// `unsafe` constructor) promises that
///
/// - it is given to one [`Memblock`](crate::mm::memblock::Memblock) and to nobody else, and
/// - that memblock is told of every byte in use (kernel image, device tree, firmware) before its first allocation.
///
/// In return the memblock calls these methods only with ranges that lie in mapped memory (not `NOMAP`), overlap no reservation,
/// and stay untouched by anybody else until they are freed. `'m` is how long the memory lives; for a kernel that is `'static`.
///
/// Both calls happen on the boot CPU only. An implementor may reach part of memory, or none as long as the linear map
/// does not exist yet: `None` for an [`Option`] of an implementor reaches nothing.
pub trait BootMemory<'m> {
    /// Zeroes every byte of `range`. Cost: O(bytes).
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if part of the range is not mapped; nothing was written then.
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable>;

    /// Turns `range` into the largest number of values of `T` that fits, each one set to `fill`. The caller owns them until it
    /// has dropped the slice and freed the range.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if part of the range is not mapped, or if its start is not aligned for `T`.
    fn claim<T: Copy + 'm>(&mut self, range: PhysRange, fill: T) -> Result<&'m mut [T], Unreachable>;
}

/// A [`BootMemory`] cannot reach the requested range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable;

impl<'m, M: BootMemory<'m>> BootMemory<'m> for Option<M> {
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable> {
        self.as_mut().ok_or(Unreachable)?.zero(range)
    }

    fn claim<T: Copy + 'm>(&mut self, range: PhysRange, fill: T) -> Result<&'m mut [T], Unreachable> {
        self.as_mut().ok_or(Unreachable)?.claim(range, fill)
    }
}
