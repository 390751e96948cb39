//! Per-CPU page lists: the hot path of allocation, without a shared lock and without a shared write (Linux: `struct
//! per_cpu_pages`).
//!
//! Each CPU has stacks of free blocks of every order: many single pages, few large blocks, of the largest but one. A
//! stack is an array of page numbers, so taking a block and giving it back touch the array, one control word, and the
//! block's descriptor, whatever the order.
//!
//! A CPU's lists are its own: it alone changes them, with interrupts masked. Everything is an atomic that is loaded and
//! stored relaxed, so that other CPUs may look (for statistics) without a lock, but whoever else changes something loses
//! updates. A CPU that wants another's pages back asks for them: [`CpuPages::request_drain`].
#![forbid(unsafe_code)]

use super::free::zone_of;
use super::free_area::Corrupt;
use super::report::Traffic;
use super::reserve::Reserve;
use crate::addr::{MAX_ORDER, Order};
use crate::mm::page::{Page, PageMap, PageState, ZoneId};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Slots of a list of single pages; a power of two, as all of them.
const PAGE_SLOTS: usize = 256;
/// Slots of a list of small blocks: up to 64 KiB.
const SMALL_SLOTS: usize = 64;
/// The orders of small blocks, 1 to 4.
const SMALL_ORDERS: usize = 4;
/// Slots of a list of large blocks: up to 4 MiB.
const LARGE_SLOTS: usize = 8;
/// Pages that a bulk operation handles in one round of its loop.
const ROUND: usize = 8;
/// The orders of large blocks, 5 to 10.
const LARGE_ORDERS: usize = MAX_ORDER as usize - SMALL_ORDERS;

/// The control word of a list: blocks on it, blocks that it still takes, and allocations it has served.
///
/// ```text
///  63                16 15   8 7     0
/// | allocations        | room | count |
/// ```
///
/// Taking a block adds one to the allocations and the room and takes one from the count; giving one back takes one from
/// the room and adds one to the count. So each is one addition of a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Control(u64);

impl Control {
    const COUNT: u64 = 0xff;
    const ROOM: u64 = 0xff << 8;
    const EVENT: u64 = 1 << 16;
    const TAKE: u64 = Self::EVENT + (1 << 8) - 1;
    const GIVE: u64 = 1_u64.wrapping_sub(1 << 8);

    const fn count(self) -> usize {
        (self.0 & Self::COUNT) as usize
    }

    const fn room(self) -> usize {
        (self.0 >> 8 & 0xff) as usize
    }

    const fn allocations(self) -> u64 {
        self.0 >> 16
    }

    const fn with(self, count: usize, room: usize) -> Self {
        Self(self.0 & !(Self::COUNT | Self::ROOM) | count as u64 | (room as u64) << 8)
    }
}

/// The lists of one order: one for each zone and use, as [`PageState::list_number`] numbers them.
///
/// # Invariants
///
/// - `PCP-1`: slots `1..=count` of a list hold its blocks, the hottest in slot `count`; each block's state is
///   [`PageState::on_pcp`] of this list and order, and no block is in two slots.
/// - `PCP-2`: `count + room` is the list's `high`, at most `SLOTS - 1`; so neither field ever borrows from the next.
#[derive(Debug)]
#[repr(C)]
struct Lists<const SLOTS: usize> {
    control: [AtomicU64; PageState::LISTS],
    /// Blocks moved here from the zone, and from here to the zone.
    filled: [AtomicU64; PageState::LISTS],
    drained: [AtomicU64; PageState::LISTS],
    slots: [[AtomicU32; SLOTS]; PageState::LISTS],
}

impl<const SLOTS: usize> Lists<SLOTS> {
    const fn new() -> Self {
        Self {
            control: [const { AtomicU64::new(0) }; PageState::LISTS],
            filled: [const { AtomicU64::new(0) }; PageState::LISTS],
            drained: [const { AtomicU64::new(0) }; PageState::LISTS],
            slots: [const { [const { AtomicU32::new(0) }; SLOTS] }; PageState::LISTS],
        }
    }

    /// The control word of a list; that of a list that does not exist says that it is empty and takes nothing.
    fn control(&self, list: usize) -> Control {
        Control(self.control.get(list).map_or(0, |control| control.load(Ordering::Relaxed)))
    }

    fn set_control(&self, list: usize, control: Control) {
        if let Some(place) = self.control.get(list) {
            place.store(control.0, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "masked to the size of the array, a power of two")]
    fn slot(slots: &[AtomicU32; SLOTS], index: usize) -> &AtomicU32 {
        const { assert!(SLOTS.is_power_of_two() && SLOTS <= 256) };
        &slots[index & (SLOTS - 1)]
    }

    #[inline(always)]
    fn pop(&self, list: usize) -> Option<Page> {
        let control = self.control.get(list)?;
        let slots = self.slots.get(list)?;
        let before = Control(control.load(Ordering::Relaxed));
        if before.count() == 0 {
            return None;
        }
        // INVARIANT: PCP-1, PCP-2: the count is not zero, so nothing is borrowed.
        control.store(before.0.wrapping_add(Control::TAKE), Ordering::Relaxed);
        Some(Page::new(Self::slot(slots, before.count()).load(Ordering::Relaxed)))
    }

    #[inline(always)]
    fn push(&self, list: usize, page: Page) -> bool {
        let (Some(control), Some(slots)) = (self.control.get(list), self.slots.get(list)) else { return false };
        let before = control.load(Ordering::Relaxed);
        if before & Control::ROOM == 0 {
            return false;
        }
        // INVARIANT: PCP-1, PCP-2: the room is not zero, so nothing is borrowed and the count stays below `SLOTS`.
        let after = Control(before.wrapping_add(Control::GIVE));
        control.store(after.0, Ordering::Relaxed);
        Self::slot(slots, after.count()).store(page.index(), Ordering::Relaxed);
        true
    }
}

impl<const SLOTS: usize> Lists<SLOTS> {
    #[inline(always)]
    fn pop_many(&self, list: usize, out: &mut [Page], mut mark: impl FnMut(Page)) -> usize {
        let Some(slots) = self.slots.get(list) else { return 0 };
        let before = self.control(list);
        let taken = before.count().min(out.len());
        let left = before.count() - taken;
        let (Some(hot), Some(out)) = (slots.get(left + 1..=before.count()), out.get_mut(..taken)) else { return 0 };
        let mut take = |place: &mut Page, slot: &AtomicU32| {
            let page = Page::new(slot.load(Ordering::Relaxed));
            mark(page);
            *place = page;
        };
        let ((rounds, rest), (slot_rounds, slot_rest)) = (out.as_chunks_mut::<ROUND>(), hot.as_chunks::<ROUND>());
        for (places, slots) in rounds.iter_mut().zip(slot_rounds) {
            places.iter_mut().zip(slots).for_each(|(place, slot)| take(place, slot));
        }
        rest.iter_mut().zip(slot_rest).for_each(|(place, slot)| take(place, slot));
        // INVARIANT: PCP-1, PCP-2.
        let after = before.with(left, before.room() + taken);
        self.set_control(list, Control(after.0.wrapping_add(Control::EVENT * taken as u64)));
        taken
    }

    /// Takes up to `blocks` blocks off the cold end for the zone and shows them to `give`, the coldest first: how many.
    #[inline(always)]
    fn drain(&self, list: usize, blocks: usize, give: impl FnMut(Page)) -> usize {
        let taken = self.take_cold(list, blocks, give);
        add(&self.drained, list, taken);
        taken
    }

    #[inline(always)]
    fn take_cold(&self, list: usize, blocks: usize, mut give: impl FnMut(Page)) -> usize {
        let Some(slots) = self.slots.get(list) else { return 0 };
        let before = self.control(list);
        let count = before.count();
        let taken = count.min(blocks);
        let (Some(cold), Some(rest)) = (slots.get(1..=taken), slots.get(taken + 1..=count)) else { return 0 };
        for slot in cold {
            give(Page::new(slot.load(Ordering::Relaxed)));
        }
        let Some(places) = slots.get(1..=rest.len()) else { return 0 };
        let ((rounds, left), (from_rounds, from_left)) = (places.as_chunks::<ROUND>(), rest.as_chunks::<ROUND>());
        let shift = |(to, from): (&AtomicU32, &AtomicU32)| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        for (to, from) in rounds.iter().zip(from_rounds) {
            to.iter().zip(from).for_each(shift);
        }
        left.iter().zip(from_left).for_each(shift);
        // INVARIANT: PCP-2, the sum stays.
        self.set_control(list, before.with(count - taken, before.room() + taken));
        taken
    }

    /// Puts neighbouring blocks on the hot end, the lowest hottest.
    #[inline(always)]
    fn fill(&self, list: usize, first: Page, blocks: u32, order: u8, mut mark: impl FnMut(Page)) {
        let mut next = first;
        let filled = self.put_hot(list, blocks as usize, || {
            let page = next;
            mark(page);
            next = page.offset(1 << order);
            Some(page)
        });
        add(&self.filled, list, filled);
    }

    /// Puts up to `blocks` blocks on the hot end, the hottest first, as far as there is room: how many. None at all if
    /// `next` fails on one.
    #[inline(always)]
    fn put_hot(&self, list: usize, blocks: usize, mut next: impl FnMut() -> Option<Page>) -> usize {
        let Some(slots) = self.slots.get(list) else { return 0 };
        let before = self.control(list);
        let blocks = before.room().min(blocks);
        let Some(room) = slots.get(before.count() + 1..=before.count() + blocks) else { return 0 };
        let mut put = |slot: &AtomicU32| next().inspect(|page| slot.store(page.index(), Ordering::Relaxed)).is_some();
        let (rest, rounds) = room.as_rchunks::<ROUND>();
        for round in rounds.iter().rev() {
            if !round.iter().rev().all(&mut put) {
                return 0;
            }
        }
        if !rest.iter().rev().all(put) {
            return 0;
        }
        // INVARIANT: PCP-1, PCP-2.
        self.set_control(list, before.with(before.count() + blocks, before.room() - blocks));
        blocks
    }

    #[inline(always)]
    fn push_many(&self, list: usize, pages: &[Page], mut mark: impl FnMut(Page) -> bool) -> usize {
        let Some(slots) = self.slots.get(list) else { return 0 };
        let before = self.control(list);
        let fits = before.room().min(pages.len());
        let first = pages.len() - fits;
        let (Some(room), Some(pages)) = (slots.get(before.count() + 1..=before.count() + fits), pages.get(first..))
        else {
            return 0;
        };
        // From the end, so that what is left in the batch is its beginning.
        let mut put = |slot: &AtomicU32, page: &Page| {
            let agreed = mark(*page);
            if agreed {
                slot.store(page.index(), Ordering::Relaxed);
            }
            agreed
        };
        let mut given = 0;
        let ((slot_rounds, slot_rest), (rest, rounds)) = (room.as_chunks::<ROUND>(), pages.as_rchunks::<ROUND>());
        'all: {
            for (slots, pages) in slot_rounds.iter().zip(rounds.iter().rev()) {
                for (slot, page) in slots.iter().zip(pages.iter().rev()) {
                    if !put(slot, page) {
                        break 'all;
                    }
                    given += 1;
                }
            }
            for (slot, page) in slot_rest.iter().zip(rest.iter().rev()) {
                if !put(slot, page) {
                    break 'all;
                }
                given += 1;
            }
        }
        // INVARIANT: PCP-1, PCP-2: no more than there was room for.
        self.set_control(list, before.with(before.count() + given, before.room() - given));
        given
    }
}

/// The lists of one order, whatever their length, for everything but the hot path.
pub(super) trait PcpLists {
    /// Blocks on a list, and how many more it takes.
    fn level(&self, list: usize) -> (usize, usize);
    /// Sets how many blocks a list holds at most; those on it stay.
    fn set_high(&self, list: usize, high: usize);
    /// Blocks that a list can hold.
    fn capacity(&self) -> usize;
    /// Puts a block on the cold end; whether there was room for it. Cost: O(blocks on the list).
    fn push_cold(&self, list: usize, page: Page) -> bool;
    /// Takes the block on the cold end. Cost: O(blocks on the list).
    fn pop_cold(&self, list: usize) -> Option<Page>;
    /// Puts `blocks` neighbouring blocks of `order` from the zone on the hot end, the lowest hottest, and shows each to
    /// `mark`; no more than there is room for.
    fn fill(&self, list: usize, first: Page, blocks: u32, order: u8, mark: &mut dyn FnMut(Page));
    /// Takes up to `blocks` blocks off the cold end and shows them to `give`, the coldest first: how many.
    fn drain(&self, list: usize, blocks: usize, give: &mut dyn FnMut(Page)) -> usize;
    /// The blocks on a list, by number, the coldest first.
    fn peek(&self, list: usize, index: usize) -> Option<Page>;
    /// Blocks allocated from a list and freed to it, if `behind` wait in its reserve. A look from another CPU may be a
    /// batch off.
    fn flow(&self, list: usize, behind: u64) -> Traffic;
}

impl<const SLOTS: usize> PcpLists for Lists<SLOTS> {
    fn level(&self, list: usize) -> (usize, usize) {
        let control = self.control(list);
        (control.count(), control.room())
    }

    fn set_high(&self, list: usize, high: usize) {
        let before = self.control(list);
        // INVARIANT: PCP-2.
        let room = high.min(SLOTS - 1).saturating_sub(before.count());
        self.set_control(list, before.with(before.count(), room));
    }

    fn capacity(&self) -> usize {
        SLOTS - 1
    }

    fn push_cold(&self, list: usize, page: Page) -> bool {
        let (Some(slots), true) = (self.slots.get(list), self.push(list, page)) else { return false };
        // Everybody moves up by one, over the slot that the page was put in.
        for index in (1..self.control(list).count()).rev() {
            let below = Self::slot(slots, index).load(Ordering::Relaxed);
            Self::slot(slots, index + 1).store(below, Ordering::Relaxed);
        }
        Self::slot(slots, 1).store(page.index(), Ordering::Relaxed);
        true
    }

    fn pop_cold(&self, list: usize) -> Option<Page> {
        let slots = self.slots.get(list)?;
        self.pop(list)?;
        let coldest = Self::slot(slots, 1).load(Ordering::Relaxed);
        for index in 1..=self.control(list).count() {
            let above = Self::slot(slots, index + 1).load(Ordering::Relaxed);
            Self::slot(slots, index).store(above, Ordering::Relaxed);
        }
        Some(Page::new(coldest))
    }

    fn fill(&self, list: usize, first: Page, blocks: u32, order: u8, mark: &mut dyn FnMut(Page)) {
        Lists::fill(self, list, first, blocks, order, mark);
    }

    fn drain(&self, list: usize, blocks: usize, give: &mut dyn FnMut(Page)) -> usize {
        Lists::drain(self, list, blocks, give)
    }

    fn peek(&self, list: usize, index: usize) -> Option<Page> {
        let slots = self.slots.get(list).filter(|_| index < self.control(list).count())?;
        Some(Page::new(Self::slot(slots, index + 1).load(Ordering::Relaxed)))
    }

    fn flow(&self, list: usize, behind: u64) -> Traffic {
        let read = |words: &[AtomicU64]| words.get(list).map_or(0, |word| word.load(Ordering::Relaxed));
        let control = self.control(list);
        // What came and is not there any more went somewhere: frees need no counter of their own.
        let came = control.count() as u64 + behind + control.allocations() + read(&self.drained);
        // Another CPU may be filling the list between the two reads.
        Traffic { allocated: control.allocations(), freed: came.saturating_sub(read(&self.filled)) }
    }
}

/// Adds to one of the words that their CPU alone changes.
fn add(words: &[AtomicU64], list: usize, blocks: usize) {
    if let Some(word) = words.get(list) {
        word.store(word.load(Ordering::Relaxed).wrapping_add(blocks as u64), Ordering::Relaxed);
    }
}

/// The page lists of one CPU. All-zero is a valid value: empty lists that take nothing.
#[derive(Debug)]
#[repr(C)]
pub struct CpuPages {
    pages: Lists<PAGE_SLOTS>,
    small: [Lists<SMALL_SLOTS>; SMALL_ORDERS],
    large: [Lists<LARGE_SLOTS>; LARGE_ORDERS],
    /// What waits behind the lists of single pages.
    reserves: [Reserve; PageState::LISTS],
    /// The position in the zonelist at which each zone modifier starts, by `ZoneType`.
    first_zone: [AtomicU8; 3],
    /// How often other CPUs have asked for this one's pages, and how many of these requests have been answered.
    drains_requested: AtomicU32,
    drains_answered: AtomicU32,
}

impl CpuPages {
    /// Empty lists that take nothing yet. For a desk machine: a kernel, whose stacks are small, takes zeroed memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Lists::new(),
            small: [const { Lists::new() }; SMALL_ORDERS],
            large: [const { Lists::new() }; LARGE_ORDERS],
            reserves: [const { Reserve::new() }; PageState::LISTS],
            first_zone: [const { AtomicU8::new(0) }; 3],
            drains_requested: AtomicU32::new(0),
            drains_answered: AtomicU32::new(0),
        }
    }

    /// Takes the hottest block of a list. By its CPU, interrupts masked.
    #[inline(always)]
    pub(super) fn pop(&self, list: usize, order: Order) -> Option<Page> {
        match order.get() as usize {
            0 => self.pages.pop(list),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1)?.pop(list),
            order => self.large.get(order - 1 - SMALL_ORDERS)?.pop(list),
        }
    }

    /// Puts a block on the hot end of a list; whether there was room. By its CPU, interrupts masked.
    #[inline(always)]
    pub(super) fn push(&self, list: usize, order: Order, page: Page) -> bool {
        match order.get() as usize {
            0 => self.pages.push(list, page),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1).is_some_and(|lists| lists.push(list, page)),
            order => self.large.get(order - 1 - SMALL_ORDERS).is_some_and(|lists| lists.push(list, page)),
        }
    }

    /// Takes the hottest pages of a list of single pages into `out`, as far as there are any, and shows each one to `mark`:
    /// how many. By its CPU, interrupts masked.
    #[inline(always)]
    pub(super) fn pop_many(&self, list: usize, out: &mut [Page], mark: impl FnMut(Page)) -> usize {
        self.pages.pop_many(list, out, mark)
    }

    /// Puts the last of `pages` on the hot end of a list of single pages, as long as there is room and `mark` agrees: how
    /// many. By its CPU, interrupts masked.
    #[inline(always)]
    pub(super) fn push_many(&self, list: usize, pages: &[Page], mark: impl FnMut(Page) -> bool) -> usize {
        self.pages.push_many(list, pages, mark)
    }

    /// Takes up to `pages` pages off the cold end of a list of single pages and shows them to `give`, the coldest first:
    /// how many. By whoever may change the lists, interrupts masked.
    #[inline(always)]
    pub(super) fn drain_pages(&self, list: usize, pages: usize, give: impl FnMut(Page)) -> usize {
        self.pages.drain(list, pages, give)
    }

    /// Puts `pages` neighbouring pages from the zone on the hot end of a list of single pages, and shows each to `mark`.
    /// By its CPU, interrupts masked.
    #[inline(always)]
    pub(super) fn fill_pages(&self, list: usize, first: Page, pages: u32, mark: impl FnMut(Page)) {
        self.pages.fill(list, first, pages, 0, mark);
    }

    /// The reserve behind a list of single pages.
    pub(super) fn reserve(&self, list: usize) -> Option<&Reserve> {
        self.reserves.get(list)
    }

    /// Moves `pages` pages from the cold end of a list of single pages to its reserve, if that has room for them all;
    /// whether it did. By its CPU, interrupts masked.
    #[inline]
    pub(super) fn keep<M: PageMap>(&self, map: M, list: usize, pages: u32) -> bool {
        let Some(reserve) = self.reserves.get(list).filter(|reserve| reserve.room() >= pages && pages != 0) else {
            return false;
        };
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        let kept = self.pages.take_cold(list, pages as usize, |page| chain.push(map, page));
        #[expect(clippy::cast_possible_truncation, reason = "no more than asked for")]
        reserve.set_chain(chain, reserve.count() + kept as u32);
        kept != 0
    }

    /// Moves up to `pages` pages from the reserve to the hot end of its list: whether there was one. By its CPU,
    /// interrupts masked.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the chain leads elsewhere; the reserve is given up then, as nothing on it can be trusted.
    #[inline]
    pub(super) fn restock<M: PageMap>(&self, map: M, list: usize, pages: u32) -> Result<bool, Corrupt> {
        let Some(reserve) = self.reserves.get(list).filter(|reserve| reserve.count() != 0) else { return Ok(false) };
        let count = reserve.count();
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        let mut corrupt = None;
        let moved = self.pages.put_hot(list, pages.min(count) as usize, || match chain.pop(map) {
            Ok(page) => Some(page),
            Err(found) => {
                corrupt = Some(found);
                None
            }
        });
        #[expect(clippy::cast_possible_truncation, reason = "no more than there were")]
        reserve.set_chain(chain, if corrupt.is_some() { 0 } else { count - moved as u32 });
        corrupt.map_or(Ok(moved != 0), Err)
    }

    /// Takes up to `pages` pages out of a reserve for the zone and shows them to `give`: how many. By whoever may change
    /// the lists, interrupts masked.
    ///
    /// # Errors
    ///
    /// As for [`CpuPages::restock`].
    pub(super) fn release<M: PageMap>(
        &self,
        map: M,
        list: usize,
        pages: u32,
        mut give: impl FnMut(Page),
    ) -> Result<u32, Corrupt> {
        let Some(reserve) = self.reserves.get(list) else { return Ok(0) };
        let count = reserve.count();
        let released = count.min(pages);
        let mut chain = reserve.chain(PageState::on_pcp(list, Order::ZERO));
        for _ in 0..released {
            let popped = chain.pop(map);
            match popped {
                Ok(page) => give(page),
                Err(corrupt) => {
                    reserve.set_chain(chain, 0);
                    return Err(corrupt);
                }
            }
        }
        reserve.set_chain(chain, count - released);
        add(&self.pages.drained, list, released as usize);
        Ok(released)
    }

    /// Pages on the lists and in the reserves of one zone.
    pub(super) fn listed(&self, zone: ZoneId) -> u64 {
        let mut sum = 0;
        for list in (0..PageState::LISTS).filter(|list| zone_of(*list) == zone) {
            for order in (0..=MAX_ORDER).filter_map(Order::new) {
                sum += self.lists(order).map_or(0, |lists| lists.level(list).0 as u64) << order.get();
            }
            sum += self.reserves.get(list).map_or(0, |reserve| u64::from(reserve.count()));
        }
        sum
    }

    /// The lists of an order.
    pub(super) fn lists(&self, order: Order) -> Option<&dyn PcpLists> {
        fn any<const SLOTS: usize>(lists: &Lists<SLOTS>) -> &dyn PcpLists {
            lists
        }
        match order.get() as usize {
            0 => Some(&self.pages),
            order @ 1..=SMALL_ORDERS => self.small.get(order - 1).map(any),
            order => self.large.get(order - 1 - SMALL_ORDERS).map(any),
        }
    }

    /// Pages allocated from and freed to the lists of one zone.
    pub(super) fn flow(&self, zone: ZoneId) -> Traffic {
        let mut sum = Traffic::default();
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            let Some(lists) = self.lists(order) else { continue };
            for list in (0..PageState::LISTS).filter(|list| zone_of(*list) == zone) {
                let reserve = self.reserves.get(list).filter(|_| order == Order::ZERO);
                let flow = lists.flow(list, reserve.map_or(0, |reserve| reserve.count().into()));
                sum.allocated += flow.allocated << order.get();
                sum.freed += flow.freed << order.get();
            }
        }
        sum
    }

    /// The position in the zonelist at which requests for this zone start.
    #[inline(always)]
    pub(super) fn first_zone(&self, class: usize) -> u8 {
        self.first_zone.get(class).map_or(0, |first| first.load(Ordering::Relaxed))
    }

    pub(super) fn set_first_zone(&self, class: usize, first: u8) {
        if let Some(place) = self.first_zone.get(class) {
            place.store(first, Ordering::Relaxed);
        }
    }

    /// Asks the owner to give its pages back: the number of the request. Any CPU.
    pub(super) fn request_drain(&self) -> u32 {
        // Release pairs with the acquire in `drains_requested`.
        self.drains_requested.fetch_add(1, Ordering::Release).wrapping_add(1)
    }

    /// The number of the last request. Whoever answers reads it first: a request that comes while it works may want what
    /// it has not seen, and is not answered by it.
    pub(super) fn drains_requested(&self) -> u32 {
        self.drains_requested.load(Ordering::Acquire)
    }

    /// Whether the owner has yet to answer.
    pub(super) fn drain_pending(&self) -> bool {
        self.drains_requested() != self.drains_answered.load(Ordering::Acquire)
    }

    /// Whether a request has been answered.
    pub(super) fn has_answered(&self, request: u32) -> bool {
        // Fewer than 2^31 requests are under way.
        self.drains_answered.load(Ordering::Acquire).wrapping_sub(request) < 1 << 31
    }

    /// Says that the pages have been given back for all requests up to this one.
    pub(super) fn answer_drain(&self, request: u32) {
        self.drains_answered.store(request, Ordering::Release);
    }
}

impl Default for CpuPages {
    fn default() -> Self {
        Self::new()
    }
}
