//! Live tables under the machine's own MMU: what the simulated machine cannot show is that the instructions are right.

use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{Order, PAGE_SIZE, PMD_SIZE, PhysRange, VirtAddr, VirtRange};
use quarry::arch::aarch64::esr::Access as AccessKind;
use quarry::gfp::Gfp;
use quarry::global::{self, BuddyFrames, KernelMmu};
use quarry::hal::prot::{Access, Prot};
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::layout::{VMALLOC_END, phys_to_virt};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PageTable, UnmapFlags};

const PAGES: MapFlags = MapFlags::NO_HUGE.union(MapFlags::NO_CONT);

fn tables() -> &'static PageTable<KernelMmu> {
    global::kernel_tables().expect("the final tables")
}

fn memory(size: u64) -> PhysRange {
    let order = Order::for_bytes(size).expect("at most a block");
    let page = global::alloc_pages(Gfp::KERNEL, order).expect("memory");
    PhysRange::from_size(global::page_to_phys(page), size).expect("no wrap")
}

/// Addresses that nothing else uses: vmalloc gives the lowest first, and never comes so far.
fn area(size: u64) -> VirtRange {
    VirtRange::from_size(VirtAddr::new(VMALLOC_END - (4 << 30)), size).expect("no wrap")
}

fn map(area: VirtRange, memory: PhysRange, flags: MapFlags) {
    raw!(tables().map(&BuddyFrames::ATOMIC, area, memory.start(), Prot::KERNEL_RW, flags)).expect("free addresses");
}

fn unmap(area: VirtRange, flags: UnmapFlags) {
    let mut gather = tables().gather(&BuddyFrames::ATOMIC);
    raw!(tables().unmap(area, flags, &mut gather)).expect("whole leaves");
    gather.flush();
}

fn word(addr: VirtAddr) -> &'static AtomicU64 {
    // SAFETY: the tests pass mapped addresses, and those that fault end the machine.
    unsafe { &*addr.as_ptr::<AtomicU64>() }
}

/// Writes to every page of `memory`, through the linear map, what tells it from all others.
fn mark(memory: PhysRange, mark: u64) {
    for offset in (0..memory.size()).step_by(4096) {
        let page = memory.start().checked_add(offset).and_then(phys_to_virt).expect("RAM");
        word(page).store(mark + offset, Ordering::Relaxed);
    }
}

fn shows(area: VirtRange, mark: u64) {
    for offset in (0..area.size()).step_by(4096) {
        let page = area.start().checked_add(offset).expect("in the area");
        assert_eq!(word(page).load(Ordering::Relaxed), mark + offset, "{page:?}");
    }
}

// Behaviour 385, 387: by address, by range, all at once; pages, contiguous groups, blocks.
ktest!(an_address_shows_its_new_memory_and_never_the_old, machine a72 = "", machine max = "cpu=max");
fn an_address_shows_its_new_memory_and_never_the_old() {
    let memories = [memory(2 * PMD_SIZE), memory(2 * PMD_SIZE)];
    memories.into_iter().zip([1, 2]).for_each(|(memory, number)| mark(memory, number << 32));
    let sizes = [1, 2, 16, 33, 511, 512, 513, 2 * 512].map(|pages| pages * PAGE_SIZE);
    for (size, flags) in sizes.into_iter().flat_map(|size| [(size, PAGES), (size, MapFlags::empty())]) {
        for unmap_flags in [UnmapFlags::empty(), UnmapFlags::KEEP_TABLES] {
            for (memory, number) in memories.into_iter().zip([1, 2]) {
                map(area(size), memory, flags);
                shows(area(size), number << 32);
                unmap(area(size), unmap_flags);
            }
        }
        // Tables that were kept would be in the way of blocks.
        unmap(area(2 * PMD_SIZE), UnmapFlags::empty());
    }
    let census = tables().check().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(census.tables, tables().table_frames());
}

ktest!(unmapped_memory_faults_after_the_flush, machine a72 = "", machine max = "cpu=max");
fn unmapped_memory_faults_after_the_flush() {
    let memory = memory(3 * PAGE_SIZE);
    mark(memory, 7);
    map(area(3 * PAGE_SIZE), memory, PAGES);
    shows(area(3 * PAGE_SIZE), 7);
    let middle = area(PAGE_SIZE).end();
    unmap(VirtRange::from_size(middle, PAGE_SIZE).expect("no wrap"), UnmapFlags::empty());
    shows(area(PAGE_SIZE), 7);
    expect_fault(FaultKind::Translation(AccessKind::Read), middle);
    word(middle).load(Ordering::Relaxed);
}

ktest!(a_right_that_was_taken_is_gone, machine a72 = "", machine max = "cpu=max");
fn a_right_that_was_taken_is_gone() {
    map(area(PAGE_SIZE), memory(PAGE_SIZE), PAGES);
    let page = area(PAGE_SIZE).start();
    word(page).store(1, Ordering::Relaxed);
    let change = Change::access(Access::ReadOnly);
    raw!(tables().protect(area(PAGE_SIZE), change, LivePolicy::BreakBeforeMake)).expect("mapped");
    assert_eq!(word(page).load(Ordering::Relaxed), 1);
    expect_fault(FaultKind::Permission(AccessKind::Write), page);
    word(page).store(2, Ordering::Relaxed);
}

// In place where the CPU can, with nobody using the range where it cannot.
ktest!(blocks_are_carved_and_collapsed_on_live_tables, machine a72 = "", machine max = "cpu=max");
fn blocks_are_carved_and_collapsed_on_live_tables() {
    use quarry::hal::mmu::{BbmLevel, Mmu};
    let policy = match tables().mmu().bbm_level() {
        BbmLevel::Two => LivePolicy::BbmLevel2,
        _ => LivePolicy::BreakBeforeMake,
    };
    let memory = memory(2 * PMD_SIZE);
    mark(memory, 9);
    map(area(2 * PMD_SIZE), memory, MapFlags::empty());
    let before = tables().check().unwrap_or_else(|error| panic!("{error}"));
    for round in 0..20_u64 {
        let page = area(PMD_SIZE + round * PAGE_SIZE).end();
        let page = VirtRange::from_size(page, PAGE_SIZE).expect("no wrap");
        raw!(tables().carve(&BuddyFrames::ATOMIC, page, policy)).expect("frames");
        shows(area(2 * PMD_SIZE), 9);
        let made = raw!(tables().collapse(&BuddyFrames::ATOMIC, area(2 * PMD_SIZE), MapFlags::empty(), policy));
        assert_eq!(made.map(|made| made.blocks), Ok(1));
        shows(area(2 * PMD_SIZE), 9);
    }
    assert_eq!(tables().check(), Ok(before));
    unmap(area(2 * PMD_SIZE), UnmapFlags::empty());
}
