//! A map of areas: what it is made of, and how areas are found.
#![forbid(unsafe_code)]

use super::MapError;
use super::limits::{Limits, MapLayout, Placement, Usage};
use super::translations::Objects;
use super::tree::VmaTree;
use super::vma::{ObjectId, Vma};
use crate::addr::UserAddr;
use crate::ds::rbtree::Cursor;

/// The areas of one user address space.
///
/// It has to be [cleared](Self::clear) before it is dropped, or its records and references to objects are lost.
///
/// # Invariants
///
/// - `VMA-4`: no area is writable and executable; none permits what it may not; one that maps a file or is shared has an
///   object; one that is shared may become writable or executable, not both.
/// - `VMA-6`: the break is not below its start, and every area is within the address space.
///
/// And those of the tree (`VMA-1` to `VMA-3`, `VMA-7`, `RBT`) and of [`Usage`] (`VMA-5`); [`AddressMap::check`] tests them all.
pub struct AddressMap<'a> {
    pub(super) tree: VmaTree<'a>,
    pub(super) layout: MapLayout,
    pub(super) limits: Limits,
    pub(super) usage: Usage,
    /// Pages pinned for devices.
    pub(super) pinned: u64,
    /// Where the heap begins, and where it ends: any address.
    pub(super) start_brk: UserAddr,
    pub(super) brk: UserAddr,
}

impl<'a> AddressMap<'a> {
    /// A map without areas.
    #[must_use]
    pub const fn new(layout: MapLayout, limits: Limits) -> Self {
        Self {
            tree: VmaTree::new(match layout.placement {
                Placement::TopDown => layout.mmap_base.get(),
                Placement::BottomUp => u64::MAX,
            }),
            layout,
            limits,
            usage: Usage::NONE,
            pinned: 0,
            start_brk: layout.mmap_min,
            brk: layout.mmap_min,
        }
    }

    /// Where things are.
    #[must_use]
    pub const fn layout(&self) -> &MapLayout {
        &self.layout
    }

    /// The limits of the process.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sets the limits of the process. It keeps the memory that it has already.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The pages that it has, as counted against its limits.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Pages that are pinned for devices.
    #[must_use]
    pub const fn pinned(&self) -> u64 {
        self.pinned
    }

    /// How many areas there are (Linux: `map_count`).
    #[must_use]
    pub const fn map_count(&self) -> usize {
        self.tree.len()
    }

    /// The area that `addr` is in. O(log n).
    #[inline]
    #[must_use]
    pub fn area_at(&self, addr: UserAddr) -> Option<&Vma> {
        self.find_vma(addr).filter(|area| area.start() <= addr)
    }

    /// The first area that ends above `addr`, which may lie below it. O(log n).
    #[inline]
    #[must_use]
    pub fn find_vma(&self, addr: UserAddr) -> Option<&Vma> {
        Some(self.tree.find(addr.get())?.payload())
    }

    /// The first area of which some lies in `start..end`. O(log n).
    #[inline]
    #[must_use]
    pub fn find_intersection(&self, start: UserAddr, end: UserAddr) -> Option<&Vma> {
        self.find_vma(start).filter(|area| area.start() < end)
    }

    /// All areas by rising address.
    pub fn areas(&self) -> impl DoubleEndedIterator<Item = &Vma> + ExactSizeIterator {
        self.tree.iter()
    }

    /// The areas that end above `addr`, by rising address. O(log n) for the first, O(1) for each next.
    pub fn areas_from(&self, addr: UserAddr) -> impl Iterator<Item = &Vma> {
        let first = self.tree.last_at_or_below(addr.get()).filter(|area| area.high() > addr.get());
        let first = first.or_else(|| self.tree.first_at_or_above(addr.get()));
        core::iter::successors(first, |area| area.next()).map(|area| area.node().payload())
    }

    /// Attaches `object` to the private anonymous area at `addr`, to which nothing is attached yet (Linux:
    /// `anon_vma_prepare`): the area gets a reference of its own. Whether it was attached. Areas to which different objects
    /// are attached are not merged; a merge with an area that has none hands the object on.
    pub fn attach(&mut self, with: &impl Objects, addr: UserAddr, object: ObjectId) -> bool {
        let Some(area) = self.area_at(addr).filter(|area| area.is_anonymous() && area.object().is_none()) else {
            return false;
        };
        area.set_object(Some(object));
        with.get(object);
        true
    }

    /// The area with some of `addr`, for a call that changes it.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`].
    #[inline]
    pub(super) fn at(&self, addr: u64) -> Result<&'a super::vma::Record<'a>, MapError> {
        let area = self.tree.last_at_or_below(addr).filter(|area| area.high() > addr).map(Cursor::node);
        area.ok_or(MapError::NotMapped(UserAddr::new(addr)))
    }
}
