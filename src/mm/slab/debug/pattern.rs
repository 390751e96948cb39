//! The bytes that nobody may change: which ones a slot has, writing them, and finding those that were changed.
#![forbid(unsafe_code)]

use super::super::cache::Cache;
use super::super::error::Misuse;
use super::super::object::{Object, Shape, SlabFlags, WORD};
use super::super::{SlabAllocator, SlabHal};
use super::findings::Findings;
use crate::addr::VirtAddr;

/// Byte pattern of a free object (Linux: `POISON_FREE`).
const POISON_FREE: u8 = 0x6b;
/// Its last byte (Linux: `POISON_END`).
const POISON_END: u8 = 0xa5;
/// Bytes that have no owner at any time (Linux: `POISON_INUSE`).
const PADDING: u8 = 0x5a;
/// Red zone of a free object (Linux: `SLUB_RED_INACTIVE`).
const RED_FREE: u8 = 0xbb;
/// Red zone of an object in use (Linux: `SLUB_RED_ACTIVE`).
const RED_USED: u8 = 0xcc;

/// Bytes of a slot that are all the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Name used in reports.
    pub(super) what: &'static str,
    /// Offset of its start in the slot.
    pub(super) start: u32,
    /// Offset of its end.
    pub(super) end: u32,
    /// The byte.
    pub(super) byte: u8,
}

/// State of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Free.
    Free,
    /// In use, with this number of bytes requested.
    Used(u32),
}

impl Shape {
    /// The bytes of a slot whose values are known.
    pub(super) fn stretches(&self, state: State) -> impl Iterator<Item = Stretch> + use<> {
        let poisoned = self.flags.contains(SlabFlags::POISON);
        let red = self.flags.contains(SlabFlags::RED_ZONE);
        let free = state == State::Free;
        let red_byte = if free { RED_FREE } else { RED_USED };
        let end = self.object + self.object_size;
        let asked = match state {
            State::Free => end,
            State::Used(asked) => self.object + asked.min(self.object_size),
        };
        let content = poisoned && free && !self.constructed;
        let stretch = |wanted: bool, what, start, end, byte| {
            (wanted && start < end).then_some(Stretch { what, start, end, byte })
        };
        [
            stretch(red, "Left Redzone", 0, self.object, red_byte),
            stretch(content, "Poison", self.object, end - 1, POISON_FREE),
            stretch(content, "End Poison", end - 1, end, POISON_END),
            stretch(red, "kmalloc Redzone", asked, end, red_byte),
            stretch(red, "Right Redzone", end, self.red_zone + WORD, red_byte),
            stretch(poisoned && !red, "Alignment padding", end, self.red_zone, PADDING),
            stretch(poisoned, "Object padding", self.padding, self.size, PADDING),
        ]
        .into_iter()
        .flatten()
    }
}

/// Fills a slot with the bytes of this state.
pub(super) fn fill(shape: &Shape, slot: Object, state: State) {
    for stretch in shape.stretches(state) {
        slot.fill(stretch.start, stretch.byte, (stretch.end - stretch.start) as usize);
    }
}

/// The bytes behind the last object of a slab, which start at `tail`.
pub(super) const fn tail_stretch(bytes: u32) -> Stretch {
    Stretch { what: "Padding", start: 0, end: bytes, byte: PADDING }
}

/// The byte at this offset in a slot.
pub(super) const fn byte_at(slot: Object, offset: u32) -> VirtAddr {
    VirtAddr::new(slot.addr().get().wrapping_add(offset as u64))
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Tests the bytes of a slot whose values are known. Changed bytes are reported and restored.
    pub(super) fn check_slot(&self, cache: &Cache<H>, slot: Object, state: State, caller: VirtAddr) -> Findings {
        let mut findings = Findings::default();
        for stretch in cache.shape.stretches(state) {
            findings += self.check_stretch(cache, slot, byte_at(slot, cache.shape.object), stretch, caller);
        }
        findings
    }

    /// Tests one stretch from `start` on, on behalf of `object`.
    pub(super) fn check_stretch(
        &self,
        cache: &Cache<H>,
        start: Object,
        object: VirtAddr,
        stretch: Stretch,
        caller: VirtAddr,
    ) -> Findings {
        let Stretch { what, start: from, end, byte } = stretch;
        let Some(first) = start.find_other(from, byte, end - from) else { return Findings::default() };
        let last = start.find_last_other(from, byte, end - from).unwrap_or(first);
        let (at, behind) = (byte_at(start, from + first), byte_at(start, from + last + 1));
        let found = start.byte(from + first);
        let misuse = Misuse::Overwritten { object, cache: cache.name, what, at, end: behind, found, expected: byte };
        self.report_from(&misuse, caller);
        start.fill(from + first, byte, (last + 1 - first) as usize);
        self.fixed(cache, format_args!("Restoring {what} {at}-{behind}={byte:#04x}"));
        Findings { bugs: 1, fixes: 1 }
    }
}
