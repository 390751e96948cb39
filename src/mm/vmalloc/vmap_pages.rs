//! Pages of others, while an area maps them: which pages may be mapped, and that they are not freed meanwhile.
//!
//! The page's descriptor decides, not the caller: only a page of an allocated block that is not claimed may be mapped. So text,
//! slabs, page tables, other areas' pages, free pages and memory that is not RAM are refused. Each mapping counts in the
//! descriptor of the block, so that its free is refused: once for its first page, and once for another page if the page mapped
//! just before belongs to another block. A block that `vm_map_ram` maps is only marked, once: the free of a marked block
//! searches the mappings of `vm_map_ram`.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::{VmallocError, VmallocHal, VmapSpace};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, VirtAddr, VirtRange};
use crate::hal::prot::Prot;
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::PgtableError;
use crate::mm::zone::{FreeError, PageHal};

impl<'a, H: VmallocHal<'a>> VmapSpace<'a, H> {
    /// Maps the pages of `list` from `start` on, in an area that has nothing mapped yet, and holds the blocks that they
    /// belong to.
    ///
    /// # Errors
    ///
    /// [`VmallocError::BadPage`], [`VmallocError::Tables`]; nothing is mapped or held then.
    #[inline]
    pub(super) fn map_held(&self, start: VirtAddr, list: &[Page], prot: Prot) -> Result<(), VmallocError> {
        let (tables, pages) = (self.hal().tables(), self.hal().pages());
        let map = pages.hal().map();
        let (mut previous, mut refused) = (Page::NIL, None);
        let page_of = |page: Page| {
            if !pages.hold(&map, page)
                && let Err(error) = pages.hold_slow(page, previous)
            {
                refused = Some(error);
                return None;
            }
            previous = page.index();
            Some(previous)
        };
        match tables.map_each(&self.hal().frames(TABLE_GFP), start, list, map.origin(), page_of, prot) {
            Ok(true) => Ok(()),
            mapped => Err(self.refuse(start, list, mapped, refused)),
        }
    }

    /// Unmaps the pages that were mapped before a page was refused, or a table could not be allocated.
    #[cold]
    fn refuse(
        &self,
        start: VirtAddr,
        list: &[Page],
        mapped: Result<bool, PgtableError>,
        refused: Option<FreeError>,
    ) -> VmallocError {
        let pages = self.hal().tables().mapped_from(start, list.len() as u64);
        self.unmap_held(VirtRange::from_size(start, pages * PAGE_SIZE).unwrap_or_default());
        match (mapped, refused) {
            (Err(error), _) => VmallocError::Tables(error),
            (Ok(_), Some(error)) => VmallocError::BadPage(error),
            // A page is left out only if the map refuses it.
            (Ok(_), None) => VmallocError::Empty,
        }
    }

    /// Unmaps pages that are held, and releases them when no CPU translates them any more.
    #[inline]
    pub(super) fn unmap_held(&self, range: VirtRange) {
        let (tables, pages) = (self.hal().tables(), self.hal().pages());
        let map = pages.hal().map();
        let mut previous = Page::NIL;
        tables.unmap_each(range.start(), range.size() >> PAGE_SHIFT, |frame| {
            let page = map.page(frame);
            if !pages.unhold(&map, page) {
                pages.unhold_slow(page, previous);
            }
            previous = page.index();
        });
        if range.size() >= PMD_SIZE {
            // Frees the tables that are empty now.
            self.unmap(range.start(), range.end());
        }
    }
}
