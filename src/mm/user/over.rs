//! Translations follow changes of areas: the map's calls over the pages of a space.
#![forbid(unsafe_code)]

use super::map::fill::Frames;
use super::map::{
    Discard, FilePage, Fill, MapError, NewArea, NoFilePage, NoMemory, ObjectId, Objects, Translations, VmFlags, Vma,
    VmaSource,
};
use super::pages::{Inserted, Sharing, UserHal, UserPages};
use super::terms::{EINVAL, access, share, virt, virt_range};
use crate::addr::{PAGE_SHIFT, PHYS_SHIFT_MAX, Pfn, UserAddr, UserRange, VirtRange};
use crate::ds::rbtree::Owned;
use crate::gfp::Gfp;
use crate::hal::prot::Access;
use crate::mm::page::PageMap;
use crate::mm::zone::PageHal;
use core::fmt;

/// One past the last frame number.
const PFN_END: u64 = 1 << (PHYS_SHIFT_MAX - PAGE_SHIFT);

/// The pages of a space, as its map of areas sees them.
#[derive(Debug)]
pub struct Over<'s, H: UserHal> {
    pages: &'s UserPages<H>,
}

impl<'s, H: UserHal> Over<'s, H> {
    pub(super) const fn new(pages: &'s UserPages<H>) -> Self {
        Self { pages }
    }
}

impl<'a, H: UserHal + VmaSource<'a>> VmaSource<'a> for Over<'_, H> {
    fn take(&self, gfp: Gfp) -> Option<Owned<'a, Vma>> {
        self.pages.hal().take(gfp)
    }

    fn give(&self, record: Owned<'a, Vma>) {
        self.pages.hal().give(record);
    }
}

impl<H: UserHal + Objects> Objects for Over<'_, H> {
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        self.pages.hal().mmap(object, area)
    }

    fn get(&self, object: ObjectId) {
        self.pages.hal().get(object);
    }

    fn put(&self, object: ObjectId) {
        self.pages.hal().put(object);
    }

    fn opened(&self, object: ObjectId, range: UserRange) {
        self.pages.hal().opened(object, range);
    }

    fn closed(&self, object: ObjectId, range: UserRange) {
        self.pages.hal().closed(object, range);
    }

    fn fault(&self, object: ObjectId, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        self.pages.hal().fault(object, index, gfp)
    }

    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        self.pages.hal().identity(object)
    }

    fn name(&self, object: ObjectId, to: &mut dyn fmt::Write) -> fmt::Result {
        self.pages.hal().name(object, to)
    }
}

impl<H: UserHal> Translations for Over<'_, H> {
    fn cut(&self, at: UserAddr) -> Result<(), NoMemory> {
        let edge = VirtRange::new(virt(at), virt(at)).unwrap_or_default();
        Ok(self.pages.carve(edge, Gfp::USER)?)
    }

    fn unmap(&self, range: UserRange, hole: UserRange) {
        // The map has made the edges, and keeps faults out meanwhile.
        self.pages.unmap_keeping(virt_range(range), virt_range(hole));
    }

    fn protect(&self, range: UserRange, flags: VmFlags) {
        let (all, sharing) = (virt_range(range), share(flags));
        match access(flags) {
            Some(Access::Execute) if sharing == Sharing::Shared => {
                log::error!("user space: {range} is shared, and not executed");
            }
            Some(access) => self.pages.protect_cut(all, access, sharing),
            None => self.pages.park_cut(all),
        }
    }

    fn relocate(&self, from: UserRange, to: UserAddr) -> Result<(), NoMemory> {
        let from = virt_range(from);
        // Tables come first: what fails leaves both as they were.
        Ok(self.pages.relocate_cut(from, virt(to), Gfp::USER)?)
    }

    fn discard(&self, range: UserRange, _: Discard) {
        self.pages.discard_cut(virt_range(range));
    }

    fn guard(&self, range: UserRange, put: bool) -> Result<(), NoMemory> {
        Ok(self.pages.guard(virt_range(range), put, Gfp::USER)?)
    }

    fn fill(&self, range: UserRange, fill: &Fill, flags: VmFlags) -> Result<(), MapError> {
        let (range, access) = (virt_range(range), access(flags));
        match fill.frames() {
            Frames::Run { first, device } => {
                let last = (range.size() - 1) >> PAGE_SHIFT;
                first.checked_add(last).filter(|last| last.get() < PFN_END).ok_or(MapError::File(EINVAL))?;
                let frame_of = |index| Some(Pfn::new(first.get() + index));
                self.pages.fill(range, &Inserted { device, row: true, frame_of }, fill.memory(), access, Gfp::USER)?;
            }
            Frames::Pages { page_of, of, first } => {
                let map = self.pages.hal().pages().hal().map();
                let frame_of = |index| page_of(of, first + index).map(|page| map.pfn(page));
                self.pages.fill(
                    range,
                    &Inserted { device: false, row: false, frame_of },
                    fill.memory(),
                    access,
                    Gfp::USER,
                )?;
            }
        }
        Ok(())
    }
}
