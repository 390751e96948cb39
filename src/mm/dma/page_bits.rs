//! Which pages of a block are in use: two bits for each.
#![forbid(unsafe_code)]

use crate::addr::to_usize;

/// Pages that a word has a bit for.
pub(super) const BITS: u64 = 64;

/// The bits of a block of `pages` pages: which are in use, and which of them start an allocation. Bits behind the last page are
/// in use and start nothing.
pub(super) struct PageBits<'b> {
    busy: &'b mut [u64],
    starts: &'b mut [u64],
    pages: u64,
}

impl<'b> PageBits<'b> {
    /// Those bits, as many words as `pages` take.
    pub(super) fn new(busy: &'b mut [u64], starts: &'b mut [u64], pages: u64) -> Self {
        let words = to_usize(pages.div_ceil(BITS));
        Self {
            busy: busy.get_mut(..words).unwrap_or_default(),
            starts: starts.get_mut(..words).unwrap_or_default(),
            pages,
        }
    }

    /// Makes all pages free.
    pub(super) fn clear(&mut self) {
        self.busy.fill(0);
        self.starts.fill(0);
        if let Some(last) = self.busy.last_mut().filter(|_| !self.pages.is_multiple_of(BITS)) {
            *last = u64::MAX << (self.pages % BITS);
        }
    }

    /// The lowest `align` free pages in a row from a multiple of `align` on, a power of two.
    fn find(&self, align: u64) -> Option<u64> {
        if align > BITS {
            let step = to_usize(align / BITS);
            let index = self.busy.chunks_exact(step).position(|run| run.iter().all(|word| *word == 0))?;
            return Some((index * step) as u64 * BITS);
        }
        self.busy.iter().enumerate().find_map(|(index, word)| {
            let mut free = !word;
            let mut shift = 1;
            while shift < align {
                free &= free >> shift;
                shift <<= 1;
            }
            // Multiples of the alignment.
            free &= u64::MAX / (u64::MAX >> (BITS - align));
            (free != 0).then(|| index as u64 * BITS + u64::from(free.trailing_zeros()))
        })
    }

    /// The part of a run of pages that lies in each word, as a mask.
    fn masks(first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
        let end = first + count;
        (first / BITS..end.div_ceil(BITS)).map(move |word| {
            let from = first.max(word * BITS) - word * BITS;
            let to = end.min((word + 1) * BITS) - word * BITS;
            (to_usize(word), u64::MAX >> (BITS - (to - from)) << from)
        })
    }

    /// Takes `count` pages in a row, the first a multiple of the power of two above: its number.
    pub(super) fn take(&mut self, count: u64) -> Option<u64> {
        if count == 1 {
            return self.take_one();
        }
        let first = self.find(count.checked_next_power_of_two()?)?;
        for (word, mask) in Self::masks(first, count) {
            *self.busy.get_mut(word)? |= mask;
        }
        *self.starts.get_mut(to_usize(first / BITS))? |= 1 << (first % BITS);
        Some(first)
    }

    /// [`PageBits::take`] of one page.
    #[inline]
    fn take_one(&mut self) -> Option<u64> {
        let (index, word) = self.busy.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        *self.starts.get_mut(index)? |= 1 << bit;
        Some(index as u64 * BITS + u64::from(bit))
    }

    fn bit(words: &[u64], page: u64) -> bool {
        words.get(to_usize(page / BITS)).is_some_and(|word| word >> (page % BITS) & 1 != 0)
    }

    /// Frees an allocation of exactly `count` pages: whether there is one.
    pub(super) fn free(&mut self, first: u64, count: u64) -> bool {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.pages) else { return false };
        if count == 0 || !Self::bit(self.starts, first) {
            return false;
        }
        let whole = Self::masks(first, count).all(|(word, mask)| {
            let busy = self.busy.get(word).copied().unwrap_or_default();
            let starts = self.starts.get(word).copied().unwrap_or_default();
            let own = if first / BITS == word as u64 { 1 << (first % BITS) } else { 0 };
            busy & mask == mask && starts & mask & !own == 0
        });
        let goes_on = end < self.pages && Self::bit(self.busy, end) && !Self::bit(self.starts, end);
        if !whole || goes_on {
            return false;
        }
        for (word, mask) in Self::masks(first, count) {
            if let (Some(busy), Some(starts)) = (self.busy.get_mut(word), self.starts.get_mut(word)) {
                *busy &= !mask;
                *starts &= !mask;
            }
        }
        true
    }

    /// Pages in use; `None` if one starts an allocation that is not in use, or a bit behind the last page is clear.
    pub(super) fn used(&self) -> Option<u64> {
        let orphan = self.starts.iter().zip(&*self.busy).any(|(starts, busy)| starts & !busy != 0);
        let busy: u64 = self.busy.iter().map(|word| u64::from(word.count_ones())).sum();
        let behind = self.busy.len() as u64 * BITS - self.pages;
        let tail = self.busy.last().map_or(0, |last| u64::from((!last).leading_zeros()));
        if orphan || tail < behind { None } else { busy.checked_sub(behind) }
    }
}
