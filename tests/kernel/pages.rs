//! The page allocator of the real kernel: random work that ends as it began, zones as the machine has them, and every
//! wrong free by its name.

use alloc::vec::Vec;
use core::fmt::Display;
use quarry::addr::{Address, Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, to_usize};
use quarry::arch::aarch64::probe;
use quarry::gfp::{Gfp, ZoneType};
use quarry::global;
use quarry::hal::prot::MemoryType;
use quarry::ktest;
use quarry::mm::layout::{
    FIXMAP_START, PAGE_DESCRIPTOR_SIZE, PAGEBLOCK_START, VMALLOC_START, VMEMMAP_END, VMEMMAP_START,
};
use quarry::mm::page::{Kind, PAGEBLOCK_PAGES, Page, PageMap, PageState, SECTION_PAGES, Vmemmap};
use quarry::mm::zone::{FreeError, PAGE_POISON, PageHal, Scrub};

const GIB: u64 = 1 << 30;
/// The seed of every random sequence here; a failure names the step.
const SEED: u64 = 0x5eed_0f5e_ed0f_5eed;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        to_usize(self.0 % bound as u64)
    }
}

fn order(raw: usize) -> Order {
    u8::try_from(raw).ok().and_then(Order::new).expect("an order")
}

/// The page with this number, which may not exist: every caller can compute such a number.
fn numbered(index: u32) -> Page {
    let map = global::page_allocator().hal().map();
    map.find(map.origin()).expect("the first page").offset(index)
}

/// Every invariant of every part.
fn sound() {
    global::check_all(&mut |part, result: Result<(), &dyn Display>| {
        if let Err(error) = result {
            panic!("{part}: {error}");
        }
    });
}

/// Free blocks by order, in all zones, with the lists of this CPU and the caches drained.
fn blocks() -> [u64; 11] {
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    let mut sum = [0; 11];
    for free in ZoneType::ALL.iter().filter_map(|kind| global::page_allocator().free_blocks(*kind)) {
        for (raw, sum) in sum.iter_mut().enumerate() {
            *sum += free.blocks_of(order(raw));
        }
    }
    sum
}

/// The fewest aligned blocks that hold all free memory, by order: one for each maximal run that is a block, and no more
/// than a run needs otherwise.
fn fewest_blocks() -> [u64; 11] {
    global::drain_all_pages();
    let map = global::page_allocator().hal().map();
    let mut sum = [0; 11];
    let mut close = |from: u32, to: u32| {
        let mut at = from;
        while at < to {
            let largest = at.trailing_zeros().min((to - at).ilog2()).min(10);
            *sum.get_mut(to_usize(u64::from(largest))).expect("an order") += 1;
            at += 1 << largest;
        }
    };
    for section in map.sections() {
        let (mut at, mut run) = (section.first, None);
        while at < section.end {
            let (_, state) = global::page_allocator().head(numbered(at)).expect("a descriptor");
            let zone = (state.kind() == Kind::Free).then(|| state.zone());
            match run {
                Some((from, same)) if zone != Some(same) => {
                    close(from, at);
                    run = zone.map(|zone| (at, zone));
                }
                None => run = zone.map(|zone| (at, zone)),
                _ => {}
            }
            at += 1 << state.raw_order();
        }
        if let Some((from, _)) = run {
            close(from, section.end);
        }
    }
    sum
}

/// A block that the test holds: its first page, its order, what marks its first and last bytes.
struct Held {
    page: Page,
    order: Order,
    mark: u64,
}

impl Held {
    fn new(page: Page, order: Order, mark: u64) -> Self {
        let held = Self { page, order, mark };
        for place in held.places() {
            // SAFETY: pages that the allocator has just given to the test.
            unsafe { place.write_volatile(mark) };
        }
        held
    }

    /// The first and the last word of the block.
    fn places(&self) -> [*mut u64; 2] {
        let start = global::page_address(self.page);
        [start, VirtAddr::new(start.get() + self.order.bytes() - 8)].map(VirtAddr::as_ptr)
    }

    fn free(self, step: usize) {
        for place in self.places() {
            // SAFETY: still the test's.
            assert_eq!(unsafe { place.read_volatile() }, self.mark, "step {step}: somebody wrote to {:?}", self.page);
        }
        raw!(global::try_free_pages(self.page, self.order)).expect("a live block");
    }
}

const FLAGS: [Gfp; 11] = [
    Gfp::KERNEL,
    Gfp::ATOMIC,
    Gfp::NOWAIT,
    Gfp::HIGHUSER_MOVABLE,
    Gfp::KERNEL.union(Gfp::RECLAIMABLE),
    Gfp::KERNEL.union(Gfp::DMA),
    Gfp::KERNEL.union(Gfp::DMA32),
    Gfp::KERNEL.union(Gfp::COMP),
    Gfp::KERNEL.union(Gfp::COLD),
    Gfp::KERNEL.union(Gfp::ZERO),
    Gfp::MEMALLOC.union(Gfp::ACCOUNT),
];

// Behaviours 81, 120, 142: one CPU, 20,000 steps, in small memory and in three zones.
ktest!(
    random_work_ends_as_it_began,
    machine small = "mem=128M",
    machine zones = "mem=4G append='dma_zone=64M'",
    timeout = 120
);
fn random_work_ends_as_it_began() {
    let pages = global::page_allocator();
    let (before, accounted) = (blocks(), pages.accounted_pages());
    let mut random = Random(SEED);
    let mut held: Vec<Held> = Vec::with_capacity(512);
    for step in 0..20_000 {
        if held.len() < 512 && random.below(2) == 0 {
            let order = match random.below(8) {
                0..=4 => order(random.below(4)),
                5 | 6 => order(4 + random.below(5)),
                _ => order(9 + random.below(2)),
            };
            let gfp = FLAGS.get(random.below(FLAGS.len())).copied().expect("a choice");
            let Ok(page) = global::alloc_pages(gfp | Gfp::NOWARN, order) else { continue };
            if gfp.contains(Gfp::ZERO) {
                let words = global::page_address(page).as_ptr::<u64>();
                for word in [0, to_usize(order.bytes() / 16), to_usize(order.bytes() / 8) - 1] {
                    // SAFETY: inside the fresh block.
                    assert_eq!(unsafe { words.wrapping_add(word).read_volatile() }, 0, "step {step}");
                }
            }
            held.push(Held::new(page, order, step as u64));
        } else if !held.is_empty() {
            held.swap_remove(random.below(held.len())).free(step);
        }
        if step % 4_000 == 0 {
            sound();
        }
    }
    held.into_iter().for_each(|block| block.free(usize::MAX));
    assert_eq!(blocks(), before, "every page is free again, and in its largest block");
    assert_eq!(blocks(), fewest_blocks(), "one free block for each maximal run");
    assert_eq!(pages.accounted_pages(), accounted);
    sound();
}

// Behaviours 79, 80: all memory as single pages, and back.
ktest!(all_memory_comes_and_goes_page_by_page, machine = "mem=128M", timeout = 60);
fn all_memory_comes_and_goes_page_by_page() {
    let before = blocks();
    let mut last = u32::MAX;
    let mut count = 0;
    // The pages hold the list of themselves.
    while let Ok(page) = global::alloc_page(Gfp::MEMALLOC | Gfp::NOWARN) {
        // SAFETY: a fresh page.
        unsafe { global::page_address(page).as_ptr::<u32>().write_volatile(last) };
        last = page.index();
        count += 1;
    }
    assert_eq!(global::nr_free_pages(), 0);
    assert_eq!(before.iter().zip(0..).map(|(blocks, order)| blocks << order).sum::<u64>(), count);
    while last != u32::MAX {
        let page = numbered(last);
        // SAFETY: one of the pages taken above, still the test's.
        last = unsafe { global::page_address(page).as_ptr::<u32>().read_volatile() };
        raw!(global::try_free_page(page)).expect("a live page");
    }
    assert_eq!(blocks(), before);
    assert_eq!(blocks(), fewest_blocks());
    sound();
}

/// The zones, with the addresses of their first and last pages.
fn spans() -> Vec<(ZoneType, u64, u64)> {
    let pages = global::page_allocator();
    let map = pages.hal().map();
    let mut spans: Vec<(ZoneType, u64, u64)> = Vec::new();
    for index in map.sections().iter().flat_map(|section| section.first..section.end) {
        let Some(kind) = pages.zone_of_page(numbered(index)) else { continue };
        let at = map.phys(numbered(index)).get();
        match spans.last_mut() {
            Some((same, _, end)) if *same == kind => *end = at + PAGE_SIZE,
            _ => spans.push((kind, at, at + PAGE_SIZE)),
        }
    }
    spans
}

// Behaviour 121: virt states no limit, so DMA is the first GiB of RAM.
ktest!(zones_follow_the_machine, machine = "mem=5G");
fn zones_follow_the_machine() {
    let expected =
        [(ZoneType::Dma, GIB, 2 * GIB), (ZoneType::Dma32, 2 * GIB, 4 * GIB), (ZoneType::Normal, 4 * GIB, 6 * GIB)];
    assert_eq!(spans(), expected);
    let reaches = |gfp: Gfp, end: u64| {
        let page = global::alloc_page(gfp).expect("memory");
        assert!(global::page_to_phys(page).get() < end, "{gfp}");
        raw!(global::try_free_page(page)).expect("a live page");
    };
    reaches(Gfp::KERNEL | Gfp::DMA, 2 * GIB);
    reaches(Gfp::KERNEL | Gfp::DMA32, 4 * GIB);
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    assert!(global::page_to_phys(page).get() >= 4 * GIB, "the highest zone first");
    raw!(global::try_free_page(page)).expect("a live page");
    sound();
}

ktest!(the_boot_arguments_set_zones_and_marks, machine = "mem=256M append='dma_zone=64M min_free_kbytes=4096'");
fn the_boot_arguments_set_zones_and_marks() {
    assert_eq!(
        spans(),
        [(ZoneType::Dma, GIB, GIB + (64 << 20)), (ZoneType::Dma32, GIB + (64 << 20), GIB + (256 << 20)),]
    );
    let pages = global::page_allocator();
    let zones = [ZoneType::Dma, ZoneType::Dma32].map(|kind| pages.zone(kind).expect("a zone"));
    let min: u64 = zones.iter().map(|zone| zone.marks.min).sum();
    // Each zone's share is rounded down.
    assert!((1022..=1024).contains(&min), "{min} pages");
    for zone in zones {
        assert!(zone.present <= zone.spanned && zone.managed < zone.present, "{zone:?}");
    }
}

// Behaviours 89, 90, 91, 92, 94, 119: what is wrong, by page and by address.
ktest!(each_wrong_free_is_named, machine = "mem=256M");
fn each_wrong_free_is_named() {
    let before = blocks();
    let pfn = global::page_to_pfn;
    let block = global::alloc_pages(Gfp::KERNEL, order(3)).expect("memory");
    let compound = global::alloc_pages(Gfp::KERNEL | Gfp::COMP, order(3)).expect("memory");
    let inside = block.offset(2);
    assert_eq!(
        raw!(global::try_free_pages(block, order(2))),
        Err(FreeError::WrongOrder { page: pfn(block), allocated: order(3), freed: order(2) })
    );
    assert_eq!(
        raw!(global::try_free_pages(block.offset(1), order(3))),
        Err(FreeError::InsideBlock { page: pfn(block.offset(1)), head: pfn(block) })
    );
    assert_eq!(
        raw!(global::try_free_page(inside)),
        Err(FreeError::InsideBlock { page: pfn(inside), head: pfn(block) })
    );
    let tail = compound.offset(7);
    assert_eq!(raw!(global::try_free_page(tail)), Err(FreeError::InsideBlock { page: pfn(tail), head: pfn(compound) }));
    let middle = VirtAddr::new(global::page_address(block).get() + 8);
    assert_eq!(raw!(global::try_free_pages(middle, order(3))), Err(FreeError::Unaligned(middle)));

    let pages = global::page_allocator();
    raw!(pages.claim(block, Kind::Slab, 1)).expect("nobody's");
    assert_eq!(
        raw!(global::try_free_pages(block, order(3))),
        Err(FreeError::Claimed { page: pfn(block), kind: Kind::Slab })
    );
    raw!(pages.disown(block, Kind::Slab)).expect("claimed above");
    raw!(pages.set_memory_type(block, MemoryType::NonCacheable)).expect("a live block");
    let other = FreeError::MemoryType { page: pfn(block), memory: MemoryType::NonCacheable };
    assert_eq!(raw!(global::try_free_pages(block, order(3))), Err(other));
    raw!(pages.set_memory_type(block, MemoryType::WriteBack)).expect("a live block");

    raw!(global::try_free_pages(block, order(3))).expect("a live block");
    assert_eq!(raw!(global::try_free_pages(block, order(3))), Err(FreeError::DoubleFree(pfn(block))));
    raw!(global::try_free_pages(compound, order(3))).expect("a live block");
    global::drain_all_pages();
    assert_eq!(raw!(global::try_free_pages(block, order(3))), Err(FreeError::DoubleFree(pfn(block))), "after merging");
    assert_eq!(raw!(global::try_free_page(inside)), Err(FreeError::DoubleFree(pfn(inside))));

    // The kernel's image was never the allocator's.
    let image = quarry::kernel::init::machine().expect("booted").boot.image_range().start();
    let image = global::pfn_to_page(Pfn::containing(image)).expect("RAM");
    assert_eq!(raw!(global::try_free_page(image)), Err(FreeError::Reserved(pfn(image))));
    assert_eq!(blocks(), before, "nothing has changed");
    sound();
}

ktest!(no_ram_and_no_linear_address_are_named, machine = "mem=254M");
fn no_ram_and_no_linear_address_are_named() {
    let end = GIB + (254 << 20);
    let linear = |phys| global::phys_to_virt(PhysAddr::new(phys)).expect("in the linear map");
    // Descriptors come in sections of 4 MiB, so the first frames behind RAM have one.
    let hole = Pfn::containing(PhysAddr::new(end));
    assert_eq!(raw!(global::try_free_page(linear(end))), Err(FreeError::Hole(hole)));
    let beyond = PhysAddr::new(8 * GIB);
    assert_eq!(raw!(global::try_free_page(linear(beyond.get()))), Err(FreeError::NoDescriptor(beyond)));
    let device = PhysAddr::new(0x0900_0000);
    assert_eq!(raw!(global::try_free_page(linear(device.get()))), Err(FreeError::NoDescriptor(device)));
    for addr in [0, FIXMAP_START, VMEMMAP_START, VMALLOC_START] {
        let addr = VirtAddr::new(addr);
        assert_eq!(raw!(global::try_free_page(addr)), Err(FreeError::NotLinear(addr)));
    }
    assert_eq!(global::pfn_to_page(Pfn::containing(beyond)), None);
    sound();
}

// Behaviour 119: a page number from nowhere. Its descriptor is not mapped; the free is refused and the kernel goes on.
ktest!(a_wild_page_number_is_an_error_and_no_crash, machine a72 = "mem=256M", machine max = "cpu=max mem=256M");
fn a_wild_page_number_is_an_error_and_no_crash() {
    let before = blocks();
    let map = global::page_allocator().hal().map();
    for index in [1 << 20, 0x1234_5678, 1 << 31, u32::MAX - 1] {
        let page = numbered(index);
        for raw in 0..=10 {
            assert_eq!(
                raw!(global::try_free_pages(page, order(raw))),
                Err(FreeError::NoDescriptor(map.phys(page))),
                "{page:?}"
            );
        }
        assert!(raw!(global::try_put_page(page)).is_err() && global::get_page(page).is_err());
        assert!(raw!(global::split_page(page, order(1))).is_err());
        assert!(raw!(global::try_free_contig_range(page, 2)).is_err());
    }
    assert_eq!(blocks(), before);
    sound();
}

// Page numbers count from the start of RAM, so those of a machine whose RAM lies at the very end of the linear map lead
// beyond the last descriptor that there can be.
ktest!(a_page_number_beyond_all_descriptors_reads_as_no_page, machine = "mem=256M");
fn a_page_number_beyond_all_descriptors_reads_as_no_page() {
    let last = VMEMMAP_END - u64::from(SECTION_PAGES) * PAGE_DESCRIPTOR_SIZE;
    let origin = Pfn::new((last - VMEMMAP_START) / PAGE_DESCRIPTOR_SIZE);
    let blocks = VirtAddr::new(PAGEBLOCK_START + origin.get() / u64::from(PAGEBLOCK_PAGES));
    // SAFETY: no section says that anything is mapped, and no memory but descriptors ever is in what follows `last`.
    let map = unsafe { Vmemmap::new(VirtAddr::new(last).as_ptr(), blocks.as_ptr(), origin, &[]) };
    for index in [0, SECTION_PAGES - 1, SECTION_PAGES, 1 << 31, u32::MAX] {
        let page = numbered(index);
        assert_eq!(map.get(page).state(), PageState::INSIDE, "{page:?}");
        assert_eq!(map.block_type(page).load(core::sync::atomic::Ordering::Relaxed), 0, "{page:?}");
        assert!(map.get_checked(page).is_none());
    }
    sound();
}

/// A dirty page that has just been freed, and its address.
fn freed_page() -> (Page, VirtAddr) {
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    let at = global::page_address(page);
    // SAFETY: the test's page.
    unsafe { at.as_ptr::<u8>().write_bytes(0xab, 4096) };
    raw!(global::try_free_page(page)).expect("a live page");
    (page, at)
}

/// Whether each byte of the page at `at` is `byte`.
fn holds(at: VirtAddr, byte: u8) -> bool {
    // SAFETY: RAM, which the linear map maps; nothing else runs on this machine.
    (0..4096).all(|index| unsafe { at.as_ptr::<u8>().wrapping_add(index).read_volatile() } == byte)
}

// Behaviours 95, 96, 99.
ktest!(
    pages_are_zeroed_as_the_boot_arguments_say,
    machine alloc = "append=init_on_alloc=1",
    machine free = "append=init_on_free=on"
);
fn pages_are_zeroed_as_the_boot_arguments_say() {
    let (page, at) = freed_page();
    let on_free = global::page_allocator().scrub() == Scrub::ZERO_ON_FREE;
    assert!(holds(at, if on_free { 0 } else { 0xab }));
    global::alloc_contig_range(page, 1, Gfp::KERNEL).expect("freed above");
    assert!(holds(at, 0));
    raw!(global::try_free_page(page)).expect("a live page");
    sound();
}

// A freed page is in no mapping: reading it is a fault that says so, and its next owner finds it mapped.
ktest!(
    a_page_that_was_freed_faults_when_it_is_read,
    machine plain = "append=debug_pagealloc=on",
    machine smp = "smp=4 append='debug_pagealloc=on page_poison=1'",
    machine tagged = "cpu=max mte append='debug_pagealloc=on kasan=on'"
);
fn a_page_that_was_freed_faults_when_it_is_read() {
    assert!(global::page_allocator().scrub().contains(Scrub::UNMAP));
    let order = Order::new(3).expect("small");
    for _ in 0..50 {
        let (page, block) = (
            global::alloc_page(Gfp::KERNEL).expect("memory"),
            global::alloc_pages(Gfp::KERNEL | Gfp::ZERO, order).expect("memory"),
        );
        let (at, first) = (global::page_address(page), global::page_address(block));
        let last = first.checked_add(order.bytes() - 8).expect("no wrap");
        assert!([at, first, last].into_iter().all(|addr| probe::load_u64(addr).is_some()));
        raw!(global::try_free_page(page)).expect("live");
        raw!(global::try_free_pages(block, order)).expect("live");
        assert!([at, first, last].into_iter().all(|addr| probe::load_u64(addr.untagged()).is_none()));
    }
    // All memory above is used as before.
    let memory = global::vmalloc(100 << 10).expect("memory").at();
    raw!(global::try_vfree(memory)).expect("an area");
    let objects: Vec<_> = (0..2_000).map(|_| global::kzalloc(300, Gfp::KERNEL).expect("memory")).collect();
    for object in objects {
        // SAFETY: allocated above, and used no more.
        unsafe { global::kfree(object.as_ptr()) };
    }
    sound();
}

// Behaviour 97.
ktest!(
    a_write_to_a_free_page_is_reported,
    machine = "append=page_poison=1",
    report = "page poisoning: 0x",
    report = "was written to while it was free: 0x42 instead of 0xaa"
);
fn a_write_to_a_free_page_is_reported() {
    let (page, at) = freed_page();
    assert!(holds(at, PAGE_POISON));
    // SAFETY: what is wrong about it is the test: nobody has the page.
    unsafe { at.as_ptr::<u8>().wrapping_add(123).write_volatile(0x42) };
    global::alloc_contig_range(page, 1, Gfp::KERNEL).expect("freed above");
    raw!(global::try_free_page(page)).expect("a live page");
    assert!(holds(at, PAGE_POISON));
    sound();
}
