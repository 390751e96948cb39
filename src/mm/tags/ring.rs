//! Previous owners of tagged memory: the last allocations and frees of a machine, in a ring (Linux: `kasan` stack ring).
//! Written from any context without a lock; a reader goes backwards from the latest.
#![forbid(unsafe_code)]

use super::whole_granules;
use crate::addr::VirtAddr;
use crate::hal::tags::TagEvent;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A place of the ring. All-zero is an empty one.
#[derive(Debug, Default)]
pub struct RingEntry {
    /// The number of the event, plus one; zero while the place is being written.
    number: AtomicU64,
    pointer: AtomicU64,
    caller: AtomicU64,
    /// Bytes, and in the highest bit whether it was a free.
    bytes: AtomicU64,
}

const FREED: u64 = 1 << 63;

/// A previous owner of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The pointer, with its tag.
    pub pointer: VirtAddr,
    /// Bytes of that memory.
    pub bytes: u64,
    /// Caller that allocated the memory, if the ring still has it.
    pub allocated: Option<VirtAddr>,
    /// Caller that freed it, if it was freed.
    pub freed: Option<VirtAddr>,
}

/// The last events, in memory that the ring owns for good.
#[derive(Debug)]
pub struct OwnerRing {
    entries: &'static [RingEntry],
    next: AtomicUsize,
}

impl OwnerRing {
    /// A ring with one place for each entry.
    #[must_use]
    pub const fn new(entries: &'static [RingEntry]) -> Self {
        Self { entries, next: AtomicUsize::new(0) }
    }

    /// Maximum number of events.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no places.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes an event over the oldest one. Any context, any CPU.
    pub fn add(&self, event: &TagEvent) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = number.checked_rem(self.entries.len()).and_then(|place| self.entries.get(place)) else {
            return;
        };
        entry.number.store(0, Ordering::Relaxed);
        // Pairs with the fence in `read`: a reader that sees a new word does not see the old number.
        core::sync::atomic::fence(Ordering::Release);
        entry.pointer.store(event.pointer.get(), Ordering::Relaxed);
        entry.caller.store(event.caller.get(), Ordering::Relaxed);
        entry.bytes.store(event.bytes | if event.freed { FREED } else { 0 }, Ordering::Relaxed);
        entry.number.store(number as u64 + 1, Ordering::Release);
    }

    /// The event with this number, if it is still there.
    fn read(&self, number: usize) -> Option<TagEvent> {
        let entry = self.entries.get(number.checked_rem(self.entries.len())?)?;
        let there = |order| entry.number.load(order) == number as u64 + 1;
        let before = there(Ordering::Acquire);
        let bytes = entry.bytes.load(Ordering::Relaxed);
        let event = TagEvent {
            pointer: VirtAddr::new(entry.pointer.load(Ordering::Relaxed)),
            bytes: bytes & !FREED,
            caller: VirtAddr::new(entry.caller.load(Ordering::Relaxed)),
            freed: bytes & FREED != 0,
        };
        core::sync::atomic::fence(Ordering::Acquire);
        (before && there(Ordering::Relaxed)).then_some(event)
    }

    /// The most recent owner, through a pointer with `at`'s tag, of memory within `reach` bytes of `at`; an owner of that exact
    /// byte wins. Takes no lock. Cost: O(length of the ring).
    #[must_use]
    pub fn owner_of(&self, at: VirtAddr, reach: u64) -> Option<Owner> {
        let mut found: Option<(u64, Owner)> = None;
        // The latest allocation next to the byte, through any pointer. If it is a part of an older allocation, that one has
        // been divided since, as a block that became a slab, and no longer counts.
        let mut part: Option<(u64, TagEvent)> = None;
        let latest = self.next.load(Ordering::Acquire);
        for number in (0..latest).rev().take(self.entries.len()) {
            let Some(event) = self.read(number) else { continue };
            if part.is_some_and(|(_, part)| was_divided(&event, &part)) {
                continue;
            }
            if let Some(distance) = distance(at, &event)
                && part.is_none_or(|(nearest, _)| distance < nearest)
            {
                part = Some((distance, event));
            }
            if event.pointer.tag() != at.tag() {
                continue;
            }
            if let Some((_, owner)) = found.as_mut().filter(|(_, owner)| owner.pointer == event.pointer) {
                // The allocation that the free undid; older events belong to an earlier allocation of the same memory.
                if owner.allocated.is_none() && !event.freed {
                    owner.allocated = Some(event.caller);
                    owner.bytes = event.bytes;
                }
                continue;
            }
            let Some(distance) = distance(at, &event).filter(|distance| *distance <= reach) else { continue };
            if found.is_none_or(|(nearest, _)| distance < nearest) {
                let caller = Some(event.caller);
                let (allocated, freed) = if event.freed { (None, caller) } else { (caller, None) };
                found = Some((distance, Owner { pointer: event.pointer, bytes: event.bytes, allocated, freed }));
            }
        }
        found.map(|(_, owner)| owner)
    }
}

/// Whether memory was divided, as what was given out since is a part of it: half of it at most, since the sizes for which
/// the same object is given out differ by less than that.
fn was_divided(whole: &TagEvent, part: &TagEvent) -> bool {
    let offset = part.pointer.distance_from(whole.pointer);
    let fits = offset.is_some_and(|offset| offset.saturating_add(part.bytes) <= whole.bytes);
    fits && whole_granules(part.bytes).saturating_mul(2) <= whole.bytes
}

/// Bytes from an address to the memory of an event; zero inside of it.
fn distance(at: VirtAddr, event: &TagEvent) -> Option<u64> {
    match at.distance_from(event.pointer) {
        Some(offset) => Some((offset + 1).saturating_sub(event.bytes)),
        None => event.pointer.distance_from(at),
    }
}
