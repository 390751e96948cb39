//! Planted bugs: a machine between the page-table code and the simulated one that leaves something out. The oracle must
//! report each; the same scenario without a bug must pass.

use super::rig::{BASE, KIB, MIB, PAGE, RAM, Rig, phys, range, va};
use quarry::addr::PhysAddr;
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, SimCpu, Violations, Visibility, Who};
use quarry::hal::entry::{Entry, EntryFormat, RawEntry};
use quarry::hal::level::{LeafLevel, Level, Slot};
use quarry::hal::mmu::{Asid, BbmLevel, Invalidation, Mmu, WalkDepth};
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PgtableError, Space, UnmapFlags};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is left out or done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// No TLBI at all.
    NoInvalidation,
    /// No DSB ISHST before the TLBI.
    NoOrder,
    /// No DSB ISH behind the TLBI.
    NoCompletion,
    /// No DSB ISHST after a new mapping.
    NoPublish,
    /// No DSB ISHST between a new table and the entry that points to it.
    NoTablePublish,
    /// A new table is not zeroed.
    NoZeroing,
    /// A valid entry is never made invalid before the next valid one: no break before the make.
    NoBreak,
    /// Only leaves are invalidated, not the tables above.
    LeavesOnly,
    /// Only the first address is invalidated.
    FirstOnly,
    /// The address is one page off.
    WrongAddress,
    /// The machine claims FEAT_BBM level 2 and has it not.
    FalseBbm,
    /// Between reading a block and replacing it its accessed flag changes: no bug, but another entry.
    FlagMeanwhile,
    /// Between reading a block and replacing it somebody else takes it away.
    TakenMeanwhile,
}

struct Faulty {
    cpu: SimCpu,
    bug: Bug,
    /// Set once the root is in use: the bug is in the calls under test.
    armed: AtomicBool,
}

impl Faulty {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug && self.armed.load(Ordering::Relaxed)
    }

    fn spoil(&self, what: Invalidation) -> Invalidation {
        match self.bug {
            _ if !self.has(self.bug) => what,
            Bug::LeavesOnly => Invalidation { depth: WalkDepth::LastLevel, ..what },
            Bug::FirstOnly => Invalidation { count: 1, stride: LeafLevel::Pte, ..what },
            Bug::WrongAddress => Invalidation { start: va(what.start.get() + 2 * MIB), ..what },
            _ => what,
        }
    }

    /// Whether this is a break that the bug leaves out. First slots are spared: removed tables are linked there.
    fn skips(&self, slot: Slot, current: RawEntry, new: RawEntry) -> bool {
        self.has(Bug::NoBreak) && slot != Slot::FIRST && Stage1::is_valid(current) && !Stage1::is_valid(new)
    }
}

// SAFETY: the machine behind it is a model; being unsound is the purpose.
unsafe impl Mmu for Faulty {
    type Format = Stage1;

    unsafe fn read(&self, table: PhysAddr, slot: Slot) -> RawEntry {
        // SAFETY: passed on.
        unsafe { self.cpu.read(table, slot) }
    }

    unsafe fn write(&self, table: PhysAddr, slot: Slot, entry: RawEntry) {
        // SAFETY: passed on.
        let current = unsafe { self.cpu.read(table, slot) };
        if !self.skips(slot, current, entry) {
            // SAFETY: passed on.
            unsafe { self.cpu.write(table, slot, entry) }
        }
    }

    unsafe fn compare_exchange(
        &self,
        table: PhysAddr,
        slot: Slot,
        current: RawEntry,
        new: RawEntry,
    ) -> Result<(), RawEntry> {
        if self.skips(slot, current, new) {
            return Ok(());
        }
        let meanwhile = match self.bug {
            Bug::FlagMeanwhile => RawEntry::new(current.get() ^ ACCESSED),
            _ => RawEntry::ABSENT,
        };
        let changes = self.has(Bug::FlagMeanwhile) || self.has(Bug::TakenMeanwhile);
        if changes && matches!(Stage1::decode(Level::Pmd, current), Entry::Leaf(_)) {
            // Once.
            self.armed.store(false, Ordering::Relaxed);
            // SAFETY: passed on.
            unsafe { self.cpu.compare_exchange(table, slot, current, meanwhile) }?;
        }
        // SAFETY: passed on.
        unsafe { self.cpu.compare_exchange(table, slot, current, new) }
    }

    unsafe fn zero_table(&self, table: PhysAddr) {
        if self.has(Bug::NoZeroing) {
            // Once: the last-level table, which is made first.
            self.armed.store(false, Ordering::Relaxed);
        } else {
            // SAFETY: passed on.
            unsafe { self.cpu.zero_table(table) }
        }
    }

    fn publish_table(&self) {
        if !self.has(Bug::NoTablePublish) {
            self.cpu.publish_table();
        }
    }

    fn publish(&self) {
        if !self.has(Bug::NoPublish) {
            self.cpu.publish();
        }
    }

    fn order_before_invalidate(&self) {
        if !self.has(Bug::NoOrder) {
            self.cpu.order_before_invalidate();
        }
    }

    fn invalidate(&self, what: Invalidation) {
        if !self.has(Bug::NoInvalidation) {
            self.cpu.invalidate(self.spoil(what));
        }
    }

    fn invalidate_range(&self, what: Invalidation) {
        if !self.has(Bug::NoInvalidation) {
            self.cpu.invalidate_range(self.spoil(what));
        }
    }

    fn invalidate_all(&self) {
        if !self.has(Bug::NoInvalidation) {
            self.cpu.invalidate_all();
        }
    }

    fn invalidate_asid(&self, asid: Asid) {
        if !self.has(Bug::NoInvalidation) {
            self.cpu.invalidate_asid(asid);
        }
    }

    fn complete(&self) {
        if !self.has(Bug::NoCompletion) {
            self.cpu.complete();
        }
    }

    fn has_range_invalidation(&self) -> bool {
        self.cpu.has_range_invalidation()
    }

    fn bbm_level(&self) -> BbmLevel {
        if self.has(Bug::FalseBbm) { BbmLevel::Two } else { self.cpu.bbm_level() }
    }
}

/// AF (Arm ARM, D8.3.1).
const ACCESSED: u64 = 1 << 10;
const PAGES: MapFlags = MapFlags::NO_HUGE.union(MapFlags::NO_CONT);

fn rig(config: Config, bug: Bug) -> Rig<Faulty> {
    let rig = Rig::with(config, Space::Kernel, |cpu| Faulty { cpu, bug, armed: AtomicBool::new(false) });
    rig.table.mmu().armed.store(true, Ordering::Relaxed);
    rig
}

type Scenario = fn(&Rig<Faulty>);

/// Runs a scenario without a bug, which must pass, and with one, which must not. Returns what was reported.
fn reported(config: Config, bug: Bug, scenario: impl Fn(&Rig<Faulty>)) -> Violations {
    let sound = rig(config, Bug::None);
    scenario(&sound);
    sound.check();
    let spoiled = rig(config, bug);
    scenario(&spoiled);
    let Err(violations) = spoiled.machine.check() else { panic!("{bug:?} went unnoticed") };
    violations
}

fn unmap_pages(rig: &Rig<Faulty>) {
    rig.map(BASE, 8 * PAGE, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
    rig.unmap(BASE, 8 * PAGE, UnmapFlags::empty()).expect("mapped");
    rig.machine.give_away(phys(RAM, 8 * PAGE));
}

fn free_a_table(rig: &Rig<Faulty>) {
    rig.map(BASE, 2 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
    rig.unmap(BASE, 2 * MIB, UnmapFlags::empty()).expect("mapped");
}

#[test]
fn a_missing_flush_is_reported() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        let violations = reported(config, Bug::NoInvalidation, unmap_pages);
        assert!(violations.mention("has a new owner, but CPU 1 still holds"), "{violations:?}");
        assert!(violations.mention("stale translation"), "{violations:?}");
        let violations = reported(config, Bug::NoInvalidation, free_a_table);
        assert!(violations.mention("is freed, but CPU 1 still translates through it"), "{violations:?}");
    }
}

#[test]
fn a_missing_barrier_before_the_invalidation_is_reported() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        // The entry is dropped, fetched again from the old value, and stays.
        let violations = reported(config, Bug::NoOrder, unmap_pages);
        assert!(violations.mention("has a new owner, but CPU 0 still holds"), "{violations:?}");
        let mixed = Config { visibility: Visibility::Mixed(3), ..config };
        let violations = reported(mixed, Bug::NoOrder, unmap_pages);
        assert!(violations.mention("has a new owner"), "{violations:?}");
    }
}

#[test]
fn a_missing_wait_is_reported() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        let violations = reported(config, Bug::NoCompletion, unmap_pages);
        assert!(violations.mention("has a new owner, but CPU 1 still holds"), "{violations:?}");
        assert!(violations.mention("never waited for its invalidations"), "{violations:?}");
        let violations = reported(config, Bug::NoCompletion, free_a_table);
        assert!(violations.mention("is freed, but CPU 1 still translates through it"), "{violations:?}");
    }
}

#[test]
fn a_missing_barrier_after_a_mapping_is_reported() {
    let map = |rig: &Rig<Faulty>| rig.map_data(BASE, PAGE, RAM);
    let violations = reported(Config::CORTEX_A72, Bug::NoPublish, map);
    assert!(violations.mention("never made visible"), "{violations:?}");
    let rig = rig(Config::CORTEX_A72, Bug::NoPublish);
    rig.map_data(BASE, PAGE, RAM);
    assert!(rig.cpu(0).load(va(BASE), Who::Kernel).is_err(), "the walker does not see it");
}

#[test]
fn a_table_linked_before_it_is_visible_is_reported() {
    for visibility in [Visibility::Late, Visibility::Mixed(5)] {
        let config = Config { visibility, ..Config::CORTEX_A72 };
        let violations = reported(config, Bug::NoTablePublish, |rig| rig.map_data(BASE, PAGE, RAM));
        assert!(violations.mention("is linked before walkers can see what it holds"), "{violations:?}");
    }
}

// Behaviour 399
#[test]
fn a_table_that_is_not_zeroed_is_reported() {
    // What the frame held reads as mapped, so the call fails; a walker that gets there first is reported.
    let violations = reported(Config::CORTEX_A72, Bug::NoZeroing, |rig| {
        let _ = rig.map(BASE, PAGE, RAM, Prot::KERNEL_RW, MapFlags::empty());
        rig.cpu(1).speculate(va(BASE + 64 * MIB));
    });
    assert!(violations.mention("that was never written"), "{violations:?}");
}

#[test]
fn a_make_without_a_break_is_reported() {
    const BREAK: LivePolicy = LivePolicy::BreakBeforeMake;
    const AT: u64 = BASE + 6 * MIB;
    let scenarios: [(&str, Scenario); 4] = [
        ("another size or contiguous bit", |rig| {
            rig.map_data(AT, 2 * MIB, RAM);
            raw!(rig.table.carve(&rig.frames, range(AT, PAGE), BREAK)).expect("frames");
        }),
        ("another size or contiguous bit", |rig| {
            rig.map_data(AT + 64 * KIB, 64 * KIB, RAM);
            raw!(rig.table.carve(&rig.frames, range(AT + 64 * KIB, PAGE), BREAK)).expect("no table needed");
        }),
        ("another memory type", |rig| {
            rig.map_data(AT + PAGE, PAGE, RAM);
            let change = Change::memory(MemoryType::NonCacheable);
            raw!(rig.table.protect(range(AT + PAGE, PAGE), change, BREAK)).expect("mapped");
        }),
        ("break-before-make", |rig| {
            rig.map(AT, 2 * MIB, RAM, Prot::KERNEL_RW, PAGES).expect("free range");
            raw!(rig.table.collapse(&rig.frames, range(AT, 2 * MIB), MapFlags::empty(), BREAK)).expect("supported");
        }),
    ];
    for (text, scenario) in scenarios {
        let violations = reported(Config::CORTEX_A72, Bug::NoBreak, scenario);
        assert!(violations.mention("break-before-make"), "{violations:?}");
        assert!(violations.mention(text), "{text}: {violations:?}");
    }
}

#[test]
fn a_make_before_the_flush_is_reported() {
    let rig = rig(Config::CORTEX_A72, Bug::None);
    rig.map_data(BASE, PAGE, RAM);
    let mut gather = rig.table.gather(&rig.frames);
    raw!(rig.table.unmap(range(BASE, PAGE), UnmapFlags::empty(), &mut gather)).expect("mapped");
    rig.map_data(BASE, PAGE, RAM + PAGE);
    gather.flush();
    let violations = rig.machine.check().expect_err("another page before the flush");
    assert!(violations.mention("another output address"), "{violations:?}");
}

#[test]
fn changing_sizes_in_place_without_bbm_level_2_is_reported() {
    let rig = rig(Config::CORTEX_A72, Bug::FalseBbm);
    rig.map_data(BASE, 2 * MIB, RAM);
    raw!(rig.table.carve(&rig.frames, range(BASE, PAGE), LivePolicy::BbmLevel2)).expect("frames");
    let violations = rig.machine.check().expect_err("no such CPU");
    assert!(violations.mention("another size or contiguous bit"), "{violations:?}");
    assert!(violations.mention("TLB conflict"), "{violations:?}");
}

#[test]
fn cached_tables_that_stay_behind_are_reported() {
    // Without range operations a removed table means a full invalidation, which has no depth to get wrong.
    let ranged = Config { range_invalidation: true, ..Config::CORTEX_A72 };
    for config in [ranged, Config::MAX] {
        let violations = reported(config, Bug::LeavesOnly, free_a_table);
        assert!(violations.mention("is freed, but CPU 1 still translates through it"), "{violations:?}");
        assert!(violations.mention("stale table"), "{violations:?}");
    }
}

#[test]
fn a_flush_of_too_little_or_elsewhere_is_reported() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        for bug in [Bug::FirstOnly, Bug::WrongAddress] {
            let violations = reported(config, bug, unmap_pages);
            assert!(violations.mention("has a new owner"), "{bug:?}: {violations:?}");
        }
    }
}

#[test]
fn a_right_that_is_taken_without_a_flush_is_reported() {
    let violations = reported(Config::CORTEX_A72, Bug::NoInvalidation, |rig| {
        rig.map_data(BASE, PAGE, RAM);
        let change = Change::access(Access::ReadOnly);
        raw!(rig.table.protect(range(BASE, PAGE), change, LivePolicy::BreakBeforeMake)).expect("mapped");
    });
    assert!(violations.mention("stale translation"), "{violations:?}");
}

#[test]
fn a_block_whose_flag_changes_while_it_is_split_is_split_as_it_is_then() {
    let rig = rig(Config::MAX, Bug::FlagMeanwhile);
    rig.map_data(BASE, 2 * MIB, RAM);
    raw!(rig.table.carve(&rig.frames, range(BASE + PAGE, PAGE), LivePolicy::BbmLevel2)).unwrap();
    assert!(!rig.table.mmu().armed.load(Ordering::Relaxed), "it has happened");
    let found = rig.table.translate(va(BASE + PAGE)).unwrap();
    assert_eq!(
        (found.phys.get(), found.leaf.level, found.leaf.prot.is_accessed()),
        (RAM + PAGE, LeafLevel::Pte, false)
    );
    rig.table.check().unwrap();
}

#[test]
fn a_block_that_is_taken_away_while_it_is_split_is_named() {
    let rig = rig(Config::MAX, Bug::TakenMeanwhile);
    rig.map_data(BASE, 2 * MIB, RAM);
    let tables = rig.table.check().unwrap().tables;
    let carved = raw!(rig.table.carve(&rig.frames, range(BASE + PAGE, PAGE), LivePolicy::BbmLevel2));
    assert_eq!(carved, Err(PgtableError::Malformed(va(BASE))));
    assert_eq!(rig.table.check().unwrap().tables, tables, "the new table is back");
}
