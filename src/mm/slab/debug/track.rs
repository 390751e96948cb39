//! The last allocator and the last freer of an object.
#![forbid(unsafe_code)]

use super::super::SlabHal;
use super::super::object::{Object, Shape, TRACK, WORD};
use crate::addr::VirtAddr;

/// Call that is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The last allocation.
    Alloc = 0,
    /// The last free.
    Free = 1,
}

/// One record: three words behind the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Track {
    /// The call's return address.
    pub(super) caller: VirtAddr,
    /// Its time, in the machine's ticks.
    pub(super) when: u64,
    /// Its CPU.
    pub(super) cpu: u64,
}

impl Track {
    const fn place(shape: &Shape, event: Event) -> Option<u32> {
        if shape.tracks == 0 { None } else { Some(shape.tracks + TRACK * event as u32) }
    }

    /// A call from `caller` at the current time.
    pub(super) fn now<H: SlabHal>(hal: &H, caller: VirtAddr) -> Self {
        Self { caller, when: hal.ticks(), cpu: hal.cpu().get().into() }
    }

    /// Writes the record, if the cache has any.
    pub(super) fn store(self, shape: &Shape, slot: Object, event: Event) {
        let Some(place) = Self::place(shape, event) else { return };
        for (offset, word) in [self.caller.get(), self.when, self.cpu].into_iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "three of them")]
            slot.store(place + WORD * offset as u32, word);
        }
    }

    /// Clears the record: the call has not happened yet.
    pub(super) fn clear(shape: &Shape, slot: Object) {
        for event in [Event::Alloc, Event::Free] {
            Self { caller: VirtAddr::ZERO, when: 0, cpu: 0 }.store(shape, slot, event);
        }
    }

    /// Reads the record; `None` if it has not happened, or the cache has none.
    pub(super) fn load(shape: &Shape, slot: Object, event: Event) -> Option<Self> {
        let place = Self::place(shape, event)?;
        let when = slot.load(place + WORD);
        let caller = VirtAddr::new(slot.load(place));
        (when != 0 || caller != VirtAddr::ZERO).then(|| Self { caller, when, cpu: slot.load(place + 2 * WORD) })
    }
}
