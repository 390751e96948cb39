//! Used parts of a unit: bitmaps, and hints for the search.
#![forbid(unsafe_code)]

use super::{MIN_ALLOC, UNIT_SIZE};
use crate::addr::PAGE_SIZE;

/// Bits of a unit.
#[expect(clippy::cast_possible_truncation, reason = "thousands")]
pub(super) const BITS: u32 = (UNIT_SIZE / MIN_ALLOC) as u32;
/// Bits of a block: a page's.
#[expect(clippy::cast_possible_truncation, reason = "a thousand")]
pub(super) const BLOCK_BITS: u32 = (PAGE_SIZE / MIN_ALLOC) as u32;
/// Pages of a unit, and blocks.
pub(super) const PAGES: usize = (UNIT_SIZE / PAGE_SIZE) as usize;
const WORDS: usize = (BITS / 64) as usize;
const BLOCK_WORDS: usize = (BLOCK_BITS / 64) as usize;

/// A run of bits, `start..end`.
pub(super) type Run = core::ops::Range<u32>;

/// Summary of a block's bits, so that they need not be read (Linux: `struct pcpu_block_md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// Bits of the longest gap inside.
    pub(super) contig: u32,
    /// Free bits at the start.
    pub(super) left: u32,
    /// Free bits at the end.
    pub(super) right: u32,
}

impl Block {
    const FREE: Self = Self { contig: BLOCK_BITS, left: BLOCK_BITS, right: BLOCK_BITS };
}

/// The bits of a unit.
///
/// # Invariants
///
/// - `PCM-1`: an allocation's bits are set in `used`, all others are clear.
/// - `PCM-2`: in `bounds` a bit is set where an allocation begins, and where one ends and none begins behind it.
/// - `PCM-3`: the hints agree with the bits.
#[derive(Clone, Debug)]
pub(super) struct UnitMap {
    used: [u64; WORDS],
    bounds: [u64; WORDS],
    blocks: [Block; PAGES],
    /// Bits of the longest gap, across blocks too.
    contig: u32,
    /// Bits that are free.
    free: u32,
}

fn bit(words: &[u64], at: u32) -> bool {
    words.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 != 0)
}

fn put(words: &mut [u64], at: u32, set: bool) {
    if let Some(word) = words.get_mut((at / 64) as usize) {
        let mask = 1 << (at % 64);
        *word = if set { *word | mask } else { *word & !mask };
    }
}

/// Sets or clears a run, word by word.
fn fill(words: &mut [u64], run: &Run, set: bool) {
    let mut at = run.start;
    while at < run.end {
        let stop = ((at / 64 + 1) * 64).min(run.end);
        let mask = (u64::MAX >> (64 - (stop - at))) << (at % 64);
        if let Some(word) = words.get_mut((at / 64) as usize) {
            *word = if set { *word | mask } else { *word & !mask };
        }
        at = stop;
    }
}

/// The first bit from `at` on, before `end`, that is as wanted; or `end`.
fn find(words: &[u64], at: u32, end: u32, set: bool) -> u32 {
    let mut at = at;
    while at < end {
        let word = words.get((at / 64) as usize).copied().unwrap_or(0);
        let wanted = (if set { word } else { !word }) >> (at % 64);
        if wanted != 0 {
            return (at + wanted.trailing_zeros()).min(end);
        }
        at = (at / 64 + 1) * 64;
    }
    end
}

/// The gaps of `words` in `start..end`.
fn gaps(words: &[u64], start: u32, end: u32) -> impl Iterator<Item = Run> + '_ {
    let mut at = start;
    core::iter::from_fn(move || {
        let from = find(words, at, end, false);
        at = find(words, from, end, true);
        (from < end).then_some(from..at)
    })
}

impl UnitMap {
    /// Nothing is in use.
    pub(super) const FREE: Self =
        Self { used: [0; WORDS], bounds: [0; WORDS], blocks: [Block::FREE; PAGES], contig: BITS, free: BITS };

    /// Bits of the longest gap.
    pub(super) const fn contig(&self) -> u32 {
        self.contig
    }

    /// Bits that are free.
    pub(super) const fn free_bits(&self) -> u32 {
        self.free
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.free == BITS
    }

    /// Whether nothing lies in a page.
    pub(super) fn is_page_empty(&self, page: usize) -> bool {
        self.blocks.get(page).is_some_and(|block| block.contig == BLOCK_BITS)
    }

    /// The first place for `bits` bits at a multiple of `align` that `blocked` accepts. It is asked for each run that would do,
    /// and answers with the bit from which on to go on looking.
    pub(super) fn find(&self, bits: u32, align: u32, blocked: impl Fn(&Run) -> Option<u32>) -> Option<Run> {
        let fit = |gap: Run| {
            let mut start = gap.start.next_multiple_of(align);
            loop {
                let run = start..start.checked_add(bits).filter(|end| *end <= gap.end)?;
                match blocked(&run) {
                    None => return Some(run),
                    Some(next) => start = next.max(start + 1).next_multiple_of(align),
                }
            }
        };
        // Start of a gap that reaches up to the current block.
        let mut open: Option<u32> = None;
        for (base, block) in (0..).step_by(BLOCK_BITS as usize).zip(&self.blocks) {
            let end = base + BLOCK_BITS;
            if let Some(start) = open {
                if let Some(run) = fit(start..base + block.left) {
                    return Some(run);
                }
                if block.left == BLOCK_BITS {
                    continue;
                }
            }
            if block.contig >= bits
                && let Some(run) = gaps(&self.used, base, end).find_map(fit)
            {
                return Some(run);
            }
            open = (block.right != 0).then_some(end - block.right);
        }
        None
    }

    /// Marks a run as an allocation.
    pub(super) fn alloc(&mut self, run: &Run) {
        // INVARIANT: PCM-1, PCM-2.
        fill(&mut self.used, run, true);
        put(&mut self.bounds, run.start, true);
        put(&mut self.bounds, run.end, true);
        self.free -= run.end - run.start;
        self.refresh(run);
    }

    /// The allocation that begins at `start`.
    pub(super) fn allocation(&self, start: u32) -> Option<Run> {
        if start >= BITS || !bit(&self.used, start) || !bit(&self.bounds, start) {
            return None;
        }
        Some(start..find(&self.bounds, start + 1, BITS, true))
    }

    /// Frees an allocation.
    pub(super) fn free(&mut self, run: &Run) {
        fill(&mut self.used, run, false);
        // INVARIANT: PCM-2: its start is the end of what is before it, if there is something; its end is the start of
        // what is behind it, if there is something.
        let touches_below = run.start.checked_sub(1).is_some_and(|below| bit(&self.used, below));
        put(&mut self.bounds, run.start, touches_below);
        put(&mut self.bounds, run.end, run.end < BITS && bit(&self.used, run.end));
        self.free += run.end - run.start;
        self.refresh(run);
    }

    /// Computes the summary of a block from its bits.
    fn block(&self, index: usize) -> Block {
        let base = index * BLOCK_WORDS;
        let words = self.used.get(base..base + BLOCK_WORDS).unwrap_or(&[]);
        let longest = gaps(words, 0, BLOCK_BITS).map(|gap| gap.end - gap.start).max().unwrap_or(0);
        let left = find(words, 0, BLOCK_BITS, true);
        let last = words.iter().rev().position(|word| *word != 0);
        let right = last.map_or(BLOCK_BITS, |clear| {
            let word = words.iter().rev().nth(clear).copied().unwrap_or(0);
            u32::try_from(clear).unwrap_or(0) * 64 + word.leading_zeros()
        });
        Block { contig: longest, left, right }
    }

    /// The longest gap by the hints of the blocks.
    fn longest(&self) -> u32 {
        let (mut open, mut longest) = (0, 0);
        for block in &self.blocks {
            longest = longest.max(block.contig).max(open + block.left);
            open = if block.left == BLOCK_BITS { open + BLOCK_BITS } else { block.right };
        }
        longest
    }

    /// Brings the hints of the blocks that a run touches up to date.
    fn refresh(&mut self, run: &Run) {
        // INVARIANT: PCM-3.
        for index in pages(run) {
            let block = self.block(index);
            if let Some(place) = self.blocks.get_mut(index) {
                *place = block;
            }
        }
        self.contig = self.longest();
    }

    /// The bits in use, counted; `None` where an invariant does not hold.
    pub(super) fn check(&self) -> Option<u32> {
        let counted = self.used.iter().map(|word| word.count_ones()).sum::<u32>();
        let hints = (0..PAGES).zip(&self.blocks).all(|(index, block)| self.block(index) == *block);
        let longest = gaps(&self.used, 0, BITS).map(|gap| gap.end - gap.start).max().unwrap_or(0);
        let bounds = (0..BITS).all(|at| {
            let (here, below) = (bit(&self.used, at), at != 0 && bit(&self.used, at - 1));
            // A gap has no bounds inside, and every edge of one is a bound.
            let bound = bit(&self.bounds, at);
            if here == below { here || !bound } else { bound }
        });
        (hints && bounds && longest == self.contig && counted + self.free == BITS).then_some(counted)
    }
}

/// The pages that a run touches.
pub(super) fn pages(run: &Run) -> core::ops::Range<usize> {
    (run.start / BLOCK_BITS) as usize..run.end.div_ceil(BLOCK_BITS) as usize
}
