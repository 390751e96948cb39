//! The record of an area.
#![forbid(unsafe_code)]

use super::VmFlags;
use crate::addr::{PAGE_SHIFT, UserAddr, UserRange};
use crate::ds::rbtree::{Node, Payload};
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A file, a device, or a piece of memory that areas map, as a number whose meaning its creator defines: a pointer,
/// an index. Every area that maps it holds one reference ([`Objects`](super::Objects)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ObjectId(pub NonZeroU64);

/// An area of a user address space: a range of addresses with one set of permissions and one object (Linux:
/// `vm_area_struct`).
///
/// The fields are atomics, accessed relaxed: the map that has the record changes it with `&mut`, and others read it through
/// `&` of that map.
pub struct Vma {
    start: AtomicU64,
    end: AtomicU64,
    /// Where the area begins in its object, in pages.
    offset: AtomicU64,
    /// The number of its [`ObjectId`], 0 for none.
    object: AtomicU64,
    flags: AtomicU32,
    /// Free pages below: see [`MaxGap`](super::MaxGap).
    gap: AtomicU32,
}

/// `low..high`, of which `low` is not the higher.
#[inline]
pub(super) fn user_range(low: u64, high: u64) -> UserRange {
    UserRange::new(UserAddr::new(low), UserAddr::new(high)).unwrap_or_default()
}

/// The record with its links to the tree.
pub type Record<'a> = Node<'a, Vma>;

const _: () = assert!(size_of::<Record<'_>>() <= 96, "an area costs 96 bytes with its share of the tree");

impl Payload for Vma {
    type Key = u64;
    type Summary = u32;
    const NO_SUMMARY: u32 = 0;

    #[inline(always)]
    fn key(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }
}

impl Default for Vma {
    fn default() -> Self {
        Self::new()
    }
}

impl Vma {
    /// A record of nothing, for a [`VmaSource`](super::VmaSource) to hand out.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            object: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            gap: AtomicU32::new(0),
        }
    }

    /// The first address, a multiple of the page size.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> UserAddr {
        UserAddr::new(self.low())
    }

    /// One past the last address, a multiple of the page size.
    #[inline(always)]
    #[must_use]
    pub fn end(&self) -> UserAddr {
        UserAddr::new(self.high())
    }

    /// The addresses.
    #[inline]
    #[must_use]
    pub fn range(&self) -> UserRange {
        user_range(self.low(), self.high())
    }

    /// Where the area begins in its object, in pages. Of private anonymous memory: the page number of its address when it
    /// was mapped.
    #[inline(always)]
    #[must_use]
    pub fn page_offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Its permissions and behaviour.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> VmFlags {
        VmFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// The object that it maps; `None` for private anonymous memory to which nobody attached an object.
    #[inline(always)]
    #[must_use]
    pub fn object(&self) -> Option<ObjectId> {
        NonZeroU64::new(self.object.load(Ordering::Relaxed)).map(ObjectId)
    }

    /// Whether it is private anonymous memory: zeros until it is written to.
    #[inline(always)]
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        !self.flags().has_named_object()
    }

    /// Pages in the area.
    #[inline(always)]
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.high().wrapping_sub(self.low()) >> PAGE_SHIFT
    }

    /// Where `addr`, an address in the area, lies in the object, in pages.
    #[inline(always)]
    #[must_use]
    pub fn page_offset_of(&self, addr: UserAddr) -> u64 {
        self.page_offset().wrapping_add(addr.get().wrapping_sub(self.low()) >> PAGE_SHIFT)
    }

    #[inline(always)]
    pub(super) fn low(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn high(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn gap(&self) -> u32 {
        self.gap.load(Ordering::Relaxed)
    }

    /// Only for the owner of the record, or of the tree that it is in; so are all setters below.
    #[inline(always)]
    pub(super) fn set_low(&self, start: u64) {
        self.start.store(start, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn set_high(&self, end: u64) {
        self.end.store(end, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn set_page_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn set_flags(&self, flags: VmFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn set_object(&self, object: Option<ObjectId>) {
        self.object.store(object.map_or(0, |object| object.0.get()), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn set_gap(&self, gap: u32) {
        self.gap.store(gap, Ordering::Relaxed);
    }
}

impl fmt::Debug for Vma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at page {:#x} of {:?}", self.range(), self.flags(), self.page_offset(), self.object())
    }
}
