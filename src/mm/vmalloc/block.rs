//! Short-lived mappings of a few pages: `vm_map_ram`, from blocks of addresses that a CPU has to itself (Linux: `struct
//! vmap_block`).
//!
//! A block is 2 MiB of addresses, and a table of its own that stays. A bitmap says which pages are in use and a second
//! one which of them end a mapping, so that a wrong count is noticed; a page behind each mapping stays free as a guard.
//! Since a mapping's translations are gone when it is unmapped, its addresses can be used again at once: nothing waits.
#![forbid(unsafe_code)]

use super::{AreaError, AreaRequest, MapError, VmFlags, VmallocHal, VmapSpace};
use crate::addr::{CpuId, PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, PMD_SIZE, VirtAddr, VirtRange, to_usize};
use crate::hal::prot::Prot;
use crate::mm::page::{Page, PageMap};
use crate::mm::pgtable::UnmapFlags;
use crate::mm::zone::PageHal;
use spin::mutex::SpinMutex;
use spin::once::Once;

/// Pages of one mapping, at most (Linux: `VMAP_MAX_ALLOC`, 64 on a 64-bit machine). A guard page makes it a bit less than
/// a word of the bitmap.
pub const MAX_PAGES: usize = 63;
/// Pages of a block.
const BLOCK_PAGES: usize = 512;
/// Words of a bitmap.
const WORDS: usize = BLOCK_PAGES / 64;
/// Blocks at most: 128 MiB of addresses.
pub const BLOCKS: usize = 64;

/// Which pages of a block are in use.
///
/// # Invariants
///
/// - `BLK-1`: a mapping and its guard page are set in `used`, and lie in one word.
/// - `BLK-2`: the guard page, and nothing else, is set in `ends`.
/// - `BLK-3`: `free` is the number of pages that are not set in `used`.
/// - `BLK-4`: the pages of a mapping that is being unmapped, and nothing else, are set in `leaving`.
struct Block {
    used: [u64; WORDS],
    ends: [u64; WORDS],
    leaving: [u64; WORDS],
    free: u32,
    /// The CPU that takes pages from it; `None` if nobody does.
    owner: Option<CpuId>,
}

/// A run of `count` ones, at most 64, from bit `first` on.
const fn ones(first: u32, count: u32) -> u64 {
    (u64::MAX >> (64 - count)) << first
}

impl Block {
    const fn new() -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
        Self { used: [0; WORDS], ends: [0; WORDS], leaving: [0; WORDS], free: BLOCK_PAGES as u32, owner: None }
    }

    /// Takes `count` pages and a guard page, 2 to 64 in all. Returns the number of the first.
    #[inline]
    fn take(&mut self, count: u32) -> Option<u32> {
        for (base, (used, ends)) in (0..).step_by(64).zip(self.used.iter_mut().zip(&mut self.ends)) {
            // Bit n stays set where n, n + 1, … n + count - 1 are free: by doubling the length that is known of.
            let (mut runs, mut known) = (!*used, 1);
            while known < count && runs != 0 {
                let more = known.min(count - known);
                runs &= runs >> more;
                known += more;
            }
            if runs != 0 {
                let first = runs.trailing_zeros();
                // INVARIANT: BLK-1, BLK-2, BLK-3: these were free.
                *used |= ones(first, count);
                *ends |= 1 << (first + count - 1);
                self.free -= count;
                return Some(base + first);
            }
        }
        None
    }

    /// Marks `count` pages from `page` on, the guard page among them, as being unmapped. Returns whether exactly these
    /// were taken together, and nobody else is unmapping them.
    #[inline]
    fn leave(&mut self, page: u32, count: u32) -> bool {
        let (word, first) = ((page / 64) as usize, page % 64);
        let (Some(used), Some(ends), Some(leaving)) =
            (self.used.get(word), self.ends.get(word), self.leaving.get_mut(word))
        else {
            return false;
        };
        if first + count > 64 {
            return false;
        }
        let run = ones(first, count);
        // By BLK-2 a mapping begins where nothing lies before, or where another ends.
        let begins = first == 0 || (used >> (first - 1)) & 1 == 0 || (ends >> (first - 1)) & 1 == 1;
        let known = begins && used & run == run && ends & run == 1 << (first + count - 1) && *leaving & run == 0;
        if known {
            // INVARIANT: BLK-4.
            *leaving |= run;
        }
        known
    }

    /// Gives them back.
    #[inline]
    fn give(&mut self, page: u32, count: u32) {
        let (word, kept) = ((page / 64) as usize, !ones(page % 64, count));
        let words = (self.used.get_mut(word), self.ends.get_mut(word), self.leaving.get_mut(word));
        if let (Some(used), Some(ends), Some(leaving)) = words {
            // INVARIANT: BLK-1 to BLK-4: they were taken together.
            *used &= kept;
            *ends &= kept;
            *leaving &= kept;
            self.free += count;
        }
    }

    /// Tests `BLK-1` to `BLK-4`, where nothing is being unmapped.
    fn check(&self) -> bool {
        let set: u32 = self.used.iter().map(|word| word.count_ones()).sum();
        let ends_used = self.used.iter().zip(&self.ends).all(|(used, ends)| ends & !used == 0);
        // Behind the last page of every run is a guard page.
        let closed = self.used.iter().zip(&self.ends).all(|(used, ends)| {
            let last = used & !(used >> 1);
            last & !ends == 0
        });
        #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
        let all = BLOCK_PAGES as u32;
        let left = self.leaving.iter().all(|word| *word == 0);
        left && ends_used && closed && set + self.free == all
    }
}

/// The blocks of an address space.
///
/// A CPU takes pages from the block that it has, which nobody else takes from, so that its lock is free; from another
/// when that is full. A block whose last page comes back is anybody's.
pub struct RamBlocks<'s, 'a, H: VmallocHal<'a>> {
    space: &'s VmapSpace<'a, H>,
    /// Where the blocks lie, one behind the other.
    base: Once<VirtAddr, H::Relax>,
    blocks: [SpinMutex<Block, H::Relax>; BLOCKS],
}

impl<'s, 'a, H: VmallocHal<'a>> RamBlocks<'s, 'a, H> {
    /// Blocks of `space`, which take no addresses before the first mapping.
    #[must_use]
    pub const fn new(space: &'s VmapSpace<'a, H>) -> Self {
        Self { space, base: Once::new(), blocks: [const { SpinMutex::new(Block::new()) }; BLOCKS] }
    }

    /// Where the blocks lie. The first caller takes the addresses; they are never given back.
    #[inline]
    fn base(&self) -> Result<VirtAddr, AreaError> {
        if let Some(base) = self.base.get() {
            return Ok(*base);
        }
        self.take_base()
    }

    #[cold]
    fn take_base(&self) -> Result<VirtAddr, AreaError> {
        let request = AreaRequest {
            align: PMD_SIZE,
            ..AreaRequest::new(BLOCKS as u64 * PMD_SIZE, VmFlags::MAP | VmFlags::NO_GUARD | VmFlags::UNINITIALIZED)
        };
        // It stays under construction, so that nobody can free it.
        let area = self.space.alloc(&request)?;
        let base = *self.base.call_once(|| area.start());
        if base != area.start() {
            // Another CPU was quicker.
            self.space.recycle(self.space.abandon(area)?);
        }
        Ok(base)
    }

    /// Runs `f` with a block locked and interrupts masked.
    #[inline]
    fn with_block<R>(&self, index: usize, f: impl FnOnce(&mut Block) -> R) -> Option<R> {
        let block = self.blocks.get(index)?;
        let hal = self.space.hal();
        let saved = hal.save();
        let result = f(&mut block.lock());
        hal.restore(saved);
        Some(result)
    }

    /// The block that this CPU tries first.
    #[inline]
    fn home(&self) -> usize {
        to_usize(u64::from(self.space.hal().cpu().get())) % BLOCKS
    }

    /// Takes addresses for `count` pages and a guard page.
    #[inline]
    fn take(&self, count: u32) -> Option<(usize, u32)> {
        let (cpu, home) = (self.space.hal().cpu(), self.home());
        (0..BLOCKS).map(|ahead| (home + ahead) % BLOCKS).find_map(|index| {
            let page = self.with_block(index, |block| {
                if block.owner.is_some_and(|owner| owner != cpu) {
                    return None;
                }
                let page = block.take(count)?;
                block.owner = Some(cpu);
                Some(page)
            });
            page.flatten().map(|page| (index, page))
        })
    }

    /// Gives addresses back that nobody translates.
    #[inline]
    fn give(&self, index: usize, page: u32, count: u32) {
        let _ = self.with_block(index, |block| {
            block.give(page, count);
            if block.free as usize == BLOCK_PAGES {
                block.owner = None;
            }
        });
    }

    /// Maps `list` in its order for a short while (Linux: `vm_map_ram`). More than [`MAX_PAGES`], or what finds no room
    /// in the blocks, gets an area of its own. Any context.
    ///
    /// # Errors
    ///
    /// [`MapError::Empty`], [`MapError::TooLarge`], [`MapError::Area`], [`MapError::Tables`]. Nothing has changed then.
    #[track_caller]
    #[inline]
    pub fn vm_map_ram(&self, list: &[Page], prot: Prot) -> Result<VirtAddr, MapError> {
        if list.is_empty() {
            return Err(MapError::Empty);
        }
        let base = self.base()?;
        let taken = match u32::try_from(list.len()) {
            Ok(count) if list.len() <= MAX_PAGES => self.take(count + 1).map(|place| (place, count)),
            _ => None,
        };
        let Some(((index, page), count)) = taken else {
            return self.space.vmap(list, VmFlags::empty(), prot);
        };
        let hal = self.space.hal();
        let map = hal.pages().hal().map();
        let start = VirtAddr::new(base.get() + ((index as u64) << PMD_SHIFT) + (u64::from(page) << PAGE_SHIFT));
        let mapped = hal.tables().map_frames(hal.frames(), start, list.iter().map(|page| map.pfn(*page)), prot);
        if let Err(error) = mapped {
            self.give(index, page, count + 1);
            return Err(MapError::Tables(error));
        }
        Ok(start)
    }

    /// Unmaps what [`RamBlocks::vm_map_ram`] mapped, all of it. When it returns, no CPU translates it. Any context. Needs
    /// no memory.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`] if no mapping of `pages` pages starts at `addr`; [`MapError::Area`]. Nothing has changed
    /// then.
    #[inline]
    pub fn vm_unmap_ram(&self, addr: VirtAddr, pages: usize) -> Result<(), MapError> {
        let base = self.base()?;
        let offset = addr.get().wrapping_sub(base.get());
        let index = to_usize(offset >> PMD_SHIFT);
        if index >= BLOCKS {
            return self.unmap_area(addr, pages);
        }
        let not_mapped = MapError::NotMapped(addr, pages);
        let page = u32::try_from((offset & (PMD_SIZE - 1)) >> PAGE_SHIFT).unwrap_or(u32::MAX);
        let count = u32::try_from(pages).ok().filter(|_| (1..=MAX_PAGES).contains(&pages)).ok_or(not_mapped)? + 1;
        let known =
            addr.is_aligned(PAGE_SIZE) && self.with_block(index, |block| block.leave(page, count)) == Some(true);
        if !known {
            return Err(not_mapped);
        }
        let hal = self.space.hal();
        let range = VirtRange::from_size(addr, pages as u64 * PAGE_SIZE).ok_or(not_mapped)?;
        let unmapped = hal.tables().unmap_and_flush(hal.frames(), range, UnmapFlags::KEEP_TABLES);
        // They were mapped one by one, so nothing is cut.
        debug_assert!(unmapped.is_ok(), "a mapping can be unmapped: {unmapped:?}");
        self.give(index, page, count);
        Ok(())
    }

    /// Unmaps a mapping that has an area of its own.
    #[cold]
    fn unmap_area(&self, addr: VirtAddr, pages: usize) -> Result<(), MapError> {
        match self.space.find(addr) {
            Some(area) if area.range.start() == addr && area.size() != pages as u64 * PAGE_SIZE => {
                Err(MapError::NotMapped(addr, pages))
            }
            _ => self.space.vunmap(addr),
        }
    }

    /// Tests every block; nothing may be mapped or unmapped meanwhile.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), super::Broken> {
        let sound = (0..BLOCKS).all(|index| self.with_block(index, |block| block.check()) == Some(true));
        let broken = super::Broken { tag: "BLK-1", what: "a block whose bitmaps and count do not agree" };
        if sound { Ok(()) } else { Err(broken) }
    }

    /// Pages in use in the blocks, guard pages included.
    #[must_use]
    pub fn pages_in_use(&self) -> u64 {
        let of_block = |index| self.with_block(index, |block| BLOCK_PAGES as u64 - u64::from(block.free)).unwrap_or(0);
        (0..BLOCKS).map(of_block).sum()
    }
}
