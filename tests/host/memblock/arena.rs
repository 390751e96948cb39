//! Physical memory for the tests: a block of the host's memory that plays the RAM from `base` on, poisoned, reached
//! through raw pointers the way a kernel reaches RAM through its linear map.

use quarry::addr::{PAGE_SIZE, PhysAddr, PhysRange, to_usize};
use quarry::hal::{BootMemory, Unreachable};
use std::alloc::Layout;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Contents of fresh RAM.
pub(super) const POISON: u8 = 0xa5;

/// A block of RAM. Memory outside it is not mapped.
pub(super) struct Arena {
    range: PhysRange,
    bytes: NonNull<u8>,
}

impl Arena {
    pub(super) fn new(base: u64, size: u64) -> Self {
        let range = PhysRange::from_size(PhysAddr::new(base), size).unwrap();
        assert!(range.start().is_aligned(PAGE_SIZE) && !range.is_empty());
        // SAFETY: the size is not zero.
        let bytes = NonNull::new(unsafe { std::alloc::alloc(Self::layout(range)) }).unwrap();
        // SAFETY: the block is as large as the range.
        unsafe { bytes.write_bytes(POISON, to_usize(range.size())) };
        Self { range, bytes }
    }

    /// Access for one memblock, which gets all accesses to the arena (the contract of `BootMemory`).
    pub(super) fn access(&self) -> Access<'_> {
        Access { arena: self, _memory: PhantomData }
    }

    /// Current contents of memory at `addr`. No slice of a memblock lies there.
    pub(super) fn byte(&self, addr: PhysAddr) -> u8 {
        let byte = self.pointer(PhysRange::from_size(addr, 1).unwrap()).unwrap();
        // SAFETY: the byte lies in the block, which was written as a whole at first.
        unsafe { byte.read() }
    }

    /// Whether every byte of `range` is `value`. No slice of a memblock lies there.
    pub(super) fn holds(&self, range: PhysRange, value: u8) -> bool {
        let bytes = NonNull::slice_from_raw_parts(self.pointer(range).unwrap(), to_usize(range.size()));
        // SAFETY: the bytes lie in the block, and nobody writes them meanwhile.
        unsafe { bytes.as_ref() }.iter().all(|&byte| byte == value)
    }

    fn layout(range: PhysRange) -> Layout {
        Layout::from_size_align(to_usize(range.size()), to_usize(PAGE_SIZE)).unwrap()
    }

    fn pointer(&self, range: PhysRange) -> Option<NonNull<u8>> {
        let offset = range.start().offset_from(self.range.start())?;
        // SAFETY: the range lies in the block.
        self.range.contains_range(range).then(|| unsafe { self.bytes.add(to_usize(offset)) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and every access borrows the arena.
        unsafe { std::alloc::dealloc(self.bytes.as_ptr(), Self::layout(self.range)) };
    }
}

/// A memblock's access to an [`Arena`].
#[derive(Clone)]
pub(super) struct Access<'m> {
    arena: &'m Arena,
    _memory: PhantomData<&'m mut [u8]>,
}

impl<'m> BootMemory<'m> for Access<'m> {
    fn zero(&mut self, range: PhysRange) -> Result<(), Unreachable> {
        let start = self.arena.pointer(range).ok_or(Unreachable)?;
        // SAFETY: the range lies in the block, and a memblock asks for free memory only.
        unsafe { start.write_bytes(0, to_usize(range.size())) };
        Ok(())
    }

    fn claim<T: Copy + 'm>(&mut self, range: PhysRange, fill: T) -> Result<&'m mut [T], Unreachable> {
        let start = self.arena.pointer(range).ok_or(Unreachable)?.cast::<T>();
        if !start.is_aligned() {
            return Err(Unreachable);
        }
        let count = to_usize(range.size()) / size_of::<T>();
        for index in 0..count {
            // SAFETY: the element lies in the range.
            let element = unsafe { start.add(index) };
            // SAFETY: it is aligned, as the first one is.
            unsafe { element.write(fill) };
        }
        let mut slice = NonNull::slice_from_raw_parts(start, count);
        // SAFETY: the elements were written above, and a memblock owns what it claims until it frees the range.
        Ok(unsafe { slice.as_mut() })
    }
}
