//! The array of free objects that each CPU has for each cache: the hot path of allocation and free, without a shared
//! lock and without a shared write (Linux: per-CPU sheaves).
//!
//! An array is a stack of addresses. Its [`ArrayHeader`] lies in the CPU's own data, at a distance from their start that
//! is the same on every CPU: the [`ArrayOffset`] of the cache. A CPU's arrays are its own: it alone changes them. An interrupt
//! handler on the same CPU uses them too, so an operation either masks interrupts, as those in this file do, or can be
//! interrupted anywhere before its last store and started again ([`SlabHal`] says how).
#![forbid(unsafe_code)]

use super::SlabHal;
use super::id::{CacheSet, SET_WORDS};
use super::object::Object;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Place of the header of a cache's array: bytes from the start of each CPU's data.
///
/// # Invariants
///
/// - `ARR-3`: each CPU's data have an [`ArrayHeader`] there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ArrayOffset(u32);

impl ArrayOffset {
    /// The array at this distance from the start of each CPU's data: one that a machine has made with [`ArrayOffset::at`].
    #[inline(always)]
    pub(super) const fn from_distance(distance: u32) -> Self {
        Self(distance)
    }

    /// Bytes from the start of a CPU's data.
    #[must_use]
    #[inline(always)]
    pub const fn distance(self) -> u32 {
        self.0
    }

    /// Bits 39 and up of the words of its cache's pages ([`SlabWord`](super::SlabWord)).
    #[must_use]
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        (self.0 as u64) << 1 | 1
    }
}

/// The header of an array. Written by its CPU alone, with interrupts masked or in a restartable sequence; others may read it.
///
/// The entries lie elsewhere, in a **magazine**: memory for the number of addresses that the cache's arrays hold. The word
/// below them is zero for good, so that the entry on top of an empty array is null: the test for an empty array needs no
/// comparison. An array that is off has no room: it is empty and full at the same time. All-zero is an array that is off.
///
/// A CPU has a second magazine, the spare, which is full or empty between two calls. When the first is used up or full,
/// the two change places; only then, and if that does not help, is one of them exchanged with the depot (Bonwick and
/// Adams 2001). So a full magazine moves between CPUs without a look at its objects.
///
/// # Invariants
///
/// - `ARR-1`: the words from `base` up to `top`, and those in use from `spare` on, are the addresses of free objects of the
///   cache, each in no other place.
/// - `ARR-2`: `base <= top <= limit`, in steps of eight, with room for as many entries as the cache's arrays hold, or none;
///   or all three are zero. The words below `base` and `spare` are zero.
#[derive(Debug)]
#[repr(C)]
pub struct ArrayHeader {
    /// Allocations that it has served. Exact except for a sequence that was interrupted right after it had counted.
    pub(crate) served: AtomicU64,
    /// The address of the first free entry.
    pub(crate) top: AtomicU64,
    /// The address behind the last entry.
    pub(crate) limit: AtomicU64,
    /// Secret by which the marks of the cache's objects differ from their addresses. The same on every CPU.
    pub(crate) mark: AtomicU64,
    /// The address of the first entry.
    pub(crate) base: AtomicU64,
    /// Address of the first entry of the spare, or zero, in 48 bits; the bits above differ from the address by its count.
    spare: AtomicU64,
    /// Allocations and frees of this CPU that took the slow path.
    slow_allocs: AtomicU64,
    slow_frees: AtomicU64,
}

impl ArrayHeader {
    /// The addresses of the first entry, of the first free one, and behind the last: for tests that damage them.
    #[cfg(feature = "host")]
    #[must_use]
    pub const fn words(&self) -> [&AtomicU64; 3] {
        [&self.base, &self.top, &self.limit]
    }

    /// An array that is off.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            served: AtomicU64::new(0),
            top: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            base: AtomicU64::new(0),
            spare: AtomicU64::new(0),
            slow_allocs: AtomicU64::new(0),
            slow_frees: AtomicU64::new(0),
        }
    }
}

const _: () =
    assert!(size_of::<ArrayHeader>() == 64, "a cache line: the number of a cache becomes its offset by a shift");

/// An address and a small number in one word.
const fn pack(at: Magazine, count: u32) -> u64 {
    at.0 ^ (count as u64) << ADDRESS_BITS
}

/// Unpacks the address and the number.
const fn unpack(word: u64) -> (Magazine, u32) {
    // The highest bit is the address's: the number is small.
    let above = u64::MAX << ADDRESS_BITS;
    let at = if word.cast_signed() < 0 { word | above } else { word & !above };
    (Magazine(at), ((word ^ at) >> ADDRESS_BITS) as u32)
}

/// Bits of an address below those that are all the same.
const ADDRESS_BITS: u32 = 48;

const _: () = {
    let mut rest: &[u64] = &[0, 0x7fff_ffff_fff8, 0xffff_0000_4f87_cc08, 0xffff_8000_0000_0008, 0xffff_ffff_ffff_fff8];
    while let [at, after @ ..] = rest {
        let (found, count) = unpack(pack(Magazine(*at), 127));
        assert!(found.0 == *at && count == 127);
        rest = after;
    }
};

impl Default for ArrayHeader {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory for the addresses of objects: by the address of its first entry, above a word that stays zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Magazine(u64);

impl Magazine {
    /// No magazine.
    pub(super) const NONE: Self = Self(0);

    /// Zeroed memory for the entries and one word more.
    pub(super) const fn new(memory: VirtAddr) -> Self {
        Self(memory.get() + 8)
    }

    /// The memory.
    pub(super) const fn memory(self) -> VirtAddr {
        VirtAddr::new(self.0 - 8)
    }

    /// Its first entries.
    #[inline]
    pub(super) fn entries(self, count: u32) -> &'static [AtomicU64] {
        match self.0 {
            0 => &[],
            base => Object::of_array(VirtAddr::new(base)).words(count as usize),
        }
    }
}

/// Loads or stores of one CPU's word.
fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

/// An array of one CPU. Caller must be that CPU, with interrupts masked, unless a method says otherwise.
pub(super) struct Array<'l>(&'l ArrayHeader);

impl<'l> Array<'l> {
    #[inline(always)]
    pub(super) fn new<H: SlabHal>(local: &'l H::Local, offset: ArrayOffset) -> Self {
        Self(H::header(local, offset))
    }

    /// Takes the object that was freed last.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<VirtAddr> {
        let top = self.0.top.load(Ordering::Relaxed);
        if top == 0 {
            return None;
        }
        let entry = VirtAddr::new(top.wrapping_sub(8));
        let object = Object::of_array(entry).load(0);
        if object == 0 {
            return None;
        }
        self.0.served.store(self.0.served.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // INVARIANT: ARR-1, ARR-2: it was not the word below the entries.
        self.0.top.store(entry.get(), Ordering::Relaxed);
        Some(VirtAddr::new(object))
    }

    /// Puts an object on top. Returns whether there was room.
    #[inline(always)]
    pub(super) fn push(&self, object: VirtAddr) -> bool {
        let top = self.0.top.load(Ordering::Relaxed);
        if top >= self.0.limit.load(Ordering::Relaxed) {
            return false;
        }
        Object::of_array(VirtAddr::new(top)).store(0, object.get());
        // INVARIANT: ARR-1, ARR-2: there was room.
        self.0.top.store(top.wrapping_add(8), Ordering::Relaxed);
        true
    }

    /// The mark of an object of the cache. Any CPU.
    #[inline(always)]
    pub(super) fn mark_of(&self, slot: VirtAddr) -> u64 {
        self.0.mark.load(Ordering::Relaxed) ^ slot.get()
    }

    /// Sets the secret that turns an object's address into its mark. The creator of the cache calls it.
    pub(super) fn set_mark(&self, secret: u64) {
        set(&self.0.mark, secret);
    }

    /// Objects in it, without the spare. Any CPU; the number may change at any moment.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn count(&self) -> u32 {
        (get(&self.0.top).saturating_sub(get(&self.0.base)) / 8) as u32
    }

    /// Objects that it may hold; 0 if it is off. Any CPU.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn capacity(&self) -> u32 {
        (get(&self.0.limit).saturating_sub(get(&self.0.base)) / 8) as u32
    }

    /// Objects in the spare. Any CPU.
    #[inline]
    pub(super) fn spare_count(&self) -> u32 {
        unpack(get(&self.0.spare)).1
    }

    /// Objects in both. Any CPU.
    pub(super) fn held(&self) -> u32 {
        self.count().wrapping_add(self.spare_count())
    }

    /// Whether it has memory for entries.
    pub(super) fn has_memory(&self) -> bool {
        get(&self.0.base) != 0
    }

    /// The spare, if there is one.
    #[inline]
    pub(super) fn spare(&self) -> Option<Magazine> {
        Some(unpack(get(&self.0.spare)).0).filter(|spare| *spare != Magazine::NONE)
    }

    /// The magazine in use.
    #[inline]
    pub(super) fn magazine(&self) -> Magazine {
        Magazine(get(&self.0.base))
    }

    /// Allocations that it has served, and calls that took the slow path. Any CPU.
    pub(super) fn events(&self) -> (u64, u64, u64) {
        (get(&self.0.served), get(&self.0.slow_allocs), get(&self.0.slow_frees))
    }

    #[inline]
    pub(super) fn count_slow_alloc(&self) {
        set(&self.0.slow_allocs, get(&self.0.slow_allocs).wrapping_add(1));
    }

    #[inline]
    pub(super) fn count_slow_free(&self) {
        set(&self.0.slow_frees, get(&self.0.slow_frees).wrapping_add(1));
    }

    /// The entries of the magazine in use, the coldest (oldest) first.
    pub(super) fn entries(&self) -> &'static [AtomicU64] {
        self.magazine().entries(self.capacity())
    }

    /// The last `most` entries, or all there are.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn hot(&self, most: usize) -> &'static [AtomicU64] {
        let top = get(&self.0.top);
        // ARR-2: not below the base.
        let count = most.min((top.wrapping_sub(get(&self.0.base)) / 8) as usize);
        Magazine(top.wrapping_sub(8 * count as u64)).entries(count as u32)
    }

    /// The empty entries.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn room(&self) -> &'static [AtomicU64] {
        let top = get(&self.0.top);
        // ARR-2: not above the limit.
        Magazine(top).entries((get(&self.0.limit).wrapping_sub(top) / 8) as u32)
    }

    /// Sets the count, after entries have been changed: the caller keeps `ARR-1`.
    pub(super) fn set_count(&self, count: u32) {
        set(&self.0.top, get(&self.0.base).wrapping_add(8 * u64::from(count)));
    }

    /// Drops the objects on top; the caller owns them from here on.
    #[inline]
    pub(super) fn take_many(&self, objects: usize) {
        set(&self.0.served, get(&self.0.served).wrapping_add(objects as u64));
        set(&self.0.top, get(&self.0.top).wrapping_sub(8 * objects as u64));
    }

    /// Counts the objects that have been written to the first entries of [`Array::room`].
    #[inline]
    pub(super) fn give_many(&self, objects: usize) {
        set(&self.0.top, get(&self.0.top).wrapping_add(8 * objects as u64));
    }

    /// Uses `magazine` with `count` objects from here on, with room for `capacity`; returns the one used before.
    #[inline]
    pub(super) fn load(&self, magazine: Magazine, count: u32, capacity: u32) -> Magazine {
        let before = self.magazine();
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.base, magazine.0);
        set(&self.0.limit, magazine.0.wrapping_add(8 * u64::from(capacity)));
        set(&self.0.top, magazine.0.wrapping_add(8 * u64::from(count)));
        before
    }

    /// Keeps `magazine` as the spare; returns the one before.
    #[inline]
    pub(super) fn set_spare(&self, magazine: Magazine, count: u32) -> Magazine {
        let before = unpack(get(&self.0.spare)).0;
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.spare, pack(magazine, count));
        before
    }

    /// Swaps the two magazines. The array is on, and has a spare.
    #[inline]
    pub(super) fn swap(&self) {
        let (base, (Magazine(spare), count)) = (get(&self.0.base), unpack(get(&self.0.spare)));
        let held = self.count();
        let room = get(&self.0.limit).wrapping_sub(base);
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.base, spare);
        set(&self.0.limit, spare.wrapping_add(room));
        set(&self.0.top, spare.wrapping_add(8 * u64::from(count)));
        set(&self.0.spare, pack(Magazine(base), held));
    }

    /// Whether the array is empty.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        get(&self.0.top) == get(&self.0.base)
    }

    /// Whether the array is on and full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let limit = get(&self.0.limit);
        get(&self.0.top) == limit && limit != get(&self.0.base)
    }

    /// Whether it has a spare, and the spare is empty.
    #[inline]
    pub(super) fn has_empty_spare(&self) -> bool {
        matches!(unpack(get(&self.0.spare)), (spare, 0) if spare != Magazine::NONE)
    }

    /// Sets its capacity, while it is empty; 0 switches it off.
    pub(super) fn set_capacity(&self, objects: u32) {
        self.load(self.magazine(), 0, objects);
    }

    /// Takes its empty magazines away.
    pub(super) fn take_memory(&self) -> [Magazine; 2] {
        set(&self.0.limit, 0);
        set(&self.0.top, 0);
        let used = self.magazine();
        set(&self.0.base, 0);
        [used, self.set_spare(Magazine::NONE, 0)]
    }
}

/// The slab allocator's data of each CPU besides its arrays. All-zero is the state before there is an allocator.
#[derive(Debug)]
#[repr(C)]
pub struct CpuSlabs {
    /// Where the descriptor of the page at address zero would lie, for a machine whose fast path of freeing computes with it.
    /// The same on every CPU.
    pub(crate) descriptors: AtomicU64,
    /// Caches whose objects other CPUs have requested, by number.
    wanted: [AtomicU64; SET_WORDS],
    /// Number of requests so far.
    requested: AtomicU64,
    /// Value of `requested` when this CPU last began to drain, once it has drained.
    answered: AtomicU64,
}

impl CpuSlabs {
    /// The state before there is an allocator.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            descriptors: AtomicU64::new(0),
            wanted: [const { AtomicU64::new(0) }; SET_WORDS],
            requested: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// Asks the CPU to drain its objects of these caches. Returns the number of the request, and whether an earlier request is
    /// still unanswered, so that the CPU is at work already. Any CPU.
    pub(super) fn request(&self, caches: &CacheSet) -> (u64, bool) {
        for (wanted, bits) in self.wanted.iter().zip(caches.words()) {
            if bits != 0 {
                wanted.fetch_or(bits, Ordering::Relaxed);
            }
        }
        // Release pairs with the acquire in `requests`: the CPU that answers sees all decisions made before. A count, not a
        // flag: the answer to one request must not answer another that has come since it began.
        let before = self.requested.fetch_add(1, Ordering::Release);
        // Pairs with the fence in `answer`: the CPU sees this request after it has answered the last one, or the answer is
        // seen here.
        fence(Ordering::SeqCst);
        (before.wrapping_add(1), self.owes(before))
    }

    /// Takes one of the requested caches. Caller must be the CPU, with interrupts masked.
    pub(super) fn take_wanted(&self) -> Option<u16> {
        for (word, number) in self.wanted.iter().zip((0_u16..).step_by(64)) {
            let bits = word.load(Ordering::Relaxed);
            if bits != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
                let bit = bits.trailing_zeros() as u16;
                word.fetch_and(!(1 << bit), Ordering::Relaxed);
                return Some(number + bit);
            }
        }
        None
    }

    /// Number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// Whether the CPU has yet to answer one of the first `requests`.
    pub(super) fn owes(&self, requests: u64) -> bool {
        // Pairs with the release in `answer`.
        self.answered.load(Ordering::Acquire) < requests
    }

    /// Answers: the objects have been drained, after `requests` were seen. Caller must be the CPU, with interrupts masked.
    pub(super) fn answer(&self, requests: u64) {
        self.answered.store(requests, Ordering::Release);
        // As in `request`.
        fence(Ordering::SeqCst);
    }
}

impl Default for CpuSlabs {
    fn default() -> Self {
        Self::new()
    }
}
