//! An area: a range of addresses, and the data that belong to it.
#![forbid(unsafe_code)]

use super::caller::Caller;
use super::{AreaInfo, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::ds::rbtree::fit::Gap;
use crate::ds::rbtree::{Owned, Payload};
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The pages that an area owns, as a number with a meaning to the caller that put them there.
///
/// There is one value for the pages of an area. It is in the area from [`AreaRef::give_pages`] on, and comes out as the
/// argument of [`AreaHal::release`](super::AreaHal::release), when no CPU translates the area any more.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "pages that are dropped are lost"]
pub struct Pages {
    word: u64,
    count: u32,
}

impl Pages {
    /// `count` pages, known as `word`. A `count` of 0 is no pages.
    pub const fn new(word: u64, count: u32) -> Self {
        Self { word, count }
    }

    /// The number given to [`Pages::new`].
    #[must_use]
    pub const fn word(&self) -> u64 {
        self.word
    }

    /// Number of pages.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }
}

/// The descriptor of an area, in use or free.
///
/// Fields are atomics, accessed relaxed: a descriptor is changed by its owner, and read by others under the lock of the tree
/// that it is in.
#[derive(Default)]
pub struct Area {
    start: AtomicU64,
    /// The end, the guard page included.
    end: AtomicU64,
    flags: AtomicU32,
    pages: AtomicU32,
    page_word: AtomicU64,
    /// A physical address, plus 1; 0 for none.
    phys: AtomicU64,
    caller: Caller,
}

impl Default for Caller {
    fn default() -> Self {
        Self::none()
    }
}

impl Payload for Area {
    type Key = u64;
    type Summary = u64;
    const NO_SUMMARY: u64 = 0;

    #[inline(always)]
    fn key(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }
}

impl Gap for Area {
    #[inline(always)]
    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }
}

impl Area {
    /// An unused descriptor.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            pages: AtomicU32::new(0),
            page_word: AtomicU64::new(0),
            phys: AtomicU64::new(0),
            caller: Caller::none(),
        }
    }

    /// Caller must own the descriptor, or the tree that it is in.
    #[inline(always)]
    pub(super) fn set_start(&self, start: u64) {
        self.start.store(start, Ordering::Relaxed);
    }

    /// As [`Area::set_start`].
    #[inline(always)]
    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Relaxed);
    }

    /// Becomes a range in use without pages.
    #[inline]
    pub(super) fn begin(&self, flags: VmFlags, caller: Option<&'static Location<'static>>) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
        self.pages.store(0, Ordering::Relaxed);
        self.phys.store(0, Ordering::Relaxed);
        self.caller.set(caller);
    }

    /// Takes the pages out.
    #[inline]
    pub(super) fn take_pages(&self) -> Pages {
        let count = self.pages.load(Ordering::Relaxed);
        self.pages.store(0, Ordering::Relaxed);
        Pages::new(self.page_word.load(Ordering::Relaxed), count)
    }

    /// The pages, while nobody can take them; the area keeps them.
    pub(super) fn peek_pages(&self) -> Pages {
        Pages::new(self.page_word.load(Ordering::Relaxed), self.pages.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn range(&self) -> VirtRange {
        VirtRange::new(VirtAddr::new(self.key()), VirtAddr::new(self.end())).unwrap_or_default()
    }

    /// The range without the guard page, which maps nothing.
    #[inline]
    pub(super) fn mapped(&self) -> VirtRange {
        let guard = if self.flags().contains(VmFlags::NO_GUARD) { 0 } else { PAGE_SIZE };
        let end = VirtAddr::new(self.end().saturating_sub(guard));
        VirtRange::new(VirtAddr::new(self.key()), end).unwrap_or_default()
    }

    /// Its pages.
    #[inline]
    pub(super) fn mapped_pages(&self) -> u64 {
        let guard = u64::from(!self.flags().contains(VmFlags::NO_GUARD));
        (Gap::size(self) >> PAGE_SHIFT).saturating_sub(guard)
    }

    #[inline]
    pub(super) fn flags(&self) -> VmFlags {
        VmFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    pub(super) fn phys(&self) -> Option<PhysAddr> {
        self.phys.load(Ordering::Relaxed).checked_sub(1).map(PhysAddr::new)
    }

    pub(super) fn page_count(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    pub(super) fn caller(&self) -> Option<&'static Location<'static>> {
        self.caller.get()
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AreaInfo::of(self).fmt(f)
    }
}

/// An area in use, as a handle of its requester: valid until the area is freed. Others find it by its address.
#[derive(Clone, Copy, Debug)]
pub struct AreaRef<'a>(&'a Area);

impl<'a> AreaRef<'a> {
    #[inline(always)]
    pub(super) const fn new(area: &'a Area) -> Self {
        Self(area)
    }

    /// The first address.
    #[inline]
    #[must_use]
    pub fn start(self) -> VirtAddr {
        VirtAddr::new(self.0.key())
    }

    /// A copy of the area's data, for reports.
    #[must_use]
    pub fn info(self) -> AreaInfo {
        AreaInfo::of(self.0)
    }

    /// The descriptor.
    pub(super) const fn area(self) -> &'a Area {
        self.0
    }

    /// Records the physical address that the area maps, if it maps one contiguous range.
    pub fn set_phys(self, phys: PhysAddr) {
        self.0.phys.store(phys.get().saturating_add(1), Ordering::Relaxed);
    }

    /// [`Self::give_pages`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_give_pages(self, pages: Pages) -> Result<(), Pages> {
        if self.0.page_count() != 0 {
            return Err(pages);
        }
        self.0.page_word.store(pages.word, Ordering::Relaxed);
        self.0.pages.store(pages.count, Ordering::Relaxed);
        Ok(())
    }

    /// [`Self::complete`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_complete(self) {
        let flags = self.0.flags() - VmFlags::UNINITIALIZED;
        // Release: a reader that sees it complete sees its contents.
        self.0.flags.store(flags.bits(), Ordering::Release);
    }

    /// Adds flags to the area.
    pub fn add_flags(self, flags: VmFlags) {
        self.0.flags.fetch_or(flags.bits(), Ordering::Relaxed);
    }
}

/// An area out of use, which no lookup finds any more; CPUs may still translate it.
///
/// Its pages cannot be taken from it.
#[must_use = "the area is lost unless it is retired or recycled"]
pub struct Removed<'a>(Owned<'a, Area>);

impl<'a> Removed<'a> {
    #[inline(always)]
    pub(super) const fn new(area: Owned<'a, Area>) -> Self {
        Self(area)
    }

    #[inline(always)]
    pub(super) fn into_inner(self) -> Owned<'a, Area> {
        self.0
    }

    /// Bytes of addresses, guard page included.
    #[inline]
    pub(super) fn size(&self) -> u64 {
        Gap::size(&*self.0)
    }

    /// The range that may still be mapped.
    #[must_use]
    #[inline]
    pub fn mapped(&self) -> VirtRange {
        self.0.mapped()
    }

    /// The physical address that it maps, if it maps one contiguous range.
    #[must_use]
    #[inline]
    pub fn phys(&self) -> Option<PhysAddr> {
        self.0.phys()
    }

    /// Its flags while it was in use.
    #[inline]
    pub(super) fn flags(&self) -> VmFlags {
        self.0.flags()
    }

    /// A copy of its data, for reports.
    #[must_use]
    pub fn info(&self) -> AreaInfo {
        AreaInfo::of(&self.0)
    }
}

impl fmt::Debug for Removed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}

impl AreaInfo {
    /// Caller must be in a position to keep the area unchanged: its tree or its owner.
    pub(super) fn of(area: &Area) -> Self {
        let (flags, phys, pages, caller) = (area.flags(), area.phys(), area.page_count(), area.caller());
        Self { range: area.range(), flags, phys, pages, caller }
    }
}
