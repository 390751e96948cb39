//! The simulated machine itself: what accesses do, and what the oracle sees without any page-table code.

use super::rig::{BASE, PAGE, RAM, Rig, machine, pa, va};
use quarry::addr::CpuId;
use quarry::arch::aarch64::desc::Stage1;
use quarry::arch::host::{Config, FaultKind, Machine, Who};
use quarry::hal::entry::{EntryFormat, RawEntry};
use quarry::hal::frame::FrameSource;
use quarry::hal::level::{LeafLevel, Level, Slot};
use quarry::hal::mmu::Mmu;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::MapFlags;

const NO_FLAGS: MapFlags = MapFlags::empty();

#[test]
fn accesses_fault_as_the_mapping_says() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map(BASE, PAGE, RAM, Prot::KERNEL_RO, NO_FLAGS).expect("free page");
    rig.map(BASE + PAGE, PAGE, RAM + PAGE, Prot::KERNEL_RX, NO_FLAGS).expect("free page");
    rig.map(BASE + 2 * PAGE, PAGE, RAM + 2 * PAGE, Prot::KERNEL_DEVICE, NO_FLAGS).expect("free page");
    let cpu = rig.cpu(1);
    let kind = |result: Result<(), quarry::arch::host::Fault>| result.map_err(|fault| fault.kind);
    assert_eq!(kind(cpu.store(va(BASE), Who::Kernel, 1)), Err(FaultKind::Permission));
    assert_eq!(kind(cpu.load(va(BASE), Who::User).map(drop)), Err(FaultKind::Permission));
    assert_eq!(cpu.fetch(va(BASE + PAGE + 8), Who::Kernel), Ok(pa(RAM + PAGE + 8)));
    assert_eq!(kind(cpu.fetch(va(BASE + PAGE), Who::User).map(drop)), Err(FaultKind::Permission));
    assert_eq!(kind(cpu.fetch(va(BASE), Who::Kernel).map(drop)), Err(FaultKind::Permission));
    assert_eq!(kind(cpu.load(va(BASE + 2 * PAGE + 4), Who::Kernel).map(drop)), Err(FaultKind::Alignment));
    assert_eq!(kind(cpu.store(va(BASE + 2 * PAGE + 8), Who::Kernel, 1)), Ok(()));
    assert_eq!(kind(cpu.load(va(BASE + 3 * PAGE), Who::Kernel).map(drop)), Err(FaultKind::Translation(Level::Pte)));
    assert_eq!(kind(cpu.load(va(0), Who::Kernel).map(drop)), Err(FaultKind::Translation(Level::Pgd)));
    assert_eq!(kind(cpu.load(va(1 << 50), Who::Kernel).map(drop)), Err(FaultKind::Translation(Level::Pgd)));
    let user = Rig::user(Config::CORTEX_A72);
    user.map(PAGE, PAGE, RAM, Prot::user(Access::Execute), NO_FLAGS).expect("free page");
    assert!(user.cpu(1).fetch(va(PAGE), Who::User).is_ok());
    assert_eq!(kind(user.cpu(1).fetch(va(PAGE), Who::Kernel).map(drop)), Err(FaultKind::Permission));
    rig.check();
    user.check();
}

/// A last-level table for the pages from `BASE` on, linked by hand on CPU 0, published.
fn by_hand(config: Config) -> (Machine, quarry::addr::PhysAddr) {
    let machine = machine(config);
    let (cpu, frames) = (machine.cpu(CpuId::BOOT), machine.frames());
    let tables: Vec<_> = (0..4).map(|_| frames.alloc_table().expect("frames")).collect();
    for &table in &tables {
        // SAFETY: the machine is a model.
        unsafe { cpu.zero_table(table) };
    }
    cpu.publish_table();
    for (pair, level) in tables.windows(2).zip([Level::Pgd, Level::Pud, Level::Pmd]) {
        // SAFETY: the machine is a model.
        unsafe { cpu.write(pair[0], level.slot(va(BASE)), Stage1::table(pair[1])) };
    }
    cpu.publish();
    machine.set_ttbr1(tables[0]);
    (machine, tables[3])
}

fn slot(index: usize) -> Slot {
    Slot::new(index).expect("in the table")
}

fn page(to: u64, contiguous: bool) -> RawEntry {
    Stage1::leaf(LeafLevel::Pte, pa(to), Prot::KERNEL_RW, contiguous)
}

#[test]
fn an_inconsistent_contiguous_group_is_reported() {
    let spoiled: [(u64, bool, Prot); 3] = [
        (RAM + 9 * PAGE, true, Prot::KERNEL_RW),
        (RAM + 5 * PAGE, true, Prot::KERNEL_RO),
        (RAM + 5 * PAGE, false, Prot::KERNEL_RW),
    ];
    for (to, contiguous, prot) in spoiled {
        let (machine, table) = by_hand(Config::CORTEX_A72);
        let cpu = machine.cpu(CpuId::BOOT);
        for index in 0..16 {
            let entry = match index {
                5 => Stage1::leaf(LeafLevel::Pte, pa(to), prot, contiguous),
                _ => page(RAM + index * PAGE, true),
            };
            // SAFETY: the machine is a model.
            unsafe { cpu.write(table, slot(usize::try_from(index).expect("small")), entry) };
        }
        cpu.publish();
        let violations = machine.check().expect_err("a broken group");
        assert!(violations.mention("inconsistent contiguous group"), "{violations:?}");
    }
}

#[test]
fn a_group_over_unaligned_memory_is_reported() {
    let (machine, table) = by_hand(Config::CORTEX_A72);
    let cpu = machine.cpu(CpuId::BOOT);
    for index in 0..16 {
        let entry = page(RAM + PAGE + index * PAGE, true);
        // SAFETY: the machine is a model.
        unsafe { cpu.write(table, slot(usize::try_from(index).expect("small")), entry) };
    }
    cpu.publish();
    assert!(machine.check().expect_err("a broken group").mention("inconsistent contiguous group"));
}

#[test]
fn a_malformed_entry_is_reported_when_a_walker_meets_it() {
    let (machine, table) = by_hand(Config::CORTEX_A72);
    let cpu = machine.cpu(CpuId::BOOT);
    // SAFETY: the machine is a model.
    unsafe { cpu.write(table, slot(3), RawEntry::new(page(RAM, false).get() & !(1 << 53))) };
    cpu.publish();
    assert!(machine.check().expect_err("writable and executable").mention("WritableExecutable"));
}

#[test]
fn a_new_page_in_a_live_entry_is_reported_even_after_a_break_without_a_flush() {
    for flushed in [false, true] {
        let (machine, table) = by_hand(Config::CORTEX_A72);
        let cpu = machine.cpu(CpuId::BOOT);
        let write = |entry| {
            // SAFETY: the machine is a model.
            unsafe { cpu.write(table, slot(0), entry) };
            cpu.publish();
        };
        write(page(RAM, false));
        write(RawEntry::ABSENT);
        if flushed {
            cpu.invalidate_all();
            cpu.complete();
        }
        write(page(RAM + PAGE, false));
        match machine.check() {
            Ok(()) => assert!(flushed, "the missing flush went unnoticed"),
            Err(violations) => {
                assert!(!flushed, "{violations:?}");
                assert!(violations.mention("another output address"), "{violations:?}");
            }
        }
    }
}

#[test]
fn without_eagerness_only_accesses_fill_the_tlb() {
    let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
    rig.map_data(BASE, PAGE, RAM);
    let mut gather = rig.table.gather(&rig.frames);
    let page = super::rig::range(BASE, PAGE);
    raw!(rig.table.unmap(page, quarry::mm::pgtable::UnmapFlags::KEEP_TABLES, &mut gather)).expect("mapped");
    rig.cpu(0).publish();
    assert!(rig.cpu(1).load(va(BASE), Who::Kernel).is_err(), "nothing was cached");
    gather.flush();
    rig.check();
}
