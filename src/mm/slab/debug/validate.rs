//! Looking through all slabs of a cache on request (Linux: `validate_slab_cache`): free lists, counts, marks, and every byte
//! whose value is known. Errors are reported and repaired.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Node, Slab};
use super::super::error::Misuse;
use super::super::object::{Object, SlabFlags, WORD};
use super::super::words::{Book, NIL, SlabWord};
use super::super::{SlabAllocator, SlabHal};
use super::findings::Findings;
use super::pattern::{State, byte_at, tail_stretch};
use crate::addr::VirtAddr;
use crate::mm::page::{Kind, Page, PageMap};
use core::sync::atomic::Ordering;

/// Objects of a slab by number.
struct Marked([u64; 64]);

impl Marked {
    fn has(&self, index: u16) -> bool {
        self.0.get(usize::from(index / 64)).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    fn add(&mut self, index: u16) {
        if let Some(word) = self.0.get_mut(usize::from(index / 64)) {
            *word |= 1 << (index % 64);
        }
    }
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Looks through all slabs of a cache (Linux: `validate_slab_cache`): reports errors, repairs them, and counts. Objects may
    /// be allocated and freed meanwhile; a concurrent call is not taken for damage, as each slab is checked under the cache's
    /// lock. Any context outside the allocator. Cost: O(pages of RAM + bytes of the cache), a slab at a time with interrupts
    /// masked.
    pub fn validate(&self, cache: &Cache<H>) -> Findings {
        let caller = self.hal().return_address();
        let mut findings = Findings::default();
        self.each_slab(cache, |head| {
            findings += self.with_node(cache, |node| self.validate_slab(cache, node, head, caller));
        });
        findings
    }

    /// Calls `f` for every slab of a cache, with or without free objects. Cost: O(pages).
    pub(super) fn each_slab(&self, cache: &Cache<H>, mut f: impl FnMut(Page)) {
        let map = self.hal().map();
        for page in map.sections().iter().flat_map(|section| section.first..section.end).map(Page::new) {
            if self.book_of(cache, page).is_some() {
                f(page);
            }
        }
    }

    /// Book of a page that is the first one of a slab of the cache.
    fn book_of(&self, cache: &Cache<H>, page: Page) -> Option<Book> {
        let map = self.hal().map();
        let descriptor = map.get(page);
        let word = SlabWord::from_raw(descriptor.aux().load(Ordering::Relaxed));
        if descriptor.state().kind() != Kind::Slab || !word.is_slab() || word.page() != 0 {
            return None;
        }
        Some(Book::from_raw(descriptor.owner())).filter(|book| book.cache == cache.id)
    }

    /// Checks one slab, with the node locked.
    fn validate_slab(&self, cache: &Cache<H>, node: &mut Node, head: Page, caller: VirtAddr) -> Findings {
        // Another CPU may have freed it meanwhile.
        let Some(mut book) = self.book_of(cache, head) else { return Findings::default() };
        let map = self.hal().map();
        let slab = self.slab(cache, head, book);
        let had_free = book.has_free();
        let mut findings = self.check_objects_count(cache, node, head, &mut book, caller);
        let mut listed = Marked([0; 64]);
        findings += self.walk(cache, slab, &mut book, &mut listed, caller);
        // INVARIANT: SLAB-2.
        map.get(head).set_owner(book.raw());
        // INVARIANT: SLAB-1.
        match (had_free, book.has_free()) {
            (true, false) => node.remove(map, head),
            (false, true) => node.insert(map, head, false),
            _ => {}
        }
        for index in 0..book.objects {
            let slot = slab.object_of(cache, index.into());
            let free = listed.has(index) || slab.is_fresh(index.into(), book);
            if free {
                findings += self.check_mark(cache, slot, caller);
            }
            if cache.is_debugged() {
                // Objects that a broken list has lost are free all the same.
                let free = free || cache.is_free(slot);
                let state = if free { State::Free } else { State::Used(self.asked(cache, slot)) };
                findings += self.check_slot(cache, slot, state, caller);
            }
        }
        if cache.shape.flags.contains(SlabFlags::POISON) {
            let tail = tail_stretch(cache.shape.tail(map.get(head).state().order()));
            let end = slab.object_of(cache, book.objects.into());
            let last = slab.object_of(cache, u32::from(book.objects).saturating_sub(1));
            findings += self.check_stretch(cache, end, byte_at(last, cache.shape.object), tail, caller);
        }
        findings
    }

    /// Tests the slab's number of objects.
    fn check_objects_count(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        head: Page,
        book: &mut Book,
        caller: VirtAddr,
    ) -> Findings {
        #[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
        let counted = cache.shape.objects(self.hal().map().get(head).state().order()) as u16;
        let found = book.objects;
        if found == counted {
            return Findings::default();
        }
        let slab = self.hal().to_virt(self.hal().map().phys(head));
        let what = "number of objects";
        self.report_from(&Misuse::Count { slab, cache: cache.name, what, found, counted }, caller);
        // INVARIANT: SLAB-3: the node has counted the slabs that exist.
        let _ = node;
        book.objects = counted;
        book.fresh = book.fresh.min(counted);
        self.fixed(cache, format_args!("Number of objects adjusted to {counted}"));
        Findings { bugs: 1, fixes: 1 }
    }

    /// Follows the free list of a slab, records the objects on it, and tests the count of objects in use.
    fn walk(&self, cache: &Cache<H>, slab: Slab, book: &mut Book, listed: &mut Marked, caller: VirtAddr) -> Findings {
        let mut findings = Findings::default();
        let mut free = 0;
        let mut before: Option<Object> = None;
        let mut at = book.first;
        while at != NIL {
            if at >= book.objects || listed.has(at) {
                let object = slab.object_of(cache, at.min(book.objects - 1).into());
                let misuse = Misuse::Cycle { at: byte_at(object, cache.shape.object), cache: cache.name };
                self.report_from(&misuse, caller);
                match before {
                    Some(before) => self.store_link(cache, before, VirtAddr::ZERO),
                    None => book.first = NIL,
                }
                self.fixed(cache, format_args!("Freelist cut at {}", object.addr()));
                findings += Findings { bugs: 1, fixes: 1 };
                break;
            }
            listed.add(at);
            free += 1;
            let object = slab.object_of(cache, at.into());
            at = match self.next_free(cache, slab, *book, object) {
                Some(next) => next,
                None => {
                    let misuse = Misuse::FreeList { at: byte_at(object, cache.shape.object), cache: cache.name };
                    self.report_from(&misuse, caller);
                    self.store_link(cache, object, VirtAddr::ZERO);
                    findings.bugs += 1;
                    NIL
                }
            };
            before = Some(object);
        }
        let counted = book.objects.saturating_sub(book.fresh).saturating_sub(free);
        if book.in_use != counted {
            let (found, what) = (book.in_use, "count of objects in use");
            self.report_from(&Misuse::Count { slab: slab.start, cache: cache.name, what, found, counted }, caller);
            book.in_use = counted;
            self.fixed(cache, format_args!("Object count adjusted to {counted}"));
            findings += Findings { bugs: 1, fixes: 1 };
        }
        findings
    }

    /// Tests the mark of a free object that is on its slab's list.
    pub(super) fn check_mark(&self, cache: &Cache<H>, slot: Object, caller: VirtAddr) -> Findings {
        let place = cache.shape.mark;
        if cache.is_free(slot) {
            return Findings::default();
        }
        let bytes = cache.mark_of(slot).to_le_bytes().into_iter().zip(place..);
        let wrong = bytes.into_iter().find(|(byte, offset)| slot.byte(*offset) != *byte).unwrap_or_default();
        let (cache_name, object) = (cache.name, byte_at(slot, cache.shape.object));
        let (at, end) = (byte_at(slot, wrong.1), byte_at(slot, place + WORD));
        let (what, found) = ("Freed mark", slot.byte(wrong.1));
        let misuse = Misuse::Overwritten { object, cache: cache_name, what, at, end, found, expected: wrong.0 };
        self.report_from(&misuse, caller);
        cache.set_mark(slot);
        self.fixed(cache, format_args!("Restoring {what} {at}-{end}"));
        Findings { bugs: 1, fixes: 1 }
    }
}
