//! vmalloc, vmap and vm_map_ram on the machine: Linux's `test_vmalloc` cases, faults behind and after an area, and what
//! the descriptors say.

use quarry::addr::{Address, Order, PAGE_BYTES, PAGE_SIZE, Pfn, VirtAddr, to_usize};
use quarry::arch::aarch64::esr::Access as AccessKind;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::Prot;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::page::Page;
use quarry::mm::vmalloc::{AreaError, VmFlags, VmallocError};
use quarry::mm::zone::FreeError;

const MIB: u64 = 1 << 20;

pub(crate) fn at(start: VirtAddr, offset: u64) -> VirtAddr {
    start.checked_add(offset).expect("no wrap")
}

pub(crate) fn write(addr: VirtAddr, value: u64) {
    // SAFETY: the tests write to memory that vmalloc or vmap gave them, or where a fault is expected.
    unsafe { addr.as_ptr::<u64>().write_volatile(value) };
}

pub(crate) fn read(addr: VirtAddr) -> u64 {
    // SAFETY: as for `write`.
    unsafe { addr.as_ptr::<u64>().read_volatile() }
}

/// Fills `size` bytes with numbers of their own and reads them again.
pub(crate) fn use_memory(start: VirtAddr, size: u64) {
    for offset in (0..size).step_by(512) {
        write(at(start, offset), start.get() ^ offset);
    }
    for offset in (0..size).step_by(512) {
        assert_eq!(read(at(start, offset)), start.get() ^ offset);
    }
}

/// The pages that are free or tables of the kernel, and the areas there are now: a table stays once it is made, and permissions of
/// other pages than the last time want another one for the linear map.
fn balance() -> (u64, usize) {
    global::vmap_space().purge_all();
    global::execmem_space().purge_all();
    global::check_vmalloc().expect("the areas' invariants");
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    let tables = global::kernel_tables().expect("after booting").check().expect("the tables' invariants").tables;
    (global::nr_free_pages() + tables, global::vmap_space().iter().count())
}

/// Runs `f`, whose memory must all come back. Descriptors that were made stay, so the second run counts.
pub(crate) fn leaves_nothing(f: impl Fn()) {
    f();
    let before = balance();
    f();
    assert_eq!(balance(), before);
}

ktest!(every_size_is_memory);
fn every_size_is_memory() {
    leaves_nothing(|| {
        for size in [1, 8, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE, 64 << 10, 200 << 10, MIB, 2 * MIB, 5 * MIB + 1] {
            let addr = global::vmalloc(to_usize(size)).expect("memory").at();
            use_memory(addr, size & !7);
            assert!(global::is_vmalloc_addr(addr));
            raw!(global::try_vfree(addr)).expect("an area");
        }
    });
}

ktest!(zeroed_memory_is_zero);
fn zeroed_memory_is_zero() {
    leaves_nothing(|| {
        for _ in 0..8 {
            let dirty = global::vmalloc(40 * PAGE_BYTES).expect("memory").at();
            use_memory(dirty, 40 * PAGE_SIZE);
            raw!(global::try_vfree(dirty)).expect("an area");
            global::vmap_space().purge_all();
            let clean = global::vzalloc(40 * PAGE_BYTES).expect("memory").at();
            assert!((0..40 * PAGE_SIZE).step_by(8).all(|offset| read(at(clean, offset)) == 0));
            raw!(global::try_vfree(clean)).expect("an area");
        }
    });
}

// Behaviour 250
ktest!(large_areas_are_blocks_and_groups);
fn large_areas_are_blocks_and_groups() {
    let tables = global::kernel_tables().expect("the final tables");
    let leaf = |addr| tables.translate(addr).expect("mapped").leaf;
    let huge = global::vmalloc(to_usize(4 * MIB)).expect("memory").at();
    assert_eq!(leaf(huge).level, LeafLevel::Pmd);
    use_memory(huge, 4 * MIB);
    let group = global::vmalloc(64 << 10).expect("memory").at();
    assert!(leaf(group).contiguous);
    use_memory(group, 64 << 10);
    let user = global::vmalloc_user(64 << 10).expect("memory").at();
    assert!(!leaf(user).contiguous && leaf(user).level == LeafLevel::Pte);
    for addr in [huge, group, user] {
        assert!(!leaf(addr).prot.is_executable() && leaf(addr).prot.is_writable());
        raw!(global::try_vfree(addr)).expect("an area");
    }
}

// Behaviours 230, 241 and 242
ktest!(what_cannot_be_is_refused);
fn what_cannot_be_is_refused() {
    let before = balance();
    assert_eq!(global::vmalloc(0), Err(VmallocError::Empty));
    for size in [u64::MAX, 1 << 46, 1 << 40] {
        assert_eq!(global::vmalloc(to_usize(size)), Err(VmallocError::TooLarge(size)));
    }
    assert_eq!(raw!(global::try_vfree(VirtAddr::ZERO)), Ok(()));
    let addr = global::vmalloc(3 * PAGE_BYTES).expect("memory").at();
    for wrong in [at(addr, 8), at(addr, PAGE_SIZE)] {
        assert!(matches!(raw!(global::try_vfree(wrong)), Err(VmallocError::Area(AreaError::NotTheStart(..)))));
    }
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    let linear = global::page_address(page);
    assert!(matches!(raw!(global::try_vfree(linear)), Err(VmallocError::Area(AreaError::NoArea(_)))));
    let mapping = global::vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).expect("addresses").at();
    assert!(matches!(raw!(global::try_vfree(mapping)), Err(VmallocError::Area(AreaError::WrongKind(_)))));
    assert!(matches!(raw!(global::try_vunmap(addr)), Err(VmallocError::Area(AreaError::WrongKind(_)))));
    let inside = global::vmalloc_to_page(addr).expect("mapped");
    assert!(raw!(global::try_free_page(inside)).is_err(), "a page of an area");
    raw!(global::try_vfree(addr)).expect("an area");
    assert!(matches!(raw!(global::try_vfree(addr)), Err(VmallocError::Area(AreaError::NoArea(_)))), "twice");
    raw!(global::try_vunmap(mapping)).expect("a mapping");
    raw!(global::try_free_page(page)).expect("ours");
    assert_eq!(balance().1, before.1);
}

/// Pages that do not follow on, each with its number in it.
pub(crate) fn scattered(count: usize) -> alloc::vec::Vec<Page> {
    let pages: alloc::vec::Vec<Page> =
        (0..2 * count).map(|_| global::alloc_page(Gfp::KERNEL).expect("memory")).collect();
    let (kept, freed): (alloc::vec::Vec<_>, alloc::vec::Vec<_>) =
        pages.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    for (_, page) in freed {
        raw!(global::try_free_page(page)).expect("ours");
    }
    for (number, page) in &kept {
        write(global::page_address(*page), *number as u64);
    }
    kept.into_iter().map(|(_, page)| page).rev().collect()
}

// Behaviours 264, 265 and 274
ktest!(vmap_shows_pages_in_the_order_of_the_list);
fn vmap_shows_pages_in_the_order_of_the_list() {
    leaves_nothing(|| {
        let pages = scattered(40);
        for _ in 0..3 {
            let addr = global::vmap(&pages, VmFlags::empty(), Prot::KERNEL_RW).expect("addresses").at();
            for (index, page) in pages.iter().enumerate() {
                let here = at(addr, index as u64 * PAGE_SIZE);
                assert_eq!(read(here), read(global::page_address(*page)));
                assert_eq!(global::vmalloc_to_page(here), Some(*page));
            }
            raw!(global::try_vunmap(addr)).expect("a mapping");
        }
        for page in pages {
            raw!(global::try_free_page(page)).expect("ours");
        }
    });
}

ktest!(vm_map_ram_shows_other_pages_at_the_same_address);
fn vm_map_ram_shows_other_pages_at_the_same_address() {
    let pages = scattered(63);
    for first in 0..40 {
        let list = pages.get(first..first + 1 + first % 23).expect("as many");
        let addr = global::vm_map_ram(list, Prot::KERNEL_RW).expect("addresses").at();
        for (index, page) in list.iter().enumerate() {
            assert_eq!(read(at(addr, index as u64 * PAGE_SIZE)), read(global::page_address(*page)));
        }
        assert!(raw!(global::try_vm_unmap_ram(addr, list.len() + 1)).is_err());
        raw!(global::try_vm_unmap_ram(addr, list.len())).expect("a mapping");
    }
    for page in pages {
        raw!(global::try_free_page(page)).expect("ours");
    }
}

ktest!(atomic_allocations_and_frees_work_with_interrupts_masked);
fn atomic_allocations_and_frees_work_with_interrupts_masked() {
    leaves_nothing(|| {
        let flags = quarry::arch::aarch64::irq::local_irq_save_flags();
        for _ in 0..200 {
            let addr = global::vmalloc_gfp(20 * PAGE_BYTES, Gfp::ATOMIC).expect("memory").at();
            write(addr, 7);
            raw!(global::try_vfree(addr)).expect("an area");
        }
        quarry::arch::aarch64::irq::local_irq_restore_flags(flags);
    });
}

// Behaviour 239: behind the last page, and before the first, behind which the guard page of another area lies.
ktest!(the_page_behind_an_area_faults, report = "guard page after vmalloc area", report = "tests/kernel/vmalloc.rs");
fn the_page_behind_an_area_faults() {
    let addr = global::vmalloc(2 * PAGE_BYTES).expect("memory").at();
    write(at(addr, 2 * PAGE_SIZE), 1);
}

ktest!(an_area_that_was_freed_faults_after_the_purge);
fn an_area_that_was_freed_faults_after_the_purge() {
    let addr = global::vmalloc(2 * PAGE_BYTES).expect("memory").at();
    write(addr, 1);
    raw!(global::try_vfree(addr)).expect("an area");
    global::vmap_space().purge_all();
    expect_fault(FaultKind::Translation(AccessKind::Read), addr);
    read(addr);
}

// Behaviour 267
ktest!(a_read_only_mapping_cannot_be_written);
fn a_read_only_mapping_cannot_be_written() {
    let page = global::alloc_pages(Gfp::KERNEL, Order::ZERO).expect("memory");
    let addr = global::vmap(&[page], VmFlags::empty(), Prot::KERNEL_RO).expect("addresses").at();
    read(addr);
    expect_fault(FaultKind::Permission(AccessKind::Write), addr);
    write(addr, 1);
}

// Promises 3, 4 and 9: what the descriptor says decides, for every page of the machine that is not the caller's.
ktest!(what_is_not_the_callers_is_not_mapped, machine a72 = "", machine max = "cpu=max");
fn what_is_not_the_callers_is_not_mapped() {
    let mine = global::alloc_page(Gfp::KERNEL).expect("memory");
    let object = global::kmalloc(64, Gfp::KERNEL).expect("memory");
    let code = global::vmalloc_exec(PAGE_BYTES).expect("memory").at();
    raw!(global::set_memory_ro(code, 1)).expect("a page");
    raw!(global::set_memory_x(code, 1)).expect("read-only");
    let page_of = |phys| global::pfn_to_page(Pfn::containing(phys));
    let translated = |at: VirtAddr| {
        global::kernel_tables().and_then(|tables| tables.translate(at)).and_then(|found| page_of(found.phys))
    };
    let text = VirtAddr::of(what_is_not_the_callers_is_not_mapped as fn() as *const ());
    let rodata = VirtAddr::of("some bytes that nobody writes".as_ptr());
    let root = global::kernel_tables().and_then(|tables| page_of(tables.root()));
    let slab = translated(VirtAddr::of(object.as_ptr()));
    let free = global::alloc_page(Gfp::KERNEL).expect("memory");
    raw!(global::try_free_page(free)).expect("ours");
    let outside = [mine.offset(1 << 24), mine.offset(1 << 30)];
    let inside = [translated(text), translated(rodata), root, slab, translated(code), Some(free)];
    for page in inside.into_iter().chain(outside.map(Some)) {
        let page = page.expect("RAM");
        for list in [&[page][..], &[mine, page, mine]] {
            let refused = global::vmap(list, VmFlags::empty(), Prot::KERNEL_RW);
            assert!(matches!(refused, Err(VmallocError::BadPage(_))), "{page:?}: {refused:?}");
            let refused = global::vm_map_ram(list, Prot::KERNEL_RO);
            assert!(matches!(refused, Err(VmallocError::BadPage(_))), "{page:?}: {refused:?}");
        }
    }
    // A mapped page stays, in spite of any free.
    for round in 0..3 {
        let brief = global::vm_map_ram(&[mine], Prot::KERNEL_RW).expect("ours").at();
        assert!(matches!(raw!(global::try_free_page(mine)), Err(FreeError::Mapped(_))), "round {round}");
        write(brief, 7);
        raw!(global::try_vm_unmap_ram(brief, 1)).expect("mapped");
        let area = global::vmap(&[mine], VmFlags::empty(), Prot::KERNEL_RW).expect("ours").at();
        assert!(matches!(raw!(global::try_free_page(mine)), Err(FreeError::Mapped(_))), "round {round}");
        assert_eq!(read(area), 7);
        raw!(global::try_vunmap(area)).expect("mapped");
    }
    raw!(global::try_free_page(mine)).expect("not mapped any more");
    // SAFETY: allocated above, and used no more.
    unsafe { global::kfree(object.as_ptr()) };
    raw!(global::try_vfree(code)).expect("an area");
}

// The blocks of vm_map_ram alone are 128 MiB of addresses.
ktest!(short_mappings_need_no_room_for_blocks, machine = "append='vmalloc=64M'");
fn short_mappings_need_no_room_for_blocks() {
    let page = global::alloc_pages(Gfp::KERNEL, Order::ZERO).expect("memory");
    for count in [1, 16, 63, 64] {
        let list = alloc::vec![page; count];
        let addr = global::vm_map_ram(&list, Prot::KERNEL_RW).expect("an area of its own").at();
        write(addr, 1);
        assert!(raw!(global::try_vunmap(addr)).is_err(), "not one of vmap");
        raw!(global::try_vm_unmap_ram(addr, count)).expect("mapped");
    }
    raw!(global::try_free_page(page)).expect("allocated");
    global::check_vmalloc().expect("sound");
}

ktest!(a_small_region_is_bounded, machine = "append='vmalloc=16M'");
fn a_small_region_is_bounded() {
    let region = global::vmap_space().region().expect("set up");
    assert_eq!(region.size(), 16 * MIB);
    // The stacks of CPUs and windows of devices are there already. An area takes its guard page too, and starts at a multiple
    // of 64 KiB.
    let mut taken: alloc::vec::Vec<_> = global::vmap_space().iter().map(|area| area.range).collect();
    taken.retain(|range| region.contains_range(*range));
    taken.sort_by_key(|range| range.start());
    let (mut room, mut largest, mut from) = (0, 0, region.start());
    let ends = taken.iter().map(|range| (range.start(), range.end())).chain([(region.end(), region.end())]);
    for (start, end) in ends {
        let first = from.get().next_multiple_of(64 << 10);
        let fits = (start.get().saturating_sub(first) + (60 << 10)) / (MIB + (64 << 10));
        (room, largest, from) = (room + fits, fits.max(largest), end);
    }
    assert!(room >= 10, "{room}");
    let mut live = alloc::vec::Vec::new();
    while let Ok(addr) = global::vmalloc(to_usize(MIB)) {
        assert!(region.contains(addr.at()));
        live.push(addr);
    }
    assert_eq!(live.len(), to_usize(room));
    for addr in live {
        raw!(global::try_vfree(addr)).expect("an area");
    }
    raw!(global::try_vfree(global::vmalloc(to_usize(largest * MIB)).expect("what was freed, after a purge")))
        .expect("an area");
}
