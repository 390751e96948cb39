//! What reads the tables as a whole: the dump, the W^X checker, the invariants' check.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, va};
use quarry::addr::PhysAddr;
use quarry::arch::aarch64::desc::{self, Stage1};
use quarry::arch::host::Config;
use quarry::hal::entry::{Defect, EntryFormat, RawEntry};
use quarry::hal::level::{LeafLevel, Level};
use quarry::hal::mmu::Mmu;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::pgtable::wx::{self, WxProblem};
use quarry::mm::pgtable::{CheckError, MapFlags, Marker, PageTable, Space};

const NO_FLAGS: MapFlags = MapFlags::empty();

fn dump(rig: &Rig, markers: &[Marker<'_>]) -> String {
    let mut text = String::new();
    rig.table.dump(&mut text, markers).expect("a string takes all");
    text
}

/// Overwrites the entry that translates `addr` at `level`, behind the page-table code's back.
fn plant(rig: &Rig, addr: u64, level: Level, entry: u64) {
    let mut table = rig.table.root();
    for above in [Level::Pgd, Level::Pud, Level::Pmd] {
        if above < level {
            // SAFETY: the machine is a model.
            let next = unsafe { rig.table.mmu().read(table, above.slot(va(addr))) };
            table = Stage1::next_table(next).expect("a table on the way");
        }
    }
    // SAFETY: the machine is a model.
    unsafe { rig.table.mmu().write(table, level.slot(va(addr)), RawEntry::new(entry)) };
    rig.table.mmu().publish();
}

fn page(to: u64, prot: Prot) -> u64 {
    Stage1::leaf(LeafLevel::Pte, PhysAddr::new(to), prot, false).get()
}

// Behaviour 382
#[test]
fn a_dump_merges_equal_neighbours_and_breaks_at_every_change() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let map = |offset: u64, size, to, prot, flags| rig.map(BASE + offset, size, to, prot, flags).expect("free range");
    map(0, 2 * GIB, RAM, Prot::KERNEL_RW, NO_FLAGS);
    map(2 * GIB, 34 * MIB, RAM + 2 * GIB, Prot::KERNEL_RW, NO_FLAGS);
    map(3 * GIB, 64 * KIB + 2 * PAGE, RAM, Prot::KERNEL_RO, NO_FLAGS);
    map(3 * GIB + 64 * KIB + 2 * PAGE, PAGE, RAM + 7 * PAGE, Prot::KERNEL_RO, NO_FLAGS);
    map(3 * GIB + 64 * KIB + 3 * PAGE, PAGE, RAM, Prot::KERNEL_RX, NO_FLAGS);
    let nc = Prot::KERNEL_RW.with_memory(MemoryType::NonCacheable).expect("not executable");
    map(3 * GIB + 64 * KIB + 4 * PAGE, PAGE, RAM, nc, NO_FLAGS);
    map(3 * GIB + 64 * KIB + 6 * PAGE, 2 * PAGE, RAM, Prot::KERNEL_DEVICE, NO_FLAGS);
    let markers = [
        Marker { start: va(0xffff_0000_0000_0000), name: "Linear map" },
        Marker { start: va(BASE), name: "vmalloc() area" },
        Marker { start: va(BASE + GIB), name: "second gigabyte" },
        Marker { start: va(BASE + 512 * GIB), name: "Fixmap" },
    ];
    let expected = "\
---[ Linear map ]---
---[ vmalloc() area ]---
0xffff800000000000-0xffff800040000000         1G     PUD     RW NX    MEM/WB
---[ second gigabyte ]---
0xffff800040000000-0xffff800080000000         1G     PUD     RW NX    MEM/WB
0xffff800080000000-0xffff800082000000        32M CON PMD     RW NX    MEM/WB
0xffff800082000000-0xffff800082200000         2M     PMD     RW NX    MEM/WB
0xffff8000c0000000-0xffff8000c0010000        64K CON PTE     ro NX    MEM/WB
0xffff8000c0010000-0xffff8000c0013000        12K     PTE     ro NX    MEM/WB
0xffff8000c0013000-0xffff8000c0014000         4K     PTE     ro x     MEM/WB
0xffff8000c0014000-0xffff8000c0015000         4K     PTE     RW NX    MEM/NC
0xffff8000c0016000-0xffff8000c0018000         8K     PTE     RW NX    DEVICE/nGnRE
---[ Fixmap ]---
";
    assert_eq!(dump(&rig, &markers), expected);
    rig.check();
}

// Behaviour 382: the end of the last page has no 64-bit number.
#[test]
fn a_dump_includes_the_last_page_of_the_address_space() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(0xffff_ffff_ffff_d000, 2 * PAGE, RAM);
    plant(&rig, 0xffff_ffff_ffff_f000, Level::Pte, page(RAM + 9 * PAGE, Prot::KERNEL_RW));
    let expected = "0xffffffffffffd000-0x10000000000000000        12K     PTE     RW NX    MEM/WB\n";
    assert_eq!(dump(&rig, &[]), expected);
}

#[test]
fn a_dump_names_what_is_malformed() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, PAGE, RAM);
    plant(&rig, BASE + PAGE, Level::Pte, page(RAM, Prot::KERNEL_RW) & !desc::PXN);
    assert!(dump(&rig, &[]).contains("PTE MALFORMED: writable and executable"), "{}", dump(&rig, &[]));
}

#[test]
fn a_dump_tells_user_entries() {
    let rig = Rig::user(Config::CORTEX_A72);
    rig.map(0, PAGE, RAM, Prot::user(Access::Execute), NO_FLAGS).expect("free page");
    let expected = "0x0000000000000000-0x0000000000001000         4K     PTE USR ro x  NG MEM/WB\n";
    assert_eq!(dump(&rig, &[]), expected);
}

/// A kernel with text, constants and data, and nothing wrong.
fn kernel() -> Rig {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map(BASE, 64 * KIB, RAM, Prot::KERNEL_RX, NO_FLAGS).expect("text");
    rig.map(BASE + MIB, 4 * PAGE, RAM + MIB, Prot::KERNEL_RO, NO_FLAGS).expect("rodata");
    rig.map(BASE + GIB, GIB, RAM + GIB, Prot::KERNEL_RW, NO_FLAGS).expect("linear map");
    rig.map(BASE + 2 * GIB, 64 * KIB, RAM, Prot::KERNEL_RO, NO_FLAGS).expect("linear alias of the text");
    rig
}

// Behaviour 379
#[test]
fn a_sound_kernel_passes_and_its_entries_are_counted() {
    let rig = kernel();
    let report = wx::check(&[&rig.table]).expect("nothing wrong");
    // One entry at the root, three below it, one table for 2 MiB in two of those; 16 + 4 + 1 + 16 leaves.
    assert_eq!(report.entries, 1 + 2 + 2 + 37);
    assert_eq!(report.executable, 64 * KIB);
}

// Behaviour 379, 380
#[test]
fn every_dangerous_entry_is_reported_with_its_range() {
    let at = BASE + MIB + 9 * PAGE;
    let rx = page(RAM + 2 * MIB, Prot::KERNEL_RX);
    let rw = page(RAM + 2 * MIB, Prot::KERNEL_RW);
    for (entry, defect) in [
        (rw & !desc::PXN, Defect::WritableExecutable),
        (rx & !desc::AP_READ_ONLY, Defect::WritableExecutable),
        (rx & !desc::AP_READ_ONLY | desc::CONTIGUOUS, Defect::WritableExecutable),
        (rx & !desc::UXN, Defect::KernelWithoutUxn),
        (page(RAM, Prot::KERNEL_RO) & !desc::UXN, Defect::KernelWithoutUxn),
    ] {
        let rig = kernel();
        plant(&rig, at, Level::Pte, entry);
        let violation = wx::check(&[&rig.table]).expect_err("planted");
        assert_eq!((violation.start, violation.last), (va(at), va(at + PAGE - 1)));
        assert_eq!(violation.problem, WxProblem::Entry(defect));
        assert_eq!(rig.table.check(), Err(CheckError::Malformed(va(at), defect)));
    }
}

// Behaviour 380
#[test]
fn hierarchical_permissions_are_reported() {
    for bit in 59..64 {
        let rig = kernel();
        let table = rig.frames.clone();
        let frame = quarry::hal::frame::FrameSource::alloc_table(&table).expect("a frame");
        plant(&rig, BASE + 3 * GIB, Level::Pud, Stage1::table(frame).get() | 1 << bit);
        let violation = wx::check(&[&rig.table]).expect_err("planted");
        assert_eq!(violation.problem, WxProblem::Entry(Defect::TableAttributes));
        assert_eq!((violation.start, violation.last), (va(BASE + 3 * GIB), va(BASE + 4 * GIB - 1)));
    }
}

// Behaviour 381 (promise 4): the alias is found through blocks, and in another root.
#[test]
fn a_writable_alias_of_executable_memory_is_reported() {
    let rig = kernel();
    rig.map(BASE + 4 * GIB, GIB, RAM, Prot::KERNEL_RW, NO_FLAGS).expect("free range");
    let violation = wx::check(&[&rig.table]).expect_err("planted");
    assert_eq!(violation.problem, WxProblem::WritableAlias(va(BASE)));
    assert_eq!((violation.start, violation.last), (va(BASE + 4 * GIB), va(BASE + 5 * GIB - 1)));

    let rig = kernel();
    // SAFETY: the machine is a model.
    let idmap = unsafe { PageTable::new(rig.cpu(0), &rig.frames, Space::Identity) }.expect("a root");
    let map = |start: u64, prot| {
        let page = super::rig::range(start, PAGE);
        raw!(idmap.map(&rig.frames, page, PhysAddr::new(start), prot, NO_FLAGS)).expect("free page");
    };
    map(RAM + 4 * GIB, Prot::KERNEL_RX);
    assert_eq!(wx::check(&[&rig.table, &idmap]).map(|report| report.executable), Ok(64 * KIB + PAGE));
    map(RAM + 8 * PAGE, Prot::KERNEL_RW);
    let violation = wx::check(&[&rig.table, &idmap]).expect_err("planted");
    assert_eq!(violation.problem, WxProblem::WritableAlias(va(BASE)));
    assert_eq!(violation.start, va(RAM + 8 * PAGE));
}

// Behaviour 381: of many mappings that follow on, the first that overlaps is named, whatever lies before it.
#[test]
fn of_neighbouring_mappings_the_one_at_fault_is_reported() {
    let rig = kernel();
    rig.map(BASE + 4 * GIB + 3 * PAGE, 9 * PAGE, RAM - 2 * PAGE, Prot::KERNEL_RW, NO_FLAGS).expect("free range");
    let violation = wx::check(&[&rig.table]).expect_err("planted");
    assert_eq!(violation.problem, WxProblem::WritableAlias(va(BASE)));
    let at = BASE + 4 * GIB + 5 * PAGE;
    assert_eq!((violation.start, violation.last), (va(at), va(at + PAGE - 1)));
}

#[test]
fn leaves_do_not_follow_on_beyond_the_last_output_address() {
    let rig = kernel();
    let last = page(0xffff_ffff_f000, Prot::KERNEL_RO);
    plant(&rig, BASE + MIB + 8 * PAGE, Level::Pte, last);
    assert!(wx::check(&[&rig.table]).is_ok());
    plant(&rig, BASE + MIB + 9 * PAGE, Level::Pte, last + PAGE);
    let violation = wx::check(&[&rig.table]).expect_err("planted");
    assert_eq!(violation.problem, WxProblem::Entry(Defect::ReservedBits));
    assert_eq!(violation.start, va(BASE + MIB + 9 * PAGE));
}

// Many tables, and gaps of every length between entries.
#[test]
fn entries_are_counted_wherever_they_stand() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let mut expected = 0;
    let mut at = BASE;
    for index in 0..200 {
        rig.map(at, PAGE, RAM + index * 8 * PAGE, Prot::KERNEL_RO, NO_FLAGS).expect("free page");
        at += (1 + index * 5) * PAGE;
    }
    let _ = rig.table.walk_all::<()>(|_| {
        expected += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(wx::check(&[&rig.table]).map(|report| report.entries), Ok(expected));
}

#[test]
fn memory_that_user_space_executes_is_neither_written_by_it_nor_executed_by_the_kernel() {
    let kernel = Rig::kernel(Config::CORTEX_A72);
    // SAFETY: the machine is a model.
    let user = unsafe { PageTable::new(kernel.cpu(0), &kernel.frames, Space::User(super::rig::ASID)) }.expect("a root");
    let page = super::rig::range(0, PAGE);
    raw!(user.map(&kernel.frames, page, PhysAddr::new(RAM), Prot::user(Access::Execute), NO_FLAGS)).expect("free page");
    kernel.map(BASE, PAGE, RAM, Prot::KERNEL_RO, NO_FLAGS).expect("free page");
    assert!(wx::check(&[&kernel.table, &user]).is_ok());
    kernel.map(BASE + PAGE, PAGE, RAM, Prot::KERNEL_RX, NO_FLAGS).expect("free page");
    let violation = wx::check(&[&kernel.table, &user]).expect_err("planted");
    assert_eq!(violation.problem, WxProblem::KernelAlias(va(0)));
    assert_eq!(violation.start, va(BASE + PAGE));
}

#[test]
fn more_executable_ranges_than_one_round_takes_are_all_checked() {
    for writable in [None, Some(0), Some(31), Some(32), Some(69)] {
        let rig = Rig::kernel(Config::CORTEX_A72);
        for index in 0..70 {
            rig.map(BASE + index * PAGE, PAGE, RAM + 2 * index * PAGE, Prot::KERNEL_RX, NO_FLAGS).expect("free page");
        }
        if let Some(index) = writable {
            rig.map_data(BASE + GIB, PAGE, RAM + 2 * index * PAGE);
        }
        let result = wx::check(&[&rig.table]);
        match writable {
            None => {
                let report = result.expect("nothing wrong");
                assert_eq!((report.entries, report.executable), (1 + 1 + 1 + 70, 70 * PAGE));
            }
            Some(index) => {
                let problem = result.map_err(|violation| violation.problem);
                assert_eq!(problem, Err(WxProblem::WritableAlias(va(BASE + index * PAGE))));
            }
        }
    }
}

#[test]
fn the_check_names_the_invariant_that_is_broken() {
    let group =
        |index: u64| Stage1::leaf(LeafLevel::Pte, PhysAddr::new(RAM + index * PAGE), Prot::KERNEL_RW, true).get();
    for (slot, entry) in [(3, 0), (15, group(14)), (0, group(0) & !desc::CONTIGUOUS), (7, page(0, Prot::KERNEL_RW))] {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.map_data(BASE, 64 * KIB, RAM);
        plant(&rig, BASE + slot * PAGE, Level::Pte, entry);
        let broken = rig.table.check().expect_err("planted");
        assert!(broken.to_string().starts_with("PT-2"), "{broken}");
    }
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, PAGE, RAM);
    plant(&rig, BASE + PAGE, Level::Pte, page(RAM, Prot::user(Access::ReadOnly)));
    assert_eq!(rig.table.check(), Err(CheckError::WrongPrivilege(va(BASE + PAGE))));
    plant(&rig, BASE + PAGE, Level::Pte, 0);
    let frame = quarry::hal::frame::FrameSource::alloc_table(&rig.frames).expect("a frame");
    // SAFETY: the machine is a model.
    unsafe { rig.table.mmu().zero_table(frame) };
    plant(&rig, BASE + GIB, Level::Pud, Stage1::table(frame).get());
    assert_eq!(rig.table.check(), Err(CheckError::LostTables(5, 4)));
}
