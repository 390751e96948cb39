//! Physical memory through the linear map, for the boot-time memory manager.

use crate::addr::{PhysRange, VirtAddr, to_usize};
use crate::hal::{BootMemory, Unreachable};

/// Authority over free physical memory that the linear map reaches, `offset` above its physical address.
///
/// # Invariants
///
/// - `LIN-1`: all RAM that its memblock manages is mapped read-write, write-back, `offset` above its physical address.
#[derive(Debug)]
pub struct LinearMemory {
    offset: u64,
}

impl LinearMemory {
    /// The memory that is mapped `offset` above its physical address.
    ///
    /// # Safety
    ///
    /// `LIN-1` holds from now on, and the promises of [`BootMemory`] are kept: one memblock gets the value, and it knows
    /// of every byte in use.
    #[must_use]
    pub const unsafe fn new(offset: u64) -> Self {
        // INVARIANT: LIN-1 is the caller's promise.
        Self { offset }
    }

    fn start(&self, range: PhysRange) -> Result<VirtAddr, Unreachable> {
        self.offset.checked_add(range.start().get()).map(VirtAddr::new).ok_or(Unreachable)
    }
}

impl BootMemory<'static> for LinearMemory {
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable> {
        let start = self.start(range)?.as_ptr::<u8>();
        // SAFETY: LIN-1, and by the contract of `BootMemory` the range is mapped, free RAM that nobody else uses.
        unsafe { start.write_bytes(0, to_usize(range.size())) };
        Ok(())
    }

    fn claim<T: Copy + 'static>(&mut self, range: PhysRange, fill: T) -> Result<&'static mut [T], Unreachable> {
        let start = self.start(range)?.as_ptr::<T>();
        if !start.is_aligned() || size_of::<T>() == 0 {
            return Err(Unreachable);
        }
        let count = to_usize(range.size()) / size_of::<T>();
        for index in 0..count {
            // SAFETY: as in `zero`; `index` stays inside the range.
            let slot = unsafe { start.add(index) };
            // SAFETY: in the range that was reached above, since `index` stays inside it, and aligned for `T`.
            unsafe { slot.write(fill) };
        }
        // SAFETY: the range that was reached above, of which every element has just been written.
        Ok(unsafe { core::slice::from_raw_parts_mut(start, count) })
    }
}
