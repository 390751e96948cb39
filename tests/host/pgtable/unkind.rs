//! What a CPU may do to code that is nearly right: fault once at a mapping that is new to it, walk a table that it has cached
//! while it changes, and use a mapping at the very step at which it is gone. Each with the mistake that it is to find.

use super::rig::{BASE, MIB, PAGE, RAM, Rig, machine, pa, range, va};
use quarry::addr::CpuId;
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, FaultKind, Who};
use quarry::hal::entry::{EntryFormat, RawEntry};
use quarry::hal::frame::FrameSource;
use quarry::hal::level::{LeafLevel, Level};
use quarry::hal::mmu::Mmu;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, UnmapFlags};

const STALE: Config = Config { stale_faults: true, ..Config::CORTEX_A72 };

#[test]
fn a_new_mapping_faults_once_on_a_cpu_that_has_not_synchronised() {
    let rig = Rig::kernel(STALE);
    rig.map_data(BASE, 2 * PAGE, RAM);
    let (maker, other) = (rig.cpu(0), rig.cpu(1));
    assert!(maker.load(va(BASE), Who::Kernel).is_ok(), "who publishes synchronises");
    let fault = other.load(va(BASE), Who::Kernel).expect_err("it may have walked before");
    // The table is as new as the page.
    assert_eq!(fault.kind, FaultKind::Translation(Level::Pgd));
    assert!(other.load(va(BASE), Who::Kernel).is_ok(), "the fault has synchronised it");
    assert!(other.load(va(BASE + PAGE), Who::Kernel).is_ok(), "for all that was new");
    rig.map_data(BASE + 8 * PAGE, PAGE, RAM + 8 * PAGE);
    let fault = other.store(va(BASE + 8 * PAGE), Who::Kernel, 1).expect_err("new again");
    assert_eq!(fault.kind, FaultKind::Translation(Level::Pte));
    rig.map_data(BASE + 9 * PAGE, PAGE, RAM + 9 * PAGE);
    other.complete();
    assert!(other.load(va(BASE + 9 * PAGE), Who::Kernel).is_ok(), "an ISB between");
    assert!(other.load(va(BASE), Who::Kernel).is_ok(), "what is old never faults");
    rig.check();
}

// Planted: the DSB of a new mapping without the ISB behind it.
#[test]
fn without_an_isb_the_cpu_that_mapped_a_page_may_fault_at_it() {
    for isb in [true, false] {
        let machine = machine(STALE);
        let (cpu, frames) = (machine.cpu(CpuId::BOOT), machine.frames());
        let root = frames.alloc_table().expect("a frame");
        // SAFETY: the machine is a model.
        unsafe { cpu.zero_table(root) };
        cpu.publish();
        machine.set_ttbr1(root);
        let tables: Vec<_> = (0..2).map(|_| frames.alloc_table().expect("frames")).collect();
        // SAFETY: the machine is a model.
        tables.iter().for_each(|table| unsafe { cpu.zero_table(*table) });
        let leaf = Stage1::leaf(LeafLevel::Pmd, pa(RAM), Prot::KERNEL_RW, false);
        // SAFETY: the machine is a model.
        unsafe { cpu.write(tables[1], Level::Pmd.slot(va(BASE)), leaf) };
        cpu.publish_table();
        // SAFETY: the machine is a model.
        unsafe { cpu.write(tables[0], Level::Pud.slot(va(BASE)), Stage1::table(tables[1])) };
        cpu.publish_table();
        // SAFETY: the machine is a model.
        unsafe { cpu.write(root, Level::Pgd.slot(va(BASE)), Stage1::table(tables[0])) };
        if isb {
            cpu.publish()
        } else {
            cpu.order_before_invalidate()
        }
        assert_eq!(cpu.load(va(BASE), Who::Kernel).is_ok(), isb);
    }
}

// Planted: a table is taken out, and written to before the invalidation.
#[test]
fn a_table_that_changes_while_it_is_cached_is_reported() {
    for flushed in [true, false] {
        let machine = machine(Config::CORTEX_A72);
        let (cpu, frames) = (machine.cpu(CpuId::BOOT), machine.frames());
        let tables: Vec<_> = (0..4).map(|_| frames.alloc_table().expect("frames")).collect();
        // SAFETY: the machine is a model.
        tables.iter().for_each(|table| unsafe { cpu.zero_table(*table) });
        cpu.publish_table();
        for (pair, level) in tables.windows(2).zip([Level::Pgd, Level::Pud, Level::Pmd]) {
            // SAFETY: the machine is a model.
            unsafe { cpu.write(pair[0], level.slot(va(BASE)), Stage1::table(pair[1])) };
        }
        cpu.publish();
        machine.set_ttbr1(tables[0]);
        // Nothing is mapped in the last table, but CPUs have it cached.
        machine.cpu(CpuId::new(1)).speculate(va(BASE));
        // SAFETY: the machine is a model.
        unsafe { cpu.write(tables[2], Level::Pmd.slot(va(BASE)), RawEntry::ABSENT) };
        cpu.order_before_invalidate();
        if flushed {
            cpu.invalidate_all();
            cpu.complete();
        }
        let leaf = Stage1::leaf(LeafLevel::Pte, pa(RAM), Prot::KERNEL_RW, false);
        // SAFETY: the machine is a model. The table is to lie somewhere else.
        unsafe { cpu.write(tables[3], Level::Pte.slot(va(BASE)), leaf) };
        cpu.publish();
        cpu.invalidate_all();
        cpu.complete();
        match machine.check() {
            Ok(()) => assert!(flushed, "the change went unnoticed"),
            Err(violations) => {
                assert!(!flushed, "{violations:?}");
                assert!(violations.mention("which is not linked any more"), "{violations:?}");
            }
        }
    }
}

#[test]
fn a_promised_mapping_translates_while_its_neighbours_change() {
    let rig = Rig::kernel(Config { bbm: quarry::hal::mmu::BbmLevel::Two, ..Config::CORTEX_A72 });
    rig.map_data(BASE, 4 * MIB, RAM);
    rig.map_data(BASE + 4 * MIB, 3 * PAGE, RAM + 4 * MIB);
    rig.machine.promise(range(BASE, PAGE));
    rig.machine.promise(range(BASE + 2 * MIB - PAGE, 2 * PAGE));
    rig.machine.promise(range(BASE + 4 * MIB, PAGE));
    // A block is split in place around a page; the page goes, and comes back.
    let hole = range(BASE + MIB, PAGE);
    raw!(rig.table.carve(&rig.frames, hole, LivePolicy::BbmLevel2)).expect("frames");
    rig.unmap(BASE + MIB, PAGE, UnmapFlags::empty()).expect("mapped");
    rig.map_data(BASE + MIB, PAGE, RAM + MIB);
    let policy = LivePolicy::BbmLevel2;
    raw!(rig.table.collapse(&rig.frames, range(BASE, 2 * MIB), MapFlags::empty(), policy)).expect("alike again");
    raw!(rig.table.protect(range(BASE, PAGE), Change::access(Access::ReadOnly), policy)).expect_err("inside a block");
    rig.unmap(BASE + 4 * MIB + PAGE, 2 * PAGE, UnmapFlags::empty()).expect("mapped");
    rig.check();
}

// Planted: the mapping is broken for a moment, or goes.
#[test]
fn a_promised_mapping_that_is_broken_for_a_moment_is_reported() {
    let broken = |rig: &Rig| {
        raw!(rig.table.carve(&rig.frames, range(BASE + MIB, PAGE), LivePolicy::BreakBeforeMake)).expect("frames");
    };
    let gone = |rig: &Rig| rig.unmap(BASE, 2 * MIB, UnmapFlags::empty()).expect("mapped");
    let scenarios: [&dyn Fn(&Rig); 2] = [&broken, &gone];
    for scenario in scenarios {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.map_data(BASE, 2 * MIB, RAM);
        rig.machine.promise(range(BASE, PAGE));
        rig.machine.check().expect("so far it is there");
        scenario(&rig);
        let violations = rig.machine.check().expect_err("a CPU may have used it at this step");
        assert!(violations.mention("was promised"), "{violations:?}");
        rig.machine.withdraw_promises();
    }
}
