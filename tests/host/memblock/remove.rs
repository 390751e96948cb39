//! Removing memory and freeing reservations: the same eight cases on both lists.

use super::{GIB, MIB, STRIDE, at, range, regions, unmapped};
use quarry::addr::PHYS_SIZE_MAX;

/// From `before`, takes the range out of the memory list, and once more out of the reserved list; `after` is left.
fn removing(before: &[(u64, u64)], (base, size): (u64, u64), after: &[(u64, u64)]) {
    let mut memblock = unmapped();
    for &(base, size) in before {
        memblock.add(at(base), size).unwrap();
    }
    memblock.remove(at(base), size).unwrap();
    // A slot that was not zeroed is MEMB-5.
    memblock.check().unwrap();
    assert_eq!(regions(memblock.memory()), after);
    assert_eq!(memblock.memory().total(), after.iter().map(|region| region.1).sum::<u64>());

    let mut memblock = unmapped();
    for &(base, size) in before {
        memblock.reserve(at(base), size).unwrap();
    }
    memblock.free(range(base, size.min(u64::MAX - base))).unwrap();
    memblock.check().unwrap();
    assert_eq!(regions(memblock.reserved()), after);
    assert_eq!(memblock.reserved().total(), after.iter().map(|region| region.1).sum::<u64>());
}

const ONE: (u64, u64) = (GIB, 8 * MIB);
const TWO: (u64, u64) = (2 * GIB, 8 * MIB);

/// Behaviours 17, 25.
#[test]
fn the_next_region_moves_up_when_the_first_goes() {
    removing(&[ONE, TWO], ONE, &[TWO]);
    removing(&[ONE, TWO], TWO, &[ONE]);
}

/// Behaviour 25.
#[test]
fn what_is_not_there_cannot_go() {
    removing(&[ONE], TWO, &[ONE]);
    removing(&[ONE, TWO], (GIB + 8 * MIB, GIB - 8 * MIB), &[ONE, TWO]);
    removing(&[], ONE, &[]);
}

/// Behaviours 19, 25.
#[test]
fn an_overlap_is_trimmed_on_its_side_only() {
    removing(&[ONE], (GIB - MIB, 3 * MIB), &[(GIB + 2 * MIB, 6 * MIB)]);
    removing(&[ONE], (GIB + 6 * MIB, 3 * MIB), &[(GIB, 6 * MIB)]);
}

/// Behaviours 20, 25.
#[test]
fn a_range_inside_splits_its_region() {
    removing(&[ONE], (GIB + MIB, 2 * MIB), &[(GIB, MIB), (GIB + 3 * MIB, 5 * MIB)]);
    removing(&[ONE], (GIB + 1, 1), &[(GIB, 1), (GIB + 2, 8 * MIB - 2)]);
}

/// Behaviours 21, 25.
#[test]
fn the_only_region_leaves_an_empty_list() {
    removing(&[ONE], ONE, &[]);
    removing(&[ONE], (GIB - MIB, 10 * MIB), &[]);
}

/// Behaviours 22, 25.
#[test]
fn removal_past_the_physical_space_is_cut_there() {
    let base = PHYS_SIZE_MAX - 2 * MIB;
    removing(&[(base, 2 * MIB)], (base + MIB, 2 * MIB), &[(base, MIB)]);
    removing(&[(base, 2 * MIB)], (base + MIB, u64::MAX), &[(base, MIB)]);
}

/// Behaviour 25.
#[test]
fn a_range_over_two_regions_trims_both() {
    removing(&[ONE, TWO], (GIB + 6 * MIB, GIB), &[(GIB, 6 * MIB), (2 * GIB + 6 * MIB, 2 * MIB)]);
    removing(&[ONE, TWO, (3 * GIB, MIB)], (GIB + 6 * MIB, 2 * GIB - 6 * MIB), &[(GIB, 6 * MIB), (3 * GIB, MIB)]);
}

/// Behaviour 24.
#[test]
fn a_split_takes_the_last_slot_and_loses_nothing() {
    let before: Vec<_> = (0..127).map(|index| (GIB + index * 4 * MIB, 3 * MIB)).collect();
    for index in [0, 1, 63, 125, 126].into_iter().step_by(STRIDE.min(2)) {
        let (base, _) = before[index];
        let mut after = before.clone();
        after.splice(index..=index, [(base, MIB), (base + 2 * MIB, MIB)]);
        assert_eq!(after.len(), 128);
        removing(&before, (base + MIB, MIB), &after);
    }
}
