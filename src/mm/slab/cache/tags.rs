//! Memory tags of objects ([`crate::mm::tags`]). Caches with tags have no arrays, as those that are debugged: every call takes
//! the slow path, which tags the object, and no other cache pays anything.
//!
//! An object has the tag of its user from its first byte to the last one requested, in whole granules; the rest of a slab has
//! that of free memory. The allocator itself uses addresses without tags, which match all. Where a free object is on its slab's
//! list, the link records its previous tag.
#![forbid(unsafe_code)]

use super::super::error::{Misuse, SlabBroken};
use super::super::object::{Object, SlabFlags, decode, split_past, with_past};
use super::super::{SlabAllocator, SlabHal};
use super::record::Cache;
use super::slab::Place;
use crate::addr::{PhysAddr, PhysRange, TAG_GRANULE, Tag, VirtAddr, to_usize};
use crate::hal::Internal;
use crate::hal::tags::{TagEvent, TagMemory};
use crate::mm::page::PageMap;
use crate::mm::tags::{self, whole_granules};

impl<H: SlabHal> Cache<H> {
    /// Whether its objects have tags.
    #[inline]
    pub(in crate::mm::slab) const fn is_tagged(&self) -> bool {
        self.shape.flags.contains(SlabFlags::KASAN)
    }
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// [`SlabFlags::KASAN`], if memory has tags on this machine.
    pub(in crate::mm::slab) fn tag_flag(&self) -> SlabFlags {
        if self.hal().tags(Internal::CALL).is_some() { SlabFlags::KASAN } else { SlabFlags::empty() }
    }

    /// An address without its tag, for tables and arithmetic. On a machine without tags it is unchanged: a tagged one is wild.
    pub(in crate::mm::slab) fn untag(&self, at: VirtAddr) -> VirtAddr {
        if self.hal().tags(Internal::CALL).is_some() { at.untagged() } else { at }
    }

    /// The tags, and the physical address of an address without a tag.
    fn tags_at(&self, at: VirtAddr) -> Option<(&dyn TagMemory, PhysAddr)> {
        self.hal().tags(Internal::CALL).zip(self.hal().to_phys(at))
    }

    /// The tag of the memory at an address, with any tag in the pointer.
    fn memory_tag(&self, at: VirtAddr) -> Option<Tag> {
        self.tags_at(at.untagged()).map(|(tags, phys)| tags.get(phys))
    }

    fn set_tags(&self, at: VirtAddr, bytes: u64, tag: Tag) {
        if let Some((tags, phys)) = self.tags_at(at)
            && let Some(range) = PhysRange::from_size(phys, bytes).filter(|range| !range.is_empty())
        {
            tags.set(range, tag);
        }
    }

    /// Tags all of a new slab as free memory.
    pub(super) fn tag_slab(&self, cache: &Cache<H>, start: VirtAddr, bytes: u64) {
        if cache.is_tagged() {
            self.set_tags(start, bytes, Tag::FREE);
        }
    }

    /// The tag that a free object had when it was in use, from its link; any tag, if it was never in use. Call it before the
    /// object is written to.
    pub(in crate::mm::slab) fn past_tag(&self, cache: &Cache<H>, slot: Object) -> Tag {
        let place = VirtAddr::new(slot.addr().get().wrapping_add(cache.shape.link.into()));
        split_past(decode(slot.load(cache.shape.link), cache.secret, place)).1
    }

    /// Tags the first `asked` bytes of an object that `caller` has just got. Returns the tagged pointer.
    pub(in crate::mm::slab) fn tag_object(
        &self,
        cache: &Cache<H>,
        object: VirtAddr,
        asked: u32,
        past: Tag,
        caller: VirtAddr,
    ) -> VirtAddr {
        let (Some(place), Some((memory, _))) = (self.place(object), self.tags_at(object)) else { return object };
        let across = self.across_edges(memory, &place);
        let tag = memory.random(tags::for_object(place.index.into(), across, Some(past)));
        let pointer = object.with_tag(tag);
        self.set_tags(object, whole_granules(asked.into()), tag);
        memory.note(&TagEvent { pointer, bytes: asked.min(cache.shape.usable()).into(), caller, freed: false });
        pointer
    }

    /// The tags across the edges of the slab, if the object lies at one.
    fn across_edges(&self, memory: &dyn TagMemory, place: &Place<'_, H>) -> [Option<Tag>; 2] {
        let map = self.hal().map();
        let descriptor = map.get(place.head);
        let Some(slab) = PhysRange::from_size(map.phys(place.head), descriptor.state().order().bytes()) else {
            return [None, None];
        };
        let first = place.object.addr();
        let before = (place.index == 0).then(|| slab.start().checked_sub(TAG_GRANULE)).flatten();
        let end = self.hal().to_phys(first).and_then(|phys| phys.checked_add(place.cache.shape.size.into()));
        let behind = end.filter(|end| *end >= slab.end());
        [before, behind].map(|at| self.pages.tag_across(memory, at))
    }

    /// Changes the number of usable bytes of an object, or of a large block, that has `usable` of them. The tag stays.
    pub(in crate::mm::slab) fn retag(
        &self,
        place: Option<&Place<'_, H>>,
        object: VirtAddr,
        asked: usize,
        usable: usize,
    ) {
        if place.is_some_and(|place| !place.cache.is_tagged()) {
            return;
        }
        let Some(tag) = self.memory_tag(object).filter(|tag| *tag != Tag::FREE) else { return };
        let (whole, all) = (whole_granules(asked as u64), whole_granules(usable as u64));
        self.set_tags(object, whole.min(all), tag);
        self.set_tags(VirtAddr::new(object.get().wrapping_add(whole)), all.saturating_sub(whole), Tag::FREE);
    }

    /// Whether the tag of a pointer is that of the object whose first byte it names. A pointer without a tag matches
    /// everything.
    pub(in crate::mm::slab) fn check_tag(&self, at: VirtAddr, cache: &'static str) -> Result<(), Misuse> {
        match self.memory_tag(at) {
            Some(memory) if !at.is_untagged() && memory != at.tag() => Err(Misuse::Stale { at, cache, memory }),
            _ => Ok(()),
        }
    }

    /// Records the call that frees an object or a large block.
    pub(in crate::mm::slab) fn note_free(&self, at: VirtAddr, bytes: u64, caller: VirtAddr) {
        if let Some((memory, phys)) = self.tags_at(at.untagged()) {
            let pointer = at.with_tag(memory.get(phys));
            memory.note(&TagEvent { pointer, bytes, caller, freed: true });
        }
    }

    /// Tags an object that goes back on its slab's list as free memory. Returns the link to `next`, with the tag that the
    /// object had. With the node locked.
    pub(super) fn tag_freed(&self, cache: &Cache<H>, slot: Object, next: VirtAddr) -> VirtAddr {
        let object = VirtAddr::new(slot.addr().get().wrapping_add(cache.shape.object.into()));
        let past = self.memory_tag(object).unwrap_or(Tag::FREE);
        self.set_tags(object, whole_granules(cache.shape.usable().into()), Tag::FREE);
        with_past(next, past)
    }

    /// Bytes from the start of an object or large block, at most `most`, that have its tag.
    pub(in crate::mm::slab) fn tagged_bytes(&self, at: VirtAddr, most: u64) -> Option<u64> {
        let (memory, phys) = self.tags_at(at.untagged())?;
        let tag = memory.get(phys);
        let granules = (0..most).step_by(to_usize(TAG_GRANULE)).filter_map(|offset| phys.checked_add(offset));
        let count = granules.take_while(|at| memory.get(*at) == tag).count() as u64;
        Some((count * TAG_GRANULE).min(most))
    }

    /// Tags the first `asked` bytes of a large block, which the page allocator has tagged, and tags the rest as free memory.
    pub(in crate::mm::slab) fn tag_large(&self, at: VirtAddr, bytes: u64, asked: u64, caller: VirtAddr) -> VirtAddr {
        let Some((memory, phys)) = self.tags_at(at) else { return at };
        let pointer = at.with_tag(memory.get(phys));
        let whole = whole_granules(asked);
        self.set_tags(VirtAddr::new(at.get().wrapping_add(whole)), bytes.saturating_sub(whole), Tag::FREE);
        memory.note(&TagEvent { pointer, bytes: asked, caller, freed: false });
        pointer
    }

    /// `TAG-1`: an object has one tag, of its turn, from its first byte on and none behind, or it is free and has that
    /// of free memory.
    pub(in crate::mm::slab) fn check_tags(&self, cache: &Cache<H>, index: u32, slot: Object) -> Result<(), SlabBroken> {
        let object = VirtAddr::new(slot.addr().get().wrapping_add(cache.shape.object.into()));
        let Some((memory, phys)) = self.tags_at(object).filter(|_| cache.is_tagged()) else { return Ok(()) };
        let granules = (0..cache.shape.usable().into())
            .step_by(to_usize(TAG_GRANULE))
            .filter_map(|offset| phys.checked_add(offset));
        let mut tags = granules.map(|at| memory.get(at));
        let first = tags.next().unwrap_or(Tag::FREE);
        let is_free = cache.is_marked(slot);
        let turn = if is_free { first == Tag::FREE } else { tags::for_object(index, [None; 2], None).contains(first) };
        let broken = |what| Err(SlabBroken { tag: "TAG-1", cache: cache.name, at: Some(object), what });
        if !turn {
            return broken("a tag that it may not have");
        }
        match tags.skip_while(|tag| *tag == first).all(|tag| tag == Tag::FREE) {
            true => Ok(()),
            false => broken("several tags"),
        }
    }
}
