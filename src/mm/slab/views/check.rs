//! The invariants as code, by their tags: every cache, every slab, every array.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Node};
use super::super::cpu::Array;
use super::super::error::SlabBroken;
use super::super::object::Object;
use super::super::words::{Book, NIL, SlabWord};
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{CpuId, VirtAddr};
use crate::mm::page::{Kind, Page, PageMap};
use core::sync::atomic::Ordering;

/// Difference in the mark of a cached free object while its cache is tested.
const NOTED: u64 = 2;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Tests every invariant of the slab allocator. Nothing may be allocated or freed meanwhile, on any CPU. Where
    /// sleeping is allowed. Cost: O(pages + objects).
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold; `CONTEXT` where sleeping is not allowed, and nothing has been tested.
    pub fn check(&self) -> Result<(), SlabBroken> {
        let mut result = Ok(());
        let each = |cache: &Cache<H>| {
            if result.is_ok() {
                result = self.check_cache(cache);
            }
        };
        let what = "the check may sleep, and was called in atomic context";
        self.for_each(each).map_err(|_| SlabBroken { tag: "CONTEXT", cache: "all caches", at: None, what })?;
        result
    }

    /// Tests one cache.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check_cache(&self, cache: &Cache<H>) -> Result<(), SlabBroken> {
        // Cached free objects bear another mark meanwhile, so that a second place that holds one is noticed.
        let mut held = 0;
        let noted = self.for_each_held(cache, |at, tag| {
            held += 1;
            self.check_held(cache, at, tag)
        });
        let checked = noted.and_then(|()| self.check_slabs(cache, held));
        let _ = self.for_each_held(cache, |at, _| {
            if let Some(place) = self.place(at)
                && is_noted(cache, place.object)
            {
                cache.set_mark(place.object);
            }
            Ok(())
        });
        checked
    }

    /// Tests the slabs of a cache, `held` of whose objects are cached on CPUs and in the depot.
    fn check_slabs(&self, cache: &Cache<H>, held: u64) -> Result<(), SlabBroken> {
        let (counted, first) = self.with_node(cache, |node| ((node.slabs, node.objects, node.pages), node.front()));
        self.check_list(cache, first)?;
        let map = self.hal().map();
        let mut seen = (0, 0, 0);
        let mut in_use = 0;
        self.for_each_slab(cache, |head, book| {
            let pages = map.get(head).state().order().pages();
            seen = (seen.0 + 1, seen.1 + u64::from(book.objects), seen.2 + pages);
            in_use += u64::from(book.in_use);
            self.check_slab(cache, head, book)
        })?;
        if seen != counted {
            return Err(broken("SLAB-3", cache, None, "slabs that there are, and slabs counted"));
        }
        if held > in_use {
            return Err(broken("SLAB-4", cache, None, "more objects at hand than in use"));
        }
        Ok(())
    }

    /// Calls `f` for every object in an array or in the depot, with the tag of the invariant that places it there.
    fn for_each_held(
        &self,
        cache: &Cache<H>,
        mut f: impl FnMut(VirtAddr, &'static str) -> Result<(), SlabBroken>,
    ) -> Result<(), SlabBroken> {
        for cpu in (0..self.hal().cpus()).map(CpuId::new) {
            let Some(local) = self.hal().local_of(cpu) else { continue };
            let array = Array::new::<H>(local, cache.array);
            if array.count() > array.capacity() || array.capacity() > cache.capacity {
                return Err(broken("ARR-2", cache, None, "an array with more than it holds"));
            }
            let spare = array.spare().map(|spare| spare.entries(array.spare_count())).unwrap_or_default();
            for entry in array.entries().iter().take(array.count() as usize).chain(spare) {
                f(VirtAddr::new(entry.load(Ordering::Relaxed)), "ARR-1")?;
            }
        }
        for entry in self.with_node(cache, |node| node.depot.full()).flat_map(|full| full.entries(cache.capacity)) {
            f(VirtAddr::new(entry.load(Ordering::Relaxed)), "SLAB-4")?;
        }
        Ok(())
    }

    /// Checks an object in an array or in the depot: it must be one of the cache's, and marked. It is noted.
    fn check_held(&self, cache: &Cache<H>, at: VirtAddr, tag: &'static str) -> Result<(), SlabBroken> {
        let place = self.place(at).filter(|place| place.cache.id == cache.id && place.offset == 0);
        match place {
            Some(place) if cache.is_marked(place.object) => {
                place.object.store(cache.shape.mark, cache.mark_of(place.object) ^ NOTED);
                Ok(())
            }
            Some(place) if is_noted(cache, place.object) => {
                Err(broken(tag, cache, Some(at), "an object that is at hand twice"))
            }
            Some(_) => Err(broken("SLAB-4", cache, Some(at), "an object at hand that is not marked free")),
            None => Err(broken(tag, cache, Some(at), "an address at hand that is no object")),
        }
    }

    fn check_list(&self, cache: &Cache<H>, first: Option<Page>) -> Result<(), SlabBroken> {
        let map = self.hal().map();
        let mut length = 0;
        let mut before = Page::NIL;
        let mut at = first;
        while let Some(slab) = at {
            if map.get(slab).prev() != before {
                return Err(self.broken_at("SLAB-1", cache, slab, "a list that is linked wrongly"));
            }
            let book = Book::from_raw(map.get(slab).owner());
            if map.get(slab).state().kind() != Kind::Slab || book.cache != cache.id || !book.has_free() {
                return Err(self.broken_at("SLAB-1", cache, slab, "a slab on the list that does not belong there"));
            }
            length += 1;
            before = slab.index();
            at = Node::after(map, slab);
        }
        let mut with_free = 0;
        self.for_each_slab(cache, |_, book| {
            with_free += u32::from(book.has_free());
            Ok(())
        })?;
        let counted = self.with_node(cache, |node| node.partial);
        if length != counted || length != with_free {
            return Err(broken("SLAB-1", cache, None, "slabs with free objects, and slabs on the list"));
        }
        Ok(())
    }

    fn check_slab(&self, cache: &Cache<H>, head: Page, book: Book) -> Result<(), SlabBroken> {
        let map = self.hal().map();
        let order = map.get(head).state().order();
        if u32::from(book.objects) != cache.shape.objects(order) || book.in_use + book.fresh > book.objects {
            return Err(self.broken_at("SLAB-2", cache, head, "a slab with a wrong number of objects"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 8 pages")]
        for page in 0..order.pages() as u32 {
            if map.get(head.offset(page)).aux().load(Ordering::Relaxed) != cache.word(page).raw() {
                return Err(self.broken_at("SLAB-3", cache, head.offset(page), "a page without its slab's word"));
            }
        }
        let slab = self.slab(cache, head, book);
        let mut free = 0;
        let mut at = book.first;
        while at != NIL {
            free += 1;
            let object = slab.object_of(cache, at.into());
            if !cache.is_free(object) || free > book.objects {
                return Err(broken("SLAB-2", cache, Some(object.addr()), "a free object that is not marked"));
            }
            let Some(next) = self.next_free(cache, slab, book, object) else {
                return Err(broken("SLAB-2", cache, Some(object.addr()), "a link that leads nowhere"));
            };
            at = next;
        }
        for index in (0..u32::from(book.objects)).filter(|index| slab.is_fresh(*index, book)) {
            let object = slab.object_of(cache, index);
            if !cache.is_marked(object) {
                return Err(broken("SLAB-2", cache, Some(object.addr()), "a fresh object that is not marked"));
            }
        }
        for index in 0..u32::from(book.objects) {
            self.check_tags(cache, index, slab.object_of(cache, index))?;
        }
        if free + book.fresh + book.in_use != book.objects {
            return Err(self.broken_at("SLAB-2", cache, head, "free objects, and those on the list"));
        }
        Ok(())
    }

    /// Calls `f` for every slab of a cache, with or without free objects. Cost: O(pages).
    pub(super) fn for_each_slab(
        &self,
        cache: &Cache<H>,
        mut f: impl FnMut(Page, Book) -> Result<(), SlabBroken>,
    ) -> Result<(), SlabBroken> {
        let map = self.hal().map();
        for section in map.sections() {
            for page in (section.first..section.end).map(Page::new) {
                let descriptor = map.get(page);
                let word = SlabWord::from_raw(descriptor.aux().load(Ordering::Relaxed));
                if descriptor.state().kind() == Kind::Slab && word.is_slab() && word.page() == 0 {
                    let book = Book::from_raw(descriptor.owner());
                    if book.cache == cache.id {
                        f(page, book)?;
                    }
                } else if word.is_slab() && !descriptor.state().kind().is_head() && word.page() == 0 {
                    return Err(self.broken_at("WORD-1", cache, page, "a slab's word in a page of none"));
                }
            }
        }
        Ok(())
    }

    /// An object of a cache that is in use, if there is one. Its arrays and its depot are empty.
    pub(in crate::mm::slab) fn first_in_use(&self, cache: &Cache<H>) -> Option<VirtAddr> {
        let mut found = None;
        // The closure never fails.
        let _ = self.for_each_slab(cache, |head, book| {
            let slab = self.slab(cache, head, book);
            if found.is_none() && book.in_use != 0 {
                let mut slots = (0..book.objects.into()).map(|index| slab.object_of(cache, index));
                found = slots.find(|slot| !cache.is_free(*slot));
            }
            Ok(())
        });
        found.map(|slot| VirtAddr::new(slot.addr().get().wrapping_add(cache.shape.object.into())))
    }

    fn broken_at(&self, tag: &'static str, cache: &Cache<H>, page: Page, what: &'static str) -> SlabBroken {
        broken(tag, cache, Some(self.hal().to_virt(self.hal().map().phys(page))), what)
    }
}

/// Whether a cached free object has been met.
fn is_noted<H: SlabHal>(cache: &Cache<H>, slot: Object) -> bool {
    slot.load(cache.shape.mark) == cache.mark_of(slot) ^ NOTED
}

fn broken<H: SlabHal>(tag: &'static str, cache: &Cache<H>, at: Option<VirtAddr>, what: &'static str) -> SlabBroken {
    SlabBroken { tag, cache: cache.name, at, what }
}
