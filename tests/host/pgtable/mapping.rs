//! What `map`, `unmap` and `translate` do and refuse.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, pa, phys, range, va};
use quarry::arch::host::{Config, Who};
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::io::resource::{Request, ResourceFlags, ResourceRecord, ResourceTree, Span};
use quarry::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};

const NO_FLAGS: MapFlags = MapFlags::empty();

// Behaviour 356
#[test]
fn ranges_that_no_table_can_hold_are_refused() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let map = |start, size, to| rig.map(start, size, to, Prot::KERNEL_RW, NO_FLAGS);
    assert_eq!(map(BASE, 0, RAM), Err(PgtableError::Empty));
    assert_eq!(map(BASE + 1, PAGE, RAM), Err(PgtableError::Unaligned));
    assert_eq!(map(BASE, PAGE - 1, RAM), Err(PgtableError::Unaligned));
    assert_eq!(map(BASE, PAGE, RAM + 8), Err(PgtableError::Unaligned));
    assert_eq!(map(0, PAGE, RAM), Err(PgtableError::OutsideSpace));
    assert_eq!(map(0xfffe_ffff_ffff_f000, PAGE, RAM), Err(PgtableError::OutsideSpace));
    assert_eq!(map(0xfffe_ffff_ffff_f000, 2 * PAGE, RAM), Err(PgtableError::OutsideSpace));
    assert_eq!(map(BASE, PAGE, 1 << 48), Err(PgtableError::PhysOutOfRange));
    assert_eq!(map(BASE, 2 * PAGE, (1 << 48) - PAGE), Err(PgtableError::PhysOutOfRange));
    assert_eq!(map(BASE, PAGE, u64::MAX << 12), Err(PgtableError::PhysOutOfRange));
    assert_eq!(rig.check().tables, 1, "nothing was built");
    assert_eq!(map(BASE, PAGE, (1 << 48) - PAGE), Ok(()));
    assert_eq!(rig.unmap(0, PAGE, UnmapFlags::empty()), Err(PgtableError::OutsideSpace));
    assert_eq!(rig.unmap(BASE, 0, UnmapFlags::empty()), Err(PgtableError::Empty));
    assert_eq!(rig.unmap(BASE, 12, UnmapFlags::empty()), Err(PgtableError::Unaligned));
    rig.check();
}

#[test]
fn leaves_of_the_wrong_privilege_are_refused() {
    let kernel = Rig::kernel(Config::CORTEX_A72);
    let user = Rig::user(Config::CORTEX_A72);
    let rw = Prot::user(Access::ReadWrite);
    assert_eq!(kernel.map(BASE, PAGE, RAM, rw, NO_FLAGS), Err(PgtableError::WrongPrivilege));
    assert_eq!(user.map(0, PAGE, RAM, Prot::KERNEL_RW, NO_FLAGS), Err(PgtableError::WrongPrivilege));
    assert_eq!(user.map(0, PAGE, RAM, rw.with_global(true), NO_FLAGS), Err(PgtableError::WrongPrivilege));
    assert_eq!((kernel.check().tables, user.check().tables), (1, 1));
}

// Behaviour 357
#[test]
fn the_first_and_the_last_user_page_are_mapped_to_their_last_byte() {
    const LAST: u64 = 0x0000_ffff_ffff_f000;
    let rig = Rig::user(Config::CORTEX_A72);
    let rw = Prot::user(Access::ReadWrite);
    rig.map(0, PAGE, RAM, rw, NO_FLAGS).expect("first page");
    rig.map(LAST, PAGE, RAM + PAGE, rw, NO_FLAGS).expect("last page");
    for (addr, to) in [(0, 0), (PAGE - 1, PAGE - 1), (LAST, PAGE), (LAST + PAGE - 1, 2 * PAGE - 1)] {
        assert_eq!(rig.phys_at(addr), Some(RAM + to));
    }
    assert_eq!(rig.phys_at(PAGE), None);
    assert_eq!(rig.phys_at(LAST - 1), None);
    assert_eq!(rig.phys_at(LAST + PAGE), None);
    let straddling = rig.map(LAST, 2 * PAGE, RAM, rw, NO_FLAGS);
    assert_eq!(straddling, Err(PgtableError::OutsideSpace));
    rig.check();
}

#[test]
fn the_upper_half_is_mapped_up_to_the_page_that_no_range_can_end_behind() {
    const LAST_BUT_ONE: u64 = 0xffff_ffff_ffff_e000;
    let rig = Rig::kernel(Config::MAX);
    rig.map_data(0xffff_0000_0000_0000, PAGE, RAM);
    rig.map_data(LAST_BUT_ONE, PAGE, RAM + PAGE);
    assert_eq!(rig.phys_at(LAST_BUT_ONE + 4095), Some(RAM + 2 * PAGE - 1));
    assert_eq!(rig.phys_at(u64::MAX), None);
    rig.check();
    rig.unmap(LAST_BUT_ONE, PAGE, UnmapFlags::empty()).expect("mapped");
    rig.check();
}

// Behaviour 361
#[test]
fn mapping_over_a_mapping_is_refused_and_undone() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE + 5 * MIB, PAGE, RAM);
    let before = rig.check();
    // A 2 MiB block, 512 pages and more fit before the collision.
    let over = rig.map(BASE, 16 * MIB, 2 * RAM + PAGE, Prot::KERNEL_RW, NO_FLAGS);
    assert_eq!(over, Err(PgtableError::Overlap(va(BASE + 5 * MIB))));
    assert_eq!(rig.phys_at(BASE + 5 * MIB), Some(RAM));
    assert_eq!(rig.phys_at(BASE), None);
    assert_eq!(rig.phys_at(BASE + 5 * MIB - PAGE), None);
    let again = rig.map(BASE + 5 * MIB, PAGE, 2 * RAM, Prot::KERNEL_RW, NO_FLAGS);
    assert_eq!(again, Err(PgtableError::Overlap(va(BASE + 5 * MIB))));
    assert_eq!(rig.check().pages, before.pages);
    rig.machine.give_away(phys(2 * RAM, 16 * MIB));
    rig.check();
}

// Behaviour 376
#[test]
fn a_page_inside_a_block_and_a_block_over_a_page_are_refused() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        let rig = Rig::kernel(config);
        rig.map_data(BASE, GIB, RAM);
        rig.map_data(BASE + GIB, 2 * MIB, RAM + GIB);
        let map = |start, size| rig.map(start, size, 2 * RAM, Prot::KERNEL_RW, NO_FLAGS);
        assert_eq!(map(BASE + 12 * KIB, PAGE), Err(PgtableError::Overlap(va(BASE + 12 * KIB))));
        assert_eq!(map(BASE + GIB + 4 * KIB, PAGE), Err(PgtableError::Overlap(va(BASE + GIB + 4 * KIB))));
        assert_eq!(map(BASE, 2 * GIB), Err(PgtableError::Overlap(va(BASE))));
        assert_eq!(map(BASE + GIB, GIB), Err(PgtableError::Overlap(va(BASE + GIB))));
        let census = rig.check();
        assert_eq!((census.pud_blocks, census.pmd_blocks, census.pages), (1, 1, 0));
    }
}

// Behaviour 362: a block is used only where both addresses are multiples of its size.
#[test]
fn blocks_need_both_addresses_aligned() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, 2 * MIB, RAM + PAGE);
    rig.map_data(BASE + GIB + PAGE, 2 * MIB, RAM);
    let census = rig.check();
    assert_eq!((census.pmd_blocks, census.pages, census.groups), (0, 1024, 0));
}

#[test]
fn the_largest_leaves_are_used_and_each_can_be_forbidden() {
    let shape = |flags| {
        let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
        // 64 KiB short of 2 MiB, 32 MiB aligned in the middle of its run, then 1 GiB, then 3 pages.
        let start = BASE + GIB - 36 * MIB - 64 * KIB;
        let to = RAM + GIB - 36 * MIB - 64 * KIB;
        rig.map(start, 36 * MIB + 64 * KIB + GIB + 3 * PAGE, to, Prot::KERNEL_RW, flags).expect("free range");
        for offset in [0, 64 * KIB, 5 * MIB, 36 * MIB + 64 * KIB, 36 * MIB + 64 * KIB + GIB + 3 * PAGE - 1] {
            assert_eq!(rig.phys_at(start + offset), Some(to + offset));
        }
        let census = rig.check();
        (census.pud_blocks, census.pmd_blocks, census.pages, census.groups)
    };
    assert_eq!(shape(NO_FLAGS), (1, 18, 16 + 3, 1 + 1));
    assert_eq!(shape(MapFlags::NO_CONT), (1, 18, 16 + 3, 0));
    let pages = (GIB + 36 * MIB + 64 * KIB) / PAGE + 3;
    assert_eq!(shape(MapFlags::NO_HUGE), (0, 0, pages, pages / 16));
    assert_eq!(shape(MapFlags::NO_HUGE | MapFlags::NO_CONT), (0, 0, pages, 0));
}

// Behaviour 364: a walk over a hole of 1 GiB lands on the next mapping, and stops at the range's end although the
// block there spans further.
#[test]
fn a_walk_skips_holes_and_keeps_to_its_range() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE + PAGE, PAGE, RAM);
    rig.map_data(BASE + GIB + 4 * MIB, 4 * MIB, RAM + 4 * MIB);
    let mut seen = Vec::new();
    let _ = rig.table.walk(range(BASE, GIB + 5 * MIB), |visit| {
        if !visit.is_table() {
            seen.push(visit.start.get() - BASE);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    assert_eq!(seen, [PAGE, GIB + 4 * MIB]);
    let found = rig.table.walk(range(BASE + 2 * PAGE, 4 * GIB), |visit| match visit.is_table() {
        true => std::ops::ControlFlow::Continue(()),
        false => std::ops::ControlFlow::Break(visit.start.get()),
    });
    assert_eq!(found, std::ops::ControlFlow::Break(BASE + GIB + 4 * MIB));
}

// Behaviour 365: unmapping a large range that has tables and nothing in them gives every table back.
#[test]
fn empty_tables_inside_an_unmapped_range_are_freed() {
    let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
    rig.table.populate(&rig.frames, range(BASE, 3 * GIB), LeafLevel::Pte).expect("frames");
    assert_eq!(rig.check().tables, 1 + 1 + 3 + 3 * 512);
    rig.unmap(BASE, 3 * GIB, UnmapFlags::KEEP_TABLES).expect("nothing in the way");
    assert_eq!(rig.check().tables, 1 + 1 + 3 + 3 * 512);
    rig.unmap(BASE + PAGE, 3 * GIB - PAGE, UnmapFlags::empty()).expect("nothing in the way");
    assert_eq!(rig.check().tables, 1 + 1 + 1 + 1, "only those that reach beyond the range are left");
    rig.unmap(BASE, GIB, UnmapFlags::empty()).expect("nothing in the way");
    assert_eq!(rig.check().tables, 1 + 1);
}

// Behaviour 355
#[test]
fn shared_top_level_entries_can_be_populated_beforehand() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.table.populate(&rig.frames, range(BASE, 512 * GIB * 3), LeafLevel::Pud).expect("frames");
    assert_eq!(rig.check().tables, 1 + 3);
    rig.machine.fail_allocation_after(Some(0));
    rig.map_data(BASE + 512 * GIB, GIB, RAM);
    assert_eq!(rig.check().tables, 1 + 3);
    let blocked = rig.table.populate(&rig.frames, range(BASE + 512 * GIB, PAGE), LeafLevel::Pte);
    assert_eq!(blocked, Err(PgtableError::Overlap(va(BASE + 512 * GIB))));
}

// Behaviour 366: an odd range with an odd offset, probed all over, one page out of the middle.
#[test]
fn mixed_leaves_translate_and_one_page_can_go() {
    const FIRST: u64 = 13_245;
    const PAGES: u64 = 512 * 512 + 23_456 - FIRST;
    for offset in [11_010, 11_010 + 512 * 3 - 11_010 % 512] {
        let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
        let start = BASE + FIRST * PAGE;
        let to = RAM + (FIRST - offset) * PAGE;
        rig.map_data(start, PAGES * PAGE, to);
        for probe in (0..100).map(|step| 4096 + step * (4096 + 1000)) {
            let at = probe * PAGE + probe % PAGE;
            if at < PAGES * PAGE {
                assert_eq!(rig.phys_at(start + at), Some(to + at));
            }
        }
        let one = 100 * 512 * PAGE + 5 * PAGE;
        let page = range(start + one, PAGE);
        raw!(rig.table.carve(&rig.frames, page, quarry::mm::pgtable::LivePolicy::BreakBeforeMake)).expect("frames");
        rig.unmap(start + one, PAGE, UnmapFlags::empty()).expect("carved");
        assert_eq!(rig.phys_at(start + one), None);
        assert_eq!(rig.phys_at(start + one - 1), Some(to + one - 1));
        assert_eq!(rig.phys_at(start + one + PAGE), Some(to + one + PAGE));
        let census = rig.check();
        assert_eq!(census.pages + census.pmd_blocks * 512 + census.pud_blocks * 512 * 512, PAGES - 1);
    }
}

// Behaviour 377
#[test]
fn mapping_and_unmapping_leaks_no_table() {
    let rig = Rig::kernel(Config { eager: false, ..Config::CORTEX_A72 });
    rig.map_data(BASE, PAGE, RAM);
    let tables = rig.check().tables;
    for round in 0..20_000_u64 {
        let at = BASE + PAGE + round % 300 * PAGE;
        rig.map_data(at, 2 * PAGE, RAM + round * PAGE);
        rig.unmap(at, 2 * PAGE, UnmapFlags::empty()).expect("mapped");
    }
    assert_eq!(rig.check().tables, tables);
    for _ in 0..50 {
        rig.map(BASE + GIB, GIB + 2 * MIB, RAM, Prot::KERNEL_RW, MapFlags::NO_CONT).expect("free range");
        rig.unmap(BASE + GIB, GIB + 2 * MIB, UnmapFlags::empty()).expect("mapped");
    }
    assert_eq!(rig.check().tables, tables + 1, "the table that reaches beyond the range stays");
}

#[test]
fn an_edge_inside_a_block_or_group_is_refused() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, GIB, RAM);
    rig.map_data(BASE + GIB, 34 * MIB, RAM + GIB);
    rig.map_data(BASE + 2 * GIB, 64 * KIB, RAM + 2 * GIB);
    let before = rig.check();
    for (start, size, at) in [
        (BASE + PAGE, GIB - PAGE, BASE + PAGE),
        (BASE, GIB - 2 * MIB, BASE + GIB - 2 * MIB),
        (BASE + GIB, 2 * MIB, BASE + GIB + 2 * MIB),
        (BASE + GIB + 2 * MIB, 30 * MIB, BASE + GIB + 2 * MIB),
        (BASE + GIB + 32 * MIB, PAGE, BASE + GIB + 32 * MIB + PAGE),
        (BASE + 2 * GIB + PAGE, 15 * PAGE, BASE + 2 * GIB + PAGE),
        (BASE + 2 * GIB, PAGE, BASE + 2 * GIB + PAGE),
    ] {
        assert_eq!(rig.unmap(start, size, UnmapFlags::empty()), Err(PgtableError::WouldSplit(va(at))));
    }
    assert_eq!(rig.check(), before);
    rig.unmap(BASE, 2 * GIB + 64 * KIB, UnmapFlags::empty()).expect("whole leaves");
    assert_eq!(rig.check().tables, 1 + 1 + 1 + 1);
}

#[test]
fn unmapping_a_hole_is_no_error() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.unmap(BASE, 512 * GIB, UnmapFlags::empty()).expect("nothing there");
    rig.map_data(BASE + PAGE, PAGE, RAM);
    rig.unmap(BASE, 8 * PAGE, UnmapFlags::empty()).expect("a page among holes");
    assert_eq!(rig.check().pages, 0);
}

// Behaviour 500: whichever table cannot be had, nothing is mapped, and what was built is usable.
#[test]
fn a_failed_table_allocation_undoes_the_mapping() {
    for successes in 0..8 {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.map_data(BASE, PAGE, RAM);
        let before = rig.check();
        // Crosses from one PUD table to the next: pages before, a block, pages behind.
        let start = BASE + 512 * GIB - 2 * MIB - 8 * PAGE;
        let to = RAM + 512 * GIB - 2 * MIB - 8 * PAGE;
        let size = 4 * MIB + 16 * PAGE;
        rig.machine.fail_allocation_after(Some(successes));
        let result = rig.map(start, size, to, Prot::KERNEL_RW, NO_FLAGS);
        rig.machine.fail_allocation_after(None);
        if successes < 5 {
            assert_eq!(result, Err(PgtableError::NoFrame), "after {successes}");
            let after = rig.check();
            assert_eq!((after.pages, after.pmd_blocks), (before.pages, before.pmd_blocks));
            rig.machine.give_away(phys(to, size));
            assert_eq!(rig.phys_at(start), None);
            rig.map_data(start, size, to);
        } else {
            assert_eq!(result, Ok(()), "after {successes}");
        }
        assert_eq!(rig.phys_at(start + size - 1), Some(to + size - 1));
        rig.check();
    }
}

#[test]
fn a_chain_that_cannot_be_completed_leaves_no_table_behind() {
    for successes in 0..3 {
        let rig = Rig::kernel(Config::CORTEX_A72);
        rig.machine.fail_allocation_after(Some(successes));
        assert_eq!(rig.map(BASE, PAGE, RAM, Prot::KERNEL_RW, NO_FLAGS), Err(PgtableError::NoFrame));
        assert_eq!(rig.check().tables, 1);
    }
}

#[test]
fn a_mapping_is_usable_on_every_cpu_when_map_returns() {
    let rig = Rig::kernel(Config { cpus: 4, eager: false, ..Config::CORTEX_A72 });
    rig.map_data(BASE, 8 * PAGE, RAM);
    rig.cpu(0).store(va(BASE + 8), Who::Kernel, 42).expect("writable");
    for cpu in 0..4 {
        assert_eq!(rig.cpu(cpu).load(va(BASE + 8), Who::Kernel), Ok(42));
        assert!(rig.cpu(cpu).load(va(BASE + 8), Who::User).is_err());
        assert!(rig.cpu(cpu).fetch(va(BASE), Who::Kernel).is_err());
    }
    rig.check();
}

#[test]
fn tables_can_be_built_by_one_machine_value_and_taken_over_by_another() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, 2 * GIB + 5 * PAGE, RAM);
    let before = rig.check();
    // SAFETY: the machine is a model, and the first value is not used any more.
    let adopted = unsafe {
        quarry::mm::pgtable::PageTable::adopt(rig.cpu(1), rig.table.root(), quarry::mm::pgtable::Space::Kernel)
    };
    assert_eq!(adopted.check(), Ok(before));
    assert_eq!(adopted.translate(va(BASE + GIB)).map(|found| found.phys), Some(pa(RAM + GIB)));
}

// Behaviour 294: whoever has asked for the registers maps some of them into an address space and lets go of the request; the
// mapping is the space's, and stays.
#[test]
fn registers_stay_mapped_in_a_space_when_their_handle_is_gone() {
    let mut resources = ResourceTree::new(Span::ALL, "memory", ResourceFlags::MEM);
    assert!(resources.add_row(Box::leak(vec![ResourceRecord::FREE; 4].into_boxed_slice())));
    let device = Span::of(phys(0x0a00_0000, 16 * PAGE)).unwrap();
    let request = Request { span: device, name: "device", flags: ResourceFlags::MEM };
    let handle = resources.request_region(resources.root(), &request).unwrap();

    let rig = Rig::user(Config::CORTEX_A72);
    let prot = Prot::user(Access::ReadWrite).with_memory(MemoryType::DeviceNGnRE).unwrap();
    let (at, offset) = (0x7f00_0000_0000, 3 * PAGE);
    rig.map(at, 4 * PAGE, resources.info(handle).unwrap().span.start().get() + offset, prot, NO_FLAGS).unwrap();
    resources.release(handle).unwrap();

    assert_eq!(rig.phys_at(at), Some(0x0a00_0000 + offset));
    assert_eq!(rig.phys_at(at + 4 * PAGE - 1), Some(0x0a00_0000 + offset + 4 * PAGE - 1));
    assert_eq!(rig.phys_at(at + 4 * PAGE), None);
    let leaf = rig.table.translate(va(at)).unwrap().leaf;
    assert_eq!((leaf.prot.memory(), leaf.prot.is_executable()), (MemoryType::DeviceNGnRE, false));
    rig.unmap(at, 4 * PAGE, UnmapFlags::empty()).unwrap();
    rig.check();
}
