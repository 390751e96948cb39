//! Random operations against the model, with `check()` after each: more than 100,000 a run, half of them with lists
//! that start with four slots and grow all the time.

use super::arena::{Access, Arena};
use super::at;
use super::model::{CELL, Model};
use proptest::prelude::*;
use quarry::addr::{PAGE_SIZE, PhysRange};
use quarry::mm::memblock::{Direction, Memblock, MemblockError, Region, RegionFlags, Window};

const BASE: u64 = 0x4000_0000;
/// Cells of the address space under test: dense, so that ranges collide.
const CELLS: usize = if cfg!(miri) { 96 } else { 512 };
const CASES: u32 = if cfg!(miri) { 2 } else { 128 };
const OPS: usize = if cfg!(miri) { 40 } else { 500 };

/// First cell and number of cells.
type Cells = (usize, usize);

#[derive(Clone, Debug)]
enum Op {
    Add(Cells, bool),
    Remove(Cells),
    Reserve(Cells),
    Free(Cells),
    SetNomap(Cells, bool),
    Alloc { cells: usize, align: u64, min: u64, max: u64, exact: bool, raw: bool },
    FreeLive(usize),
    Trim(u32),
    Limit(u64),
    Cap(u64),
    Turn,
}

fn cells() -> impl Strategy<Value = Cells> {
    let size = prop_oneof![6 => 0..24usize, 1 => 0..CELLS];
    (0..CELLS, size).prop_map(|(first, cells)| (first, cells.min(CELLS - first)))
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = CELLS as u64 * CELL;
    let alloc = (1..20usize, 0..6u32, 0..bytes, 0..2 * bytes, any::<bool>(), any::<bool>()).prop_map(
        |(cells, align, min, max, exact, raw)| Op::Alloc {
            cells,
            align: CELL << align,
            min: BASE + min,
            max: BASE + max,
            exact,
            raw,
        },
    );
    prop_oneof![
        12 => (cells(), prop::bool::weighted(0.2)).prop_map(|(cells, nomap)| Op::Add(cells, nomap)),
        4 => cells().prop_map(Op::Remove),
        12 => cells().prop_map(Op::Reserve),
        8 => cells().prop_map(Op::Free),
        5 => (cells(), any::<bool>()).prop_map(|(cells, nomap)| Op::SetNomap(cells, nomap)),
        16 => alloc,
        10 => any::<usize>().prop_map(Op::FreeLive),
        1 => (0..5u32).prop_map(Op::Trim),
        1 => (0..bytes).prop_map(Op::Limit),
        1 => (0..bytes).prop_map(Op::Cap),
        2 => Just(Op::Turn),
    ]
}

/// A memblock, what it should say, and what it has handed out.
struct Run<'m, const INIT: usize> {
    arena: &'m Arena,
    memblock: Memblock<'m, Access<'m>, INIT>,
    /// The arrays of the memblock are no part of it.
    model: Model,
    live: Vec<PhysRange>,
}

impl<'m, const INIT: usize> Run<'m, INIT> {
    fn new(arena: &'m Arena, grows: bool) -> Self {
        let mut memblock = Memblock::new(arena.access());
        if grows {
            memblock.allow_resize();
        }
        Self { arena, memblock, model: Model::new(BASE, CELLS), live: Vec::new() }
    }

    fn arrays(&self) -> impl Iterator<Item = PhysRange> + use<INIT> {
        [self.memblock.memory().storage(), self.memblock.reserved().storage()].into_iter().flatten()
    }

    /// The model with the arrays reserved.
    fn whole(&self) -> Model {
        let mut model = self.model.clone();
        for array in self.arrays() {
            model.set_reserved(model.cells(array), true);
        }
        model
    }

    fn apply(&mut self, op: &Op) {
        let before = self.whole();
        let mut after = self.model.clone();
        let range = |(first, cells): Cells| before.range(first, cells);
        let memblock = &mut self.memblock;
        let (result, changed) = match *op {
            Op::Add(cells, nomap) => {
                let flags = if nomap { RegionFlags::NOMAP } else { RegionFlags::empty() };
                after.add(cells, flags);
                (memblock.add_with_flags(range(cells).start(), range(cells).size(), flags), None)
            }
            Op::Remove(cells) => {
                after.remove(cells);
                (memblock.remove(range(cells).start(), range(cells).size()), Some(range(cells)))
            }
            Op::Reserve(cells) => {
                after.set_reserved(cells, true);
                (memblock.reserve(range(cells).start(), range(cells).size()), Some(range(cells)))
            }
            Op::Free(cells) => {
                after.set_reserved(cells, false);
                (memblock.free(range(cells)), Some(range(cells)))
            }
            Op::SetNomap(cells, nomap) => {
                after.set_nomap(cells, nomap);
                let (base, size) = (range(cells).start(), range(cells).size());
                let result = if nomap { memblock.mark_nomap(base, size) } else { memblock.clear_nomap(base, size) };
                (result, nomap.then_some(range(cells)))
            }
            Op::Alloc { .. } => return self.alloc(op, &before),
            Op::FreeLive(choice) => {
                if self.live.is_empty() {
                    return;
                }
                let freed = self.live.swap_remove(choice % self.live.len());
                after.set_reserved(after.cells(freed), false);
                // Part of it may have been freed and taken for an array since.
                (memblock.free(freed), Some(freed))
            }
            Op::Trim(log2) => {
                after.trim(1 << log2);
                (memblock.trim_memory(CELL << log2), None)
            }
            Op::Limit(total) => {
                let left = after.limit(total);
                (refused_if(!left, memblock.enforce_memory_limit(total)), None)
            }
            Op::Cap(offset) => {
                let left = after.cap(usize::try_from(offset / PAGE_SIZE * PAGE_SIZE / CELL).unwrap());
                (refused_if(!left, memblock.cap_memory_end(at(BASE + offset))), None)
            }
            Op::Turn => {
                memblock.set_direction(match memblock.direction() {
                    Direction::TopDown => Direction::BottomUp,
                    Direction::BottomUp => Direction::TopDown,
                });
                (Ok(()), None)
            }
        };
        match result {
            Ok(()) => {
                self.model = after;
                if let Some(changed) = changed {
                    assert!(self.arrays().all(|array| !array.overlaps(changed)), "an array in the way of {op:?}");
                }
            }
            Err(error) => self.justify(op, error, &before, &after),
        }
    }

    fn alloc(&mut self, op: &Op, before: &Model) {
        let Op::Alloc { cells, align, min, max, exact, raw } = *op else { return };
        let direction = self.memblock.direction();
        let window = match (exact, PhysRange::new(at(min), at(max))) {
            (true, Some(range)) => Window::exactly(range),
            _ => Window::between(at(min), at(max)),
        };
        let floor = if exact && min <= max { min } else { 0 };
        let expected = before
            .place(cells, align, (min, max), direction)
            .or_else(|| before.place(cells, align, (floor, max), direction));
        let size = cells as u64 * CELL;
        let result = match raw {
            true => self.memblock.alloc_raw(size, align, window),
            false => self.memblock.alloc(size, align, window),
        };
        match result {
            Ok(placed) => {
                assert_eq!(Some(placed), expected);
                assert!(raw || self.arena.holds(placed, 0));
                self.model.set_reserved(self.model.cells(placed), true);
                self.live.push(placed);
            }
            Err(MemblockError::OutOfMemory { .. }) => assert_eq!(expected, None),
            Err(error) => {
                let mut after = self.model.clone();
                after.set_reserved(after.cells(expected.unwrap()), true);
                self.justify(op, error, before, &after);
            }
        }
    }

    /// An error must have had no way round it.
    fn justify(&self, op: &Op, error: MemblockError, before: &Model, after: &Model) {
        match error {
            MemblockError::ListFull { list: "reserved", .. } => {
                assert!(after.reserved().len() > self.memblock.reserved().capacity(), "{op:?} had room");
            }
            MemblockError::ListFull { .. } => {
                // A change that splits first and merges later may need more slots meanwhile than in the end. A range that is added
                // around n regions of another kind has n + 1 pieces, which stay.
                let meanwhile = before.memory().len() + before.memory().len().max(2);
                let most = meanwhile.max(after.memory().len());
                assert!(most > self.memblock.memory().capacity(), "{op:?} had room");
            }
            MemblockError::NoRoomForList { size, .. } => {
                let changed = match *op {
                    Op::Remove(cells) | Op::Reserve(cells) | Op::Free(cells) => Some(cells),
                    _ => None,
                };
                let mut left = self.whole();
                if let Some(cells) = changed {
                    left.set_reserved(cells, true);
                }
                // The model does not say which pages these changed.
                if let Op::Alloc { .. } | Op::Limit(_) | Op::Cap(_) | Op::SetNomap(..) | Op::FreeLive(_) = op {
                    return;
                }
                let cells = usize::try_from(size / CELL).unwrap();
                let place = left.place(cells, PAGE_SIZE, (0, u64::MAX), Direction::TopDown);
                assert_eq!(place, None, "{op:?} had a place for the list");
            }
            MemblockError::HoldsList { storage } => {
                assert!(self.arrays().any(|array| array == storage));
                assert!(matches!(op, Op::Free(_) | Op::FreeLive(_) | Op::Trim(_)), "{op:?}");
            }
            other => panic!("{op:?}: {other}"),
        }
    }

    /// The memblock says what the model says.
    fn compare(&self) {
        self.memblock.check().unwrap();
        let model = self.whole();
        assert_eq!(self.memblock.memory().regions(), model.memory());
        assert_eq!(self.memblock.reserved().regions(), model.reserved());
        let free = model.free();
        assert_eq!(self.memblock.free_ranges().collect::<Vec<_>>(), free);
        let mut back: Vec<_> = self.memblock.free_ranges().rev().collect();
        back.reverse();
        assert_eq!(back, free);
        let bytes = |regions: &[Region]| regions.iter().map(|region| region.range.size()).sum::<u64>();
        assert_eq!(self.memblock.memory().total(), bytes(&model.memory()));
        assert_eq!(self.memblock.reserved().total(), bytes(&model.reserved()));
    }

    /// Whole free pages are handed over, each once.
    fn retire(mut self) {
        let pages: Vec<_> = self.whole().free().iter().filter_map(|free| free.align_inwards(PAGE_SIZE)).collect();
        match self.memblock.retire() {
            Ok(ranges) => {
                assert_eq!(ranges.pages() * PAGE_SIZE, pages.iter().copied().map(PhysRange::size).sum::<u64>());
                assert_eq!(ranges.collect::<Vec<_>>(), pages);
            }
            Err(error) => assert_eq!((error, pages), (MemblockError::NoMemory, vec![])),
        }
    }
}

/// A call that would leave no memory must say so, and is no change.
fn refused_if(refused: bool, result: Result<(), MemblockError>) -> Result<(), MemblockError> {
    if refused {
        assert_eq!(result, Err(MemblockError::NoMemory));
        return Ok(());
    }
    result
}

fn run<const INIT: usize>(ops: &[Op], grows: bool) {
    let arena = Arena::new(BASE, CELLS as u64 * CELL);
    let mut run = Run::<INIT>::new(&arena, grows);
    for op in ops {
        run.apply(op);
        run.compare();
    }
    run.retire();
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_operations_match_the_model_with_fixed_lists(ops in prop::collection::vec(op(), OPS)) {
        run::<128>(&ops, false);
    }

    #[test]
    fn random_operations_match_the_model_with_short_fixed_lists(ops in prop::collection::vec(op(), OPS)) {
        run::<12>(&ops, false);
    }

    #[test]
    fn random_operations_match_the_model_with_growing_lists(ops in prop::collection::vec(op(), OPS)) {
        run::<4>(&ops, true);
    }
}
