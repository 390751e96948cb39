//! The array of free objects that each CPU has for each cache: the hot path of allocation and free, without a shared
//! lock and without a shared write (Linux: per-CPU sheaves).
//!
//! An array is a stack of object addresses in the CPU's own data, at a place that is the same distance from the start of
//! the data on every CPU: its [`Slot`]. A CPU's arrays are its own: it alone changes them. An interrupt handler on the
//! same CPU uses them too, so an operation either masks interrupts, as those in this file do, or can be interrupted
//! anywhere before its last store and started again ([`SlabHal`](super::SlabHal) says how).
#![forbid(unsafe_code)]

use super::SlabHal;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// The place of an array in each CPU's data.
///
/// # Invariants
///
/// - `SLOT-1`: the control word, the limit and as many entries as the array was made for lie in the data of each CPU and
///   belong to this array alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Slot(u32);

/// Distance of the control word from the slot's offset. With it an entry's distance is a multiple of eight that the
/// control word holds in its low byte, and all distances fit the immediate operands of loads and stores.
pub const CONTROL: u32 = 496;
/// Distance of the limit.
pub const LIMIT: u32 = CONTROL + 8;
/// Distance of the first entry.
pub const ENTRIES: u32 = CONTROL + 16;
/// Objects that an array can hold at most.
pub const MAX_OBJECTS: u32 = 64;

impl Slot {
    /// The array whose control word lies `place` bytes from the start of each CPU's data, at least [`CONTROL`].
    #[must_use]
    pub const fn at(place: u32) -> Self {
        Self(place - CONTROL)
    }

    #[must_use]
    #[inline(always)]
    pub(super) const fn from_offset(offset: u32) -> Self {
        Self(offset)
    }

    /// Bytes from the start of a CPU's data to [`CONTROL`] bytes before the control word.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0
    }

    /// Where the control word is.
    #[must_use]
    pub const fn place(self) -> u32 {
        self.0 + CONTROL
    }

    /// Bytes that an array for so many objects takes.
    #[must_use]
    pub const fn bytes(objects: u32) -> u32 {
        ENTRIES - CONTROL + 8 * objects
    }
}

/// The control word of an array: what it holds, and how many allocations it has served.
///
/// ```text
///  63                 8 7          0
/// | allocations        | 63 + count |
/// ```
///
/// Taking an object adds one to the allocations and takes one from the count, giving one back adds one to the count:
/// each is one addition of a constant. Bit 6 is set as long as there is an object. An array that is switched off has a
/// zero in its low byte and in its limit: it is empty and full at the same time. All-zero is an array that is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control(u64);

impl Control {
    const LEVEL: u64 = 0xff;
    /// What the low byte of an empty array says.
    const EMPTY: u64 = 63;
    /// Set as long as there is an object.
    pub const SOME_BIT: u32 = 6;
    /// What taking an object adds.
    pub const TAKE: u64 = (1 << 8) - 1;
    /// What giving one back adds.
    pub const GIVE: u64 = 1;

    const fn level(self) -> u64 {
        self.0 & Self::LEVEL
    }

    /// Objects in the array.
    const fn count(self) -> u32 {
        (self.level() as u32).saturating_sub(Self::EMPTY as u32)
    }

    const fn is_empty(self) -> bool {
        self.0 & 1 << Self::SOME_BIT == 0
    }

    const fn allocations(self) -> u64 {
        self.0 >> 8
    }

    const fn with_count(self, count: u32) -> Self {
        Self(self.0 & !Self::LEVEL | (Self::EMPTY + count as u64))
    }

    const fn off(self) -> Self {
        Self(self.0 & !Self::LEVEL)
    }
}

/// An array of one CPU. By that CPU, interrupts masked, unless a method says otherwise.
///
/// # Invariants
///
/// - `ARR-1`: the entries below the count are objects of the array's cache, free and in no other place.
/// - `ARR-2`: the count is at most the limit less 63, and that at most what the array was made for.
pub(super) struct Array<'l, H: SlabHal> {
    local: &'l H::Local,
    slot: Slot,
}

impl<'l, H: SlabHal> Array<'l, H> {
    #[inline(always)]
    pub(super) const fn new(local: &'l H::Local, slot: Slot) -> Self {
        Self { local, slot }
    }

    #[inline(always)]
    fn word(&self, distance: u32) -> &'l AtomicU64 {
        H::word(self.local, self.slot.0 + distance)
    }

    #[inline(always)]
    fn control(&self) -> Control {
        Control(self.word(CONTROL).load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set_control(&self, control: Control) {
        self.word(CONTROL).store(control.0, Ordering::Relaxed);
    }

    /// The entries that it may use, the coldest first.
    pub(super) fn entries(&self) -> &'l [AtomicU64] {
        H::words(self.local, self.slot.0 + ENTRIES, self.capacity() as usize)
    }

    /// Takes the object that was given last.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<VirtAddr> {
        let control = self.control();
        if control.is_empty() {
            return None;
        }
        // 64 + count - 1 is in the low byte, so the entry lies that many words from the slot's offset.
        let object = self.word((control.level() * 8) as u32).load(Ordering::Relaxed);
        // INVARIANT: ARR-1, ARR-2: the count is not zero, so nothing is borrowed.
        self.set_control(Control(control.0.wrapping_add(Control::TAKE)));
        Some(VirtAddr::new(object))
    }

    /// Gives an object; whether there was room.
    #[inline(always)]
    pub(super) fn push(&self, object: VirtAddr) -> bool {
        let control = self.control();
        if self.word(LIMIT).load(Ordering::Relaxed) <= control.level() {
            return false;
        }
        self.word((control.level() * 8) as u32 + 8).store(object.get(), Ordering::Relaxed);
        // INVARIANT: ARR-1, ARR-2: the count was below the limit.
        self.set_control(Control(control.0.wrapping_add(Control::GIVE)));
        true
    }

    /// Objects in it. Any CPU; a moment later it may be another number.
    pub(super) fn count(&self) -> u32 {
        self.control().count()
    }

    /// Objects that it may hold; 0 if it is off. Any CPU.
    pub(super) fn capacity(&self) -> u32 {
        (self.word(LIMIT).load(Ordering::Relaxed) as u32).saturating_sub(Control::EMPTY as u32)
    }

    /// Allocations that it has served. Any CPU.
    pub(super) fn allocations(&self) -> u64 {
        self.control().allocations()
    }

    /// Sets the count, after entries have been changed: `ARR-1` is the caller's.
    pub(super) fn set_count(&self, count: u32) {
        self.set_control(self.control().with_count(count));
    }

    /// Sets how many objects it may hold, once it is empty; 0 switches it off.
    pub(super) fn set_capacity(&self, objects: u32) {
        let control = self.control();
        if objects == 0 {
            self.word(LIMIT).store(0, Ordering::Relaxed);
            self.set_control(control.off());
        } else {
            // INVARIANT: ARR-2.
            self.word(LIMIT).store(Control::EMPTY + u64::from(objects), Ordering::Relaxed);
            self.set_control(control.with_count(0));
        }
    }
}

/// What every CPU keeps at hand of the slab allocator, the same on each.
#[derive(Debug)]
#[repr(C)]
pub struct SlabConstants {
    /// Where the descriptor of the first frame of physical memory would lie, for machines that compute with it.
    pub descriptors: AtomicU64,
    /// What free objects hold in their mark word.
    pub mark: AtomicU64,
}

impl SlabConstants {
    /// Before there is an allocator.
    #[must_use]
    pub const fn new() -> Self {
        Self { descriptors: AtomicU64::new(0), mark: AtomicU64::new(0) }
    }
}

impl Default for SlabConstants {
    fn default() -> Self {
        Self::new()
    }
}
