//! Ranges that are one page, one contiguous group or one block: what excludes the fast path.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, phys, range, va};
use quarry::arch::host::Config;
use quarry::hal::prot::Prot;
use quarry::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};

const UNITS: [u64; 3] = [PAGE, 64 * KIB, 2 * MIB];

fn unmap(rig: &Rig, start: u64, size: u64) -> Result<(), PgtableError> {
    raw!(rig.table.unmap_and_flush(&rig.frames, range(start, size), UnmapFlags::empty()))
}

#[test]
fn a_unit_is_not_mapped_over_what_is_there() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        for unit in UNITS {
            for last in [0, unit - PAGE] {
                let rig = Rig::kernel(config);
                rig.map_data(BASE + 4 * MIB, PAGE, RAM + 4 * MIB);
                rig.map_data(BASE + last, PAGE, RAM + GIB);
                let before = rig.check();
                for flags in [MapFlags::empty(), MapFlags::NO_HUGE, MapFlags::NO_CONT] {
                    let refused = rig.map(BASE, unit, RAM, Prot::KERNEL_RW, flags);
                    assert_eq!(refused, Err(PgtableError::Overlap(va(BASE + last))), "{unit:#x} {flags:?}");
                }
                assert_eq!(rig.check(), before);
                assert_eq!(rig.phys_at(BASE + last), Some(RAM + GIB));
            }
        }
    }
}

#[test]
fn a_unit_inside_a_larger_one_is_not_unmapped() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, GIB, RAM);
    rig.map_data(BASE + GIB, 32 * MIB, RAM + GIB);
    rig.map_data(BASE + 2 * GIB, 64 * KIB, RAM + 2 * GIB);
    let before = rig.check();
    for (start, unit) in [
        (BASE, 2 * MIB),
        (BASE, 64 * KIB),
        (BASE + GIB, 2 * MIB),
        (BASE + GIB + 2 * MIB, 2 * MIB),
        (BASE + GIB, 64 * KIB),
        (BASE + 2 * GIB, PAGE),
        (BASE + 2 * GIB + PAGE, PAGE),
    ] {
        let cut = unmap(&rig, start, unit);
        assert!(matches!(cut, Err(PgtableError::WouldSplit(_))), "{start:#x} {unit:#x}: {cut:?}");
    }
    assert_eq!(rig.check(), before);
}

#[test]
fn a_unit_that_is_smaller_mappings_goes_whole_and_is_flushed() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        for unit in [64 * KIB, 2 * MIB] {
            let rig = Rig::kernel(config);
            for offset in (0..unit / PAGE).step_by(2).map(|page| page * PAGE) {
                rig.map_data(BASE + offset, PAGE, RAM + offset);
            }
            unmap(&rig, BASE, unit).expect("whole leaves");
            rig.machine.give_away(phys(RAM, unit));
            assert_eq!(rig.check().pages, 0);
        }
    }
}

#[test]
fn empty_tables_give_way_to_blocks_only_where_that_is_asked_for() {
    let left = |flags| {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.map_data(BASE, PAGE, RAM);
        unmap(&rig, BASE, PAGE).expect("a page");
        rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, flags).expect("free range");
        let census = rig.check();
        unmap(&rig, BASE, 2 * MIB).expect("mapped");
        rig.machine.give_away(phys(RAM, 2 * MIB));
        rig.check();
        (census.pmd_blocks, census.pages)
    };
    assert_eq!(left(MapFlags::REPLACE_TABLES), (1, 0));
    assert_eq!(left(MapFlags::empty()), (0, 512));
    assert_eq!(left(MapFlags::REPLACE_TABLES | MapFlags::NO_HUGE), (0, 512));
}

#[test]
fn a_block_that_reaches_further_gives_way_to_nothing() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, GIB, RAM);
    let before = rig.check();
    for (start, at) in [(BASE + 4 * MIB, BASE + 4 * MIB), (BASE - 2 * MIB, BASE + 2 * MIB)] {
        let mapped = rig.map(start, 4 * MIB, RAM + 2 * GIB, Prot::KERNEL_RW, MapFlags::REPLACE_TABLES);
        assert_eq!(mapped, Err(PgtableError::Overlap(va(at))));
    }
    assert_eq!(rig.check(), before);
}
