//! The expected results of a memblock, computed the slow way: one entry a KiB, no lists.

use super::{at, range};
use quarry::addr::{PAGE_SIZE, PhysRange};
use quarry::mm::memblock::{Direction, Region, RegionFlags};

/// Bytes of a cell: a quarter of a page, so that ranges end in the middle of pages.
pub(super) const CELL: u64 = 1 << 10;
/// Cells of a page.
const PAGE: usize = 4;

/// One KiB of the address space.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Cell {
    memory: Option<RegionFlags>,
    reserved: bool,
}

/// The address space from `base` on.
#[derive(Clone, Debug)]
pub(super) struct Model {
    base: u64,
    cells: Vec<Cell>,
}

impl Model {
    pub(super) fn new(base: u64, cells: usize) -> Self {
        Self { base, cells: vec![Cell::default(); cells] }
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The addresses of `cells` cells from the one numbered `first`.
    pub(super) fn range(&self, first: usize, cells: usize) -> PhysRange {
        range(self.base + first as u64 * CELL, cells as u64 * CELL)
    }

    fn each(&mut self, (first, cells): (usize, usize), change: impl Fn(&mut Cell)) {
        self.cells.iter_mut().skip(first).take(cells).for_each(change);
    }

    pub(super) fn add(&mut self, cells: (usize, usize), flags: RegionFlags) {
        self.each(cells, |cell| cell.memory = cell.memory.or(Some(flags)));
    }

    pub(super) fn remove(&mut self, cells: (usize, usize)) {
        self.each(cells, |cell| cell.memory = None);
    }

    pub(super) fn set_reserved(&mut self, cells: (usize, usize), reserved: bool) {
        self.each(cells, |cell| cell.reserved = reserved);
    }

    /// Marks every page that the cells touch, or clears those that they cover.
    pub(super) fn set_nomap(&mut self, (first, cells): (usize, usize), nomap: bool) {
        let end = first + cells;
        let (low, high) = match nomap {
            true => (first / PAGE, end.div_ceil(PAGE)),
            false => (first.div_ceil(PAGE), end / PAGE),
        };
        let flags = if nomap { RegionFlags::NOMAP } else { RegionFlags::empty() };
        if cells != 0 && low < high {
            self.each((low * PAGE, (high - low) * PAGE), |cell| cell.memory = cell.memory.map(|_| flags));
        }
    }

    /// Drops what is not a whole `unit` of cells from each region.
    pub(super) fn trim(&mut self, unit: usize) {
        for (first, cells, _) in self.runs(|cell| cell.memory) {
            let (low, high) = (first.next_multiple_of(unit), (first + cells) / unit * unit);
            self.each((first, low.min(first + cells) - first), |cell| cell.memory = None);
            let tail = high.max(first);
            self.each((tail, first + cells - tail), |cell| cell.memory = None);
        }
    }

    /// Drops mapped memory above the first `total` bytes of it, and what is left of that page; `false` and no change if
    /// that is all.
    pub(super) fn limit(&mut self, total: u64) -> bool {
        let mut left = total / CELL;
        let mut cut = self.len();
        for index in (0..self.len()).filter(|&index| self.mapped(index)) {
            if left == 0 {
                cut = index;
                break;
            }
            left -= 1;
        }
        self.cap(cut / PAGE * PAGE)
    }

    /// Drops mapped memory from the cell numbered `cut` on; `false` and no change if that is all.
    pub(super) fn cap(&mut self, cut: usize) -> bool {
        let some = (0..cut).any(|index| self.mapped(index));
        let nomap = Some(RegionFlags::NOMAP);
        if some {
            self.each((cut, self.len()), |cell| cell.memory = cell.memory.filter(|&flags| Some(flags) == nomap));
        }
        some
    }

    fn mapped(&self, index: usize) -> bool {
        self.cells[index].memory == Some(RegionFlags::empty())
    }

    /// The maximal runs of cells with equal values: first cell, number of cells, value.
    fn runs<V: PartialEq>(&self, value: impl Fn(&Cell) -> Option<V>) -> Vec<(usize, usize, V)> {
        let mut runs: Vec<(usize, usize, V)> = Vec::new();
        for (index, cell) in self.cells.iter().enumerate() {
            let Some(value) = value(cell) else { continue };
            match runs.last_mut() {
                Some(last) if last.0 + last.1 == index && last.2 == value => last.1 += 1,
                _ => runs.push((index, 1, value)),
            }
        }
        runs
    }

    /// Expected memory list.
    pub(super) fn memory(&self) -> Vec<Region> {
        let region = |(first, cells, flags)| Region { range: self.range(first, cells), flags, owner: None };
        self.runs(|cell| cell.memory).into_iter().map(region).collect()
    }

    /// Expected reserved list.
    pub(super) fn reserved(&self) -> Vec<Region> {
        let region =
            |(first, cells, ())| Region { range: self.range(first, cells), flags: RegionFlags::empty(), owner: None };
        self.runs(|cell| cell.reserved.then_some(())).into_iter().map(region).collect()
    }

    /// Expected free memory.
    pub(super) fn free(&self) -> Vec<PhysRange> {
        let free = |cell: &Cell| (cell.memory == Some(RegionFlags::empty()) && !cell.reserved).then_some(());
        self.runs(free).into_iter().map(|(first, cells, ())| self.range(first, cells)).collect()
    }

    /// Where an allocation should go: every aligned place is tried, from the end that `direction` says.
    pub(super) fn place(
        &self,
        cells: usize,
        align: u64,
        (min, max): (u64, u64),
        direction: Direction,
    ) -> Option<PhysRange> {
        let free = self.free();
        let fits = |first: &usize| {
            let place = self.range(*first, cells);
            place.start().is_aligned(align)
                && place.start() >= at(min)
                && place.end() <= at(max)
                && free.iter().any(|free| free.contains_range(place))
        };
        let mut places = 0..=self.len().checked_sub(cells)?;
        let first = match direction {
            Direction::TopDown => places.rev().find(fits),
            Direction::BottomUp => places.find(fits),
        };
        first.map(|first| self.range(first, cells))
    }

    /// The cells of `range`, which starts and ends with cells.
    pub(super) fn cells(&self, range: PhysRange) -> (usize, usize) {
        let cell = |bytes: u64| {
            assert_eq!(bytes % CELL, 0);
            usize::try_from(bytes / CELL).unwrap()
        };
        (cell(range.start().get() - self.base), cell(range.size()))
    }
}

const _: () = assert!(CELL * PAGE as u64 == PAGE_SIZE);
