//! The pages of a chunk: one for each CPU, for each page of a unit.
#![forbid(unsafe_code)]

use super::chunk::PageSet;
use super::map::PAGES;
use super::{PerCpuAllocator, PerCpuHal};
use super::{PerCpuError, UNIT_SIZE};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::prot::Prot;
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::vmalloc::TABLE_GFP;
use crate::mm::zone::PageHal;

/// Pages that are unmapped with one invalidation.
const BATCH: usize = 32;

impl<'s, 'a, H: PerCpuHal<'a>> PerCpuAllocator<'s, 'a, H> {
    /// Every address of every unit that `set` names, in the chunk at `base`.
    fn addresses(&self, base: VirtAddr, set: PageSet) -> impl Iterator<Item = VirtAddr> + use<'a, H> {
        let cpus = u64::from(self.hal().cpus());
        (0..PAGES as u64).filter(move |page| set >> page & 1 != 0).flat_map(move |page| {
            (0..cpus).map(move |cpu| VirtAddr::new(base.get() + cpu * UNIT_SIZE + page * PAGE_SIZE))
        })
    }

    /// Maps fresh pages wherever `set` says, in every unit. Nothing is mapped there, and no other caller maps anything there.
    ///
    /// # Errors
    ///
    /// [`PerCpuError::OutOfMemory`], [`PerCpuError::Tables`]; nothing is mapped then.
    pub(super) fn populate(&self, chunk: u32, base: VirtAddr, set: PageSet, gfp: Gfp) -> Result<(), PerCpuError> {
        let result = self.addresses(base, set).try_for_each(|at| self.map_page(chunk, at, gfp));
        if result.is_err() {
            self.depopulate(base, set);
        }
        result
    }

    fn map_page(&self, chunk: u32, at: VirtAddr, gfp: Gfp) -> Result<(), PerCpuError> {
        let pages = self.hal().pages();
        let page = pages.alloc_pages(gfp, Order::ZERO).map_err(|_| PerCpuError::OutOfMemory)?;
        let range = VirtRange::from_size(at, PAGE_SIZE).ok_or(PerCpuError::Tables(PgtableError::OutsideSpace))?;
        let phys = pages.hal().map().phys(page);
        let owned = pages.do_claim(page, Kind::PerCpu, u64::from(chunk) + 1);
        debug_assert!(owned.is_ok(), "a fresh page is nobody's: {owned:?}");
        let frames = self.hal().frames(gfp);
        let mapped = self.hal().tables().do_map(&frames, range, phys, Prot::KERNEL_RW, MapFlags::empty());
        mapped.map_err(|error| {
            self.free_page(page);
            PerCpuError::Tables(error)
        })
    }

    fn free_page(&self, page: Page) {
        let pages = self.hal().pages();
        let freed = pages.do_disown(page, Kind::PerCpu).and_then(|()| pages.do_free_pages(page, Order::ZERO));
        debug_assert!(freed.is_ok(), "a page of a chunk: {freed:?}");
    }

    /// Unmaps and frees the pages that `set` names, in every unit; the caller must be the only one that works on them. When a
    /// page is free, no CPU translates it. Returns the number freed.
    pub(super) fn depopulate(&self, base: VirtAddr, set: PageSet) -> u64 {
        let (tables, frames) = (self.hal().tables(), self.hal().frames(TABLE_GFP));
        let mut at = self.addresses(base, set);
        let mut freed = 0;
        loop {
            let mut batch = [None; BATCH];
            let mut gather = tables.gather(&frames);
            let mut any = false;
            for (place, addr) in batch.iter_mut().zip(at.by_ref()) {
                any = true;
                *place = self.page_at(addr);
                if let Some(range) = place.and_then(|_| VirtRange::from_size(addr, PAGE_SIZE)) {
                    let unmapped = tables.do_unmap(range, UnmapFlags::KEEP_TABLES, &mut gather);
                    debug_assert!(unmapped.is_ok(), "a page is a leaf of its own: {unmapped:?}");
                }
            }
            gather.flush();
            for page in batch.into_iter().flatten() {
                self.free_page(page);
                freed += 1;
            }
            if !any {
                return freed;
            }
        }
    }

    /// The page that is mapped at an address of the region.
    fn page_at(&self, at: VirtAddr) -> Option<Page> {
        let phys = self.hal().tables().do_translate(at)?.phys;
        self.hal().pages().hal().map().find(Pfn::new(phys.get() >> PAGE_SHIFT))
    }

    /// The number of the chunk that has the page at an address.
    pub(super) fn chunk_at(&self, at: VirtAddr) -> Option<u32> {
        self.space().region().filter(|region| region.contains(at))?;
        let map = self.hal().pages().hal().map();
        let descriptor = map.get(self.page_at(at)?);
        let number = u32::try_from(descriptor.owner().checked_sub(1)?).ok()?;
        (descriptor.state().kind() == Kind::PerCpu).then_some(number)
    }
}
