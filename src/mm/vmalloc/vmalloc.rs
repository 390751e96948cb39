//! Areas with mappings: `vmalloc`, `vfree`, `vmap`, `vunmap`, step by step.
//!
//! | step | function | lock | interrupts | if it fails |
//! |---|---|---|---|---|
//! | 1. size, alignment, protection | `vmalloc`, `tagged` | none | as the caller has them | an error |
//! | 2. an area of this size that this CPU has freed | `alloc_pooled` | the node's | masked | 3 |
//! | 3. the lowest gap that fits, aligned for large leaves | `area_for`, `alloc_split` | the free tree's | masked | a purge of all that waits, and 3 again, once; with the caller's alignment, 2 again |
//! | 4. into the busy tree, under construction | `publish` | the node's | masked | an error: damage |
//! | 5. pages, the largest blocks that are free | `Blocks::alloc` | the page allocator's | as the caller has them | blocks freed, `cancel` |
//! | 6. entries, and the tables for them | `map_blocks` | none | as the caller has them | `unmap`, blocks freed, `cancel` |
//! | 7. the pages into the area, which `vfree` finds from now on | `do_complete` | none | as the caller has them | - |
//!
//! `vmap` has 1 to 4, holds the pages as it maps them (`map_held`) instead of 5 and 6, and ends with 7. `vfree` is the table of
//! `lazy.rs`; `vunmap` unmaps at once, and recycles the area.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::pages::Blocks;
use super::{AreaError, AreaRef, AreaRequest, Removed, VmFlags, VmallocError, VmallocHal, VmapSpace};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::level::LeafLevel;
use crate::hal::prot::{Access, MemoryType, Privilege, Prot};
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::zone::PageHal;
use core::panic::Location;

/// Bytes of a contiguous group of pages.
const CONT_PTE_SIZE: u64 = LeafLevel::Pte.contiguous_size();

/// Arguments of [`VmapSpace::vmalloc`].
#[derive(Clone, Copy, Debug)]
pub struct VmallocRequest {
    /// Bytes; rounded up to whole pages.
    pub size: u64,
    /// Alignment of the start; a power of two.
    pub align: u64,
    /// How the pages are allocated, and the tables and descriptors behind them. Zone and `ZERO` concern the pages alone.
    pub gfp: Gfp,
    /// How they are mapped.
    pub prot: Prot,
    /// Flags recorded beside [`VmFlags::ALLOC`]; [`VmFlags::NO_HUGE_VMAP`] and [`VmFlags::NO_GUARD`] have their effect.
    pub flags: VmFlags,
    /// Where the area must lie; `None` for the whole space.
    pub within: Option<VirtRange>,
    /// The requester.
    pub caller: Option<&'static Location<'static>>,
}

impl VmallocRequest {
    /// `size` bytes of ordinary kernel memory, requested by the caller of this function.
    #[must_use]
    #[track_caller]
    #[inline]
    pub fn new(size: u64, gfp: Gfp) -> Self {
        let caller = Some(Location::caller());
        Self { size, align: PAGE_SIZE, gfp, prot: Prot::KERNEL_RW, flags: VmFlags::empty(), within: None, caller }
    }
}

/// Flags that a caller of [`VmapSpace::vmap`] may pass. The other flags record the call that made an area, so that only its
/// counterpart frees it.
const VMAP_FLAGS: VmFlags =
    VmFlags::USERMAP.union(VmFlags::MAP_PUT_PAGES).union(VmFlags::KASAN).union(VmFlags::NO_HUGE_VMAP);

/// Refuses a protection that would break promise 4 or 9: RAM is mapped for the kernel, without execution, and with the
/// memory type of its linear alias.
#[inline(always)]
pub(super) fn check_prot(prot: Prot) -> Result<Prot, VmallocError> {
    let ordinary = matches!(prot.memory(), MemoryType::WriteBack | MemoryType::WriteBackTagged);
    let kernel = prot.access() != Access::Execute && prot.privilege() == Privilege::Kernel;
    if ordinary && kernel { Ok(prot) } else { Err(VmallocError::Protection(prot)) }
}

/// The protection with which pages of an area are mapped: those of [`VmFlags::KASAN`] carry memory tags.
#[inline]
fn tagged(prot: Prot, flags: VmFlags) -> Result<Prot, VmallocError> {
    let prot = check_prot(prot)?;
    if !flags.contains(VmFlags::KASAN) {
        return Ok(prot);
    }
    prot.with_memory(MemoryType::WriteBackTagged).map_err(|_| VmallocError::Protection(prot))
}

/// Flags for mapping into an area in which nothing is mapped yet.
const fn map_flags(flags: VmFlags) -> MapFlags {
    if flags.contains(VmFlags::NO_HUGE_VMAP) {
        MapFlags::NO_HUGE.union(MapFlags::NO_CONT)
    } else {
        MapFlags::REPLACE_TABLES
    }
}

impl<'a, H: VmallocHal<'a>> VmapSpace<'a, H> {
    /// Allocates memory that is contiguous in virtual addresses only: pages, mapped in an area of their own with blocks and
    /// contiguous groups where they fit, and a guard page behind (Linux: `__vmalloc_node_range`). The contents are undefined,
    /// unless `gfp` says `ZERO`. May be called in any context that `gfp` allows.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Empty`]; [`VmallocError::TooLarge`] at once for more than all RAM; [`VmallocError::Protection`]; [`VmallocError::Area`],
    /// [`VmallocError::Pages`], [`VmallocError::Tables`] with everything undone.
    // The flags and the protection are constants of the callers, whose checks then cost nothing.
    #[inline(always)]
    pub fn vmalloc(&self, request: &VmallocRequest) -> Result<VirtAddr, VmallocError> {
        let pages = self.hal().pages();
        if request.size == 0 {
            return Err(VmallocError::Empty);
        }
        if !request.align.is_power_of_two() {
            return Err(AreaError::BadAlignment(request.align).into());
        }
        let count = request.size.div_ceil(PAGE_SIZE);
        let count = u32::try_from(count).ok().filter(|count| u64::from(*count) <= self.ram_pages());
        let count = count.ok_or(VmallocError::TooLarge(request.size))?;
        let prot = tagged(request.prot, request.flags)?;
        let area = self.area_for(request)?;
        let start = area.start();
        let blocks = match Blocks::alloc(pages, count, request.gfp, start.get()) {
            Ok(blocks) => blocks,
            Err(error) => {
                self.cancel(area);
                return Err(VmallocError::Pages(error));
            }
        };
        if let Err(error) = self.map_blocks(start, blocks, prot, request.flags, request.gfp) {
            blocks.free(pages);
            self.cancel(area);
            return Err(VmallocError::Tables(error));
        }
        // A new area has no pages.
        let given = area.do_give_pages(blocks.into_pages());
        debug_assert!(given.is_ok(), "a new area has no pages");
        area.do_complete();
        Ok(start)
    }

    /// An area under construction for `request`, aligned so that the largest leaves fit if there is room for that.
    #[inline]
    fn area_for(&self, request: &VmallocRequest) -> Result<AreaRef<'a>, VmallocError> {
        let VmallocRequest { size, flags, within, caller, .. } = *request;
        let natural = if flags.contains(VmFlags::NO_HUGE_VMAP) || size < CONT_PTE_SIZE {
            PAGE_SIZE
        } else if size < PMD_SIZE {
            CONT_PTE_SIZE
        } else {
            PMD_SIZE
        };
        let flags = flags | VmFlags::ALLOC | VmFlags::UNINITIALIZED;
        let align = request.align.max(natural);
        let wanted = AreaRequest { size, align, within, flags, caller };
        match self.alloc_gfp(&wanted, request.gfp) {
            Err(AreaError::Exhausted) if natural > request.align => {
                Ok(self.alloc_gfp(&AreaRequest { align: request.align, ..wanted }, request.gfp)?)
            }
            answer => Ok(answer?),
        }
    }

    /// Maps blocks one behind the other from `start` on, all or nothing; tables are allocated as `gfp` says.
    #[inline]
    pub(super) fn map_blocks(
        &self,
        start: VirtAddr,
        blocks: Blocks,
        prot: Prot,
        flags: VmFlags,
        gfp: Gfp,
    ) -> Result<(), PgtableError> {
        let hal = self.hal();
        let frames = hal.frames(gfp);
        let mut at = start;
        for (phys, bytes) in blocks.runs(hal.pages()) {
            let range = VirtRange::from_size(at, bytes).ok_or(PgtableError::OutsideSpace)?;
            if let Err(error) = hal.tables().do_map(&frames, range, phys, prot, map_flags(flags)) {
                self.unmap(start, at);
                return Err(error);
            }
            at = range.end();
        }
        Ok(())
    }

    /// Unmaps the range between two addresses that was mapped as one, and flushes it.
    pub(super) fn unmap(&self, start: VirtAddr, end: VirtAddr) {
        if let Some(range) = VirtRange::new(start, end).filter(|range| !range.is_empty()) {
            let frames = self.hal().frames(TABLE_GFP);
            let unmapped = self.hal().tables().do_unmap_and_flush(&frames, range, UnmapFlags::empty());
            debug_assert!(unmapped.is_ok(), "an area can be unmapped: {unmapped:?}");
        }
    }

    /// [`Self::vfree`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_vfree(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.free_area(addr, Self::retire)
    }

    /// [`Self::vfree_atomic`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_vfree_atomic(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        self.free_area(addr, Self::retire_later)
    }

    #[inline(always)]
    fn free_area(&self, addr: VirtAddr, retire: impl FnOnce(&Self, Removed<'a>)) -> Result<(), VmallocError> {
        if addr == VirtAddr::ZERO {
            return Ok(());
        }
        let area = self.do_remove(addr, VmFlags::ALLOC | VmFlags::MAP_PUT_PAGES)?;
        if area.flags().contains(VmFlags::FLUSH_RESET_PERMS) {
            self.reset_permissions(area);
        } else {
            retire(self, area);
        }
        Ok(())
    }

    /// Maps `list` in its order in an area of its own, a guard page behind (Linux: `vmap`). The pages are of blocks that the
    /// caller has allocated, and that are not claimed; until [`VmapSpace::vunmap`] they cannot be freed. A page may occur more
    /// than once. With [`VmFlags::MAP_PUT_PAGES`] the pages, single and mapped by no other area, belong to the area from then
    /// on, and [`VmapSpace::vfree`] frees them. Any context. Cost: about thirty instructions a page with `vunmap`, for a page
    /// that is not the first of its block twice that.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Empty`], [`VmallocError::TooLarge`] for more pages than there are; [`VmallocError::Flags`],
    /// [`VmallocError::Protection`]; [`VmallocError::BadPage`] for one that the caller may not map, or give away; [`VmallocError::Area`],
    /// [`VmallocError::Tables`]. Nothing has changed then.
    #[track_caller]
    #[inline]
    pub fn vmap(&self, list: &[Page], flags: VmFlags, prot: Prot) -> Result<VirtAddr, VmallocError> {
        let refused = flags.difference(VMAP_FLAGS);
        if !refused.is_empty() {
            return Err(VmallocError::Flags(refused));
        }
        self.map_pages(list, flags | VmFlags::MAP, prot, Location::caller())
    }

    /// Maps `list` in an area of its own with all of `flags`.
    pub(super) fn map_pages(
        &self,
        list: &[Page],
        flags: VmFlags,
        prot: Prot,
        caller: &'static Location<'static>,
    ) -> Result<VirtAddr, VmallocError> {
        if list.is_empty() {
            return Err(VmallocError::Empty);
        }
        let prot = tagged(prot, flags)?;
        let size = (list.len() as u64).saturating_mul(PAGE_SIZE);
        if list.len() as u64 > self.ram_pages() {
            return Err(VmallocError::TooLarge(size));
        }
        let flags = flags | VmFlags::UNINITIALIZED;
        let request = AreaRequest { size, align: PAGE_SIZE, within: None, flags, caller: Some(caller) };
        let area = self.alloc(&request)?;
        let start = area.start();
        let put = flags.contains(VmFlags::MAP_PUT_PAGES);
        if let Err(error) = if put { self.map_put(area, list, prot) } else { self.map_held(start, list, prot) } {
            self.cancel(area);
            return Err(error);
        }
        area.do_complete();
        Ok(start)
    }

    /// Maps pages in a new area, which owns them from then on.
    #[inline(never)]
    fn map_put(&self, area: AreaRef<'a>, list: &[Page], prot: Prot) -> Result<(), VmallocError> {
        let (hal, start) = (self.hal(), area.start());
        let map = hal.pages().hal().map();
        let blocks = Blocks::adopt(hal.pages(), list, start.get()).map_err(VmallocError::BadPage)?;
        let frames = hal.frames(TABLE_GFP);
        let mapped = hal.tables().do_map_frames(&frames, start, list.iter().map(|page| map.pfn(*page)), prot);
        mapped.map_err(VmallocError::Tables).inspect_err(|_| Blocks::disown(hal.pages(), list))?;
        let given = area.do_give_pages(blocks.into_pages());
        debug_assert!(given.is_ok(), "a new area has no pages");
        Ok(())
    }

    /// [`Self::vunmap`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_vunmap(&self, addr: VirtAddr) -> Result<(), VmallocError> {
        if addr == VirtAddr::ZERO {
            return Ok(());
        }
        self.unmap_area(addr, VmFlags::MAP)
    }

    /// Unmaps an area of one of `kinds`, whose pages stay with their owners.
    #[inline]
    pub(super) fn unmap_area(&self, addr: VirtAddr, kinds: VmFlags) -> Result<(), VmallocError> {
        let area = self.do_remove(addr, kinds)?;
        let range = area.mapped();
        if area.flags().contains(VmFlags::MAP_PUT_PAGES) {
            self.unmap(range.start(), range.end());
        } else {
            self.unmap_held(range);
        }
        self.do_recycle(area);
        Ok(())
    }

    /// The page behind an address of a vmalloc or vmap area (Linux: `vmalloc_to_page`); `None` where nothing is mapped, or
    /// memory that is not RAM. The caller keeps the area. O(1).
    #[must_use]
    pub fn vmalloc_to_page(&self, addr: VirtAddr) -> Option<Page> {
        self.region().filter(|region| region.contains(addr))?;
        let phys = self.hal().tables().do_translate(addr)?.phys;
        self.hal().pages().hal().map().find(Pfn::new(phys.get() >> PAGE_SHIFT))
    }
}
