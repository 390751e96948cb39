//! Permissions of areas on the machine: what may no longer be done faults, by either mapping of a page; blocks that the
//! tables and this CPU's data lie behind are split while in use; and nothing is ever writable and executable.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::{Address, CpuId, PAGE_BYTES, PAGE_SIZE, VirtAddr, to_usize};
use quarry::arch::aarch64::esr::Access as AccessKind;
use quarry::arch::aarch64::irq;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::{Access, Prot};
use quarry::kernel::cpus::run_everywhere;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::pgtable::{Translation, wx};
use quarry::mm::vmalloc::{AreaError, SetMemoryError, VmFlags, VmallocRequest};

const MIB: u64 = 1 << 20;

fn page(start: VirtAddr, number: u64) -> VirtAddr {
    start.checked_add(number * PAGE_SIZE).expect("no wrap")
}

fn write(addr: VirtAddr, value: u64) {
    // SAFETY: the tests write to memory that vmalloc gave them, or where a fault is expected.
    unsafe { addr.as_ptr::<u64>().write_volatile(value) };
}

fn read(addr: VirtAddr) -> u64 {
    // SAFETY: as for `write`.
    unsafe { addr.as_ptr::<u64>().read_volatile() }
}

fn translation(addr: VirtAddr) -> Translation {
    global::kernel_tables().expect("the final tables").translate(addr).expect("mapped")
}

/// The address of the same page in the linear map.
fn alias(addr: VirtAddr) -> VirtAddr {
    global::phys_to_virt(translation(addr).phys).expect("RAM")
}

/// Permissions of a page and of its alias.
fn access(addr: VirtAddr) -> (Access, Access) {
    (translation(addr).leaf.prot.access(), translation(alias(addr)).leaf.prot.access())
}

/// Nothing is writable and executable, and all tables are sound.
fn sound() {
    let tables = global::kernel_tables().expect("the final tables");
    wx::check(&[tables]).unwrap_or_else(|error| panic!("{error}"));
    tables.check().unwrap_or_else(|error| panic!("{error}"));
}

const READ_ONLY: (Access, Access) = (Access::ReadOnly, Access::ReadOnly);
const READ_WRITE: (Access, Access) = (Access::ReadWrite, Access::ReadWrite);

// Behaviours 245 and 250
ktest!(
    pages_become_read_only_and_writable_again,
    machine a72 = "",
    machine large = "mem=2G",
    machine max = "cpu=max",
    machine max_large = "cpu=max mem=2G"
);
fn pages_become_read_only_and_writable_again() {
    for size in [PAGE_SIZE, 64 << 10, 200 << 10, 2 * MIB, 6 * MIB] {
        let addr = global::vmalloc(to_usize(size)).expect("memory").at();
        let pages = size / PAGE_SIZE;
        (0..pages).for_each(|number| write(page(addr, number), number ^ 0x5a5a));
        let middle = page(addr, pages / 2);
        raw!(global::set_memory_ro(middle, 1)).expect("a page of the area");
        sound();
        for number in 0..pages {
            let here = page(addr, number);
            let expected = if here == middle { READ_ONLY } else { READ_WRITE };
            assert_eq!((access(here), read(here)), (expected, number ^ 0x5a5a), "page {number} of {pages}");
            assert_eq!(read(alias(here)), number ^ 0x5a5a);
        }
        raw!(global::set_memory_ro(addr, to_usize(pages))).expect("the area");
        assert!((0..pages).all(|number| access(page(addr, number)) == READ_ONLY));
        raw!(global::set_memory_rw(addr, to_usize(pages))).expect("the area");
        sound();
        for number in 0..pages {
            assert_eq!(access(page(addr, number)), READ_WRITE);
            write(page(addr, number), number);
            write(alias(page(addr, number)).checked_add(8).expect("no wrap"), number);
            assert_eq!(read(page(addr, number).checked_add(8).expect("no wrap")), number);
        }
        raw!(global::try_vfree(addr)).expect("an area");
        global::vmap_space().check().expect("the areas' invariants");
    }
}

ktest!(
    a_read_only_page_cannot_be_written,
    machine a72 = "",
    machine max = "cpu=max"
);
fn a_read_only_page_cannot_be_written() {
    let addr = global::vmalloc(4 * PAGE_BYTES).expect("memory").at();
    (0..4).for_each(|number| write(page(addr, number), 1));
    raw!(global::set_memory_ro(page(addr, 1), 2)).expect("pages of the area");
    write(addr, 2);
    write(page(addr, 3), 2);
    expect_fault(FaultKind::Permission(AccessKind::Write), page(addr, 2));
    write(page(addr, 2), 2);
}

ktest!(the_linear_map_of_a_read_only_page_cannot_be_written);
fn the_linear_map_of_a_read_only_page_cannot_be_written() {
    let addr = global::vmalloc(4 * PAGE_BYTES).expect("memory").at();
    let there = alias(page(addr, 2));
    write(there, 1);
    raw!(global::set_memory_ro(page(addr, 1), 2)).expect("pages of the area");
    assert_eq!(read(there), 1);
    expect_fault(FaultKind::Permission(AccessKind::Write), there);
    write(there, 2);
}

/// A page with `mov w0, #number; ret`.
fn write_code(addr: VirtAddr, number: u64) {
    write(addr, 0xd65f_03c0 << 32 | 0x5280_0000 | number << 5);
}

fn call(addr: VirtAddr) -> u32 {
    // SAFETY: the tests pass the address of what `write_code` wrote, or expect a fault.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(addr.as_ptr::<()>()) };
    function()
}

// Behaviour 251
ktest!(code_is_written_first_and_then_executed, machine a72 = "", machine large = "mem=2G", machine max = "cpu=max");
fn code_is_written_first_and_then_executed() {
    let addr = global::vmalloc(2 * PAGE_BYTES).expect("memory").at();
    for number in 1..20 {
        write_code(addr, number);
        let refused = raw!(global::set_memory_x(addr, 1));
        assert_eq!(refused, Err(SetMemoryError::WritableExecutable(addr)));
        raw!(global::set_memory_ro(addr, 1)).expect("a page");
        raw!(global::set_memory_x(addr, 1)).expect("read-only");
        sound();
        assert_eq!(access(addr), (Access::Execute, Access::ReadOnly));
        assert_eq!(u64::from(call(addr)), number);
        assert_eq!(raw!(global::set_memory_rw(addr, 1)), Err(SetMemoryError::WritableExecutable(addr)));
        // The second page is writable: all or nothing.
        assert!(raw!(global::set_memory_x(addr, 2)).is_err() && access(page(addr, 1)) == READ_WRITE);
        raw!(global::set_memory_nx(addr, 2)).expect("the area");
        assert_eq!((access(addr), access(page(addr, 1))), (READ_ONLY, READ_WRITE));
        raw!(global::set_memory_rw(addr, 1)).expect("read-only");
        sound();
    }
    // Freed while it is executable.
    raw!(global::set_memory_ro(addr, 2)).expect("the area");
    raw!(global::set_memory_x(addr, 2)).expect("read-only");
    let there = [alias(addr), alias(page(addr, 1))];
    raw!(global::try_vfree(addr)).expect("an area");
    assert!(
        there.iter().all(|alias| translation(*alias).leaf.prot.is_writable()),
        "whoever gets the pages can write them"
    );
    sound();
}

// Behaviour 396
ktest!(
    every_cpu_executes_what_was_written_last,
    machine a72 = "smp=4",
    machine max = "smp=4 cpu=max gic=3",
    timeout = 60,
);
fn every_cpu_executes_what_was_written_last() {
    let addr = global::vmalloc_exec(PAGE_BYTES).expect("memory").at();
    for number in 1..=12 {
        write_code(addr, number);
        raw!(global::set_memory_ro(addr, 1)).expect("a page");
        raw!(global::set_memory_x(addr, 1)).expect("read-only");
        let old = AtomicU32::new(0);
        let ran = run_everywhere(&|_| {
            // Twice: what is fetched the first time may be kept.
            for _ in 0..2 {
                old.fetch_add(u32::from(u64::from(call(addr)) != number), Ordering::Relaxed);
            }
        });
        assert_eq!((ran, old.into_inner()), (4, 0), "calls that executed what was there before {number}");
        raw!(global::set_memory_nx(addr, 1)).expect("a page");
        raw!(global::set_memory_rw(addr, 1)).expect("not executable");
    }
    raw!(global::try_vfree(addr)).expect("an area");
    sound();
}

ktest!(what_is_executable_no_longer_faults);
fn what_is_executable_no_longer_faults() {
    let addr = global::vmalloc(PAGE_BYTES).expect("memory").at();
    write_code(addr, 7);
    raw!(global::set_memory_ro(addr, 1)).expect("a page");
    raw!(global::set_memory_x(addr, 1)).expect("read-only");
    assert_eq!(call(addr), 7);
    raw!(global::set_memory_nx(addr, 1)).expect("a page");
    expect_fault(FaultKind::Permission(AccessKind::Execute), addr);
    call(addr);
}

ktest!(an_area_read_only_from_the_start_has_its_alias_changed_before_it_is_executed);
fn an_area_read_only_from_the_start_has_its_alias_changed_before_it_is_executed() {
    let request = VmallocRequest { prot: Prot::KERNEL_RO, ..VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL) };
    let addr = global::vmap_space().vmalloc(&request).expect("memory");
    assert_eq!(access(addr), (Access::ReadOnly, Access::ReadWrite));
    write_code(alias(addr), 11);
    raw!(global::set_memory_x(addr, 1)).expect("read-only");
    assert_eq!((access(addr), call(addr)), ((Access::Execute, Access::ReadOnly), 11));
    sound();
    raw!(global::try_vfree(addr)).expect("an area");
}

ktest!(pages_of_a_freed_area_are_anybodys, machine a72 = "", machine max = "cpu=max");
fn pages_of_a_freed_area_are_anybodys() {
    let counts = || {
        global::vmap_space().purge_all();
        global::drain_all_pages();
        (global::nr_free_pages(), global::vmap_space().iter().count())
    };
    let round = || {
        let areas = [3, 40, 512].map(|pages| global::vmalloc(to_usize(pages * PAGE_SIZE)).expect("memory").at());
        for addr in areas {
            raw!(global::set_memory_ro(addr, 3)).expect("pages");
            raw!(global::set_memory_x(page(addr, 1), 1)).expect("a read-only page");
        }
        areas.into_iter().for_each(|addr| raw!(global::try_vfree(addr)).expect("an area"));
    };
    round();
    let before = counts();
    round();
    assert_eq!(counts(), before, "tables of blocks that were split once are there already");
    // All of RAM that can be had is writable.
    let mut taken = alloc::vec::Vec::new();
    while let Ok(page) = global::alloc_page(Gfp::NOWAIT | Gfp::NOWARN) {
        taken.push(page);
        write(global::page_address(page), 1);
    }
    assert!(taken.len() > 10_000);
    taken.into_iter().for_each(|page| raw!(global::try_free_page(page)).expect("ours"));
}

ktest!(what_is_no_page_of_an_area_stays_as_it_is);
fn what_is_no_page_of_an_area_stays_as_it_is() {
    let addr = global::vmalloc(4 * PAGE_BYTES).expect("memory").at();
    assert_eq!(raw!(global::set_memory_ro(addr, 0)), Err(SetMemoryError::Empty));
    let odd = addr.checked_add(8).expect("no wrap");
    assert_eq!(raw!(global::set_memory_ro(odd, 1)), Err(SetMemoryError::Unaligned(odd)));
    for (first, pages) in [(0, 5), (3, 2), (4, 1), (0, usize::MAX)] {
        assert!(matches!(raw!(global::set_memory_ro(page(addr, first), pages)), Err(SetMemoryError::Outside(_))));
    }
    let linear = alias(addr);
    assert_eq!(raw!(global::set_memory_ro(linear, 1)), Err(SetMemoryError::Area(AreaError::NoArea(linear))));
    let one = global::alloc_page(Gfp::KERNEL).expect("memory");
    let mapping = global::vmap(&[one], VmFlags::empty(), Prot::KERNEL_RW).expect("addresses").at();
    assert!(matches!(raw!(global::set_memory_ro(mapping, 1)), Err(SetMemoryError::Area(AreaError::WrongKind(_)))));
    raw!(global::try_vunmap(mapping)).expect("a mapping");
    raw!(global::try_free_page(one)).expect("ours");
    assert!((0..4).all(|number| access(page(addr, number)) == READ_WRITE));
    raw!(global::try_vfree(addr)).expect("an area");
}

ktest!(a_block_is_split_where_an_edge_falls_into_it);
fn a_block_is_split_where_an_edge_falls_into_it() {
    let addr = global::vmalloc(to_usize(4 * MIB)).expect("memory").at();
    assert_eq!(translation(addr).leaf.level, LeafLevel::Pmd);
    raw!(global::set_memory_ro(page(addr, 3), 1)).expect("a page");
    assert_eq!(translation(addr).leaf.level, LeafLevel::Pte);
    assert_eq!(translation(page(addr, 512)).leaf.level, LeafLevel::Pmd, "the other stays whole");
    // Whole blocks change as blocks.
    raw!(global::set_memory_ro(page(addr, 512), 512)).expect("a block");
    assert_eq!(translation(page(addr, 512)).leaf.level, LeafLevel::Pmd);
    raw!(global::try_vfree(addr)).expect("an area");
}

// Behaviour 385: the others use their memory all the while, through blocks that are being split.
ktest!(
    other_cpus_go_on_while_blocks_are_split,
    machine a72 = "smp=4 mem=2G",
    machine a72_gicv3 = "smp=4 gic=3",
    machine max = "cpu=max smp=4",
    timeout = 60
);
fn other_cpus_go_on_while_blocks_are_split() {
    static OVER: AtomicBool = AtomicBool::new(false);
    static WORKED: AtomicU32 = AtomicU32::new(0);
    let cpus = run_everywhere(&|cpu: CpuId| {
        if cpu != CpuId::BOOT {
            while !OVER.load(Ordering::Acquire) {
                let page = global::alloc_page(Gfp::KERNEL).expect("memory");
                let addr = global::page_address(page);
                (0..512).for_each(|word| write(addr.checked_add(word * 8).expect("a page"), word));
                assert!((0..512).all(|word| read(addr.checked_add(word * 8).expect("a page")) == word));
                raw!(global::try_free_page(page)).expect("ours");
                WORKED.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        while WORKED.load(Ordering::Relaxed) < 30 {
            quarry::arch::aarch64::cpu::relax();
        }
        // Large enough that each is in blocks of its own, which are split here for the first time.
        let areas: alloc::vec::Vec<VirtAddr> =
            (0..16).map(|_| global::vmalloc(to_usize(4 * MIB)).expect("memory").at()).collect();
        for addr in &areas {
            for number in [3, 700] {
                raw!(global::set_memory_ro(page(*addr, number), 1)).expect("a page");
                assert_eq!(access(page(*addr, number)), READ_ONLY);
            }
        }
        // However little they were let run meanwhile: they go on afterwards.
        while WORKED.load(Ordering::Relaxed) <= 100 {
            quarry::arch::aarch64::cpu::relax();
        }
        OVER.store(true, Ordering::Release);
        areas.into_iter().for_each(|addr| raw!(global::try_vfree(addr)).expect("an area"));
    });
    assert!(cpus > 1);
    sound();
}

// Where a block cannot be split live its entry is invalid briefly: a read through it would fault then.
ktest!(
    nobody_uses_a_block_while_it_is_split,
    machine a72 = "smp=4 mem=2G",
    machine max = "cpu=max smp=4 mem=2G",
    timeout = 60
);
fn nobody_uses_a_block_while_it_is_split() {
    /// Two pages of the block that is split now: by its area, and in the linear map.
    static USED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static OVER: AtomicBool = AtomicBool::new(false);
    static READS: AtomicU32 = AtomicU32::new(0);
    let areas: alloc::vec::Vec<VirtAddr> =
        (0..64).map(|_| global::vmalloc(to_usize(4 * MIB)).expect("memory").at()).collect();
    let cpus = run_everywhere(&|cpu: CpuId| {
        if cpu != CpuId::BOOT {
            while !OVER.load(Ordering::Acquire) {
                for used in &USED {
                    let addr = used.load(Ordering::Acquire);
                    if addr != 0 {
                        (0..64).for_each(|_| _ = read(VirtAddr::new(addr)));
                        READS.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            return;
        }
        for block in areas.iter().flat_map(|addr| [*addr, page(*addr, 512)]) {
            USED[0].store(page(block, 1).get(), Ordering::Release);
            USED[1].store(alias(page(block, 1)).get(), Ordering::Release);
            let before = READS.load(Ordering::Relaxed);
            while READS.load(Ordering::Relaxed) < before + 8 {
                quarry::arch::aarch64::cpu::relax();
            }
            raw!(global::set_memory_ro(page(block, 3), 1)).expect("a page");
        }
        OVER.store(true, Ordering::Release);
    });
    assert!(cpus > 1);
    areas.into_iter().for_each(|addr| raw!(global::try_vfree(addr)).expect("an area"));
    sound();
}

ktest!(nobody_can_be_held_with_interrupts_masked, machine = "smp=2");
fn nobody_can_be_held_with_interrupts_masked() {
    let addr = global::vmalloc(PAGE_BYTES).expect("memory").at();
    let flags = irq::local_irq_save_flags();
    let refused = raw!(global::set_memory_ro(addr, 1));
    irq::local_irq_restore_flags(flags);
    assert_eq!((refused, access(addr)), (Err(SetMemoryError::OtherCpus), READ_WRITE));
    raw!(global::set_memory_ro(addr, 1)).expect("a page");
    raw!(global::try_vfree(addr)).expect("an area");
}
