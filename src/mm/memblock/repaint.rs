//! The one algorithm that changes a region list: every byte of a range is repainted, and the regions around it are
//! split and merged in one pass over the array, in place.
//!
//! Adding, removing and marking differ only in their effect on a byte ([`Paint`]). A dry run over the affected regions finds
//! out how many slots the result takes, so that a change that does not fit changes nothing. The real run first moves the
//! affected regions up by the largest number of slots by which the output runs ahead of the input, then reads them from there
//! while it writes the result from the old place on.
#![forbid(unsafe_code)]

use super::region::{Region, RegionFlags, RegionOwner, span};
use crate::addr::PhysRange;

/// Change to the bytes of a range.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    /// Bytes outside all regions become part of one with these flags. The others keep theirs.
    Cover(RegionFlags),
    /// Bytes outside all regions become part of one of this owner. The others keep theirs.
    CoverFor(RegionOwner),
    /// No region holds the bytes any more.
    Erase,
    /// Bytes inside a mapped region belong to none any more.
    EraseMapped,
    /// Bytes inside a region get these flags, too.
    Set(RegionFlags),
    /// Bytes inside a region lose these flags.
    Clear(RegionFlags),
}

/// Properties of a byte in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Colour {
    flags: RegionFlags,
    owner: Option<RegionOwner>,
}

impl Paint {
    /// The colour of a byte afterwards, from that before; `None` is a byte outside all regions.
    fn apply(self, before: Option<Colour>) -> Option<Colour> {
        match self {
            Self::Cover(flags) => before.or(Some(Colour { flags, owner: None })),
            Self::CoverFor(owner) => before.or(Some(Colour { flags: RegionFlags::empty(), owner: Some(owner) })),
            Self::Erase => None,
            Self::EraseMapped => before.filter(|old| old.flags.contains(RegionFlags::NOMAP)),
            Self::Set(flags) => before.map(|old| Colour { flags: old.flags | flags, ..old }),
            Self::Clear(flags) => before.map(|old| Colour { flags: old.flags - flags, ..old }),
        }
    }
}

/// A change that has been thought through and not made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    range: PhysRange,
    paint: Paint,
    /// Index of the first region that touches the range, and how many do.
    first: usize,
    affected: usize,
    /// Slots by which the output runs ahead of the input at the worst.
    lead: usize,
}

impl Plan {
    /// Thinks a change of the sorted, merged `regions` through. Cost: O(log regions + affected regions).
    pub(super) fn new(regions: &[Region], range: PhysRange, paint: Paint) -> Self {
        let first = regions.partition_point(|region| region.end() < range.start());
        let behind = regions.partition_point(|region| region.start() <= range.end());
        let affected = regions.get(first..behind).unwrap_or_default();
        let mut tape = DryTape { input: affected.iter(), read: 0, written: 0, lead: 0 };
        repaint(&mut tape, range, paint);
        Self { range, paint, first, affected: affected.len(), lead: tape.lead }
    }

    /// Slots that a list of `count` regions needs while the change is made.
    pub(super) const fn slots(&self, count: usize) -> usize {
        count + self.lead
    }

    /// Makes the change to the first `count` regions of `slots`, of which there are at least [`slots`](Self::slots).
    /// Cost: O(regions).
    pub(super) fn commit(&self, slots: &mut [Region], count: usize) -> Outcome {
        slots.copy_within(self.first..count, self.first + self.lead);
        let read = self.first + self.lead;
        let mut tape = InPlaceTape { slots, read, end: read + self.affected, write: self.first, removed: 0, added: 0 };
        repaint(&mut tape, self.range, self.paint);
        let InPlaceTape { write, removed, added, .. } = tape;
        let tail = read + self.affected;
        slots.copy_within(tail..count + self.lead, write);
        let after = write + (count - self.first - self.affected);
        // INVARIANT: MEMB-5, vacated slots are empty again.
        for slot in slots.iter_mut().take(count + self.lead).skip(after) {
            *slot = Region::EMPTY;
        }
        Outcome { count: after, removed, added }
    }
}

/// Effect of a change on the figures of its list.
pub(super) struct Outcome {
    /// Regions afterwards.
    pub(super) count: usize,
    /// Bytes of the regions that were replaced.
    pub(super) removed: u64,
    /// Bytes of the regions that replaced them.
    pub(super) added: u64,
}

/// Positions at which a change reads the old regions and writes the new ones, each in ascending order.
trait Tape {
    fn read(&mut self) -> Option<Region>;
    fn write(&mut self, region: Region);
}

/// Counts and writes nothing.
struct DryTape<'a> {
    input: core::slice::Iter<'a, Region>,
    read: usize,
    written: usize,
    lead: usize,
}

impl Tape for DryTape<'_> {
    fn read(&mut self) -> Option<Region> {
        let region = *self.input.next()?;
        self.read += 1;
        Some(region)
    }

    fn write(&mut self, _region: Region) {
        self.written += 1;
        self.lead = self.lead.max(self.written.saturating_sub(self.read));
    }
}

/// Reads `slots[read..end]` and writes from `write` on, which the lead keeps at or below `read`.
struct InPlaceTape<'a> {
    slots: &'a mut [Region],
    read: usize,
    end: usize,
    write: usize,
    removed: u64,
    added: u64,
}

impl Tape for InPlaceTape<'_> {
    fn read(&mut self) -> Option<Region> {
        if self.read == self.end {
            return None;
        }
        let region = *self.slots.get(self.read)?;
        self.read += 1;
        self.removed += region.range.size();
        Some(region)
    }

    #[expect(clippy::indexing_slicing, reason = "the dry run counted the slots; losing a region would be worse")]
    fn write(&mut self, region: Region) {
        debug_assert!(self.write < self.read, "the output overtook the input");
        self.slots[self.write] = region;
        self.write += 1;
        self.added += region.range.size();
    }
}

/// Rewrites the regions on `tape`, all those that overlap or touch `range`, with the bytes of `range` repainted.
fn repaint(tape: &mut impl Tape, range: PhysRange, paint: Paint) {
    let mut merger = Merger { pending: None };
    // Every byte of the range below this one is dealt with.
    let mut done = range.start();
    while let Some(region) = tape.read() {
        let kept = Some(Colour { flags: region.flags, owner: region.owner });
        merger.push(tape, span(done, region.start().min(range.end())), paint.apply(None));
        merger.push(tape, span(region.start(), region.end().min(range.start())), kept);
        merger.push(tape, region.range.intersection(range), paint.apply(kept));
        merger.push(tape, span(region.start().max(range.end()), region.end()), kept);
        done = done.max(region.end());
    }
    merger.push(tape, span(done, range.end()), paint.apply(None));
    merger.flush(tape);
}

/// Joins touching pieces that are alike on their way to the tape.
struct Merger {
    pending: Option<Region>,
}

impl Merger {
    fn push(&mut self, tape: &mut impl Tape, piece: Option<PhysRange>, colour: Option<Colour>) {
        let (Some(range), Some(Colour { flags, owner })) = (piece, colour) else { return };
        let region = Region { range, flags, owner };
        // INVARIANT: MEMB-2, `span` and `intersection` yield no empty piece; MEMB-3 by the join.
        let joined = self
            .pending
            .filter(|pending| pending.is_like(&region) && pending.end() == range.start())
            .and_then(|pending| span(pending.start(), range.end()));
        if joined.is_none() {
            self.flush(tape);
        }
        self.pending = Some(Region { range: joined.unwrap_or(range), ..region });
    }

    fn flush(&mut self, tape: &mut impl Tape) {
        if let Some(region) = self.pending.take() {
            tape.write(region);
        }
    }
}
