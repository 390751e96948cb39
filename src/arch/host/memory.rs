//! RAM as two views: what software reads, and what table walkers see. A store moves from the first to the second at its
//! CPU's next DSB, or earlier by chance.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, PhysAddr, to_usize};
use crate::hal::level::{ENTRIES, Slot};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Contents of a frame before anything is written to it: a valid table entry, if a walker takes it for one.
pub(super) const GARBAGE: u64 = 0x0000_0bad_c0de_0003;

/// Use of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameUse {
    /// With the frame source, after it was a table.
    FreedTable,
    /// A page table.
    Table,
    /// Anything else.
    Data,
}

struct Frame {
    words: Box<[u64; ENTRIES]>,
    used_for: FrameUse,
}

/// An address of a 64-bit word.
pub(super) type Word = u64;

pub(super) fn word_of(table: PhysAddr, slot: Slot) -> Word {
    table.get() + 8 * slot.get() as u64
}

pub(super) fn table_of(word: Word) -> (PhysAddr, Slot) {
    (PhysAddr::new(word).align_down(1 << PAGE_SHIFT), Slot::wrapping(word >> 3))
}

/// All RAM. Frames come into being when they are first written.
#[derive(Default)]
pub(super) struct Memory {
    frames: FxHashMap<u64, Frame>,
    /// Stores that walkers need not see yet: the CPU and the newest value.
    pending: BTreeMap<Word, (usize, u64)>,
}

impl Memory {
    fn frame(&mut self, word: Word) -> &mut Frame {
        let new = || Frame { words: Box::new([GARBAGE; ENTRIES]), used_for: FrameUse::Data };
        self.frames.entry(word >> PAGE_SHIFT).or_insert_with(new)
    }

    /// The value that walkers see.
    pub(super) fn visible(&self, word: Word) -> u64 {
        let index = to_usize(word >> 3) % ENTRIES;
        self.frames.get(&(word >> PAGE_SHIFT)).and_then(|frame| frame.words.get(index)).copied().unwrap_or(GARBAGE)
    }

    /// The value that software reads: caches are coherent.
    pub(super) fn newest(&self, word: Word) -> u64 {
        self.pending.get(&word).map_or_else(|| self.visible(word), |&(_, value)| value)
    }

    /// A store that walkers see only later.
    pub(super) fn store(&mut self, cpu: usize, word: Word, value: u64) {
        self.pending.insert(word, (cpu, value));
    }

    /// Makes a store visible at once. Returns whether that changes what walkers see.
    pub(super) fn show(&mut self, word: Word, value: u64) -> bool {
        self.pending.remove(&word);
        let index = to_usize(word >> 3) % ENTRIES;
        match self.frame(word).words.get_mut(index) {
            Some(place) => std::mem::replace(place, value) != value,
            None => false,
        }
    }

    /// A store that makes no difference to walkers: it waits if the one before does.
    pub(super) fn annotate(&mut self, word: Word, value: u64) {
        match self.pending.get_mut(&word) {
            Some((_, waiting)) => *waiting = value,
            None => _ = self.show(word, value),
        }
    }

    /// Ordinary memory: a page of one value.
    pub(super) fn fill_page(&mut self, start: Word, value: u64) {
        self.frame(start).words.fill(value);
    }

    /// Ordinary memory: one page like another.
    pub(super) fn copy_page(&mut self, from: Word, to: Word) {
        let words = self.frame(from).words.clone();
        self.frame(to).words = words;
    }

    /// The DSB of a CPU: all its stores become visible. Returns the words that changed, and whether an invalid entry became a
    /// valid one.
    pub(super) fn drain(&mut self, cpu: usize) -> Vec<(Word, bool)> {
        let mine: Vec<(Word, u64)> =
            self.pending.iter().filter(|(_, store)| store.0 == cpu).map(|(&word, &(_, value))| (word, value)).collect();
        let show = |(word, value)| {
            let made_valid = self.visible(word) & 1 == 0 && value & 1 == 1;
            self.show(word, value).then_some((word, made_valid))
        };
        mine.into_iter().filter_map(show).collect()
    }

    /// Whether stores to the frame at `table` wait for a DSB.
    pub(super) fn has_pending(&self, table: PhysAddr) -> bool {
        self.pending.range(table.get()..table.get() + (1 << PAGE_SHIFT)).next().is_some()
    }

    /// A store that waits, and by which walkers would find something else: they do not tell invalid entries apart.
    pub(super) fn any_pending(&self) -> Option<Word> {
        let matters = |&(word, store): &(&Word, &(usize, u64))| (self.visible(*word) | store.1) & 1 != 0;
        self.pending.iter().find(matters).map(|(word, _)| *word)
    }

    pub(super) fn used_for(&self, table: PhysAddr) -> FrameUse {
        self.frames.get(&(table.get() >> PAGE_SHIFT)).map_or(FrameUse::Data, |frame| frame.used_for)
    }

    /// Gives the frame a new use and forgets its contents.
    pub(super) fn reuse(&mut self, table: PhysAddr, used_for: FrameUse) {
        let last = table.get() + (1 << PAGE_SHIFT);
        let words: Vec<Word> = self.pending.range(table.get()..last).map(|(&word, _)| word).collect();
        for word in words {
            self.pending.remove(&word);
        }
        *self.frame(table.get()) = Frame { words: Box::new([GARBAGE; ENTRIES]), used_for };
    }
}
