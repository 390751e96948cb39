//! A process's limits, its usage, and the layout of its addresses.
#![forbid(unsafe_code)]

use super::VmFlags;
use crate::addr::UserAddr;

/// The most that a process may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pages of addresses (`RLIMIT_AS`).
    pub address_space: u64,
    /// Pages of private writable memory, stacks aside (`RLIMIT_DATA`).
    pub data: u64,
    /// Pages of one stack (`RLIMIT_STACK`).
    pub stack: u64,
    /// Pages that are locked (`RLIMIT_MEMLOCK`); as many may be pinned for devices.
    pub locked: u64,
    /// Areas (`vm.max_map_count`).
    pub map_count: u32,
}

impl Limits {
    /// Linux's defaults: 65,530 areas, 8 MiB of stack, 8 MiB locked, all else without limit.
    pub const DEFAULT: Self =
        Self { address_space: u64::MAX, data: u64::MAX, stack: 2048, locked: 2048, map_count: 65_530 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which of the gaps that fit is taken, and which end of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// The highest addresses of the highest gap: Linux's default.
    TopDown,
    /// The lowest addresses of the lowest gap.
    BottomUp,
}

/// Where things are in the address space. All are multiples of the page size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapLayout {
    /// The lowest address that may be mapped (`vm.mmap_min_addr`).
    pub mmap_min: UserAddr,
    /// One past the highest (`TASK_SIZE`).
    pub task_size: UserAddr,
    /// Where `mmap` begins to search: the upper end of what it gives top-down, the lower end of what it gives bottom-up.
    pub mmap_base: UserAddr,
    /// Which way it searches.
    pub placement: Placement,
}

/// Pages that a process has.
///
/// # Invariants
///
/// - `VMA-5`: the sums over all areas, by what their flags say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Mapped.
    pub total: u64,
    /// Private and writable, stacks aside.
    pub data: u64,
    /// In locked areas.
    pub locked: u64,
}

impl Usage {
    /// Nothing.
    pub(super) const NONE: Self = Self { total: 0, data: 0, locked: 0 };

    /// Adds `pages` of an area with `flags`. Sums of pages of one address space do not wrap, nor do differences by `VMA-5`.
    #[inline(always)]
    pub(super) const fn add(&mut self, flags: VmFlags, pages: u64) {
        self.total = self.total.wrapping_add(pages);
        if flags.is_data() {
            self.data = self.data.wrapping_add(pages);
        }
        if flags.contains(VmFlags::LOCKED) {
            self.locked = self.locked.wrapping_add(pages);
        }
    }

    /// Takes `pages` of an area with `flags` away.
    #[inline(always)]
    pub(super) const fn sub(&mut self, flags: VmFlags, pages: u64) {
        self.total = self.total.wrapping_sub(pages);
        if flags.is_data() {
            self.data = self.data.wrapping_sub(pages);
        }
        if flags.contains(VmFlags::LOCKED) {
            self.locked = self.locked.wrapping_sub(pages);
        }
    }
}
