//! vmalloc for Rust types: memory that is contiguous in virtual addresses alone, as values; and pages mapped at consecutive
//! addresses.

use super::linear::pointer;
use super::vmalloc::{self, vfree, vmalloc_gfp, vmap, vrealloc, vunmap};
use super::{KVec, Pages};
use crate::addr::{Address, PAGE_SIZE, PMD_SIZE, VirtRange, to_usize};
use crate::gfp::Gfp;
use crate::hal::prot::Prot;
use crate::mm::alloc::{self, Allocator, Stateless};
use crate::mm::page::Page;
use crate::mm::slab::SlabAllocError;
use crate::mm::vmalloc::{VmFlags, VmallocError, VmallocRequest};
use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// The allocator behind [`vmalloc`](super::vmalloc()), as a value: whole pages for each block, and a guard page behind it.
/// Any context, as far as the flags of each call go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vmalloc;

/// A value in memory of vmalloc.
///
/// Raw: [`vmalloc`](super::vmalloc()), [`vzalloc`](super::vzalloc), [`vmalloc_gfp`],
/// [`vmalloc_huge`], [`vmalloc_user`](super::vmalloc_user), [`vfree`],
/// [`vfree_atomic`](super::vfree_atomic).
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/vmalloc.rs"), "```")]
pub type VBox<T> = alloc::KBox<T, Vmalloc>;
/// A growable array in memory of vmalloc.
///
/// Raw: [`vrealloc`], [`kvmalloc`](super::kvmalloc()).
pub type VVec<T> = alloc::KVec<T, Vmalloc>;

/// Error for a caller that does not know areas.
pub(super) const fn refused(error: &VmallocError) -> SlabAllocError {
    match error {
        VmallocError::TooLarge(_) => SlabAllocError::TooLarge,
        _ => SlabAllocError::OutOfMemory,
    }
}

impl Stateless for Vmalloc {
    const THE: Self = Self;
}

// SAFETY: an area is mapped read-write over its whole length, is nobody else's, and stays where it is until it is freed.
unsafe impl Allocator for Vmalloc {
    #[track_caller]
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        let align = (layout.align() as u64).max(PAGE_SIZE);
        let request = VmallocRequest { align, ..VmallocRequest::new(layout.size() as u64, gfp) };
        vmalloc::allocate(&request).map(pointer).map_err(|error| refused(&error))
    }

    #[track_caller]
    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError> {
        let moved = if new.align() as u64 > PAGE_SIZE {
            // A block that is moved may use any page.
            let moved = self.allocate(new, gfp)?;
            // SAFETY: both have that many bytes, and the new block has no other owner.
            unsafe { moved.copy_from_nonoverlapping(block, old.size().min(new.size())) };
            // SAFETY: `Allocator::resize`: the block has the layout `old`, and nobody uses it after a success, which this is.
            unsafe { self.free(block, old) };
            moved
        } else {
            // SAFETY: `Allocator::resize`: the block came from here, and nobody uses it after a success.
            unsafe { vrealloc(block, new.size(), gfp) }.map_err(|error| refused(&error))?
        };
        if gfp.contains(Gfp::ZERO)
            && let Some(more) = new.size().checked_sub(old.size())
        {
            // SAFETY: behind the old contents, inside the block.
            let tail = unsafe { moved.add(old.size()) };
            // SAFETY: the `more` bytes behind the old contents, inside the block; not all calls before asked for zeroes.
            unsafe { tail.write_bytes(0, more) };
        }
        Ok(moved)
    }

    unsafe fn free(&self, block: NonNull<u8>, _: Layout) {
        // SAFETY: `Allocator::free`: the block came from here, and nobody uses it afterwards. `vfree` reports a bad block.
        unsafe { vfree(block) };
    }
}

/// Allocates `size` bytes in blocks of 2 MiB as far as memory has such blocks, at an address where they fit (Linux:
/// `vmalloc_huge`); [`vmalloc`](super::vmalloc()) does so where there happens to be room. Context as `gfp` says.
///
/// As a value: [`VBox`], [`VVec`].
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
pub fn vmalloc_huge(size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
    let request = VmallocRequest::new(size as u64, gfp);
    if request.size < PMD_SIZE {
        return vmalloc_gfp(size, gfp);
    }
    vmalloc::allocate(&VmallocRequest { align: PMD_SIZE, ..request }).map(pointer)
}

/// Blocks of pages mapped at consecutive addresses, read-write: unmapped and freed when this is dropped.
///
/// Raw: [`vmap`], [`vunmap`], [`vm_map_ram`](super::vm_map_ram),
/// [`vm_unmap_ram`](super::vm_unmap_ram).
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/mappings.rs"), "```")]
///
/// # Invariants
///
/// - `VMP-1`: the bytes of `range` are mapped read-write, point to `pages`, and belong to this value alone.
pub struct Vmap {
    range: VirtRange,
    /// Freed behind the unmapping.
    pages: KVec<Pages>,
}

impl Vmap {
    /// Maps the blocks in their order. May wait.
    ///
    /// # Errors
    ///
    /// [`VmallocError`]; the blocks have been freed then.
    #[track_caller]
    pub fn new(pages: KVec<Pages>) -> Result<Self, VmallocError> {
        let mut list = KVec::new();
        for block in pages.as_slice() {
            let first = super::page_to_pfn(block.page());
            for index in 0..block.order().pages() {
                let page: Option<Page> = super::pfn_to_page(crate::addr::Pfn::new(first.get() + index));
                let page = page.ok_or(VmallocError::Empty)?;
                list.push(page, Gfp::KERNEL)
                    .map_err(|_| VmallocError::Pages(crate::mm::zone::AllocError::OutOfMemory))?;
            }
        }
        let start = vmap(list.as_slice(), VmFlags::empty(), Prot::KERNEL_RW)?;
        let range = VirtRange::from_size(start.at(), list.len() as u64 * PAGE_SIZE).unwrap_or_default();
        // INVARIANT: VMP-1.
        Ok(Self { range, pages })
    }

    /// The addresses.
    #[must_use]
    pub const fn range(&self) -> VirtRange {
        self.range
    }

    /// The blocks, in their order.
    pub const fn pages(&self) -> &[Pages] {
        self.pages.as_slice()
    }

    /// The bytes. The contents of pages are undefined unless they were allocated with [`Gfp::ZERO`].
    #[must_use]
    pub fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        let start = self.range.start().as_ptr::<MaybeUninit<u8>>();
        // SAFETY: VMP-1.
        unsafe { core::slice::from_raw_parts_mut(start, to_usize(self.range.size())) }
    }
}

impl fmt::Debug for Vmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmap").field("range", &self.range).field("blocks", &self.pages.len()).finish()
    }
}

impl Drop for Vmap {
    fn drop(&mut self) {
        // SAFETY: VMP-1: the area is this value's alone, and every reference into it ends with it. When it returns, no CPU
        // translates the addresses; an error is reported there.
        unsafe { vunmap(self.range.start()) };
    }
}
