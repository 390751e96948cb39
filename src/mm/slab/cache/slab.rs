//! One slab: a block of pages with objects side by side. Making one, taking objects out and putting them back, freeing its
//! pages.
//!
//! A new slab gives its objects out in a rotated order of its own, which starts at a place that depends on a secret; the array
//! that they go to is shuffled. So the order is random, and no work is done for an object before it is allocated, except that
//! it is marked free.

use super::super::error::Misuse;
use super::super::object::{MAX_SLAB_ORDER, Object, SlabFlags, below, decode, encode, slab_bytes, split_past};
use super::super::words::{Book, NIL, SlabWord};
use super::super::{SlabAllocator, SlabHal};
use super::node::{Chain, Node};
use super::record::Cache;
use crate::addr::{Order, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::zone;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

/// Flags of a caller that apply to its slab's pages too.
const PASSED_ON: Gfp = Gfp::RECLAIM
    .union(Gfp::IO)
    .union(Gfp::FS)
    .union(Gfp::HIGH)
    .union(Gfp::NOWARN)
    .union(Gfp::RETRY_MAYFAIL)
    .union(Gfp::NOFAIL)
    .union(Gfp::NORETRY)
    .union(Gfp::MEMALLOC)
    .union(Gfp::NOMEMALLOC);

/// A slab as used by the functions here.
#[derive(Clone, Copy)]
pub(in crate::mm::slab) struct Slab {
    /// The address of its first byte.
    pub(in crate::mm::slab) start: VirtAddr,
    /// Start of the order of fresh objects.
    rotation: u32,
}

impl Slab {
    /// Object number `index`, less than the slab's objects.
    #[inline(always)]
    pub(in crate::mm::slab) fn object_of<H: SlabHal>(self, cache: &Cache<H>, index: u32) -> Object {
        let addr = VirtAddr::new(self.start.get().wrapping_add(u64::from(index * cache.shape.size)));
        // SAFETY: OBJ-1: the slab is the cache's, and has an object of that number.
        unsafe { Object::new(addr) }
    }

    /// Whether the object of this number was never allocated.
    pub(in crate::mm::slab) const fn is_fresh(self, index: u32, book: Book) -> bool {
        let objects = book.objects as u32;
        // The order of the slab starts at `rotation`, and those at its end are fresh.
        (index + objects - self.rotation) % objects >= objects - book.fresh as u32
    }
}

/// Place of an address in a slab.
pub(in crate::mm::slab) struct Place<'c, H: SlabHal> {
    pub(in crate::mm::slab) cache: &'c Cache<H>,
    pub(in crate::mm::slab) head: Page,
    /// The slot that holds the byte, or the last one.
    pub(in crate::mm::slab) object: Object,
    pub(in crate::mm::slab) index: u16,
    /// Bytes from the slot's start to the address.
    pub(in crate::mm::slab) offset: u32,
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    #[inline]
    pub(in crate::mm::slab) fn slab(&self, cache: &Cache<H>, head: Page, book: Book) -> Slab {
        let start = self.hal().to_virt(self.hal().map().phys(head));
        let bits = (u64::from(head.index()) ^ cache.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let rotation = below(bits as u32, u32::from(book.objects));
        Slab { start, rotation }
    }

    /// Makes a slab, on no list and not counted yet. Its objects are all fresh. Context as for the flags.
    pub(in crate::mm::slab) fn new_slab(&self, cache: &Cache<H>, gfp: Gfp) -> Result<Page, zone::AllocError> {
        let mut flags = gfp & PASSED_ON;
        if cache.shape.flags.contains(SlabFlags::CACHE_DMA) {
            flags |= Gfp::DMA;
        }
        if cache.shape.flags.contains(SlabFlags::RECLAIM_ACCOUNT) {
            flags |= Gfp::RECLAIMABLE;
        }
        let shape = &cache.shape;
        let mut order = shape.order;
        let found = if shape.order > shape.min_order {
            // Without waiting: a smaller slab does as well.
            let attempt = (flags | Gfp::NOWARN) - Gfp::DIRECT_RECLAIM - Gfp::NOFAIL - Gfp::RETRY_MAYFAIL;
            self.pages.alloc_pages(attempt, shape.order)
        } else {
            Err(zone::AllocError::OutOfMemory)
        };
        let head = match found {
            Ok(head) => head,
            Err(_) => {
                order = shape.min_order;
                self.pages.alloc_pages(flags, order)?
            }
        };
        self.prepare(cache, head, order);
        Ok(head)
    }

    /// Makes a fresh block into a slab.
    fn prepare(&self, cache: &Cache<H>, head: Page, order: Order) {
        let map = self.hal().map();
        let shape = &cache.shape;
        #[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
        let objects = shape.objects(order) as u16;
        let book = Book { cache: cache.id, fresh: objects, in_use: 0, first: NIL, objects };
        let slab = self.slab(cache, head, book);
        self.tag_slab(cache, slab.start, order.bytes());
        // A fresh block is unclaimed.
        let _ = map.get(head).become_kind(Kind::Slab, book.raw());
        if let Some(construct) = cache.constructor {
            for object in (0..objects.into()).map(|index| slab.object_of(cache, index)) {
                let start = object.addr().get().wrapping_add(u64::from(shape.object));
                if let Some(start) = NonNull::new(VirtAddr::new(start).as_ptr()) {
                    construct(start);
                }
            }
        }
        // A separate loop: it is the main cost of a new slab of small objects.
        let (mut object, size) = (slab.object_of(cache, 0), shape.size);
        for _ in 0..objects / 4 {
            for _ in 0..4 {
                cache.set_mark(object);
                object = object.next(size);
            }
        }
        for _ in 0..objects % 4 {
            cache.set_mark(object);
            object = object.next(size);
        }
        if !shape.frees_on_slow_path() && shape.tail(order) > shape.mark {
            // The space behind the last object looks like an object to the fast path of freeing; the mark diverts it to the
            // slow path.
            cache.set_mark(slab.object_of(cache, u32::from(objects)));
        }
        if cache.is_debugged() {
            map.get(head).set_owner(self.prepare_debugged(cache, slab, book, order).raw());
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 8 pages")]
        for page in 0..order.pages() as u32 {
            map.get(head.offset(page)).aux().store(cache.word(page).raw(), Ordering::Relaxed);
        }
    }

    /// Frees the pages of slabs that are on no list any more. Returns their number. Any context, no lock held.
    pub(in crate::mm::slab) fn free_slabs(&self, mut chain: Chain) -> u64 {
        let map = self.hal().map();
        let mut pages = 0;
        while let Some(head) = chain.pop(map) {
            let order = map.get(head).state().order();
            #[expect(clippy::cast_possible_truncation, reason = "at most 8 pages")]
            for page in 0..order.pages() as u32 {
                // INVARIANT: WORD-1.
                map.get(head.offset(page)).aux().store(0, Ordering::Relaxed);
            }
            let freed = match map.get(head).become_kind(Kind::Block, 0) {
                Ok(()) => self.pages.do_free_pages(head, order),
                Err(kind) => Err(zone::FreeError::Claimed { page: map.pfn(head), kind }),
            };
            match freed {
                Ok(()) => pages += order.pages(),
                Err(error) => log::error!("a slab is lost: {error}"),
            }
        }
        pages
    }

    /// The place of an address in its slab, for any byte of an object. `None` if it lies in no slab.
    pub(in crate::mm::slab) fn place(&self, at: VirtAddr) -> Option<Place<'_, H>> {
        let map = self.hal().map();
        let at = self.untag(at);
        let page = self.page_of(at)?;
        let word = SlabWord::from_raw(map.get(page).aux().load(Ordering::Relaxed));
        if !word.is_slab() {
            return None;
        }
        let head = Page::new(page.index().wrapping_sub(word.page()));
        let descriptor = map.get(head);
        if descriptor.state().kind() != Kind::Slab {
            return None;
        }
        let book = Book::from_raw(descriptor.owner());
        let cache = self.cache(book.cache)?;
        let slab = Slab { start: self.hal().to_virt(map.phys(head)), rotation: 0 };
        #[expect(clippy::cast_possible_truncation, reason = "a slab is small")]
        let distance = at.get().wrapping_sub(slab.start.get()) as u32;
        let index = (distance / cache.shape.size).min(u32::from(book.objects).saturating_sub(1));
        let object = slab.object_of(cache, index);
        #[expect(clippy::cast_possible_truncation, reason = "less than the slab has objects")]
        Some(Place { cache, head, object, index: index as u16, offset: distance - index * cache.shape.size })
    }

    /// Takes up to `want` objects out of a slab and passes each to `out`. With the node locked.
    #[inline]
    pub(in crate::mm::slab) fn take_from_slab(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        head: Page,
        want: u32,
        mut out: impl FnMut(Object),
    ) -> u32 {
        let map = self.hal().map();
        let descriptor = map.get(head);
        let mut book = Book::from_raw(descriptor.owner());
        let slab = self.slab(cache, head, book);
        let mut taken = 0;
        while taken < want {
            if book.first != NIL {
                let object = slab.object_of(cache, book.first.into());
                let Some(next) = self.next_free(cache, slab, book, object) else {
                    // INVARIANT: SLAB-2: objects that cannot be reached count as in use from here on, so the slab is never
                    // given back.
                    book.in_use = book.objects - book.fresh;
                    book.first = NIL;
                    self.report(&Misuse::FreeList { at: object.addr(), cache: cache.name });
                    continue;
                };
                book.first = next;
                if cache.is_one_word() {
                    // INVARIANT: SLAB-4: the link was in the mark.
                    cache.set_mark(object);
                }
                out(object);
            } else if book.fresh != 0 {
                let mut index = slab.rotation + u32::from(book.objects - book.fresh);
                if index >= u32::from(book.objects) {
                    index -= u32::from(book.objects);
                }
                book.fresh -= 1;
                out(slab.object_of(cache, index));
            } else {
                break;
            }
            // INVARIANT: SLAB-2.
            book.in_use += 1;
            taken += 1;
        }
        descriptor.set_owner(book.raw());
        if !book.has_free() {
            node.remove(map, head);
        }
        node.events.slab_taken += u64::from(taken);
        taken
    }

    /// The object after `object` on its slab's free list; `None` if the link is bad.
    #[inline]
    pub(in crate::mm::slab) fn next_free(
        &self,
        cache: &Cache<H>,
        slab: Slab,
        book: Book,
        object: Object,
    ) -> Option<u16> {
        let shape = &cache.shape;
        let mut next = if cache.is_one_word() {
            cache.next_one_word(object, slab.start)?
        } else {
            let place = VirtAddr::new(object.addr().get().wrapping_add(shape.link.into()));
            decode(object.load(shape.link), cache.secret, place)
        };
        if cache.is_tagged() {
            next = split_past(next).0;
        }
        if next == VirtAddr::ZERO {
            return Some(NIL);
        }
        let distance = next.get().wrapping_sub(slab.start.get());
        if distance >= u64::from(slab_bytes(MAX_SLAB_ORDER)) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "compared above")]
        let distance = distance as u32;
        let index = distance / shape.size;
        #[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
        (index * shape.size == distance && index < book.objects.into()).then_some(index as u16)
    }

    /// Makes a free object point to `next`, the slot of another one, or zero.
    #[inline]
    pub(in crate::mm::slab) fn store_link(&self, cache: &Cache<H>, object: Object, next: VirtAddr) {
        if cache.is_one_word() {
            cache.link_one_word(object, next);
            return;
        }
        let place = VirtAddr::new(object.addr().get().wrapping_add(cache.shape.link.into()));
        object.store(cache.shape.link, encode(next, cache.secret, place));
    }

    /// Puts an object back on its slab's free list. With the node locked; a slab that is freed goes to `freed`.
    #[inline]
    pub(in crate::mm::slab) fn return_to_slab(
        &self,
        cache: &Cache<H>,
        node: &mut Node,
        head: Page,
        index: u16,
        freed: &mut Chain,
    ) {
        let map = self.hal().map();
        let descriptor = map.get(head);
        let mut book = Book::from_raw(descriptor.owner());
        let start = self.hal().to_virt(map.phys(head));
        let slab = Slab { start, rotation: 0 };
        let object = slab.object_of(cache, index.into());
        let next = match book.first {
            NIL => VirtAddr::ZERO,
            first => slab.object_of(cache, first.into()).addr(),
        };
        let next = if cache.is_tagged() { self.tag_freed(cache, object, next) } else { next };
        self.store_link(cache, object, next);
        let was_full = !book.has_free();
        book.first = index;
        // INVARIANT: SLAB-2.
        book.in_use = book.in_use.wrapping_sub(1);
        descriptor.set_owner(book.raw());
        node.events.slab_given += 1;
        if was_full {
            node.insert(map, head, false);
        }
        if book.in_use == 0 && node.partial > cache.min_partial {
            node.discard(map, head, book, freed);
        }
    }
}
