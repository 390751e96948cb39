//! The machine trait of the slab allocator.

use super::cpu::masked;
use super::{ArrayHeader, ArrayOffset, CacheObjects, CpuSlabs, Misuse};
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::page::{Page, PageMap};
use crate::mm::zone::PageHal;
use core::sync::atomic::AtomicU64;

/// The slab allocator's interface to a machine, beyond that of the page allocator.
///
/// Each CPU has the headers of its arrays in its own data, at distances from their start that are the same for all. The
/// three methods of the hot path have bodies that mask interrupts; a machine whose exception return can
/// restart an interrupted sequence has better ones.
///
/// # Safety
///
/// Beside the requirements of [`PageHal`]:
///
/// - `HAL-6`: [`SlabHal::array_offset`] returns a different offset for each number, and [`SlabHal::header`] the header there, in the data
///   of the CPU that it is given, and nothing else uses it.
/// - `HAL-7`: the methods of the hot path do what their bodies here do.
pub unsafe trait SlabHal: PageHal + Sized {
    /// Array of cache number 0. Those of the first [`KMALLOC_SIZES`](super::KMALLOC_SIZES) numbers follow it.
    const FIRST_ARRAYS: u32;

    /// Array of cache number `number`, less than [`MAX_CACHES`](super::MAX_CACHES).
    fn array_offset(number: u16) -> ArrayOffset;

    /// The header of an array.
    fn header(local: &Self::Local, offset: ArrayOffset) -> &ArrayHeader;

    /// The slab allocator's data of each CPU.
    fn slabs(local: &Self::Local) -> &CpuSlabs;

    /// The number of the page that starts at an address, if it has a descriptor.
    #[inline(always)]
    fn page_number(&self, at: VirtAddr) -> Option<u32> {
        let phys = self.to_phys(at).filter(|phys| phys.is_aligned(PAGE_SIZE))?;
        self.map().find(Pfn::containing(phys)).map(Page::index)
    }

    /// Random bits unknown outside the machine, as many as it has.
    fn entropy(&self) -> u64;

    /// Zeroes an object that has just been allocated or is being freed.
    fn zero_object(&self, _: Internal, object: VirtAddr, bytes: usize);

    /// Whether a test makes this allocation fail. Called only while the allocator is careful
    /// ([`SlabAllocator::set_careful`](super::SlabAllocator::set_careful)).
    fn should_fail_slab(&self, _cache: &'static str, _gfp: Gfp) -> bool {
        false
    }

    /// Called when misuse of an object is about to be printed. A cache's lock may be held.
    fn misuse(&self, _misuse: &Misuse) {}

    /// Prints a line of a report. A cache's lock may be held.
    fn print(&self, line: core::fmt::Arguments<'_>) {
        log::error!("{line}");
    }

    /// Return address of the function that this is inlined into, or zero if it is unknown.
    #[inline(always)]
    fn return_address(&self) -> VirtAddr {
        VirtAddr::ZERO
    }

    /// Writes an address of code in readable form.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    fn fmt_code(&self, at: VirtAddr, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{at}")
    }

    /// A clock for the age of allocations, in units of its own: a millisecond suits.
    fn ticks(&self) -> u64 {
        0
    }

    /// Takes an object off this CPU's array and clears its mark, `mark` bytes from its start. `None` if the array is empty, or
    /// if the caller wants to wait where it may not.
    #[inline(always)]
    fn pop_free(&self, internal: Internal, offset: ArrayOffset, mark: u32, wait: bool) -> Option<VirtAddr> {
        masked::pop(internal, self, offset, mark, wait)
    }

    /// Marks the object at `at` as free and puts it on this CPU's array. Returns whether it did: the address is the start of an
    /// object, the object was not marked, and there was room. Otherwise nothing has changed.
    #[inline(always)]
    fn push_free(&self, internal: Internal, at: VirtAddr) -> bool {
        masked::push(internal, self, at, |_| true)
    }

    /// The same, but only if the object's cache has this array.
    #[inline(always)]
    fn push_free_to(&self, internal: Internal, at: VirtAddr, offset: ArrayOffset) -> bool {
        masked::push(internal, self, at, |own| own == offset)
    }

    /// Frees objects of one cache, from the first on, as long as they are valid and there is room: writes their marks, and
    /// their addresses to `room`, the rest of this CPU's array. Returns their number. Interrupts masked.
    #[inline(always)]
    fn push_free_many(
        &self,
        internal: Internal,
        local: &Self::Local,
        of: &CacheObjects,
        objects: &[VirtAddr],
        room: &[AtomicU64],
    ) -> usize {
        masked::push_many(internal, self, local, of, objects, room)
    }
}

impl ArrayOffset {
    /// The array at this distance from the start of each CPU's data.
    ///
    /// # Safety
    ///
    /// `ARR-3`.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn at(distance: u32) -> Self {
        // INVARIANT: ARR-3 is the caller's promise.
        Self::from_distance(distance)
    }
}
