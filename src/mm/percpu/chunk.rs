//! A chunk, and all of them on lists by the longest gap.
#![forbid(unsafe_code)]

use super::map::{BITS, BLOCK_BITS, PAGES, Run, UnitMap, pages};
use super::{MIN_ALLOC, PerCpuPtr, UNIT_SIZE};
use crate::addr::VirtAddr;
use crate::ds::rows::Rows;
use crate::mm::vmalloc::AreaRef;

/// A set of a unit's pages.
pub(super) type PageSet = u8;
const _: () = assert!(PAGES == PageSet::BITS as usize);

/// The lists: list `n` has the chunks whose longest gap has `n` binary digits.
const LISTS: usize = (BITS.ilog2() + 2) as usize;
/// Chunks that are searched although the allocation may not fit into their gaps by alignment or length.
const TRIES: u32 = 32;
/// No chunk.
const NONE: u32 = u32::MAX;

/// The pages that a run touches, as a set.
pub(super) fn page_set(run: &Run) -> PageSet {
    pages(run).fold(0, |set, page| set | 1 << page)
}

/// A record of a chunk.
///
/// # Invariants
///
/// - `PCU-1`: the bytes of an allocation have pages in every unit, or they are under way for it.
/// - `PCU-2`: pages under way are in `pending`, and only the caller that marked them maps or unmaps there.
#[derive(Clone, Debug)]
pub struct Chunk<'a> {
    /// Its addresses; `None` for a record that is not in use.
    pub(super) area: Option<AreaRef<'a>>,
    pub(super) map: UnitMap,
    /// Pages that are there, in every unit.
    pub(super) populated: PageSet,
    /// Pages that come or go.
    pub(super) pending: PageSet,
    next: u32,
    prev: u32,
    list: usize,
}

impl Chunk<'_> {
    /// A record that is not in use.
    pub const FREE: Self =
        Self { area: None, map: UnitMap::FREE, populated: 0, pending: 0, next: NONE, prev: NONE, list: 0 };

    /// The bit that an address in CPU 0's unit names, if it names one.
    pub(super) fn bit_of(&self, ptr: PerCpuPtr) -> Option<u32> {
        let offset = ptr.addr().offset_from(self.area?.start())?;
        let bit = u32::try_from(offset / MIN_ALLOC).ok()?;
        (offset < UNIT_SIZE && offset.is_multiple_of(MIN_ALLOC)).then_some(bit)
    }
}

/// A place that was found and is taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) chunk: u32,
    /// Base address of the chunk.
    pub(super) base: VirtAddr,
    pub(super) run: Run,
    /// Pages that are to be made, marked as under way.
    pub(super) missing: PageSet,
}

impl Taken {
    pub(super) fn ptr(&self) -> PerCpuPtr {
        PerCpuPtr::new(VirtAddr::new(self.base.get() + u64::from(self.run.start) * MIN_ALLOC))
    }
}

/// Small allocations that were freed and are kept for the next ones of their size.
const PARKED: usize = 8;
/// Bits of the largest of them: 1 KiB.
const PARKED_BITS: u32 = 256;

/// An allocation that was freed, whose bits are still set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parked {
    chunk: u32,
    start: u32,
    bits: u32,
}

/// A chunk without an owner, and its pages.
#[derive(Debug)]
pub(super) struct Detached<'a> {
    pub(super) chunk: u32,
    pub(super) area: AreaRef<'a>,
    pub(super) populated: PageSet,
}

/// All chunks.
///
/// # Invariants
///
/// - `PCU-3`: a chunk is on the list that its longest gap says, once; a record that is not in use is on the free list, or
///   on its way there.
/// - `PCU-4`: the first `parked_count` places of `parked` are allocations of chunks in use, each once, which nobody has and
///   which are not counted.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    parked: [Parked; PARKED],
    parked_count: usize,
    /// The chunk of the last allocation: most frees find theirs there.
    recent: u32,
    pub(super) rows: Rows<'a, Chunk<'a>>,
    heads: [u32; LISTS],
    free: u32,
    /// Chunks in use.
    pub(super) count: usize,
    /// Allocations.
    pub(super) allocations: usize,
}

/// The list for a gap of this number of bits.
const fn list_of(bits: u32) -> usize {
    (u32::BITS - bits.leading_zeros()) as usize
}

impl<'a> Chunks<'a> {
    pub(super) const fn new() -> Self {
        let nothing = Parked { chunk: NONE, start: 0, bits: 0 };
        Self {
            parked: [nothing; PARKED],
            parked_count: 0,
            recent: NONE,
            rows: Rows::new(),
            heads: [NONE; LISTS],
            free: NONE,
            count: 0,
            allocations: 0,
        }
    }

    /// Takes the last array of records out, if all of them are on the free list; but not the first array.
    pub(super) fn remove_idle_row(&mut self) -> Option<&'a mut [Chunk<'a>]> {
        let last = self.rows.last_row().filter(|last| last.start != 0)?;
        let free = |chunks: &Self| {
            let first = chunks.free;
            core::iter::successors(Some(first), |number| Some(chunks.rows.get(*number)?.next))
                .take_while(|number| *number != NONE)
                .filter(|number| last.contains(number))
                .count()
        };
        if free(self) != last.len() {
            return None;
        }
        let (mut at, mut kept) = (self.free, NONE);
        while let Some(chunk) = self.rows.get_mut(at) {
            let next = chunk.next;
            if !last.contains(&at) {
                chunk.next = kept;
                kept = at;
            }
            at = next;
        }
        self.free = kept;
        self.rows.pop()
    }

    /// Takes records.
    pub(super) fn add_row(&mut self, row: &'a mut [Chunk<'a>]) -> bool {
        let Some(numbers) = self.rows.add(row) else { return false };
        numbers.rev().for_each(|number| self.free_record(number));
        true
    }

    /// Puts a record on the free list.
    pub(super) fn free_record(&mut self, number: u32) {
        let free = self.free;
        if let Some(chunk) = self.rows.get_mut(number) {
            *chunk = Chunk { next: free, ..Chunk::FREE };
            self.free = number;
        }
    }

    /// The chunks on a list.
    fn list(&self, list: usize) -> impl Iterator<Item = (u32, &Chunk<'a>)> {
        let first = self.heads.get(list).copied().unwrap_or(NONE);
        let entry = |number| Some((number, self.rows.get(number)?));
        core::iter::successors(entry(first), move |(_, chunk)| entry(chunk.next))
    }

    /// The chunks in use, from those with the shortest gaps.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Chunk<'a>)> {
        (0..LISTS).flat_map(|list| self.list(list))
    }

    fn set_next(&mut self, list: usize, before: u32, next: u32) {
        if let Some(chunk) = self.rows.get_mut(before) {
            chunk.next = next;
        } else if let Some(head) = self.heads.get_mut(list) {
            *head = next;
        }
    }

    fn unlink(&mut self, number: u32) {
        let Some(chunk) = self.rows.get(number) else { return };
        let (list, prev, next) = (chunk.list, chunk.prev, chunk.next);
        self.set_next(list, prev, next);
        if let Some(next) = self.rows.get_mut(next) {
            next.prev = prev;
        }
    }

    fn link(&mut self, number: u32) {
        let Some(chunk) = self.rows.get(number) else { return };
        // INVARIANT: PCU-3.
        let list = list_of(chunk.map.contig());
        let first = self.heads.get(list).copied().unwrap_or(NONE);
        if let Some(chunk) = self.rows.get_mut(number) {
            (chunk.list, chunk.prev, chunk.next) = (list, NONE, first);
        }
        if let Some(next) = self.rows.get_mut(first) {
            next.prev = number;
        }
        self.set_next(list, NONE, number);
    }

    /// Puts a chunk whose gaps have changed on the list where it belongs.
    fn relink(&mut self, number: u32) {
        if self.rows.get(number).is_some_and(|chunk| chunk.list != list_of(chunk.map.contig())) {
            self.unlink(number);
            self.link(number);
        }
    }

    /// Makes a chunk of an area, if there is a record for it.
    pub(super) fn add(&mut self, area: AreaRef<'a>) -> Option<u32> {
        let number = self.free;
        let chunk = self.rows.get_mut(number)?;
        let next = chunk.next;
        *chunk = Chunk { area: Some(area), ..Chunk::FREE };
        self.free = next;
        self.count += 1;
        self.link(number);
        Some(number)
    }

    /// The first chunk with room for `bits` bits at a multiple of `align`, and where: among those with the shortest gaps
    /// that will do, if it is one of the first few, or else one with a gap so long that any alignment fits.
    fn find(&self, bits: u32, align: u32) -> Option<(u32, Run)> {
        let sure = list_of(bits + align - 1);
        let mut left = TRIES;
        for list in list_of(bits)..LISTS {
            for (number, chunk) in self.list(list) {
                if list <= sure {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                }
                if chunk.map.contig() < bits {
                    continue;
                }
                // It does not wait for pages that another caller is mapping or unmapping.
                let run = chunk.map.find(bits, align, |run| {
                    let busy = pages(run).rfind(|page| chunk.pending >> page & 1 != 0);
                    busy.map(|page| (u32::try_from(page).unwrap_or(0) + 1) * BLOCK_BITS)
                });
                if let Some(run) = run {
                    return Some((number, run));
                }
            }
        }
        None
    }

    fn parked(&self) -> &[Parked] {
        self.parked.get(..self.parked_count).unwrap_or_default()
    }

    /// Takes a parked allocation out.
    fn unpark(&mut self, index: usize) -> Option<Parked> {
        let last = self.parked_count.checked_sub(1)?;
        let parked = *self.parked().get(index)?;
        // The last one comes into its place.
        self.parked.swap(index, last);
        self.parked_count = last;
        Some(parked)
    }

    /// Allocates a parked place of `bits` bits at a multiple of `align`, if there is one: the one that was freed last.
    pub(super) fn alloc_parked(&mut self, bits: u32, align: u32) -> Option<Taken> {
        let fits = |parked: &Parked| parked.bits == bits && parked.start & (align - 1) == 0;
        let index = self.parked().iter().rposition(fits)?;
        let Parked { chunk, start, bits } = self.unpark(index)?;
        let base = self.rows.get(chunk)?.area?.start();
        self.allocations += 1;
        self.recent = chunk;
        // INVARIANT: PCU-1: its pages are there, since its bits are set.
        Some(Taken { chunk, base, run: start..start + bits, missing: 0 })
    }

    /// Really frees one parked allocation, if there is one; and the chunk, if it is to go.
    pub(super) fn drain_one(&mut self) -> Option<Option<Detached<'a>>> {
        let Parked { chunk, start, bits } = self.unpark(0)?;
        Some(self.free_run(chunk, &(start..start + bits)))
    }

    /// The chunk of the last allocation, if `ptr` lies in its unit of CPU 0.
    pub(super) fn recent_chunk(&self, ptr: PerCpuPtr) -> Option<u32> {
        self.rows.get(self.recent)?.bit_of(ptr)?;
        Some(self.recent)
    }

    /// Allocates `bits` bits at a multiple of `align` bits.
    pub(super) fn alloc(&mut self, bits: u32, align: u32) -> Option<Taken> {
        let found = self.find(bits, align);
        let (number, run) = found?;
        let chunk = self.rows.get_mut(number)?;
        let base = chunk.area?.start();
        chunk.map.alloc(&run);
        // INVARIANT: PCU-1, PCU-2.
        let missing = page_set(&run) & !chunk.populated;
        chunk.pending |= missing;
        self.allocations += 1;
        self.recent = number;
        self.relink(number);
        Some(Taken { chunk: number, base, run, missing })
    }

    /// Ends the populating of `taken`: its missing pages are mapped, or they are not and the allocation has failed.
    pub(super) fn populated(&mut self, taken: &Taken, there: bool) {
        let Some(chunk) = self.rows.get_mut(taken.chunk) else { return };
        chunk.pending &= !taken.missing;
        if there {
            chunk.populated |= taken.missing;
        } else {
            chunk.map.free(&taken.run);
            self.allocations -= 1;
            self.relink(taken.chunk);
        }
    }

    /// Frees what begins at `ptr` in a chunk: a small allocation is parked, in the place of the oldest one if there is no room.
    /// `None` if no allocation starts there; otherwise the chunk to destroy, when it became empty and another empty chunk
    /// exists.
    pub(super) fn free(&mut self, number: u32, ptr: PerCpuPtr) -> Option<Option<Detached<'a>>> {
        let chunk = self.rows.get(number)?;
        let run = chunk.map.allocation(chunk.bit_of(ptr)?)?;
        let parked = Parked { chunk: number, start: run.start, bits: run.end - run.start };
        if self.parked().iter().any(|other| (other.chunk, other.start) == (number, run.start)) {
            return None;
        }
        self.allocations -= 1;
        if parked.bits > PARKED_BITS {
            return Some(self.free_run(number, &run));
        }
        // INVARIANT: PCU-4.
        let gone = if self.parked_count == PARKED { self.drain_one() } else { None };
        if let Some(place) = self.parked.get_mut(self.parked_count) {
            *place = parked;
            self.parked_count += 1;
        }
        Some(gone.flatten())
    }

    /// Clears the bits of an allocation that has no owner. Returns the chunk to destroy, if it became empty and there is
    /// another one that is.
    fn free_run(&mut self, number: u32, run: &Run) -> Option<Detached<'a>> {
        let chunk = self.rows.get_mut(number)?;
        chunk.map.free(run);
        let is_empty = chunk.map.is_empty();
        self.relink(number);
        let spare = is_empty && self.list(list_of(BITS)).any(|(other, chunk)| other != number && chunk.map.is_empty());
        if spare { self.detach(number) } else { None }
    }

    /// Takes an empty chunk out of use, if nothing comes or goes there.
    pub(super) fn detach(&mut self, number: u32) -> Option<Detached<'a>> {
        let chunk = self.rows.get(number).filter(|chunk| chunk.map.is_empty() && chunk.pending == 0)?;
        let (area, populated) = (chunk.area?, chunk.populated);
        self.unlink(number);
        if let Some(chunk) = self.rows.get_mut(number) {
            chunk.area = None;
        }
        self.count -= 1;
        Some(Detached { chunk: number, area, populated })
    }

    /// Marks the pages of a chunk that nothing lies in: they go. Which, and where the chunk begins.
    pub(super) fn start_trim(&mut self, number: u32) -> Option<(PageSet, VirtAddr)> {
        let chunk = self.rows.get_mut(number).filter(|chunk| chunk.area.is_some())?;
        let empty = (0..PAGES).filter(|page| chunk.map.is_page_empty(*page)).fold(0, |set, page| set | 1 << page);
        // INVARIANT: PCU-1: nothing touches them; PCU-2.
        let going = empty & chunk.populated & !chunk.pending;
        chunk.populated &= !going;
        chunk.pending |= going;
        Some((going, chunk.area?.start())).filter(|_| going != 0)
    }

    /// The pages that [`Chunks::start_trim`] marked are gone.
    pub(super) fn end_trim(&mut self, number: u32, gone: PageSet) {
        if let Some(chunk) = self.rows.get_mut(number) {
            chunk.pending &= !gone;
        }
    }

    /// Whether the parked offsets are valid (`PCU-4`).
    pub(super) fn parked_is_sound(&self) -> bool {
        let mut rest = self.parked();
        while let [parked, others @ ..] = rest {
            rest = others;
            let again = others.iter().any(|other| (other.chunk, other.start) == (parked.chunk, parked.start));
            let chunk = self.rows.get(parked.chunk).filter(|chunk| chunk.area.is_some());
            let run = chunk.and_then(|chunk| chunk.map.allocation(parked.start));
            if again || run != Some(parked.start..parked.start + parked.bits) {
                return false;
            }
        }
        true
    }

    /// Whether the lists are as they should be (`PCU-3`).
    pub(super) fn lists_are_sound(&self) -> bool {
        let bound = self.rows.iter().count();
        let mut seen = 0;
        for list in 0..LISTS {
            let mut before = NONE;
            for (number, chunk) in self.list(list).take(bound + 1) {
                seen += 1;
                let belongs = chunk.list == list && list_of(chunk.map.contig()) == list;
                if !belongs || chunk.prev != before || chunk.area.is_none() || seen > bound {
                    return false;
                }
                before = number;
            }
        }
        let free = core::iter::successors(self.rows.get(self.free), |chunk| self.rows.get(chunk.next));
        let free = free.take(bound + 1).filter(|chunk| chunk.area.is_none()).count();
        seen == self.count && seen + free == bound
    }
}
