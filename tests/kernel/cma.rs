//! Contiguous areas on the machine: from the device tree, from the boot argument, lent and taken.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use quarry::gfp::{Gfp, ZoneType};
use quarry::global::{self, KVec, KernelCmaArea};
use quarry::kernel::init;
use quarry::kernel::machine_account::account;
use quarry::kernel::owner_map::Owner;
use quarry::ktest;
use quarry::mm::io::RegionError;
use quarry::mm::page::Page;
use quarry::mm::zone::{CmaUsage, Mover};

const MIB: u64 = 1 << 20;
const MOVABLE: Gfp = Gfp::HIGHUSER_MOVABLE.union(Gfp::NOWARN).union(Gfp::NORETRY);
const TWO_MIB: u32 = 512;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)).expect("in order")
}

fn default_area() -> KernelCmaArea {
    global::cma_areas().find(|area| area.is_default).expect("an area for everybody")
}

fn usage(area: &KernelCmaArea) -> CmaUsage {
    let usage = global::page_allocator().cma_usage(area.area).expect("this machine's");
    assert_eq!(usage.free + usage.lent + usage.taken, area.area.pages());
    usage
}

/// Pages of all areas, and free pages of theirs.
fn counted() -> (u64, u64) {
    let zones = ZoneType::ALL.iter().filter_map(|kind| global::page_allocator().zone(*kind));
    zones.fold((0, 0), |(cma, free), zone| (cma + zone.cma, free + zone.free_cma))
}

/// Every byte is somebody's, every list as it must be.
fn sound() {
    global::drain_all_pages();
    global::page_allocator().check().unwrap_or_else(|error| panic!("{error}"));
    let account = account(init::machine().expect("booted")).expect("RAM adds up");
    assert_eq!(account.map.sum(|owner| owner == Owner::Pages), global::totalram_pages() * PAGE_SIZE);
    for area in global::cma_areas() {
        usage(&area);
    }
}

ktest!(
    pools_of_the_tree_that_are_reusable_are_lent,
    machine pools = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb",
    machine poisoned = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb append='page_poison=on'",
);
fn pools_of_the_tree_that_are_reusable_are_lent() {
    let areas: [KernelCmaArea; 2] = {
        let mut areas = global::cma_areas();
        [areas.next().expect("the default area"), areas.next().expect("the video's")]
    };
    assert_eq!(global::cma_areas().count(), 2);
    let [default, video] = areas;
    assert!(default.is_default && !video.is_default);
    assert_eq!((default.range.size(), video.range), (32 * MIB, range(0x4a00_0000, 0x4a80_0000)));
    assert!(range(0x4500_0000, 0x4800_0000).contains_range(default.range));
    assert_eq!(global::cma_area_of(video.node.expect("a node")), Some(video.area));
    let pages = u64::from(default.area.pages() + video.area.pages());
    assert_eq!(pages, 40 * MIB / PAGE_SIZE);
    // Movable pages taken during boot are in the area, if there are any.
    assert_eq!(counted().0, pages);
    assert!(counted().1 + 64 >= pages, "{:?}", counted());
    // Nobody maps it in a device's name.
    let tree = &init::machine().expect("booted").tree;
    let node = tree.compatible_nodes("quarry,video").next().expect("a device");
    assert_eq!(global::memory_region(node, 0), Err(RegionError::Lent { region: "video@4a000000" }));
    sound();
}

ktest!(
    boot: a_pool_that_cannot_be_lent_is_named_with_its_property,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb",
    report = "no contiguous area /reserved-memory/odd@4b000000: reg does not start and end at multiples of 2 MiB",
    report = "no contiguous area /reserved-memory/odd: size is no multiple of 2 MiB",
    report = "no contiguous area /reserved-memory/over@4a800000: reg lies over memory that somebody else has",
    report = "DMA: shared-ram@4e000000 is the default pool, 256 pages"
);

ktest!(
    the_boot_argument_wins_over_the_tree,
    machine pools = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb append='cma=15M@0x46000000-0x48000001'",
    machine plain = "append='cma=15M@0x46000000-0x48000001'",
);
fn the_boot_argument_wins_over_the_tree() {
    let area = default_area();
    assert_eq!((area.range, area.node), (range(0x4700_0000, 0x4800_0000), None), "16 MiB, as high as there is room");
    let tree = &init::machine().expect("booted").tree;
    let video = tree.reserved_memory().filter(|region| region.name() == "video@4a000000").count();
    assert_eq!(global::cma_areas().count(), 1 + video);
    sound();
}

ktest!(
    the_boot_argument_may_want_no_area,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-pools.dtb append='cma=0'"
);
fn the_boot_argument_may_want_no_area() {
    assert_eq!((global::cma_default(), global::cma_areas().count()), (None, 1));
    let dynamic = init::machine().expect("booted").tree.find("/reserved-memory/linux,cma").expect("the tree has it");
    assert_eq!(global::memblock().reserved().reserved_for(dynamic.offset()), None);
    sound();
}

ktest!(
    boot: an_area_without_room_is_refused,
    machine = "append='cma=16M@0x40000000'",
    report = "no contiguous area (cma=): ",
    exit = 0
);
ktest!(
    boot: an_area_where_no_ram_is_is_refused,
    machine = "append='cma=16M@0x20000000'",
    report = "no contiguous area (cma=): ",
    exit = 0
);
ktest!(
    boot: an_area_that_is_not_aligned_is_refused,
    machine = "append='cma=16M@0x46100000'",
    report = "no contiguous area (cma=): ",
    exit = 0
);

/// Room for every page of the machine.
fn row() -> KVec<Page> {
    let mut row = KVec::new();
    row.reserve(80_000, Gfp::KERNEL).expect("memory");
    row
}

/// Every page that can be had: those with an even number, and the others.
fn fragment() -> (KVec<Page>, KVec<Page>) {
    let (mut kept, mut given) = (row(), row());
    while let Ok(page) = global::alloc_page(Gfp::NOWAIT) {
        let row = if global::page_to_pfn(page).get().is_multiple_of(2) { &mut kept } else { &mut given };
        row.push_within_capacity(page).expect("room for every page");
    }
    (kept, given)
}

fn give_back(pages: KVec<Page>) {
    for page in pages.iter() {
        raw!(global::try_free_page(*page)).expect("ours");
    }
}

// Behaviour 325
ktest!(
    two_megabytes_are_had_when_all_other_memory_is_in_pieces,
    machine one_cpu = "mem=256M append='cma=16M'",
    machine four_cpus = "mem=256M smp=4 append='cma=16M'",
    machine pi = "board=raspi4b serial=1 loader=raw fdt_at=0x2600000 dtb=tests/data/dtb/boards/rpi4-fw-2gb.dtb.gz append='mem=300M'",
    timeout = 120
);
fn two_megabytes_are_had_when_all_other_memory_is_in_pieces() {
    let area = default_area();
    let free = counted().1;
    let mut movable = row();
    let (kept, given) = fragment();
    assert!(kept.iter().chain(given.iter()).all(|page| !area.area.contains(*page, 1)), "only movable pages borrow");
    give_back(given);
    let large = Order::new(9).expect("an order");
    assert!(global::alloc_pages(Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY, large).is_err(), "memory is in pieces");
    let allocator = global::page_allocator();
    let first = allocator.cma_alloc(area.area, TWO_MIB, TWO_MIB, Gfp::KERNEL | Gfp::ZERO).expect("from the area");
    assert!(area.area.contains(first, TWO_MIB) && usage(&area).taken == TWO_MIB);
    let phys = global::page_to_phys(first);
    assert!(phys.is_aligned(2 * MIB) && area.range.contains(phys));
    let at = global::page_address(first);
    // SAFETY: allocated above, and mapped there.
    assert!((0..512 * 512).all(|word| unsafe { at.as_ptr::<u64>().wrapping_add(word).read() } == 0));
    raw!(allocator.cma_release(first, TWO_MIB)).expect("ours");
    // Movable pages have it again, before all other memory is used up.
    while !movable.len().is_multiple_of(512) || usage(&area).lent < TWO_MIB {
        let page = global::alloc_page(MOVABLE).expect("movable pages borrow");
        movable.push_within_capacity(page).expect("room");
    }
    give_back(movable);
    give_back(kept);
    global::drain_all_pages();
    assert_eq!(counted().1, free);
    sound();
}

/// Movable pages with an owner that moves them: as many as there are places.
struct Cache {
    /// The number of the frame in each place, 0 for none.
    places: [AtomicU64; PLACES],
    moved: AtomicU32,
}

const PLACES: usize = 3000;

static CACHE: Cache = Cache { places: [const { AtomicU64::new(0) }; PLACES], moved: AtomicU32::new(0) };

fn word(pfn: u64) -> *mut u64 {
    let page = global::pfn_to_page(Pfn::new(pfn)).expect("a page");
    global::page_address(page).as_ptr()
}

impl Mover for Cache {
    fn name(&self) -> &'static str {
        "cache of the tests"
    }

    fn evacuate(&self, page: Page, order: Order) -> bool {
        let pfn = global::page_to_pfn(page).get();
        let Some(place) = self.places.iter().find(|place| place.load(Ordering::Relaxed) == pfn) else { return false };
        assert_eq!(order, Order::ZERO);
        let Ok(new) = global::alloc_page(MOVABLE) else { return false };
        let to = global::page_to_pfn(new).get();
        // SAFETY: both pages are the cache's, and the test looks at them when this has returned.
        unsafe { word(to).copy_from_nonoverlapping(word(pfn), 512) };
        place.store(to, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
        raw!(global::try_free_page(page)).expect("the cache's");
        true
    }
}

// Behaviour 325
ktest!(
    what_borrows_is_moved_by_its_owner_and_keeps_what_it_holds,
    machine one_cpu = "mem=64M append='cma=16M'",
    machine four_cpus = "mem=64M smp=4 append='cma=16M'",
    timeout = 120
);
fn what_borrows_is_moved_by_its_owner_and_keeps_what_it_holds() {
    let area = default_area();
    let free = counted().1;
    let registration = global::movers().register(global::context(), &CACHE).expect("a place");
    // Half of the memory elsewhere is taken, so that movable pages borrow.
    let (mut fixed, elsewhere) = (KVec::new(), global::nr_free_pages().saturating_sub(free));
    for _ in 0..elsewhere / 2 {
        fixed.push(global::alloc_page(Gfp::KERNEL).expect("memory"), Gfp::KERNEL).expect("memory");
    }
    for (place, number) in CACHE.places.iter().zip(0_u64..) {
        let page = global::alloc_page(MOVABLE).expect("memory");
        place.store(global::page_to_pfn(page).get(), Ordering::Relaxed);
        // SAFETY: a page of the cache's.
        unsafe { word(global::page_to_pfn(page).get()).write(number) };
    }
    let lent = usage(&area).lent;
    assert!(lent > 500, "{lent} pages are lent");
    give_back(fixed);
    let allocator = global::page_allocator();
    let count = area.area.pages();
    let first = allocator.cma_alloc(area.area, count, 1, Gfp::KERNEL).expect("all of the area");
    assert_eq!((first, usage(&area).taken), (area.area.first(), count));
    assert!(CACHE.moved.load(Ordering::Relaxed) > 500);
    for (place, number) in CACHE.places.iter().zip(0_u64..) {
        let pfn = place.load(Ordering::Relaxed);
        // SAFETY: a page of the cache's.
        assert_eq!(unsafe { word(pfn).read() }, number);
        raw!(global::try_free_page(global::pfn_to_page(Pfn::new(pfn)).expect("a page"))).expect("the cache's");
        place.store(0, Ordering::Relaxed);
    }
    raw!(allocator.cma_release(first, count)).expect("ours");
    global::movers().unregister(global::context(), registration).expect("registered above");
    global::drain_all_pages();
    assert_eq!(counted().1, free);
    sound();
}
