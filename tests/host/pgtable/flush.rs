//! Which invalidations a change issues, when tables are freed, what stays stale until then.

use super::rig::{ASID, BASE, GIB, MIB, PAGE, RAM, Rig, pa, phys, range, va};
use quarry::addr::CpuId;
use quarry::arch::host::{Config, Counts, Who};
use quarry::hal::mmu::Asid;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::{MapFlags, PageTable, PgtableError, Space, UnmapFlags};

/// Maps and unmaps `size` bytes of 4 KiB pages, or of blocks, and returns what the unmapping executed.
fn cost(config: Config, start: u64, size: u64, map: MapFlags, unmap: UnmapFlags) -> Counts {
    let rig = Rig::kernel(config);
    rig.map(start, size, RAM, Prot::KERNEL_RW, map).expect("free range");
    let before = rig.machine.counts();
    rig.unmap(start, size, unmap).expect("mapped");
    let after = rig.machine.counts();
    rig.machine.give_away(phys(RAM, size));
    rig.check();
    Counts {
        by_address: after.by_address - before.by_address,
        by_range: after.by_range - before.by_range,
        by_asid: after.by_asid - before.by_asid,
        local: after.local - before.local,
        everything: after.everything - before.everything,
        barriers: after.barriers - before.barriers,
        stores: after.stores - before.stores,
    }
}

const PAGES: MapFlags = MapFlags::NO_HUGE.union(MapFlags::NO_CONT);
const KEEP: UnmapFlags = UnmapFlags::KEEP_TABLES;

// Behaviour 387
#[test]
fn one_page_takes_one_invalidation_wherever_it_lies() {
    for start in [BASE, 0xffff_0000_0000_0000, 0xffff_ffff_ffff_e000] {
        for config in [Config::CORTEX_A72, Config::MAX] {
            let cost = cost(config, start, PAGE, PAGES, KEEP);
            let expected = Counts { by_address: 1, barriers: 2, stores: 1, ..Counts::default() };
            assert_eq!(cost, expected);
        }
    }
}

// Behaviour 387
#[test]
fn a_block_takes_one_invalidation() {
    for size in [2 * MIB, GIB] {
        let cost = cost(Config::CORTEX_A72, BASE, size, MapFlags::empty(), KEEP);
        assert_eq!((cost.by_address, cost.everything), (1, 0));
    }
}

// Behaviour 387
#[test]
fn from_512_on_everything_is_dropped_at_once_unless_ranges_can_be() {
    let below = cost(Config::CORTEX_A72, BASE, 511 * PAGE, PAGES, KEEP);
    assert_eq!((below.by_address, below.by_range, below.everything), (511, 0, 0));
    let at = cost(Config::CORTEX_A72, BASE, 512 * PAGE, PAGES, KEEP);
    assert_eq!((at.by_address, at.by_range, at.everything), (0, 0, 1));
    for pages in [2, 511, 512, 1025] {
        let ranged = cost(Config::MAX, BASE, pages * PAGE, PAGES, KEEP);
        assert!(ranged.by_range + ranged.by_address <= 5, "{ranged:?}");
        assert_eq!((ranged.by_address, ranged.everything), (pages % 2, 0));
    }
}

#[test]
fn a_range_beyond_the_largest_operand_is_dropped_with_everything() {
    let blocks = |count| cost(Config::MAX, BASE, count * GIB, MapFlags::empty(), UnmapFlags::empty());
    assert_eq!((blocks(8).by_range, blocks(8).by_address, blocks(8).everything), (1, 0, 0));
    assert_eq!((blocks(9).by_range, blocks(9).by_address, blocks(9).everything), (0, 9, 0));
    let rig = Rig::kernel(Config::MAX);
    rig.map_data(BASE, PAGE, RAM);
    let before = rig.machine.counts();
    rig.unmap(BASE, 512 * GIB, UnmapFlags::empty()).expect("mapped");
    assert_eq!(rig.machine.counts().everything - before.everything, 1);
    rig.check();
}

#[test]
fn one_gather_serves_many_ranges() {
    for ranges in [1, 4, 5, 40] {
        let rig = Rig::kernel(Config::CORTEX_A72);
        for index in 0..ranges {
            rig.map_data(BASE + index * 3 * PAGE, PAGE, RAM + index * PAGE);
        }
        let before = rig.machine.counts();
        let mut gather = rig.table.gather(&rig.frames);
        for index in 0..ranges {
            raw!(rig.table.unmap(range(BASE + index * 3 * PAGE, PAGE), KEEP, &mut gather)).expect("mapped");
        }
        gather.flush();
        let after = rig.machine.counts();
        assert_eq!(after.by_address - before.by_address, ranges);
        rig.machine.give_away(phys(RAM, ranges * PAGE));
        rig.check();
    }
}

#[test]
fn neighbouring_ranges_are_dropped_together() {
    let rig = Rig::kernel(Config::MAX);
    rig.map(BASE, 64 * PAGE, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
    let before = rig.machine.counts();
    let mut gather = rig.table.gather(&rig.frames);
    for index in 0..8 {
        raw!(rig.table.unmap(range(BASE + index * 8 * PAGE, 8 * PAGE), KEEP, &mut gather)).expect("mapped");
    }
    gather.flush();
    assert_eq!(rig.machine.counts().by_range - before.by_range, 1);
    rig.check();
}

#[test]
fn until_the_flush_other_cpus_reach_what_was_unmapped_and_tables_stay() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
    let tables = rig.machine.frames_out();
    let mut gather = rig.table.gather(&rig.frames);
    raw!(rig.table.unmap(range(BASE, 2 * MIB), UnmapFlags::empty(), &mut gather)).expect("mapped");
    assert_eq!(rig.phys_at(BASE), None);
    assert!(rig.cpu(1).load(va(BASE), Who::Kernel).is_ok(), "the stale entry is still there");
    assert_eq!(rig.machine.frames_out(), tables, "a table is freed only after the flush");
    assert_eq!(rig.machine.violations(), Ok(()));
    gather.flush();
    assert!(rig.cpu(1).load(va(BASE), Who::Kernel).is_err());
    assert_eq!(rig.machine.frames_out(), tables - 1);
    rig.check();
}

// Behaviour 397: the walker of CPU 1 runs through the table at every step of the unmapping.
#[test]
fn a_walker_never_meets_recycled_memory() {
    let rig = Rig::kernel(Config { cpus: 4, ..Config::CORTEX_A72 });
    for round in 0..30_u64 {
        rig.map(BASE, 4 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
        let mut gather = rig.table.gather(&rig.frames);
        raw!(rig.table.unmap(range(BASE, 4 * MIB), UnmapFlags::empty(), &mut gather)).expect("mapped");
        for cpu in 1..4 {
            rig.cpu(cpu).speculate(va(BASE + round * 13 * PAGE));
        }
        gather.flush();
        // The freed frames become tables elsewhere at once.
        rig.map(BASE + GIB, 4 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
        (1..4).for_each(|cpu| assert!(rig.cpu(cpu).load(va(BASE + round * 13 * PAGE), Who::Kernel).is_err()));
        rig.unmap(BASE + GIB, 4 * MIB, UnmapFlags::empty()).expect("mapped");
    }
    rig.check();
}

#[test]
fn a_table_that_a_gather_has_removed_is_not_written_to() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        let rig = Rig::kernel(config);
        let (first, second) = (range(BASE, 2 * MIB), range(BASE + 2 * MIB, 2 * MIB));
        rig.map(BASE, 4 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
        let mut gather = rig.table.gather(&rig.frames);
        let mut unmap =
            |range| raw!(rig.table.unmap(range, UnmapFlags::empty(), &mut gather)).expect("holes are no error");
        unmap(first);
        // The gather remembers the second table, and then takes it out: its first entry leads to the first table now, and
        // through it alone is that one given back.
        let pages = range(BASE + 2 * MIB, 8 * PAGE);
        unmap(pages);
        unmap(second);
        unmap(pages);
        gather.flush();
        rig.check();
    }
}

#[test]
fn a_dropped_gather_flushes() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, PAGE, RAM);
    {
        let mut gather = rig.table.gather(&rig.frames);
        raw!(rig.table.unmap(range(BASE, PAGE), UnmapFlags::empty(), &mut gather)).expect("mapped");
    }
    rig.machine.give_away(phys(RAM, PAGE));
    rig.check();
}

#[test]
fn one_range_is_unmapped_and_flushed_in_one_call() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        for pages in [1, 5, 16, 512, 513, 1024] {
            for flags in [MapFlags::empty(), PAGES] {
                let rig = Rig::kernel(config);
                let span = range(BASE + 2 * MIB, pages * PAGE);
                rig.map(span.start().get(), span.size(), RAM, Prot::KERNEL_RW, flags).expect("free range");
                raw!(rig.table.unmap_and_flush(&rig.frames, span, UnmapFlags::empty())).expect("whole leaves");
                rig.machine.give_away(phys(RAM, span.size()));
                assert_eq!(rig.phys_at(BASE + 2 * MIB), None);
                let census = rig.check();
                assert_eq!((census.pages, census.pmd_blocks), (0, 0));
            }
        }
        let rig = Rig::kernel(config);
        rig.map_data(BASE, 16 * PAGE, RAM);
        let cut = raw!(rig.table.unmap_and_flush(&rig.frames, range(BASE, PAGE), UnmapFlags::empty()));
        assert_eq!(cut, Err(PgtableError::WouldSplit(va(BASE + PAGE))));
        assert_eq!(rig.check().pages, 16);
    }
}

#[test]
fn an_empty_gather_costs_nothing() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let before = rig.machine.counts();
    rig.table.gather(&rig.frames).flush();
    assert_eq!(rig.machine.counts(), before);
}

#[test]
fn user_tables_are_dropped_by_their_number() {
    let rig = Rig::user(Config::CORTEX_A72);
    let rw = Prot::user(Access::ReadWrite);
    rig.map(0, 512 * PAGE, RAM, rw, PAGES).expect("free range");
    rig.unmap(0, PAGE, KEEP).expect("mapped");
    let before = rig.machine.counts();
    assert_eq!((before.by_asid, before.everything), (0, 0));
    rig.check();
    rig.map(0, PAGE, RAM, rw, PAGES).expect("free page");
    rig.unmap(0, 512 * PAGE, UnmapFlags::empty()).expect("mapped");
    let after = rig.machine.counts();
    assert_eq!((after.by_asid, after.everything), (1, 0));
    rig.check();
}

// Behaviour 389
#[test]
fn kernel_entries_outlive_a_switch_and_user_entries_do_not_cross_it() {
    const OTHER: Asid = Asid::new(8);
    let rig = Rig::user(Config::CORTEX_A72);
    // SAFETY: the machine is a model.
    let new = |space| unsafe { PageTable::new(rig.cpu(0), &rig.frames, space) }.expect("a root");
    let (kernel, other) = (new(Space::Kernel), new(Space::User(OTHER)));
    rig.machine.set_ttbr1(kernel.root());
    raw!(kernel.map(&rig.frames, range(BASE, PAGE), pa(RAM), Prot::KERNEL_RW, PAGES)).expect("free page");
    let rw = Prot::user(Access::ReadWrite).with_dirty(true);
    rig.map(0, PAGE, RAM + PAGE, rw, PAGES).expect("free page");
    let cpu = rig.cpu(1);
    cpu.store(va(0), Who::User, 7).expect("mapped");
    cpu.store(va(BASE), Who::Kernel, 9).expect("mapped");
    rig.machine.set_ttbr0(CpuId::new(1), other.root(), OTHER);
    assert!(cpu.load(va(0), Who::User).is_err());
    assert_eq!(cpu.load(va(BASE), Who::Kernel), Ok(9));
    raw!(other.map(&rig.frames, range(0, PAGE), pa(RAM + 2 * PAGE), rw, PAGES)).expect("free page");
    cpu.store(va(0), Who::User, 8).expect("mapped");
    rig.machine.set_ttbr0(CpuId::new(1), rig.table.root(), ASID);
    assert_eq!(cpu.load(va(0), Who::User), Ok(7));
    assert_eq!(rig.machine.violations(), Ok(()));
}

// Behaviour 370
#[test]
fn disjoint_ranges_are_edited_side_by_side() {
    let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let rig = &rig;
            scope.spawn(move || {
                for round in 0..200_u64 {
                    // Four workers interleave in the same tables, which none of them owns.
                    let at = BASE + (round % 8 * 300 + worker) * PAGE;
                    rig.map_data(at, PAGE, RAM + worker * PAGE);
                    assert_eq!(rig.phys_at(at), Some(RAM + worker * PAGE));
                    rig.unmap(at, PAGE, UnmapFlags::empty()).expect("mapped");
                }
            });
        }
    });
    assert_eq!(rig.check().pages, 0);
}

// One invalidation of the last level, and behind it, at the next address, one of all levels.
#[test]
fn a_table_that_goes_behind_a_few_leaves_is_forgotten_by_every_walker() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        for leaves in [1, 8, 511] {
            let rig = Rig::kernel(config);
            rig.map(BASE, 4 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
            for page in [0, 511, 512, 700, 1023] {
                rig.cpu(1).load(va(BASE + page * PAGE), Who::Kernel).expect("mapped");
            }
            // The first table stays, as it has other leaves.
            let start = BASE + 2 * MIB - leaves * PAGE;
            rig.unmap(start, 2 * MIB + leaves * PAGE, UnmapFlags::empty()).expect("mapped");
            rig.machine.give_away(phys(RAM + start - BASE, 2 * MIB + leaves * PAGE));
            rig.check();
            // The frame of the second one is a table elsewhere now.
            rig.map(BASE + GIB, 2 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
            assert!(rig.cpu(1).load(va(BASE + 3 * MIB), Who::Kernel).is_err());
            rig.check();
        }
    }
}
