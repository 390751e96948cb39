//! Memory tags of pages: a block has one tag while it is somebody's, its neighbours others, and free pages have that of free
//! memory ([`crate::mm::tags`]). Done where pages change hands, on the slow path that every call takes then
//! ([`Scrub::TAG`](super::super::Scrub::TAG)).
#![forbid(unsafe_code)]

use super::super::{FreeError, PageAllocator, PageHal, Scrub};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange, TAG_GRANULE, Tag, VirtAddr};
use crate::hal::Internal;
use crate::hal::tags::{TagEvent, TagMemory};
use crate::mm::page::{Kind, Page, PageMap, find_head};
use crate::mm::tags;

/// How often a block gets another tag because its neighbour has got the same at the same moment. Each time it takes two CPUs
/// and a chance of one in twelve.
const TRIES: usize = 16;

impl<H: PageHal> PageAllocator<H> {
    /// The tag across the edge of somebody's memory: that of the granule at `at`, if the allocator manages the page, and pages
    /// do not lose their mapping when they are free.
    pub(in crate::mm) fn tag_across(&self, tags: &dyn TagMemory, at: Option<PhysAddr>) -> Option<Tag> {
        let (at, map) = (at?, self.hal.map());
        let page = map.find(Pfn::containing(at))?;
        let (_, state) = find_head(&map, page)?;
        // Then a free neighbour is not mapped, and one that is not free may become so at any moment.
        let comes_and_goes = self.scrub().contains(Scrub::UNMAP);
        (!comes_and_goes && !matches!(state.kind(), Kind::Hole | Kind::Reserved)).then(|| tags.get(at))
    }

    /// The tags before and behind a range.
    pub(in crate::mm) fn tags_around(&self, tags: &dyn TagMemory, range: PhysRange) -> [Option<Tag>; 2] {
        [range.start().checked_sub(TAG_GRANULE), Some(range.end())].map(|at| self.tag_across(tags, at))
    }

    /// Tags pages that are somebody's from here on, and remembers who asked.
    pub(super) fn tag_allocated(&self, page: Page, pages: u64, caller: VirtAddr) {
        let start = self.hal.map().phys(page);
        let (Some(memory), Some(range)) =
            (self.hal.tags(Internal::CALL), PhysRange::from_size(start, pages * PAGE_SIZE))
        else {
            return;
        };
        for _ in 0..TRIES {
            let tag = memory.random(tags::for_block(self.tags_around(memory, range)));
            memory.set(range, tag);
            // Of two CPUs that tag neighbours at the same time one at least sees the other's tag behind the fence.
            memory.fence();
            if !self.tags_around(memory, range).contains(&Some(tag)) {
                break;
            }
        }
        self.note_block(memory, start, pages, caller, false);
    }

    /// Takes the tags of pages away that become free.
    pub(super) fn tag_freed(&self, page: Page, pages: u64, caller: VirtAddr) {
        let start = self.hal.map().phys(page);
        if let (Some(memory), Some(range)) =
            (self.hal.tags(Internal::CALL), PhysRange::from_size(start, pages * PAGE_SIZE))
        {
            self.note_block(memory, start, pages, caller, true);
            memory.set(range, Tag::FREE);
        }
    }

    fn note_block(&self, memory: &dyn TagMemory, start: PhysAddr, pages: u64, caller: VirtAddr, freed: bool) {
        if caller != VirtAddr::ZERO {
            let pointer = self.hal.to_virt(start).with_tag(memory.get(start));
            memory.note(&TagEvent { pointer, bytes: pages * PAGE_SIZE, caller, freed });
        }
    }

    /// The tag that a pointer to a page needs: that of the memory if all of the page has one owner, else the one that
    /// matches all. Any context. Cost: a look at the block's head.
    pub fn page_tag(&self, page: Page) -> Tag {
        let map = self.hal.map();
        let Some((memory, (_, state))) = self.hal.tags(Internal::CALL).zip(find_head(&map, page)) else {
            return Tag::MATCH_ALL;
        };
        match state.kind() {
            Kind::Hole | Kind::Reserved | Kind::Free | Kind::Pcp | Kind::Slab => Tag::MATCH_ALL,
            _ => match memory.get(map.phys(page)) {
                Tag::FREE => Tag::MATCH_ALL,
                tag => tag,
            },
        }
    }

    /// The page at an address that is none of the linear map as it stands: it may be one with a tag, which must be right.
    #[cold]
    pub(in crate::mm::zone) fn page_at_tagged(&self, addr: VirtAddr) -> Result<Page, FreeError> {
        let memory = self.hal.tags(Internal::CALL).filter(|_| !addr.is_untagged()).ok_or(FreeError::NotLinear(addr))?;
        let phys = self.hal.to_phys(addr.untagged()).ok_or(FreeError::NotLinear(addr))?;
        if !phys.is_aligned(PAGE_SIZE) {
            return Err(FreeError::Unaligned(addr));
        }
        let map = H::local_map(self.hal.local());
        let page = map.find(Pfn::containing(phys)).ok_or(FreeError::NoDescriptor(phys))?;
        match memory.get(phys) {
            tag if tag == addr.tag() => Ok(page),
            memory => Err(FreeError::Stale { at: addr, memory }),
        }
    }
}
