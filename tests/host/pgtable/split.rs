//! Splitting and collapsing, under each policy.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, phys, range, va};
use quarry::arch::host::{Config, Visibility, Who};
use quarry::hal::mmu::BbmLevel;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PgtableError, UnmapFlags};

/// A machine for each policy that may touch tables in use.
fn live() -> [(Config, LivePolicy); 3] {
    [
        (Config::CORTEX_A72, LivePolicy::BreakBeforeMake),
        (Config::MAX, LivePolicy::BreakBeforeMake),
        (Config { visibility: Visibility::Mixed(1), ..Config::MAX }, LivePolicy::BbmLevel2),
    ]
}

fn assert_linear(rig: &Rig, size: u64) {
    for offset in (0..size).step_by(7 * 4096 + 12) {
        assert_eq!(rig.phys_at(BASE + offset), Some(RAM + offset));
    }
}

#[test]
fn a_page_is_carved_out_of_a_gigabyte() {
    for (config, policy) in live() {
        let rig = Rig::kernel(config);
        rig.map_data(BASE, GIB, RAM);
        raw!(rig.table.carve(&rig.frames, range(BASE + 5 * MIB, PAGE), policy)).expect("frames");
        let census = rig.check();
        assert_eq!((census.pud_blocks, census.pmd_blocks, census.pages), (0, 511, 512));
        assert_eq!(census.tables, 4);
        assert_linear(&rig, GIB);
        assert_eq!(rig.cpu(1).load(va(BASE + GIB - 8), Who::Kernel).err(), None);
        rig.unmap(BASE + 5 * MIB, PAGE, UnmapFlags::empty()).expect("carved");
        rig.machine.give_away(phys(RAM + 5 * MIB, PAGE));
        assert_eq!(rig.phys_at(BASE + 5 * MIB), None);
        assert_eq!(rig.phys_at(BASE + 5 * MIB - 1), Some(RAM + 5 * MIB - 1));
        rig.check();
    }
}

#[test]
fn a_contiguous_group_is_unfolded_whole() {
    for (config, policy) in live() {
        for size in [64 * KIB, 32 * MIB] {
            let rig = Rig::kernel(config);
            rig.map_data(BASE, 2 * size, RAM);
            assert_eq!(rig.check().groups, 2);
            raw!(rig.table.carve(&rig.frames, range(BASE + size / 4, size / 16), policy)).expect("frames");
            assert_eq!(rig.check().groups, 1);
            assert_linear(&rig, 2 * size);
            rig.unmap(BASE + size / 4, size / 16, UnmapFlags::empty()).expect("carved");
            rig.check();
        }
    }
}

#[test]
fn both_edges_of_a_range_are_carved() {
    for (config, policy) in live() {
        let rig = Rig::kernel(config);
        rig.map_data(BASE, 8 * MIB, RAM);
        let middle = range(BASE + MIB, 6 * MIB);
        raw!(rig.table.carve(&rig.frames, middle, policy)).expect("frames");
        let census = rig.check();
        assert_eq!((census.pmd_blocks, census.pages), (2, 1024));
        rig.unmap(BASE + MIB, 6 * MIB, UnmapFlags::empty()).expect("carved");
        assert_eq!(rig.check().pages, 512);
        rig.machine.give_away(phys(RAM + MIB, 6 * MIB));
        rig.check();
    }
}

#[test]
fn splitting_live_needs_the_cpus_to_support_it() {
    for bbm in [BbmLevel::Zero, BbmLevel::One] {
        let rig = Rig::kernel(Config { bbm, ..Config::CORTEX_A72 });
        rig.map_data(BASE, 2 * MIB, RAM);
        let page = range(BASE, PAGE);
        let carved = raw!(rig.table.carve(&rig.frames, page, LivePolicy::BbmLevel2));
        assert_eq!(carved, Err(PgtableError::BbmUnsupported));
        let collapsed = raw!(rig.table.collapse(&rig.frames, page, MapFlags::empty(), LivePolicy::BbmLevel2));
        assert_eq!(collapsed, Err(PgtableError::BbmUnsupported));
        let change = Change::access(Access::ReadOnly);
        assert_eq!(raw!(rig.table.protect(page, change, LivePolicy::BbmLevel2)), Err(PgtableError::BbmUnsupported));
        assert_eq!(rig.check().pmd_blocks, 1);
    }
}

// Behaviour 500
#[test]
fn a_split_that_gets_no_table_changes_nothing() {
    for (config, policy) in live() {
        for successes in 0..2 {
            let rig = Rig::kernel(config);
            rig.map_data(BASE, GIB, RAM);
            rig.machine.fail_allocation_after(Some(successes));
            let carved = raw!(rig.table.carve(&rig.frames, range(BASE + PAGE, PAGE), policy));
            assert_eq!(carved, Err(PgtableError::NoFrame));
            assert_linear(&rig, GIB);
            let census = rig.check();
            assert_eq!((census.pages, census.tables), (0, 2 + successes));
        }
    }
}

#[test]
fn collapsing_is_the_way_back_from_carving() {
    for (config, policy) in live() {
        let rig = Rig::kernel(config);
        rig.map_data(BASE, GIB, RAM);
        let before = rig.check();
        raw!(rig.table.carve(&rig.frames, range(BASE + 5 * MIB, 3 * PAGE), policy)).expect("frames");
        let gigabyte = range(BASE, GIB);
        let collapsed = raw!(rig.table.collapse(&rig.frames, gigabyte, MapFlags::empty(), policy)).expect("supported");
        assert_eq!((collapsed.blocks, collapsed.groups), (2, 0));
        assert_eq!(rig.check(), before);
        assert_linear(&rig, GIB);
    }
}

#[test]
fn collapsing_folds_what_is_too_small_for_a_block() {
    for (config, policy) in live() {
        let rig = Rig::kernel(config);
        rig.map(BASE, MIB, RAM, Prot::KERNEL_RW, MapFlags::NO_CONT).expect("free range");
        rig.map(BASE + 2 * MIB, 2 * MIB, RAM, Prot::KERNEL_RO, MapFlags::NO_CONT | MapFlags::NO_HUGE)
            .expect("free range");
        rig.map(BASE + 4 * MIB, 64 * KIB, RAM + PAGE, Prot::KERNEL_RW, MapFlags::NO_CONT).expect("free range");
        let all = range(BASE, 6 * MIB);
        let pages = raw!(rig.table.collapse(&rig.frames, all, MapFlags::NO_HUGE | MapFlags::NO_CONT, policy));
        assert_eq!(pages.map(|made| (made.blocks, made.groups)), Ok((0, 0)));
        let groups = raw!(rig.table.collapse(&rig.frames, range(BASE, MIB + 32 * KIB), MapFlags::NO_HUGE, policy));
        assert_eq!(groups.map(|made| (made.blocks, made.groups)), Ok((0, 16)));
        assert_eq!(rig.check().groups, 16);
        let blocks = raw!(rig.table.collapse(&rig.frames, all, MapFlags::empty(), policy));
        assert_eq!(blocks.map(|made| (made.blocks, made.groups)), Ok((1, 0)));
        let census = rig.check();
        assert_eq!((census.pmd_blocks, census.pages, census.groups), (1, 256 + 16, 16));
    }
}

// A group, or a block, of which a part lies outside is left as it is, at either end.
#[test]
fn nothing_is_collapsed_across_an_end_of_the_range() {
    for (config, policy) in live() {
        let rig = Rig::kernel(config);
        rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, MapFlags::NO_HUGE | MapFlags::NO_CONT).expect("free range");
        let made = |start: u64, pages: u64| {
            let range = range(BASE + start * PAGE, pages * PAGE);
            let made = raw!(rig.table.collapse(&rig.frames, range, MapFlags::empty(), policy)).expect("supported");
            (made.blocks, made.groups, rig.check().groups)
        };
        assert_eq!(made(0, 15), (0, 0, 0));
        assert_eq!(made(1, 30), (0, 0, 0));
        assert_eq!(made(17, 46), (0, 1, 1), "one in the middle");
        assert_eq!(made(0, 16), (0, 1, 2), "just one");
        assert_eq!(made(0, 511), (0, 29, 31), "all but the last");
        assert_eq!(made(1, 511), (0, 1, 32));
        assert_eq!(made(0, 512), (1, 0, 0), "all of it is a block");
    }
}

#[test]
fn a_hole_or_a_difference_keeps_a_table() {
    let policy = LivePolicy::BreakBeforeMake;
    let rig = Rig::kernel(Config::CORTEX_A72);
    let all = range(BASE, 2 * MIB);
    rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, MapFlags::NO_HUGE).expect("free range");
    let last = range(BASE + 2 * MIB - PAGE, PAGE);
    raw!(rig.table.carve(&rig.frames, last, policy)).expect("no table needed");
    raw!(rig.table.protect(last, Change::access(Access::ReadOnly), policy)).expect("mapped");
    let collapse = || raw!(rig.table.collapse(&rig.frames, all, MapFlags::empty(), policy)).expect("a valid range");
    assert_eq!((collapse().blocks, rig.check().pages), (0, 512));
    rig.unmap(BASE + 2 * MIB - PAGE, PAGE, UnmapFlags::empty()).expect("a page");
    assert_eq!((collapse().blocks, rig.check().pages), (0, 511));
    rig.map(BASE + 2 * MIB - PAGE, PAGE, RAM, Prot::KERNEL_RW, MapFlags::empty()).expect("free page");
    assert_eq!((collapse().blocks, rig.check().pages), (0, 512));
    rig.unmap(BASE + 2 * MIB - PAGE, PAGE, UnmapFlags::empty()).expect("a page");
    rig.map(BASE + 2 * MIB - PAGE, PAGE, RAM + 2 * MIB - PAGE, Prot::KERNEL_RW, MapFlags::empty()).expect("free page");
    assert_eq!((collapse().blocks, rig.check().pages), (1, 0));
}

// The hardware may set the flags of one entry while the others are looked at.
#[test]
fn entries_that_the_hardware_may_still_change_are_left_alone() {
    for (config, policy) in live() {
        for (prot, made) in [
            (Prot::KERNEL_RW.with_accessed(false), (0, 0)),
            (Prot::KERNEL_RO.with_accessed(false), (0, 0)),
            (Prot::KERNEL_RW.with_dirty(false), (0, 0)),
            (Prot::KERNEL_RO.with_dirty(false), (1, 0)),
            (Prot::KERNEL_RW, (1, 0)),
        ] {
            let rig = Rig::kernel(config);
            rig.map(BASE, 2 * MIB, RAM, prot, MapFlags::NO_HUGE | MapFlags::NO_CONT).expect("free range");
            let collapsed = raw!(rig.table.collapse(&rig.frames, range(BASE, 2 * MIB), MapFlags::empty(), policy));
            assert_eq!(collapsed.map(|made| (made.blocks, made.groups)), Ok(made), "{prot:?}");
        }
    }
}

#[test]
fn tables_in_no_ttbr_are_split_without_a_flush() {
    let rig = Rig::user(Config::CORTEX_A72);
    // SAFETY: the machine is a model.
    let table =
        unsafe { quarry::mm::pgtable::PageTable::new(rig.cpu(0), &rig.frames, quarry::mm::pgtable::Space::Kernel) }
            .expect("a root");
    raw!(table.map(&rig.frames, range(BASE, GIB), super::rig::pa(RAM), Prot::KERNEL_RW, MapFlags::empty()))
        .expect("free");
    let before = rig.machine.counts();
    raw!(table.carve(&rig.frames, range(BASE + PAGE, PAGE), LivePolicy::NotLive)).expect("frames");
    let change = Change::access(Access::ReadOnly);
    raw!(table.protect(range(BASE + PAGE, PAGE), change, LivePolicy::NotLive)).expect("carved");
    let after = rig.machine.counts();
    assert_eq!((after.by_address, after.by_range, after.everything), (before.by_address, 0, 0));
    assert_eq!(table.check().map(|census| census.pages), Ok(512));
}
