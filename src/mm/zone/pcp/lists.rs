//! The lists of one order: stacks of free blocks in arrays, with their control words.
#![forbid(unsafe_code)]

use super::traffic::Traffic;
use crate::mm::page::{Page, PageState};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pages that a bulk operation handles in one round of its loop.
const ROUND: usize = 8;

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
    const POP: u64 = Self::EVENT + (1 << 8) - 1;
    const PUSH: u64 = 1_u64.wrapping_sub(1 << 8);

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
pub(super) struct Lists<const SLOTS: usize> {
    control: [AtomicU64; PageState::LISTS],
    /// Blocks moved here from the zone, and from here to the zone.
    filled: [AtomicU64; PageState::LISTS],
    drained: [AtomicU64; PageState::LISTS],
    slots: [[AtomicU32; SLOTS]; PageState::LISTS],
}

impl<const SLOTS: usize> Lists<SLOTS> {
    pub(super) const fn new() -> Self {
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
    pub(super) fn pop(&self, list: usize) -> Option<Page> {
        let control = self.control.get(list)?;
        let slots = self.slots.get(list)?;
        let before = Control(control.load(Ordering::Relaxed));
        if before.count() == 0 {
            return None;
        }
        // INVARIANT: PCP-1, PCP-2: the count is not zero, so nothing is borrowed.
        control.store(before.0.wrapping_add(Control::POP), Ordering::Relaxed);
        Some(Page::new(Self::slot(slots, before.count()).load(Ordering::Relaxed)))
    }

    #[inline(always)]
    pub(super) fn push(&self, list: usize, page: Page) -> bool {
        let (Some(control), Some(slots)) = (self.control.get(list), self.slots.get(list)) else { return false };
        let before = control.load(Ordering::Relaxed);
        if before & Control::ROOM == 0 {
            return false;
        }
        // INVARIANT: PCP-1, PCP-2: the room is not zero, so nothing is borrowed and the count stays below `SLOTS`.
        let after = Control(before.wrapping_add(Control::PUSH));
        control.store(after.0, Ordering::Relaxed);
        Self::slot(slots, after.count()).store(page.index(), Ordering::Relaxed);
        true
    }
}

impl<const SLOTS: usize> Lists<SLOTS> {
    #[inline(always)]
    pub(super) fn pop_many(&self, list: usize, out: &mut [Page], mut mark: impl FnMut(Page)) -> usize {
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

    /// Takes up to `blocks` blocks off the cold end for the zone and shows them to `free`, the coldest first: how many.
    #[inline(always)]
    pub(super) fn drain(&self, list: usize, blocks: usize, free: impl FnMut(Page)) -> usize {
        let taken = self.pop_cold_many(list, blocks, free);
        add(&self.drained, list, taken);
        taken
    }

    #[inline(always)]
    pub(super) fn pop_cold_many(&self, list: usize, blocks: usize, mut free: impl FnMut(Page)) -> usize {
        let Some(slots) = self.slots.get(list) else { return 0 };
        let before = self.control(list);
        let count = before.count();
        let taken = count.min(blocks);
        let (Some(cold), Some(rest)) = (slots.get(1..=taken), slots.get(taken + 1..=count)) else { return 0 };
        for slot in cold {
            free(Page::new(slot.load(Ordering::Relaxed)));
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
    pub(super) fn fill(&self, list: usize, first: Page, blocks: u32, order: u8, mut mark: impl FnMut(Page)) {
        let mut next = first;
        let filled = self.push_hot_many(list, blocks as usize, || {
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
    pub(super) fn push_hot_many(&self, list: usize, blocks: usize, mut next: impl FnMut() -> Option<Page>) -> usize {
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
    pub(super) fn push_many(&self, list: usize, pages: &[Page], mut mark: impl FnMut(Page) -> bool) -> usize {
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
        let mut pushed = 0;
        let ((slot_rounds, slot_rest), (rest, rounds)) = (room.as_chunks::<ROUND>(), pages.as_rchunks::<ROUND>());
        'all: {
            for (slots, pages) in slot_rounds.iter().zip(rounds.iter().rev()) {
                for (slot, page) in slots.iter().zip(pages.iter().rev()) {
                    if !put(slot, page) {
                        break 'all;
                    }
                    pushed += 1;
                }
            }
            for (slot, page) in slot_rest.iter().zip(rest.iter().rev()) {
                if !put(slot, page) {
                    break 'all;
                }
                pushed += 1;
            }
        }
        // INVARIANT: PCP-1, PCP-2: no more than there was room for.
        self.set_control(list, before.with(before.count() + pushed, before.room() - pushed));
        pushed
    }
}

impl<const SLOTS: usize> Lists<SLOTS> {
    /// The slots on the hot end of a list that are free, as far as there is room.
    #[inline(always)]
    pub(super) fn room(&self, list: usize) -> &[AtomicU32] {
        let control = self.control(list);
        let slots = self.slots.get(list);
        slots.and_then(|slots| slots.get(control.count() + 1..=control.count() + control.room())).unwrap_or_default()
    }

    /// Blocks have been put in all slots of [`Self::room`] but the last `left`.
    #[inline(always)]
    pub(super) fn set_room(&self, list: usize, left: usize) {
        let before = self.control(list);
        // INVARIANT: PCP-1, PCP-2: no more than there was room for.
        self.set_control(list, before.with(before.count() + before.room() - left, left));
    }
}

/// The lists of one order, whatever their length, for everything but the hot path.
pub(in crate::mm::zone) trait PcpLists {
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
    /// Takes up to `blocks` blocks off the cold end and shows them to `free`, the coldest first: how many.
    fn drain(&self, list: usize, blocks: usize, free: &mut dyn FnMut(Page)) -> usize;
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

    fn drain(&self, list: usize, blocks: usize, free: &mut dyn FnMut(Page)) -> usize {
        Lists::drain(self, list, blocks, free)
    }

    fn peek(&self, list: usize, index: usize) -> Option<Page> {
        let slots = self.slots.get(list).filter(|_| index < self.control(list).count())?;
        Some(Page::new(Self::slot(slots, index + 1).load(Ordering::Relaxed)))
    }

    fn flow(&self, list: usize, behind: u64) -> Traffic {
        let read = |words: &[AtomicU64]| words.get(list).map_or(0, |word| word.load(Ordering::Relaxed));
        let control = self.control(list);
        // Pages that came and are not there any more were freed: frees need no counter of their own.
        let came = control.count() as u64 + behind + control.allocations() + read(&self.drained);
        // Another CPU may be filling the list between the two reads.
        Traffic { allocated: control.allocations(), freed: came.saturating_sub(read(&self.filled)) }
    }
}

impl<const SLOTS: usize> Lists<SLOTS> {
    /// Counts blocks that went to the zone without having been on the list again.
    pub(super) fn count_drained(&self, list: usize, blocks: usize) {
        add(&self.drained, list, blocks);
    }
}

/// Adds to one of the words that their CPU alone changes.
fn add(words: &[AtomicU64], list: usize, blocks: usize) {
    if let Some(word) = words.get(list) {
        word.store(word.load(Ordering::Relaxed).wrapping_add(blocks as u64), Ordering::Relaxed);
    }
}
