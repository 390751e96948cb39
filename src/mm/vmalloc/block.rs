//! Short-lived mappings of a few pages: `vm_map_ram`, from blocks of addresses that a CPU has to itself (Linux: `struct
//! vmap_block`).
//!
//! A block is 2 MiB of addresses, with a page table of its own that stays. A bitmap says which pages are in use, and a byte for
//! each page has the length of the mapping that begins there, so that a wrong count is detected; a page behind each mapping
//! stays free as a guard. Since a mapping's translations are gone when it is unmapped, its addresses can be used again at once:
//! nothing waits. There is no lock: pages are allocated and mappings claimed by atomic changes of one word.
#![forbid(unsafe_code)]

use super::hal::TABLE_GFP;
use super::vmalloc::check_prot;
use super::{AreaError, AreaRequest, VmFlags, VmallocError, VmallocHal, VmapSpace};
use crate::addr::{CpuId, PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, Pfn, VirtAddr, to_usize};
use crate::ds::Broken;
use crate::hal::level::Slot;
use crate::hal::prot::Prot;
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::{PgtableError, PinnedTable};
use crate::mm::zone::PageHal;
use crate::sync::LockHal;
use crate::sync::Once;
use core::panic::Location;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Pages of one mapping, at most (Linux: `VMAP_MAX_ALLOC`, 64 on a 64-bit machine). A guard page makes it a bit less than
/// a word of the bitmap.
pub const MAX_PAGES: usize = 63;
/// Pages of a block.
const BLOCK_PAGES: usize = 512;
/// Words of a bitmap.
const WORDS: usize = BLOCK_PAGES / 64;
/// Maximum number of blocks: 128 MiB of addresses.
pub const BLOCKS: usize = 64;
/// Owner of a block from which no CPU takes pages.
const NOBODY: u32 = u32::MAX;

/// 64 pages of a block: a mapping and its guard page lie in one group.
///
/// # Invariants
///
/// - `BLK-1`: a mapping and its guard page are set in `used`, from before it is mapped until no CPU translates it.
/// - `BLK-2`: `lengths` has the number of pages of a mapping, guard page included, at the number of its first page, and 0 at
///   all others; the caller that clears the entry is the one that unmaps the mapping.
struct Group {
    used: AtomicU64,
    lengths: [AtomicU8; 64],
}

/// A run of `count` ones, 1 to 64, from bit `first` on.
const fn ones(first: u32, count: u32) -> u64 {
    (u64::MAX >> (64 - count)) << first
}

impl Group {
    const fn new() -> Self {
        Self { used: AtomicU64::new(0), lengths: [const { AtomicU8::new(0) }; 64] }
    }

    /// Length of the mapping that begins at page `first` of the block.
    #[inline(always)]
    fn length(&self, first: u32) -> &AtomicU8 {
        let [zeroth, ..] = &self.lengths;
        // Always in range.
        self.lengths.get((first % 64) as usize).unwrap_or(zeroth)
    }

    /// Allocates `count` pages with the guard page, 2 to 64 in all. Returns the number of the first.
    #[inline]
    fn alloc(&self, count: u32) -> Option<u32> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            // Bit n stays set where n, n + 1, … n + count - 1 are free: by doubling the known length.
            let (mut runs, mut known) = (!used, 1);
            while 2 * known <= count {
                runs &= runs >> known;
                known *= 2;
            }
            runs &= runs >> (count - known);
            if runs == 0 {
                return None;
            }
            let first = runs.trailing_zeros();
            let taken = used | ones(first, count);
            // INVARIANT: BLK-1. Acquire pairs with the release of `free`: nobody translates the pages any more.
            match self.used.compare_exchange_weak(used, taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    // INVARIANT: BLK-2: these were free, so no mapping begins there.
                    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
                    self.length(first).store(count as u8, Ordering::Release);
                    return Some(first);
                }
                Err(found) => used = found,
            }
        }
    }

    /// Claims the mapping that begins at page `first` and has `count` pages with its guard page, at most 64, to unmap it.
    /// Returns whether there is such a mapping, and nobody else has claimed it.
    #[inline]
    fn claim(&self, first: u32, count: u32) -> bool {
        // INVARIANT: BLK-2. Acquire pairs with the release of `alloc`.
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        let count = count as u8;
        self.length(first).compare_exchange(count, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Frees the pages of a mapping that was claimed, and that no CPU translates.
    #[inline]
    fn free(&self, first: u32, count: u32) {
        // INVARIANT: BLK-1. By BLK-2 they lie in this group.
        self.used.fetch_and(!ones(first % 64, count), Ordering::Release);
    }

    /// Tests `BLK-1` and `BLK-2`, where nothing is being mapped or unmapped.
    fn check(&self) -> bool {
        let mut left = 0;
        let used = self.used.load(Ordering::Acquire);
        let sound = self.lengths.iter().enumerate().all(|(page, length)| {
            let length = u32::from(length.load(Ordering::Relaxed));
            // No mapping begins inside of another.
            let sound = length == 0 || left == 0;
            left = left.max(length);
            let sound = sound && (used >> page & 1 == 1) == (left != 0);
            left = left.saturating_sub(1);
            sound
        });
        sound && left == 0
    }
}

/// 2 MiB of addresses.
struct Block<R> {
    groups: [Group; WORDS],
    /// The CPU that takes pages from it, or [`NOBODY`]. It only reduces contention; correctness does not depend on it.
    owner: AtomicU32,
    /// The table of its entries, once it exists.
    table: Once<PinnedTable, R>,
}

impl<R: LockHal> Block<R> {
    const fn new() -> Self {
        Self { groups: [const { Group::new() }; WORDS], owner: AtomicU32::new(NOBODY), table: Once::new() }
    }

    /// Allocates `count` pages with the guard page. Returns the group, and the number of the first page.
    fn alloc(&self, count: u32) -> Option<(&Group, u32)> {
        (0..).step_by(64).zip(&self.groups).find_map(|(base, group)| Some((group, base + group.alloc(count)?)))
    }

    /// The group of a page.
    #[inline]
    fn group(&self, page: u32) -> &Group {
        let [first, ..] = &self.groups;
        // Always in range: pages are below 512.
        self.groups.get((page / 64) as usize).unwrap_or(first)
    }

    /// Pages in use, guard pages included.
    fn used(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.used.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Assigns the block to the CPU if no CPU takes pages from it, or none of its pages is in use.
    fn adopt(&self, cpu: CpuId) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        let free = owner == NOBODY || self.used() == 0;
        let adopted = || self.owner.compare_exchange(owner, cpu.get(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        owner == cpu.get() || free && adopted()
    }
}

/// Pages of a block that were allocated together.
struct Run<'b> {
    group: &'b Group,
    table: &'b PinnedTable,
    page: u32,
}

/// The block where a CPU starts its search.
#[inline(always)]
fn home(cpu: CpuId) -> usize {
    to_usize(u64::from(cpu.get())) % BLOCKS
}

/// The blocks of an address space.
///
/// A CPU takes pages from its own block, from which no other CPU takes any, so that the cache line stays local; when that is
/// full, from another one. Any CPU may take over a block with no page in use.
pub struct RamBlocks<'s, 'a, H: VmallocHal<'a>> {
    space: &'s VmapSpace<'a, H>,
    /// Base address of the blocks, which are contiguous.
    base: Once<VirtAddr, H::Relax>,
    blocks: [Block<H::Relax>; BLOCKS],
}

impl<'s, 'a, H: VmallocHal<'a>> RamBlocks<'s, 'a, H> {
    /// Blocks of `space`, which take no addresses before the first mapping.
    #[must_use]
    #[expect(clippy::large_stack_arrays, reason = "constant, for a static")]
    pub const fn new(space: &'s VmapSpace<'a, H>) -> Self {
        Self { space, base: Once::new(), blocks: [const { Block::new() }; BLOCKS] }
    }

    /// Base address of the blocks. The first caller takes the addresses; they are never given back.
    #[inline]
    fn base(&self) -> Result<VirtAddr, AreaError> {
        if let Some(base) = self.base.get() {
            return Ok(*base);
        }
        self.alloc_base()
    }

    #[cold]
    fn alloc_base(&self) -> Result<VirtAddr, AreaError> {
        let request = AreaRequest {
            align: PMD_SIZE,
            ..AreaRequest::new(BLOCKS as u64 * PMD_SIZE, VmFlags::MAP | VmFlags::NO_GUARD | VmFlags::UNINITIALIZED)
        };
        // It stays under construction, so that nobody can free it.
        let area = self.space.alloc(&request)?;
        let base = *self.base.call_once(|| area.start());
        if base != area.start() {
            // Another CPU was first.
            self.space.cancel(area);
        }
        Ok(base)
    }

    /// Allocates addresses for `count` pages with the guard page from the block where this CPU took the last ones.
    #[inline(always)]
    fn alloc(&self, count: u32) -> Option<Run<'_>> {
        let cpu = self.space.hal().cpu();
        if let Some(block) = self.blocks.get(home(cpu))
            && block.owner.load(Ordering::Relaxed) == cpu.get()
            && let Some(table) = block.table.get()
            && let [group, ..] = &block.groups
            && let Some(page) = group.alloc(count)
        {
            return Some(Run { group, table, page });
        }
        None
    }

    /// Allocates pages from the first block with room that is this CPU's, or can become so.
    fn alloc_elsewhere(&self, count: u32) -> Result<Option<Run<'_>>, VmallocError> {
        let cpu = self.space.hal().cpu();
        let home = home(cpu);
        let base = match self.base() {
            Ok(base) => base,
            // A space too small for the blocks still has room for areas.
            Err(AreaError::Exhausted | AreaError::TooLarge(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for index in (home..BLOCKS).chain(0..home) {
            let Some(block) = self.blocks.get(index).filter(|block| block.adopt(cpu)) else { continue };
            let table = match block.table.get() {
                Some(table) => table,
                None => self.pin(block, base, index)?,
            };
            if let Some((group, page)) = block.alloc(count) {
                return Ok(Some(Run { group, table, page }));
            }
        }
        Ok(None)
    }

    /// The table of a block.
    fn pin<'b>(
        &self,
        block: &'b Block<H::Relax>,
        base: VirtAddr,
        index: usize,
    ) -> Result<&'b PinnedTable, VmallocError> {
        let hal = self.space.hal();
        let start = VirtAddr::new(base.get() + ((index as u64) << PMD_SHIFT));
        // A second caller finds the same table.
        let table = hal.tables().pin(&hal.frames(TABLE_GFP), start).map_err(VmallocError::Tables)?;
        Ok(block.table.call_once(|| table))
    }

    /// Maps `list` in its order for a short while (Linux: `vm_map_ram`). The pages are of blocks that the caller has allocated,
    /// and that are not claimed; while they are mapped they cannot be freed, except by another CPU at this very moment, which
    /// the caller must prevent. The free of a page that was ever mapped here searches the current mappings: see
    /// [`RamBlocks::maps`]. More than [`MAX_PAGES`] pages, or a list for which the blocks have no room, get an area of their
    /// own. Any context.
    ///
    /// # Errors
    ///
    /// [`VmallocError::Empty`], [`VmallocError::TooLarge`], [`VmallocError::Protection`]; [`VmallocError::BadPage`] for a page that the caller
    /// may not map; [`VmallocError::Area`], [`VmallocError::Tables`]. Nothing has changed then.
    #[track_caller]
    #[inline]
    pub fn vm_map_ram(&self, list: &[Page], prot: Prot) -> Result<VirtAddr, VmallocError> {
        if list.is_empty() {
            return Err(VmallocError::Empty);
        }
        let prot = check_prot(prot)?;
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        if list.len() <= MAX_PAGES
            && let Some(run) = self.alloc(list.len() as u32 + 1)
        {
            return self.map_run(run, list, prot);
        }
        self.map_elsewhere(list, prot, Location::caller())
    }

    /// Slow path: this CPU's block has no room. A separate function, so that the fast path keeps its values in registers.
    #[inline(never)]
    fn map_elsewhere(
        &self,
        list: &[Page],
        prot: Prot,
        caller: &'static Location<'static>,
    ) -> Result<VirtAddr, VmallocError> {
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        let run = if list.len() <= MAX_PAGES { self.alloc_elsewhere(list.len() as u32 + 1)? } else { None };
        match run {
            Some(run) => self.map_run(run, list, prot),
            None => self.space.map_pages(list, VmFlags::MAP_RAM, prot, caller),
        }
    }

    /// Maps pages at addresses that were allocated for them.
    #[inline(always)]
    fn map_run(&self, run: Run<'_>, list: &[Page], prot: Prot) -> Result<VirtAddr, VmallocError> {
        let hal = self.space.hal();
        let map = hal.pages().hal().map();
        let first = Slot::wrapping(u64::from(run.page));
        // The caller may map a page that is marked.
        let page_of = |page: Page| map.get(page).state().is_brief().then_some(page.index());
        match hal.tables().do_map_pinned(run.table, first, list, map.origin(), page_of, prot) {
            Ok(true) => Ok(run.table.address(first)),
            mapped => self.map_unmarked(run, list, prot, mapped),
        }
    }

    /// Marks pages, and maps those that are not mapped yet. If one cannot be mapped, nothing is mapped.
    #[cold]
    fn map_unmarked(
        &self,
        run: Run<'_>,
        list: &[Page],
        prot: Prot,
        mapped: Result<bool, PgtableError>,
    ) -> Result<VirtAddr, VmallocError> {
        let (hal, first) = (self.space.hal(), Slot::wrapping(u64::from(run.page)));
        let rest = || {
            mapped.map_err(VmallocError::Tables)?;
            let origin = hal.pages().hal().map().origin();
            let places = (u64::from(run.page)..).map(Slot::wrapping).zip(list);
            let done = places.take_while(|(slot, _)| hal.tables().frame_pinned(run.table, *slot).is_some()).count();
            let (from, list) =
                (Slot::wrapping(u64::from(run.page) + done as u64), list.get(done..).unwrap_or_default());
            self.mark(list)?;
            let page_of = |page: Page| Some(page.index());
            hal.tables().do_map_pinned(run.table, from, list, origin, page_of, prot).map_err(VmallocError::Tables)
        };
        rest().map(|_| run.table.address(first)).inspect_err(|_| {
            hal.tables().do_unmap_pinned(run.table, first, list.len() as u64);
            let count = u32::try_from(list.len() + 1).unwrap_or(u32::MAX);
            if run.group.claim(run.page, count) {
                run.group.free(run.page, count);
            }
        })
    }

    /// Marks the blocks that pages belong to, so that a free searches the mappings. If one must not be mapped, those before
    /// stay marked, which costs their free a search of the blocks.
    fn mark(&self, list: &[Page]) -> Result<(), VmallocError> {
        let pages = self.space.hal().pages();
        list.iter().try_for_each(|page| pages.note_brief(*page)).map_err(VmallocError::BadPage)
    }

    /// Whether one of `pages` frames from `first` on is mapped here now. Any context. Cost: O(blocks in use), and an
    /// instruction or two for each page that is mapped.
    #[must_use]
    pub fn maps(&self, first: Pfn, pages: u64) -> bool {
        let tables = self.space.hal().tables();
        let wanted = |frame: Pfn| frame.get().wrapping_sub(first.get()) < pages;
        self.blocks.iter().filter_map(|block| Some((block, block.table.get()?))).any(|(block, table)| {
            (0_u64..).step_by(64).zip(&block.groups).any(|(base, group)| {
                let used = group.used.load(Ordering::Acquire);
                let mapped = |page: u64| tables.frame_pinned(table, Slot::wrapping(base + page)).is_some_and(wanted);
                (0..64).filter(|page| used >> page & 1 != 0).any(mapped)
            })
        })
    }

    /// [`Self::vm_unmap_ram`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_vm_unmap_ram(&self, addr: VirtAddr, pages: usize) -> Result<(), VmallocError> {
        // Without a base nothing was ever mapped in a block.
        let Some(base) = self.base.get() else { return self.unmap_area(addr, pages) };
        let offset = addr.get().wrapping_sub(base.get());
        let Some(block) = self.blocks.get(to_usize(offset >> PMD_SHIFT)) else {
            return self.unmap_area(addr, pages);
        };
        let not_mapped = VmallocError::NotMapped(addr, pages);
        if !(1..=MAX_PAGES).contains(&pages) || !addr.is_aligned(PAGE_SIZE) {
            return Err(not_mapped);
        }
        #[expect(clippy::cast_possible_truncation, reason = "both are below 512")]
        let (page, count) = (((offset & (PMD_SIZE - 1)) >> PAGE_SHIFT) as u32, pages as u32 + 1);
        let group = block.group(page);
        if !group.claim(page, count) {
            return Err(not_mapped);
        }
        // A mapping that exists has a table.
        if let Some(table) = block.table.get() {
            self.space.hal().tables().do_unmap_pinned(table, Slot::wrapping(u64::from(page)), pages as u64);
        }
        group.free(page, count);
        Ok(())
    }

    /// Unmaps a mapping that has an area of its own.
    #[cold]
    fn unmap_area(&self, addr: VirtAddr, pages: usize) -> Result<(), VmallocError> {
        match self.space.find(addr) {
            Some(area) if area.range.start() == addr && area.size() >> PAGE_SHIFT != pages as u64 => {
                Err(VmallocError::NotMapped(addr, pages))
            }
            _ => self.space.unmap_area(addr, VmFlags::MAP_RAM),
        }
    }

    /// Tests every block; nothing may be mapped or unmapped meanwhile.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        let sound = self.blocks.iter().flat_map(|block| &block.groups).all(Group::check);
        let broken = Broken { tag: "BLK-1", what: "a block whose bitmaps do not agree" };
        if sound { Ok(()) } else { Err(broken) }
    }

    /// Pages in use in the blocks, guard pages included.
    #[must_use]
    pub fn pages_in_use(&self) -> u64 {
        self.blocks.iter().map(Block::used).sum()
    }
}
