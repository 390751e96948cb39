//! Translations follow changes of areas: the map's calls over the pages of a space.
#![forbid(unsafe_code)]

use super::map::{
    Discard, Fill, MapError, NewArea, NoMemory, ObjectId, Objects, Translations, VmFlags, Vma, VmaSource,
};
use super::pages::{UserHal, UserPages};
use super::terms::{access, share, virt, virt_range};
use crate::addr::{UserAddr, UserRange, VirtRange};
use crate::ds::rbtree::Owned;
use crate::gfp::Gfp;
use crate::hal::entry::Entry;
use crate::mm::pgtable::Visit;
use core::fmt;
use core::ops::ControlFlow;

/// The pages of a space, as its map of areas sees them.
#[derive(Debug)]
pub struct Over<'s, H: UserHal> {
    pages: &'s UserPages<H>,
}

impl<'s, H: UserHal> Over<'s, H> {
    pub(super) const fn new(pages: &'s UserPages<H>) -> Self {
        Self { pages }
    }

    /// Whether anything is mapped in a range.
    pub(super) fn has_pages(&self, range: UserRange) -> bool {
        let is_leaf = |visit: Visit| match visit.entry {
            Entry::Leaf(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        self.pages.tables().walk(virt_range(range), is_leaf).is_break()
    }

    /// Logs what cannot be: the map has made all edges before.
    fn done(call: &'static str, range: UserRange, result: Result<(), impl fmt::Display>) {
        if let Err(error) = result {
            log::error!("user space: {call} of {range} failed after its edges were made: {error}");
        }
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
        Self::done("unmap", range, self.pages.unmap(virt_range(range), virt_range(hole), Gfp::ATOMIC));
    }

    fn protect(&self, range: UserRange, flags: VmFlags) {
        let all = virt_range(range);
        // Without access there are no pages: the space has seen to that.
        if let Some(access) = access(flags) {
            Self::done("protect", range, self.pages.protect(all, access, share(flags), Gfp::ATOMIC));
        }
    }

    fn relocate(&self, from: UserRange, to: UserAddr) -> Result<(), NoMemory> {
        let (from, target) = (virt_range(from), UserRange::from_size(to, from.size()).ok_or(NoMemory)?);
        let target = virt_range(target);
        // Tables for the edges first. The target is already unmapped if there is no memory for other tables afterwards: the
        // one failure that changes something, which `mremap` to a fixed place that is in use can meet.
        self.pages.carve(target, Gfp::USER)?;
        self.pages.unmap(target, target, Gfp::ATOMIC)?;
        Ok(self.pages.relocate(from, target.start(), Gfp::USER)?)
    }

    fn discard(&self, range: UserRange, _: Discard) {
        Self::done("discard", range, self.pages.discard(virt_range(range), Gfp::ATOMIC));
    }

    fn guard(&self, range: UserRange, put: bool) -> Result<(), NoMemory> {
        Ok(self.pages.guard(virt_range(range), put, Gfp::USER)?)
    }

    fn fill(&self, range: UserRange, fill: &Fill, flags: VmFlags) -> Result<(), MapError> {
        // Frames of drivers: not done yet. ENODEV.
        let _ = (range, fill, flags);
        Err(MapError::File(19))
    }
}
