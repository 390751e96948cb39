//! Memory tags: `kasan=on` on a CPU that has them, and on one that has not.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::smp::Random;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{Address, CpuId, Order, PAGE_BYTES, PAGE_SIZE, PMD_SIZE, TAG_GRANULE, Tag, VirtAddr, to_usize};
use quarry::arch::aarch64::{mte, probe};
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache, VVec};
use quarry::hal::prot::{MemoryType, Prot};
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::kernel::{cpus, tags};
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, Misuse, SlabFlags};
use quarry::mm::vmalloc::VmFlags;
use quarry::mm::zone::FreeError;

fn at(pointer: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(pointer.as_ptr().expose_provenance() as u64)
}

fn behind(pointer: VirtAddr, bytes: u64) -> VirtAddr {
    VirtAddr::new(pointer.get() + bytes)
}

/// The tag of the memory at an address.
fn memory_tag(at: VirtAddr) -> Tag {
    // SAFETY: the tests ask about memory of the linear map or of vmalloc that they had, on a CPU with tags.
    unsafe { mte::get(at.untagged()) }
}

/// Whether a word can be read through a pointer.
fn is_readable(at: VirtAddr) -> bool {
    probe::load_u64(at.align_down(8)).is_some()
}

fn cache(name: &'static str, size: u32, flags: SlabFlags) -> KmemCache {
    let spec = CacheSpec { name, size, align: 0, flags: flags | SlabFlags::NO_MERGE, constructor: None };
    KmemCache::create(&spec).expect("a cache")
}

/// Allocates until it is the object at `wanted`, which is free; the others go back.
fn again(cache: &KmemCache, wanted: VirtAddr) -> VirtAddr {
    let mut others = Vec::new();
    loop {
        let object = cache.alloc(Gfp::KERNEL).expect("memory");
        if at(object).same_byte(wanted) {
            // SAFETY: this function's own, and not used afterwards.
            others.into_iter().for_each(|other| unsafe { cache.free(other) });
            return at(object);
        }
        others.push(object);
    }
}

fn kfree(pointer: VirtAddr) {
    // SAFETY: the tests pass what they have, once, or are about what happens otherwise.
    unsafe { global::kfree(pointer) };
}

fn check() {
    global::slab_allocator().check().expect("the invariants of objects hold");
    global::page_allocator().check().expect("and those of pages");
}

// Behaviour 467: with the right tag all is well; with a wrong one the access is a fault of that name, and the address
// has the pointer's tag.
ktest!(
    a_wrong_tag_is_a_tag_check_fault,
    machine one_cpu = "cpu=max mte append='kasan=on'",
    machine from_el2 = "cpu=max mte virtualization append='kasan=on'",
    machine from_el3 = "cpu=max mte secure virtualization loader=elf append='kasan=on'",
    machine neoverse = "cpu=neoverse-n2 mte gic=3 append='kasan=on'"
);
fn a_wrong_tag_is_a_tag_check_fault() {
    let pointer = at(global::kzalloc(64, Gfp::KERNEL).expect("memory"));
    assert_eq!(probe::load_u64(pointer), Some(0));
    assert_eq!(memory_tag(pointer), pointer.tag());
    let wrong = pointer.with_tag(Tag::from_bits(u64::from(pointer.tag().get()) + 1));
    expect_fault(FaultKind::TagCheck, wrong);
    // SAFETY: the load takes the announced fault, and the machine ends.
    unsafe { wrong.as_ptr::<u64>().read_volatile() };
}

// Behaviour 467: on every CPU, in handlers too, at every level at which the kernel may be entered.
ktest!(
    wrong_tags_fault_on_every_cpu_and_in_handlers,
    machine el1 = "cpu=max mte smp=4 append='kasan=on'",
    machine el2_gicv3 = "cpu=max mte smp=2 virtualization gic=3 append='kasan=on'",
    machine el3 = "cpu=max mte smp=2 secure virtualization loader=elf append='kasan=on'"
);
fn wrong_tags_fault_on_every_cpu_and_in_handlers() {
    assert!(global::tags_are_on());
    assert!(tags::self_test());
}

// Behaviour 469: neighbours never share a tag; a freed object has another one, and its next user yet another.
ktest!(neighbours_are_never_alike_and_tags_change_with_the_owner, machine = "cpu=max mte append='kasan=on'");
fn neighbours_are_never_alike_and_tags_change_with_the_owner() {
    for size in [16_u32, 48, 64, 192, 1024, 4096, 8192] {
        let cache = cache("neighbours", size, SlabFlags::empty());
        let stride = u64::from(cache.cache().size());
        assert!(stride.is_multiple_of(TAG_GRANULE));
        let mut objects: Vec<VirtAddr> = (0..64).map(|_| at(cache.alloc(Gfp::KERNEL).expect("memory"))).collect();
        objects.sort_unstable_by_key(|object| object.untagged());
        for (left, right) in objects.iter().zip(objects.iter().skip(1)) {
            let is_near = right.distance_from(*left).expect("sorted") <= stride;
            assert!(!is_near || left.tag() != right.tag(), "{left} and {right}");
        }
        for (number, object) in objects.iter().copied().enumerate() {
            let mut old = object;
            for _ in 0..if number % 7 == 0 { 4 } else { 0 } {
                // SAFETY: an object of the cache; what is used of it afterwards is what the test is about.
                unsafe { cache.free(old) };
                assert_eq!(memory_tag(old), Tag::FREE);
                assert!(!is_readable(old), "a stale pointer reads");
                let new = again(&cache, object);
                assert_ne!(new.tag(), old.tag(), "the next owner has another tag");
                assert!(!is_readable(old) && is_readable(new));
                old = new;
            }
            // SAFETY: an object of the cache; what is used of it afterwards is what the test is about.
            unsafe { cache.free(old) };
        }
        cache.destroy().expect("nothing is in use");
        check();
    }
}

// Behaviour 470: for every allocation of any size: never the tag that matches all, nor that of free memory.
ktest!(no_allocation_has_a_tag_that_matches_all, machine = "cpu=max mte append='kasan=on'", timeout = 60);
fn no_allocation_has_a_tag_that_matches_all() {
    let fits = |at: VirtAddr| {
        assert!(at.tag() != Tag::MATCH_ALL && at.tag() != Tag::FREE, "{at}");
        assert!(memory_tag(at) == at.tag() && is_readable(at), "{at}");
    };
    let mut random = Random(0x4d54_4521);
    let mut seen = 0_u32;
    for _ in 0..256 {
        let size = 1 + random.index(1024);
        // Several at once: an object has one half of the tags or the other, by its place in the slab.
        let pointers: [VirtAddr; 8] = core::array::from_fn(|_| at(global::kmalloc(size, Gfp::KERNEL).expect("memory")));
        for pointer in pointers {
            fits(pointer);
            seen |= 1 << pointer.tag().get();
        }
        pointers.into_iter().for_each(kfree);
        let order = Order::new(1 + u8::try_from(random.below(4)).expect("small")).expect("an order");
        let pages = global::get_free_pages(Gfp::KERNEL, order).expect("memory").at();
        fits(pages);
        fits(behind(pages, order.bytes() - 1));
        raw!(global::try_free_pages(pages, order)).expect("allocated above");
        let area = global::vmalloc(to_usize(1 + random.below(3 * PAGE_SIZE))).expect("memory").at();
        fits(area);
        raw!(global::try_vfree(area)).expect("allocated above");
    }
    assert_eq!(seen, 0x3fff, "all others are given out");
    check();
    global::check_vmalloc().expect("and those of vmalloc");
}

// Behaviour 471: an address without a tag matches all; against a pointer's tag every other tag of the memory faults.
ktest!(only_equal_tags_agree, machine = "cpu=max mte append='kasan=on'");
fn only_equal_tags_agree() {
    let pointer = at(global::kzalloc(64, Gfp::KERNEL).expect("memory"));
    let own = pointer.tag();
    for tag in (0..16).map(Tag::from_bits) {
        // SAFETY: the test's own object, whose tag is put back below.
        unsafe { mte::set(pointer.untagged(), 64, tag) };
        assert!(is_readable(pointer.untagged()), "memory {tag}");
        assert_eq!(is_readable(pointer), tag == own, "memory {tag}, pointer {own}");
    }
    // SAFETY: the test's own object, whose tag is put back below.
    unsafe { mte::set(pointer.untagged(), 64, own) };
    kfree(pointer);
    check();
}

// Behaviour 472: atomics and bit operations are checked as well: 48 bytes of a class of 64, and the next word.
ktest!(an_atomic_behind_the_object_faults, machine = "cpu=max mte append='kasan=on'");
fn an_atomic_behind_the_object_faults() {
    let object = at(global::kzalloc(48, Gfp::KERNEL).expect("memory"));
    let (last, next) = (behind(object, 40), behind(object, 48));
    // SAFETY: the last word of the object.
    unsafe { AtomicU64::from_ptr(last.as_ptr()) }.fetch_or(1, Ordering::Relaxed);
    assert_eq!(global::ksize(object), Ok(48), "what is not to be used is not counted");
    expect_fault(FaultKind::TagCheck, next);
    // SAFETY: the access takes the announced fault, and the machine ends.
    unsafe { AtomicU64::from_ptr(next.as_ptr()) }.fetch_or(1, Ordering::Relaxed);
}

// Behaviour 154: an object of 200 bytes read at byte 208, the first behind its last granule.
ktest!(a_read_behind_an_object_of_a_cache_faults, machine = "cpu=max mte append='kasan=on'");
fn a_read_behind_an_object_of_a_cache_faults() {
    let cache = cache("two_hundred", 200, SlabFlags::empty());
    let object = at(cache.alloc(Gfp::KERNEL).expect("memory"));
    let _neighbour = cache.alloc(Gfp::KERNEL).expect("memory");
    assert!(is_readable(behind(object, 199)));
    expect_fault(FaultKind::TagCheck, behind(object, 208));
    // SAFETY: the load takes the announced fault, and the machine ends.
    unsafe { behind(object, 208).as_ptr::<u8>().read_volatile() };
}

// Behaviour 210: the old pointer of an object that somebody else has is found out, for sure after one change of owners,
// and with a chance of six in seven after more.
ktest!(an_old_pointer_is_found_out_after_two_owners, machine = "cpu=max mte append='kasan=on'");
fn an_old_pointer_is_found_out_after_two_owners() {
    let cache = cache("handed_on", 128, SlabFlags::empty());
    let mut found = 0;
    for _ in 0..32 {
        let old = cache.alloc(Gfp::KERNEL).expect("memory");
        let mut owner = old;
        for changes in 1..=2 {
            // SAFETY: the test's own.
            unsafe { cache.free(owner) };
            owner = NonNull::new(again(&cache, at(old)).as_ptr()).expect("not null");
            assert!(changes > 1 || !is_readable(at(old)));
        }
        found += u32::from(!is_readable(at(old)));
        // SAFETY: the test's own.
        unsafe { cache.free(owner) };
    }
    assert!(found >= 16, "{found} of 32");
    cache.destroy().expect("nothing is in use");
}

// Behaviour 474: arithmetic on addresses leaves tags out.
ktest!(address_arithmetic_strips_tags, machine = "cpu=max mte append='kasan=on'");
fn address_arithmetic_strips_tags() {
    let pages = global::get_free_pages(Gfp::KERNEL, Order::ZERO).expect("memory").at();
    let plain = pages.untagged();
    assert_ne!(pages, plain);
    let page = global::virt_to_page(behind(pages, 123)).expect("RAM");
    assert_eq!(global::virt_to_phys(pages), Some(global::page_to_phys(page)));
    assert_eq!(global::virt_to_phys(pages), global::virt_to_phys(plain));
    assert_eq!(global::page_address(page), pages, "a page's address has the tag of who has it");
    assert_eq!(global::phys_to_virt(global::page_to_phys(page)), Some(plain));
    assert_eq!(behind(plain, 8).distance_from(pages), Some(8));
    assert_eq!(behind(pages, 8).distance_from(plain), Some(8));
    let area = global::vmalloc(2 * PAGE_BYTES).expect("memory").at();
    assert!(global::is_vmalloc_addr(area) && global::is_vmalloc_addr(area.untagged()));
    assert!(!global::is_vmalloc_addr(pages) && global::vmalloc_to_page(area).is_some());
    assert_eq!(global::vmalloc_to_page(area), global::vmalloc_to_page(area.untagged()));
    let found = alloc::format!("{}", quarry::kernel::whereabouts::Whereabouts(area));
    assert!(found.contains("in vmalloc area"), "{found}");
    raw!(global::try_vfree(area)).expect("allocated above");
    // Without its tag a pointer can be freed, as it can be used.
    raw!(global::try_free_page(plain)).expect("allocated above");
    kfree(at(global::kmalloc(100, Gfp::KERNEL).expect("memory")).untagged());
    kfree(at(global::kmalloc(20_000, Gfp::KERNEL).expect("memory")).untagged());
    check();
}

// Memory of Rust's types from vmalloc is tagged like memory requested by size, wherever it moves.
ktest!(rows_in_memory_of_vmalloc_are_tagged, machine = "cpu=max mte append='kasan=on'");
fn rows_in_memory_of_vmalloc_are_tagged() {
    let mut row = VVec::new();
    for value in 0..10_000_u64 {
        row.push(value, Gfp::KERNEL).expect("memory");
        assert!(!VirtAddr::of(row.as_slice().as_ptr()).is_untagged(), "with {value}");
    }
    assert!(row.as_slice().iter().copied().eq(0..10_000));
    drop(row);
    let huge = global::vmalloc_huge(to_usize(2 * PMD_SIZE), Gfp::KERNEL).expect("memory").at();
    assert!(!huge.is_untagged());
    raw!(global::try_vfree(huge)).expect("allocated above");
    check();
    global::check_vmalloc().expect("and those of vmalloc");
}

// Behaviour 475: what is mapped as ordinary memory keeps no tags, so nothing would be checked; the canary says so. The
// linear map is mapped as tagged memory.
ktest!(memory_that_keeps_no_tags_is_noticed, machine = "cpu=max mte append='kasan=on'");
fn memory_that_keeps_no_tags_is_noticed() {
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    let linear = global::page_address(page).untagged();
    let memory =
        |at| global::kernel_tables().and_then(|tables| tables.translate(at)).expect("mapped").leaf.prot.memory();
    assert_eq!(memory(linear), MemoryType::WriteBackTagged);
    // SAFETY: the test's own page, in each mapping.
    assert!(unsafe { global::keeps_tags(linear) });
    let plain = global::vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).expect("addresses").at();
    assert_eq!(memory(plain), MemoryType::WriteBack);
    // SAFETY: the test's own page, in each mapping.
    assert!(!unsafe { global::keeps_tags(plain) });
    assert!(is_readable(plain.with_tag(Tag::from_bits(3))), "nothing is checked there");
    raw!(global::try_vunmap(plain)).expect("mapped above");
    let tagged = global::vmap(&[page], VmFlags::KASAN, Prot::KERNEL_RW).expect("addresses").at();
    assert_eq!(memory(tagged), MemoryType::WriteBackTagged);
    // SAFETY: the test's own page, in each mapping.
    assert!(unsafe { global::keeps_tags(tagged) });
    raw!(global::try_vunmap(tagged)).expect("mapped above");
    raw!(global::try_free_page(page)).expect("allocated above");
}

// A stale pointer frees nothing, though its memory is somebody's: behaviour 469's other half.
ktest!(
    a_stale_pointer_frees_nothing,
    machine = "cpu=max mte append='kasan=on'",
    report = "is stale, with tag",
    report = "nothing was lost"
);
fn a_stale_pointer_frees_nothing() {
    let cache = cache("handed_on", 64, SlabFlags::empty());
    let old = at(cache.alloc(Gfp::KERNEL).expect("memory"));
    kfree(old);
    let new = again(&cache, old);
    // SAFETY: the test is about what happens.
    let refused = unsafe { global::try_kfree(old) };
    assert_eq!(refused, Err(Misuse::Stale { at: old, cache: "handed_on", memory: new.tag() }));
    kfree(old);
    assert!(is_readable(new));
    kfree(new);
    let old = global::get_free_pages(Gfp::KERNEL, Order::ZERO).expect("memory").at();
    raw!(global::try_free_page(old)).expect("allocated above");
    assert_eq!(raw!(global::try_free_page(old)), Err(FreeError::Stale { at: old, memory: Tag::FREE }));
    let large = at(global::kmalloc(20_000, Gfp::KERNEL).expect("memory"));
    let wrong = large.with_tag(Tag::from_bits(u64::from(large.tag().get()) ^ 1));
    // SAFETY: a stale pointer, which has to be refused.
    assert!(matches!(unsafe { global::try_kfree(wrong) }, Err(Misuse::Stale { .. })));
    kfree(large);
    check();
    log::info!("nothing was lost");
}

// Sizes change: the tag goes with the bytes that are asked for, here and elsewhere.
ktest!(resizing_takes_the_tag_along, machine = "cpu=max mte append='kasan=on'");
fn resizing_takes_the_tag_along() {
    let object = at(global::kzalloc(40, Gfp::KERNEL).expect("memory"));
    assert!(is_readable(behind(object, 47)) && !is_readable(behind(object, 48)));
    // SAFETY: the test's own, here and below.
    let longer = at(unsafe { global::krealloc(object, 64, Gfp::KERNEL | Gfp::ZERO) }.expect("room"));
    assert_eq!(longer, object);
    assert_eq!(probe::load_u64(behind(object, 56)), Some(0));
    // SAFETY: the test's own, and the old pointer is not used afterwards.
    let shorter = at(unsafe { global::krealloc(object, 16, Gfp::KERNEL) }.expect("room"));
    assert!(shorter == object && is_readable(object) && !is_readable(behind(object, 16)));
    // SAFETY: the test's own, and the old pointer is not used afterwards.
    let moved = at(unsafe { global::krealloc(object, 20_000, Gfp::KERNEL) }.expect("room"));
    assert!(!is_readable(object) && is_readable(behind(moved, 19_999)) && !is_readable(behind(moved, 20_016)));
    assert_eq!(global::ksize(moved), Ok(20_000));
    kfree(moved);
    let area = global::vmalloc(3 * PAGE_BYTES).expect("memory").at();
    // SAFETY: the test's own, and the old pointer is not used afterwards.
    let shorter = unsafe { global::vrealloc(area, 100, Gfp::KERNEL) }.expect("room").at();
    assert!(shorter == area && is_readable(behind(area, 104)) && !is_readable(behind(area, 112)));
    // SAFETY: the test's own, and the old pointer is not used afterwards.
    let longer = unsafe { global::vrealloc(area, 2 * PAGE_BYTES, Gfp::KERNEL) }.expect("room").at();
    assert!(is_readable(behind(longer, 2 * PAGE_SIZE - 1)));
    // SAFETY: the test's own, and the old pointer is not used afterwards.
    let longest = unsafe { global::vrealloc(longer, 40 * PAGE_BYTES, Gfp::KERNEL) }.expect("room").at();
    assert!(is_readable(behind(longest, 40 * PAGE_SIZE - 1)));
    raw!(global::try_vfree(longest)).expect("allocated above");
    let mut row: Vec<u64> = Vec::new();
    row.extend(0..5000);
    row.truncate(3);
    row.shrink_to_fit();
    assert_eq!(row, [0, 1, 2]);
    check();
}

#[inline(never)]
fn who_allocates(size: usize) -> VirtAddr {
    core::hint::black_box(at(global::kmalloc(size, Gfp::KERNEL).expect("memory")))
}

#[inline(never)]
fn who_frees(object: VirtAddr) {
    kfree(core::hint::black_box(object));
    core::hint::black_box(());
}

// Behaviour 467: the report names the object, its cache, both tags, what went wrong, and who had the memory.
ktest!(
    a_use_after_free_is_named_with_its_owners,
    machine = "cpu=max mte append='kasan=on'",
    report = "tag check fault",
    report = "of the cache kmalloc-128 of 128 bytes, free",
    report = "that of free memory: use after free; the pointer's memory was 100 bytes at",
    report = "allocated in",
    report = "who_allocates",
    report = "freed in",
    report = "who_frees"
);
fn a_use_after_free_is_named_with_its_owners() {
    let object = who_allocates(100);
    who_frees(object);
    // SAFETY: the store takes a fault that ends the machine.
    unsafe { object.as_ptr::<u64>().write_volatile(1) };
}

ktest!(
    an_overflow_is_named_with_its_owner,
    machine = "cpu=max mte append='kasan=on'",
    report = "tag check fault",
    report = "of the cache kmalloc-128 of 128 bytes, in use, byte 116 of it",
    report = "out of bounds, byte 4 behind the memory with the pointer's tag; the pointer's memory was 100 bytes at",
    report = "who_allocates"
);
fn an_overflow_is_named_with_its_owner() {
    let object = who_allocates(100);
    // SAFETY: the store takes a fault that ends the machine: byte 116, in the second granule behind the last one.
    unsafe { behind(object, 116).as_ptr::<u8>().write_volatile(1) };
}

ktest!(
    an_underflow_is_named,
    machine = "cpu=max mte append='kasan=on'",
    report = "tag check fault",
    report = "out of bounds, 1 bytes before the memory with the pointer's tag",
    report = "who_allocates"
);
fn an_underflow_is_named() {
    let object = who_allocates(20_000);
    // SAFETY: the load takes a fault that ends the machine.
    unsafe { VirtAddr::new(object.get() - 1).as_ptr::<u8>().read_volatile() };
}

ktest!(
    a_page_used_after_its_free_is_named_with_its_owners,
    machine = "cpu=max mte append='kasan=on'",
    report = "tag check fault",
    report = "in the linear map, of physical address",
    report = "use after free; the pointer's memory was 8192 bytes at",
    report = "allocated in",
    report = "a_page_used_after_its_free",
    report = "freed in"
);
fn a_page_used_after_its_free_is_named_with_its_owners() {
    let order = Order::new(1).expect("an order");
    let pages = global::get_free_pages(Gfp::KERNEL, order).expect("memory").at();
    raw!(global::try_free_pages(pages, order)).expect("allocated above");
    // SAFETY: the load takes a fault that ends the machine.
    unsafe { behind(pages, 5000).as_ptr::<u8>().read_volatile() };
}

ktest!(
    an_overflow_of_vmalloc_memory_is_named,
    machine = "cpu=max mte append='kasan=on'",
    report = "tag check fault",
    report = "in vmalloc area",
    report = "out of bounds, byte 8 behind the memory with the pointer's tag"
);
fn an_overflow_of_vmalloc_memory_is_named() {
    let area = global::vmalloc(5000).expect("memory").at();
    // SAFETY: the store takes a fault that ends the machine: 5,000 bytes end in a granule that ends at 5,008.
    unsafe { behind(area, 5016).as_ptr::<u8>().write_volatile(1) };
}

// Red zones, poison and users go with tags; so do caches whose objects keep what a constructor made.
ktest!(tags_go_with_debugging, machine = "cpu=max mte append='kasan=on slub_debug=FZPU,kmalloc-64'");
fn tags_go_with_debugging() {
    let object = at(global::kzalloc(20, Gfp::KERNEL).expect("memory"));
    assert!(is_readable(behind(object, 31)) && !is_readable(behind(object, 32)));
    // The last granule is the object's as a whole: what is behind byte 20 is the red zone's business.
    let debugged = at(global::kzalloc(40, Gfp::KERNEL).expect("memory"));
    assert!(!is_readable(behind(debugged, 48)));
    assert_eq!(global::ksize(debugged), Ok(40));
    kfree(debugged);
    kfree(object);
    let fenced = cache("fenced_and_tagged", 72, SlabFlags::DEBUG);
    let object = fenced.zalloc(Gfp::KERNEL).expect("memory");
    assert!(is_readable(behind(at(object), 71)) && !is_readable(behind(at(object), 80)));
    // SAFETY: the test's own.
    unsafe { fenced.free(object) };
    assert_eq!(fenced.validate().errors(), 0);
    fenced.destroy().expect("nothing is in use");
    check();
}

// A short mix on all CPUs, handlers among them being those that drain: nothing is lost, every tag is right.
ktest!(tagged_memory_survives_a_mix_on_four_cpus, machine = "cpu=max mte smp=4 append='kasan=on'", timeout = 120);
fn tagged_memory_survives_a_mix_on_four_cpus() {
    let in_use = || {
        let mut sum = 0;
        let slabs = global::slab_allocator();
        slabs.for_each(|cache| sum += slabs.info(cache).active_objects).expect("a thread");
        sum
    };
    let before = in_use();
    let ran = cpus::run_everywhere(&|cpu: CpuId| {
        let mut random = Random(0x1357 + u64::from(cpu.get()));
        let mut held: Vec<(VirtAddr, usize)> = Vec::new();
        for _ in 0..400 {
            if held.len() < 32 && random.below(3) != 0 {
                let most = if random.below(8) == 0 { 20_000 } else { 512 };
                let size = 1 + random.index(most);
                let object = at(global::kmalloc(size, Gfp::KERNEL).expect("memory"));
                // SAFETY: as large, and this CPU's.
                unsafe { object.as_ptr::<u8>().write_bytes(0x5a, size) };
                held.push((object, size));
            } else if !held.is_empty() {
                let (object, size) = held.swap_remove(random.index(held.len()));
                assert!(is_readable(object) && memory_tag(behind(object, size as u64 - 1)) == object.tag());
                kfree(object);
            }
        }
        held.into_iter().for_each(|(object, _)| kfree(object));
    });
    assert_eq!(ran, 4);
    check();
    assert_eq!(in_use(), before);
}

// On a CPU without tags the argument is answered in a line, and nothing is tagged.
ktest!(
    without_mte_kasan_says_so,
    machine a72 = "append='kasan=on'",
    machine max_without_mte = "cpu=max append='kasan=on'"
);
fn without_mte_kasan_says_so() {
    assert!(!global::tags_are_on());
    let object = at(global::kmalloc(64, Gfp::KERNEL).expect("memory"));
    assert!(object.is_untagged());
    kfree(object);
}
ktest!(boot: without_mte_the_log_says_so, machine = "append='kasan=on'", report = "kasan=on: this CPU has no memory tags", exit = 0);

// Nobody has asked: a CPU with tags leaves them alone, and a pointer with one is as wild as any.
ktest!(tags_are_off_unless_they_are_asked_for, machine = "cpu=max mte");
fn tags_are_off_unless_they_are_asked_for() {
    assert!(!global::tags_are_on());
    let object = at(global::kmalloc(64, Gfp::KERNEL).expect("memory"));
    assert!(object.is_untagged());
    let wild = object.with_tag(Tag::from_bits(3));
    assert!(!is_readable(wild));
    // SAFETY: nothing is freed by it.
    assert_eq!(unsafe { global::try_kfree(wild) }, Err(Misuse::NotLinear(wild)));
    assert!(matches!(global::virt_to_page(wild), Err(FreeError::NotLinear(_))));
    kfree(object);
    let pages = global::get_free_pages(Gfp::KERNEL, Order::ZERO).expect("memory").at();
    assert!(pages.is_untagged() && raw!(global::try_free_page(pages.with_tag(Tag::from_bits(3)))).is_err());
    raw!(global::try_free_page(pages)).expect("allocated above");
    assert_eq!(to_usize(TAG_GRANULE), 16);
}
