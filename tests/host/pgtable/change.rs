//! Changing protections in place and by break-before-make.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, phys, range, va};
use quarry::arch::host::{Config, FaultKind, Who};
use quarry::hal::entry::Leaf;
use quarry::hal::prot::{Access, MemoryType, Prot, ProtError};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PgtableError, UnmapFlags};

const BREAK: LivePolicy = LivePolicy::BreakBeforeMake;
const READ_ONLY: Change = Change::access(Access::ReadOnly);

fn leaf(rig: &Rig, addr: u64) -> Leaf {
    rig.table.translate(va(addr)).expect("mapped").leaf
}

// Behaviour 367
#[test]
fn two_pages_inside_a_block_are_protected_alone() {
    for (config, policy) in [(Config::CORTEX_A72, BREAK), (Config::MAX, LivePolicy::BbmLevel2)] {
        let rig = Rig::kernel(config);
        rig.map(BASE, 514 * 2 * MIB + 2 * PAGE, RAM, Prot::KERNEL_RW, MapFlags::empty()).expect("free range");
        let at = BASE + 513 * 2 * MIB + 7 * PAGE;
        let two = range(at, 2 * PAGE);
        let whole = raw!(rig.table.protect(two, READ_ONLY, policy));
        assert_eq!(whole, Err(PgtableError::WouldSplit(va(at))));
        raw!(rig.table.carve(&rig.frames, two, policy)).expect("frames");
        raw!(rig.table.protect(two, READ_ONLY, policy)).expect("carved");
        for page in 0..512 {
            let addr = BASE + 513 * 2 * MIB + page * PAGE;
            assert_eq!(rig.phys_at(addr), Some(RAM + 513 * 2 * MIB + page * PAGE));
            assert_eq!(leaf(&rig, addr).prot.is_writable(), !(7..9).contains(&page));
        }
        assert_eq!(rig.check().pages, 512 + 2);
    }
}

// Behaviour 369
#[test]
fn protecting_what_is_not_mapped_changes_nothing() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let protect = |start, size| raw!(rig.table.protect(range(start, size), READ_ONLY, BREAK));
    assert_eq!(protect(BASE, PAGE), Err(PgtableError::NotMapped(va(BASE))));
    rig.map_data(BASE, 4 * PAGE, RAM);
    rig.map_data(BASE + 5 * PAGE, PAGE, RAM + PAGE);
    assert_eq!(protect(BASE, 6 * PAGE), Err(PgtableError::NotMapped(va(BASE + 4 * PAGE))));
    assert_eq!(protect(BASE + 5 * PAGE, 2 * PAGE), Err(PgtableError::NotMapped(va(BASE + 6 * PAGE))));
    assert!(leaf(&rig, BASE).prot.is_writable());
    assert!(leaf(&rig, BASE + 5 * PAGE).prot.is_writable());
    rig.check();
}

#[test]
fn device_memory_cannot_be_made_executable() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map(BASE, PAGE, RAM, Prot::KERNEL_DEVICE, MapFlags::empty()).expect("free page");
    rig.map(BASE + PAGE, PAGE, RAM + PAGE, Prot::KERNEL_RX, MapFlags::empty()).expect("free page");
    let refused = Err(PgtableError::Prot(ProtError::ExecutableDevice));
    let page = |index| range(BASE + index * PAGE, PAGE);
    assert_eq!(raw!(rig.table.protect(page(0), Change::access(Access::Execute), BREAK)), refused);
    assert_eq!(raw!(rig.table.protect(page(1), Change::memory(MemoryType::DeviceNGnRE), BREAK)), refused);
    rig.check();
}

// Behaviour 371: a leaf is visited once, however many table entries lead to it.
#[test]
fn a_walk_over_two_pages_shows_two_leaves() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE + 2 * MIB - PAGE, 2 * PAGE, RAM);
    let (mut leaves, mut tables) = (0, 0);
    let _ = rig.table.walk(range(BASE + 2 * MIB - PAGE, 2 * PAGE), |visit| {
        if visit.is_table() {
            tables += 1
        } else {
            leaves += 1
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    assert_eq!((leaves, tables), (2, 4));
}

// Behaviour 374, 375: on live pages and on blocks of both sizes each change shows that change alone.
#[test]
fn a_change_of_a_flag_changes_nothing_else() {
    for (size, level) in [(PAGE, 3), (2 * MIB, 2), (GIB, 1)] {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.map_data(BASE, size, RAM);
        let before = leaf(&rig, BASE);
        assert_eq!(before.level as u64, level);
        let apply = |change| {
            raw!(rig.table.protect(range(BASE, size), change, BREAK)).expect("mapped");
            rig.check();
            leaf(&rig, BASE)
        };
        let old = apply(Change { accessed: Some(false), ..Change::default() });
        assert_eq!(old, Leaf { prot: before.prot.with_accessed(false), ..before });
        let young = apply(Change { accessed: Some(true), ..Change::default() });
        assert_eq!(young, before);
        let clean = apply(Change { dirty: Some(false), ..Change::default() });
        assert_eq!(clean, Leaf { prot: before.prot.with_dirty(false), ..before });
        let dirty = apply(Change { dirty: Some(true), ..Change::default() });
        assert_eq!(dirty, before);
        let protected = apply(READ_ONLY);
        assert_eq!(protected.prot, before.prot.with_access(Access::ReadOnly).expect("not executable"));
        assert!(protected.prot.is_dirty());
        assert_eq!(apply(Change::access(Access::ReadWrite)), before);
        rig.unmap(BASE, size, UnmapFlags::empty()).expect("mapped");
        assert_eq!(rig.phys_at(BASE), None);
        rig.check();
    }
}

// Behaviour 384: the oracle of the machine reports each of these if it is done in one step (see `faulty`).
#[test]
fn a_memory_type_changes_by_break_before_make() {
    for (size, policy) in [(5 * PAGE, BREAK), (64 * KIB, BREAK), (4 * MIB, BREAK), (GIB, BREAK)] {
        for config in [Config::CORTEX_A72, Config::MAX] {
            let rig = Rig::kernel(config);
            rig.map_data(BASE, size, RAM);
            let change = Change::memory(MemoryType::NonCacheable);
            raw!(rig.table.protect(range(BASE, size), change, policy)).expect("mapped");
            assert_eq!(leaf(&rig, BASE + size - 1).prot.memory(), MemoryType::NonCacheable);
            assert_eq!(rig.phys_at(BASE + size - 1), Some(RAM + size - 1));
            rig.check();
        }
    }
}

#[test]
fn a_memory_type_of_a_mapping_in_use_is_refused() {
    let rig = Rig::kernel(Config::MAX);
    rig.map_data(BASE, PAGE, RAM);
    let change = Change::memory(MemoryType::NonCacheable);
    let refused = raw!(rig.table.protect(range(BASE, PAGE), change, LivePolicy::BbmLevel2));
    assert_eq!(refused, Err(PgtableError::NeedsBreak(va(BASE))));
    let same = Change::memory(MemoryType::WriteBack);
    assert_eq!(raw!(rig.table.protect(range(BASE, PAGE), same, LivePolicy::BbmLevel2)), Ok(()));
    rig.check();
}

#[test]
fn a_contiguous_group_keeps_together_or_is_unfolded() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, 64 * KIB, RAM);
    raw!(rig.table.protect(range(BASE, 64 * KIB), READ_ONLY, BREAK)).expect("a whole group");
    assert_eq!(rig.check().groups, 1);
    let rig = Rig::kernel(Config::MAX);
    rig.map_data(BASE, 64 * KIB, RAM);
    raw!(rig.table.protect(range(BASE, 64 * KIB), READ_ONLY, LivePolicy::BbmLevel2)).expect("a whole group");
    let census = rig.check();
    assert_eq!((census.pages, census.groups), (16, 0));
}

// Behaviour 385: after the call no CPU acts on the old right, though every CPU had it in its TLB.
#[test]
fn rights_taken_away_are_gone_on_every_cpu_when_the_call_returns() {
    let rig = Rig::kernel(Config { cpus: 4, ..Config::CORTEX_A72 });
    for round in 0..500_u64 {
        let to = RAM + round * PAGE;
        rig.map_data(BASE, PAGE, to);
        (0..4).for_each(|cpu| rig.cpu(cpu).store(va(BASE), Who::Kernel, round).expect("writable"));
        raw!(rig.table.protect(range(BASE, PAGE), READ_ONLY, BREAK)).expect("mapped");
        for cpu in 0..4 {
            let fault = rig.cpu(cpu).store(va(BASE), Who::Kernel, 0).expect_err("read-only");
            assert_eq!(fault.kind, FaultKind::Permission);
            assert_eq!(rig.cpu(cpu).load(va(BASE), Who::Kernel), Ok(round));
        }
        raw!(rig.table.protect(range(BASE, PAGE), Change::access(Access::Execute), BREAK)).expect("mapped");
        (0..4).for_each(|cpu| assert!(rig.cpu(cpu).fetch(va(BASE), Who::Kernel).is_ok()));
        raw!(rig.table.protect(range(BASE, PAGE), READ_ONLY, BREAK)).expect("mapped");
        (0..4).for_each(|cpu| assert!(rig.cpu(cpu).fetch(va(BASE), Who::Kernel).is_err()));
        rig.unmap(BASE, PAGE, UnmapFlags::empty()).expect("mapped");
        (0..4).for_each(|cpu| assert!(rig.cpu(cpu).load(va(BASE), Who::Kernel).is_err()));
        rig.machine.give_away(phys(to, PAGE));
    }
    rig.check();
}

// Behaviour 386: an upgrade is flushed too, so nobody meets the old right, and no spurious fault needs a retry.
#[test]
fn rights_given_are_there_on_every_cpu_when_the_call_returns() {
    let rig = Rig::kernel(Config { cpus: 4, ..Config::CORTEX_A72 });
    rig.map(BASE, PAGE, RAM, Prot::KERNEL_RO, MapFlags::empty()).expect("free page");
    (0..4).for_each(|cpu| assert!(rig.cpu(cpu).store(va(BASE), Who::Kernel, 1).is_err()));
    raw!(rig.table.protect(range(BASE, PAGE), Change::access(Access::ReadWrite), BREAK)).expect("mapped");
    (0..4).for_each(|cpu| assert_eq!(rig.cpu(cpu).store(va(BASE), Who::Kernel, 1), Ok(())));
    rig.check();
}

// Behaviour 390
#[test]
fn an_old_page_faults_once_or_is_marked_by_the_hardware() {
    let old = Prot::user(Access::ReadOnly).with_accessed(false);
    let rig = Rig::user(Config::CORTEX_A72);
    rig.map(0, PAGE, RAM, old, MapFlags::empty()).expect("free page");
    assert_eq!(rig.cpu(1).load(va(0), Who::User).map_err(|fault| fault.kind), Err(FaultKind::AccessFlag));
    let young = Change { accessed: Some(true), ..Change::default() };
    raw!(rig.table.protect(range(0, PAGE), young, BREAK)).expect("mapped");
    assert!(rig.cpu(1).load(va(0), Who::User).is_ok());
    rig.check();
    let rig = Rig::user(Config::MAX);
    rig.map(0, PAGE, RAM, old, MapFlags::empty()).expect("free page");
    assert!(rig.cpu(1).load(va(0), Who::User).is_ok());
    assert!(leaf(&rig, 0).prot.is_accessed());
    rig.check();
}

// Behaviour 391
#[test]
fn a_clean_page_faults_on_the_first_write_or_is_marked_by_the_hardware() {
    let clean = Prot::user(Access::ReadWrite);
    let rig = Rig::user(Config::CORTEX_A72);
    rig.map(0, PAGE, RAM, clean, MapFlags::empty()).expect("free page");
    assert_eq!(rig.cpu(1).store(va(0), Who::User, 1).map_err(|fault| fault.kind), Err(FaultKind::Permission));
    let dirty = Change { dirty: Some(true), ..Change::default() };
    raw!(rig.table.protect(range(0, PAGE), dirty, BREAK)).expect("mapped");
    assert_eq!(rig.cpu(1).store(va(0), Who::User, 1), Ok(()));
    rig.check();
    let rig = Rig::user(Config::MAX);
    rig.map(0, PAGE, RAM, clean, MapFlags::empty()).expect("free page");
    assert_eq!(rig.cpu(1).store(va(0), Who::User, 1), Ok(()));
    assert!(leaf(&rig, 0).prot.is_dirty());
    rig.check();
}
