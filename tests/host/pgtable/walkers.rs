//! Reading of ranges that others map and unmap meanwhile, tables included.

use super::rig::{BASE, GIB, MIB, PAGE, RAM, Rig, pa, range, va};
use quarry::arch::host::Config;
use quarry::hal::entry::Entry;
use quarry::hal::level::Level;
use quarry::hal::prot::Prot;
use quarry::mm::pgtable::{LivePolicy, MapFlags, UnmapFlags, Visit};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 300 };

/// What the walk shows, and what a walk that nobody disturbs shows.
fn shown(rig: &Rig, first: u64, size: u64) -> Vec<(u64, Level, Entry)> {
    let mut all = Vec::new();
    let _ = rig.table.walk(range(first, size), |visit: Visit| {
        all.push((visit.start.get(), visit.level, visit.entry));
        ControlFlow::<()>::Continue(())
    });
    all
}

/// Every way to read a range goes on while the tables below it come and go; none reads a table that has been freed, and what
/// they tell was mapped.
#[test]
fn no_walk_reads_a_table_that_another_cpu_frees() {
    let rig = Rig::kernel(Config::MAX);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = |what: &'static (dyn Fn(&Rig) + Sync)| {
            let (rig, over) = (&rig, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    what(rig);
                }
            });
        };
        reader(&|rig| {
            let _ = rig.table.walk_all(|visit| {
                if let Entry::Leaf(leaf) = visit.entry {
                    assert_eq!(leaf.phys.get() - RAM, visit.start.get() - BASE);
                }
                assert!(visit.defect().is_none(), "{visit:?}");
                ControlFlow::<()>::Continue(())
            });
        });
        reader(&|rig| {
            for page in [0, 511, 512] {
                let found = rig.phys_at(BASE + page * PAGE + 5);
                assert!(found.is_none_or(|phys| phys == RAM + page * PAGE + 5), "{found:?}");
            }
        });
        for round in 0..ROUNDS {
            // With one table of pages and with two, with blocks, and with tables of two levels that go at once.
            let (size, from) = [(2 * MIB, 0), (2 * MIB + PAGE, 0), (4 * MIB, 0), (GIB, 0)][(round % 4) as usize];
            let flags = if round % 4 == 3 { MapFlags::empty() } else { MapFlags::NO_HUGE };
            rig.map(BASE + from, size, RAM + from, Prot::KERNEL_RW, flags).unwrap();
            rig.unmap(BASE + from, size, UnmapFlags::empty()).unwrap();
            let _ = rig.unmap(BASE, GIB, UnmapFlags::empty());
        }
        over.store(true, Ordering::Relaxed);
    });
    rig.check();
}

/// The same of a table that becomes a block.
#[test]
fn no_walk_reads_a_table_that_a_collapse_frees() {
    let rig = Rig::kernel(Config::MAX);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = rig.table.walk_all(|visit| {
                    if let Entry::Leaf(leaf) = visit.entry {
                        assert_eq!(leaf.phys.get() - RAM, visit.start.get() - BASE);
                    }
                    assert!(visit.defect().is_none(), "{visit:?}");
                    ControlFlow::<()>::Continue(())
                });
            }
        });
        for _ in 0..ROUNDS {
            rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, MapFlags::NO_HUGE | MapFlags::NO_CONT).unwrap();
            let policy = LivePolicy::BbmLevel2;
            let made = raw!(rig.table.collapse(&rig.frames, range(BASE, 2 * MIB), MapFlags::empty(), policy)).unwrap();
            assert_eq!(made.blocks, 1);
            rig.unmap(BASE, 2 * MIB, UnmapFlags::empty()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    rig.check();
}

/// The order and the parts: tables before what is below them, leaves one by one, from the middle of a table to the middle of
/// another, up to the last page of the space.
#[test]
fn a_walk_shows_each_entry_once_in_order() {
    let rig = Rig::kernel(Config::MAX);
    rig.map(BASE, 3 * PAGE, RAM, Prot::KERNEL_RW, MapFlags::NO_HUGE).unwrap();
    rig.map(BASE + 2 * MIB - PAGE, 2 * PAGE, RAM, Prot::KERNEL_RW, MapFlags::NO_HUGE).unwrap();
    rig.map(BASE + 8 * MIB, 4 * MIB, RAM, Prot::KERNEL_RW, MapFlags::empty()).unwrap();
    let last = 0_u64.wrapping_sub(PAGE);
    rig.map(last - PAGE, PAGE, RAM, Prot::KERNEL_RO, MapFlags::NO_HUGE).unwrap();
    let leaves = |found: &[(u64, Level, Entry)]| -> Vec<u64> {
        let leaf = |(at, _, entry): &(u64, Level, Entry)| matches!(entry, Entry::Leaf(_)).then_some(*at);
        found.iter().filter_map(leaf).collect()
    };
    let all = shown(&rig, BASE, GIB);
    assert_eq!(
        leaves(&all),
        [BASE, BASE + PAGE, BASE + 2 * PAGE, BASE + 2 * MIB - PAGE, BASE + 2 * MIB, BASE + 8 * MIB, BASE + 10 * MIB]
    );
    let order: Vec<(u64, Level)> = all.iter().map(|(at, level, _)| (*at, *level)).collect();
    assert!(order.is_sorted() && order.windows(2).all(|pair| pair[0] != pair[1]), "{order:x?}");
    let tables = all.iter().filter(|(_, _, entry)| matches!(entry, Entry::Table(_))).count();
    assert_eq!(tables, 4, "of 512 GiB, of 1 GiB, and two of 2 MiB");
    // From the middle of one to the middle of another: the tables above are shown too.
    let part = shown(&rig, BASE + PAGE, 2 * MIB);
    assert_eq!(leaves(&part), [BASE + PAGE, BASE + 2 * PAGE, BASE + 2 * MIB - PAGE, BASE + 2 * MIB]);
    assert_eq!(part.first().map(|(at, level, _)| (*at, *level)), Some((BASE, Level::Pgd)));
    assert_eq!(leaves(&shown(&rig, BASE + 8 * MIB, 2 * MIB)), [BASE + 8 * MIB], "no further than it was asked");
    assert_eq!(leaves(&shown(&rig, BASE + 9 * MIB, PAGE)), [BASE + 8 * MIB], "a page of a block");
    assert_eq!(shown(&rig, BASE + 2 * GIB, GIB).len(), 1, "the table of 512 GiB alone");
    let mut end = None;
    let _ = rig.table.walk_all(|visit| {
        end = Some((visit.start, visit.entry));
        ControlFlow::<()>::Continue(())
    });
    assert!(matches!(end, Some((at, Entry::Leaf(leaf))) if at == va(last - PAGE) && leaf.phys == pa(RAM)));
    rig.check();
}
