use proptest::prelude::*;
use quarry::addr::{VirtAddr, VirtRange};
use quarry::arch::aarch64::backtrace::{Backtrace, Frame, Left, MAX_FRAMES, StackMemory};
use std::collections::BTreeMap;

/// Where the vectors' code lies in these tests.
const VECTORS: std::ops::Range<u64> = 0x100..0x200;

/// Stacks of a made-up machine; a load outside them fails the test.
#[derive(Default)]
struct Stacks {
    ranges: Vec<VirtRange>,
    words: BTreeMap<u64, u64>,
}

impl Stacks {
    fn with(ranges: &[(u64, u64)]) -> Self {
        let range = |&(start, end)| VirtRange::new(VirtAddr::new(start), VirtAddr::new(end)).unwrap();
        Self { ranges: ranges.iter().map(range).collect(), words: BTreeMap::new() }
    }

    /// Puts the record {next, pc} at `at`.
    fn record(mut self, at: u64, next: u64, pc: u64) -> Self {
        self.words.insert(at, next);
        self.words.insert(at + 8, pc);
        self
    }

    fn walk(&self, fp: u64) -> Vec<Frame> {
        Backtrace::new(self, VirtAddr::new(fp)).collect()
    }

    fn pcs(&self, fp: u64) -> Vec<u64> {
        self.walk(fp).iter().map(|frame| frame.pc.get()).collect()
    }
}

impl StackMemory for &Stacks {
    fn stack_around(&self, addr: VirtAddr) -> Option<VirtRange> {
        self.ranges.iter().copied().find(|range| range.contains(addr))
    }

    fn load(&self, addr: VirtAddr) -> u64 {
        let word = VirtRange::from_size(addr, 8).unwrap();
        assert!(addr.is_aligned(8), "misaligned load at {addr}");
        assert!(self.ranges.iter().any(|range| range.contains_range(word)), "load outside every stack at {addr}");
        self.words.get(&addr.get()).copied().unwrap_or(0)
    }

    fn in_vectors(&self, pc: VirtAddr) -> bool {
        VECTORS.contains(&pc.get())
    }
}

#[test]
fn the_chain_is_followed_to_its_zero_end() {
    let stacks =
        Stacks::with(&[(0x1000, 0x2000)]).record(0x1100, 0x1200, 10).record(0x1200, 0x1ff0, 20).record(0x1ff0, 0, 30);
    assert_eq!(stacks.pcs(0x1100), [10, 20, 30]);
    assert!(stacks.walk(0x1100).iter().all(|frame| frame.left == Left::Call));
}

#[test]
fn a_zero_return_address_ends_the_walk() {
    let stacks = Stacks::with(&[(0x1000, 0x2000)]).record(0x1100, 0x1200, 10).record(0x1200, 0x1300, 0);
    assert_eq!(stacks.pcs(0x1100), [10]);
}

#[test]
fn records_that_are_outside_or_misaligned_are_not_read() {
    let stacks = Stacks::with(&[(0x1000, 0x2000)]);
    for fp in [0, 0xff8, 0x2000, 0x1004, 0x1001, 0x1ff8, u64::MAX, u64::MAX - 7, 1 << 63] {
        assert_eq!(stacks.pcs(fp), [0; 0], "{fp:#x}");
    }
}

#[test]
fn a_chain_that_does_not_rise_ends() {
    for next in [0x1100, 0x10f0, 0x1000] {
        let stacks = Stacks::with(&[(0x1000, 0x2000)]).record(0x1100, next, 10).record(0x1000, 0x1100, 20);
        assert_eq!(stacks.pcs(0x1100), [10], "{next:#x}");
    }
}

#[test]
fn the_walk_goes_from_the_overflow_stack_to_the_kernel_stack() {
    let stacks = Stacks::with(&[(0x1000, 0x2000), (0x8000, 0x9000)])
        .record(0x8100, 0x8200, 10)
        .record(0x8200, 0x1100, 20)
        .record(0x1100, 0x1200, 30)
        .record(0x1200, 0, 40);
    assert_eq!(stacks.pcs(0x8100), [10, 20, 30, 40]);
}

#[test]
fn two_stacks_that_point_to_each_other_end_the_walk() {
    let stacks = Stacks::with(&[(0x1000, 0x2000), (0x8000, 0x9000)])
        .record(0x8100, 0x1100, 10)
        .record(0x1100, 0x8200, 20)
        .record(0x8200, 0x1300, 30);
    assert_eq!(stacks.pcs(0x8100), [10, 20]);
}

#[test]
fn what_called_the_vectors_was_interrupted() {
    let stacks = Stacks::with(&[(0x1000, 0x2000)])
        .record(0x1100, 0x1200, 0x150)
        .record(0x1200, 0x1300, 0x5000)
        .record(0x1300, 0, 0x6000);
    let walk = stacks.walk(0x1100);
    assert_eq!(walk[0].left, Left::Call);
    assert_eq!((walk[1].left, walk[1].lookup_address()), (Left::Exception, VirtAddr::new(0x5000)));
    assert_eq!((walk[2].left, walk[2].lookup_address()), (Left::Call, VirtAddr::new(0x5ffc)));
}

proptest! {
    /// With any contents of the stacks, the walk reads only the stacks, and ends.
    #[test]
    fn any_memory_can_be_walked(
        words in prop::collection::vec(prop_oneof![
            0x0f00_u64..0x1300, 0x7f00_u64..0x8300, (0x1000_u64..0x1200).prop_map(|at| at & !7),
            (0x8000_u64..0x8200).prop_map(|at| at & !7), any::<u64>(), Just(0),
        ], 128),
        fp in prop_oneof![0x0f00_u64..0x1300, 0x7f00_u64..0x8300, any::<u64>()],
    ) {
        let mut stacks = Stacks::with(&[(0x1000, 0x1200), (0x8000, 0x8200)]);
        for (at, word) in words.into_iter().enumerate() {
            let base = if at < 64 { 0x1000 } else { 0x8000 - 64 * 8 };
            stacks.words.insert(base + at as u64 * 8, word);
        }
        prop_assert!(stacks.walk(fp).len() <= MAX_FRAMES);
    }
}
