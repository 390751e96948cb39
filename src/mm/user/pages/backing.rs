//! The area around an address, as the caller describes it, and the outcome of a fault.
#![forbid(unsafe_code)]

use crate::addr::{Order, PAGE_SIZE, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::prot::{Access, Prot};

/// Whether spaces see the writes of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Each space has its own content once it writes (Linux: `MAP_PRIVATE`).
    Private,
    /// Spaces that share the pages see each other's writes (Linux: `MAP_SHARED`). An anonymous page that comes into being by a
    /// fault here is that of this space alone, so the caller inserts the pages of what is shared.
    Shared,
}

/// An access that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultAccess {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// The area around an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backing {
    /// Its addresses, whole pages: no block and no contiguous run reaches beyond.
    pub range: VirtRange,
    /// The accesses that it permits. Writable and executable together cannot be said.
    pub access: Access,
    /// Private or shared.
    pub sharing: Sharing,
    /// The largest unit that anonymous memory may come in: a page, [`Backing::RUN`] or [`Backing::BLOCK`].
    pub largest: Order,
}

impl Backing {
    /// Sixteen pages: one contiguous group.
    pub const RUN: Order = order(4);
    /// 2 MiB.
    pub const BLOCK: Order = order(9);

    /// A private area whose pages are allocated one by one.
    #[must_use]
    pub const fn private(range: VirtRange, access: Access) -> Self {
        Self { range, access, sharing: Sharing::Private, largest: Order::ZERO }
    }

    /// The flags with which anonymous memory of this order is allocated: single pages and runs of them can be moved, if the area
    /// is private.
    #[inline]
    pub(super) const fn mobility(&self, order: Order) -> Gfp {
        let private = matches!(self.sharing, Sharing::Private);
        if private && order.get() <= Self::RUN.get() { Gfp::MOVABLE } else { Gfp::empty() }
    }

    /// Whether the area permits an access.
    #[must_use]
    pub const fn permits(&self, access: FaultAccess) -> bool {
        match access {
            FaultAccess::Read => true,
            FaultAccess::Write => matches!(self.access, Access::ReadWrite),
            FaultAccess::Execute => matches!(self.access, Access::Execute),
        }
    }

    /// Whether a page of the area's object, mapped as it comes, permits an access: a write to a private area wants a copy.
    pub(in crate::mm::user) const fn permits_file_page(&self, access: FaultAccess) -> bool {
        match access {
            FaultAccess::Read => true,
            FaultAccess::Write => matches!(self.sharing, Sharing::Shared),
            FaultAccess::Execute => false,
        }
    }

    /// Whether shared memory would be executable.
    pub(super) const fn is_shared_code(&self) -> bool {
        matches!((self.sharing, self.access), (Sharing::Shared, Access::Execute))
    }

    /// The protection of a page of this space's own.
    #[inline]
    pub(super) const fn prot(&self) -> Prot {
        Prot::user(self.access).with_dirty(matches!(self.access, Access::ReadWrite))
    }

    /// The protection of a page that others have too.
    #[inline]
    pub(super) const fn read_prot(&self) -> Prot {
        match self.access {
            Access::Execute => Prot::user(Access::Execute),
            Access::ReadOnly | Access::ReadWrite => Prot::user(Access::ReadOnly),
        }
    }

    /// The unit of `order` around `at`, if the area may have one there.
    #[inline]
    pub(super) fn unit(&self, at: VirtAddr, order: Order, largest: Order) -> Option<VirtRange> {
        let unit = unit_in(self.range, at, order)?;
        (order <= self.largest.min(largest)).then_some(unit)
    }
}

/// The unit of `order` around `at`, if it lies in `range`.
#[inline(always)]
pub(in crate::mm::user) fn unit_in(range: VirtRange, at: VirtAddr, order: Order) -> Option<VirtRange> {
    let size = order.pages() * PAGE_SIZE;
    VirtRange::from_size(at.align_down(size), size).filter(|unit| range.contains_range(*unit))
}

const fn order(raw: u8) -> Order {
    match Order::new(raw) {
        Some(order) => order,
        None => Order::ZERO,
    }
}

/// The outcome of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    /// A zeroed page, run or block of its own is mapped.
    Zeroed(Order),
    /// The zero page is mapped read-only.
    ZeroPage,
    /// A page of the area's object is mapped.
    Inserted,
    /// The page was shared and is copied.
    Copied,
    /// The page was the last owner's, who may write it again.
    Reused,
    /// The entry lacked its accessed or dirty flag, or a permission that the area has.
    Updated,
    /// The entry was right already: another CPU was quicker, or this one had an old translation, which is gone.
    Spurious,
}
