//! General heaps: the trait behind which this kernel's `kmalloc` and the crates of others run, in the kernel and on the
//! host, and the memory that they manage.

pub(crate) mod check;
pub(crate) mod churn;
#[cfg(feature = "peers")]
pub(crate) mod peers;
pub(crate) mod random;

use core::alloc::Layout;
use core::ptr::NonNull;

/// Reason why a row has no figures.
pub(crate) type Unable = &'static str;

/// The usual reason.
pub(crate) const FAILED: Unable = "an allocation failed";

/// Memory that a heap gets for itself, aligned to 2 MiB at least.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    size: usize,
}

impl Memory {
    /// `size` bytes from `start` on.
    ///
    /// # Safety
    ///
    /// They are readable and writable, and nobody else's for as long as a heap that got them is used.
    pub(crate) const unsafe fn new(start: NonNull<u8>, size: usize) -> Self {
        Self { start, size }
    }

    /// Its first byte.
    #[cfg(feature = "peers")]
    pub(crate) const fn start(self) -> NonNull<u8> {
        self.start
    }

    /// Its first address, as a number.
    pub(crate) fn addr(self) -> usize {
        self.start.addr().get()
    }

    /// Bytes.
    pub(crate) const fn size(self) -> usize {
        self.size
    }

    /// The pointer to `addr`, a number that some peer calculated from [`Memory::addr`].
    #[cfg(feature = "peers")]
    pub(crate) fn pointer(self, addr: usize) -> NonNull<u8> {
        self.start.map_addr(|start| start.saturating_add(addr.wrapping_sub(start.get())))
    }

    /// The first `size` bytes, and the rest. There are that many.
    pub(crate) fn split(self, size: usize) -> (Self, Self) {
        assert!(size < self.size, "{size} of {} bytes", self.size);
        // SAFETY: as many bytes are there.
        let rest = unsafe { self.start.add(size) };
        (Self { start: self.start, size }, Self { start: rest, size: self.size - size })
    }
}

/// Alignment of the requested blocks, which `kmalloc` guarantees for every size.
pub(crate) const ALIGN: usize = 8;

/// The layout of a block.
#[inline(always)]
pub(crate) const fn layout(size: u32) -> Layout {
    // SAFETY: 32 bits of size and a few more do not overflow an `isize`.
    unsafe { Layout::from_size_align_unchecked(size as usize, ALIGN) }
}

/// Blocks of [`Heap::alloc_bulk`].
pub(crate) const BULK: usize = 64;

/// A heap under test. An implementation is one of these, and a line in the lists of rows.
pub(crate) trait Heap: Sized {
    /// Name of its crate.
    const NAME: &'static str;

    /// A heap that manages `memory`, unless it has memory of its own.
    fn new(memory: Memory) -> Result<Self, Unable>;

    /// A block, or `None` where there is none.
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// The block came from this heap with this layout, and is not used any more.
    unsafe fn dealloc(&mut self, block: NonNull<u8>, layout: Layout);

    /// A zeroed block. A heap that knows no better fills it with this image's `memset`.
    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.alloc(layout)?;
        // SAFETY: the block has just been allocated, with as many bytes.
        unsafe { block.write_bytes(0, layout.size()) };
        Some(block)
    }

    /// Fills `blocks`, all `None` before; whether it could. A heap that knows no better takes them one by one.
    #[inline(always)]
    fn alloc_bulk(&mut self, layout: Layout, blocks: &mut [Option<NonNull<u8>>; BULK]) -> bool {
        blocks.iter_mut().fold(true, |complete, block| {
            *block = self.alloc(layout);
            complete & block.is_some()
        })
    }

    /// Gives the blocks back that are there, and leaves `None`.
    ///
    /// # Safety
    ///
    /// As for [`Heap::dealloc`], for each.
    #[inline(always)]
    unsafe fn free_bulk(&mut self, layout: Layout, blocks: &mut [Option<NonNull<u8>>; BULK]) {
        for block in blocks.iter_mut().filter_map(Option::take) {
            // SAFETY: this function's `# Safety` is that of `dealloc`, for each block.
            unsafe { self.dealloc(block, layout) };
        }
    }

    /// Bytes that it has taken from the page allocator below it, where it has one and does not live in `memory` alone.
    fn taken(&self) -> Option<usize> {
        None
    }
}

/// `size`, of which the compiler must not know anything. No instruction, or one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it goes in with 32 bits and comes out unchanged")]
pub(crate) fn hidden(size: u32) -> u32 {
    let mut hidden = u64::from(size);
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) hidden, options(nomem, nostack, preserves_flags)) };
    hidden as u32
}
