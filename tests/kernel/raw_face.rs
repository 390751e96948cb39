//! The raw face: each family frees in one way, and says one thing when it is told the wrong name.

use quarry::addr::{Address, Order, PAGE_BYTES, PAGE_SIZE, PhysAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, StackAllocError};
use quarry::hal::prot::{MemoryType, Prot};
use quarry::ktest;
use quarry::mm::io::IoError;
use quarry::mm::io::resource::ResourceError;
use quarry::mm::percpu::PerCpuError;
use quarry::mm::slab::{CacheSpec, CreateError, SlabFlags};
use quarry::mm::vmalloc::{SetMemoryError, VmFlags, VmallocError};
use quarry::mm::zone::{AllocError, ContigError};

ktest!(
    each_free_reports_rule_object_owner_and_caller,
    report = "BUG free_page(0x",
    report = " is free already",
    report = "In a block of 1 pages from pfn 0x",
    report = "Called from tests/kernel/raw_face.rs:",
    report = "BUG free_pages(0x",
    report = " is in use: slab",
    report = "In object 0 of the cache kmalloc-64",
    report = "BUG put_page(0x",
    report = "BUG free_contig_range(0x",
    report = "BUG free_pages_exact(0x",
    report = "BUG vfree(0x",
    report = " is not the start but inside of the area 0x",
    report = "In the area 0x",
    report = "Called from tests/kernel/raw_face.rs:",
    report = "BUG vfree_atomic(0x",
    report = "BUG vunmap(0x",
    report = " is another kind of area: vmalloc",
    report = "BUG vm_unmap_ram(0x",
    report = "BUG kvfree(0x",
    report = "BUG iounmap(0x",
    report = "BUG memunmap(0x",
    report = "BUG free_percpu(0x",
    report = "BUG kmalloc-64: double free of 0x",
    report = "Called from 0x",
    report = "each_free_reports_rule_object_owner_and_caller",
    report = "all refused"
);
fn each_free_reports_rule_object_owner_and_caller() {
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    raw!(global::free_page(page));
    raw!(global::free_page(page));
    let object = global::kmalloc(64, Gfp::KERNEL).expect("memory");
    let slab = global::virt_to_page(VirtAddr::of(object.as_ptr())).expect("of a slab");
    raw!(global::free_pages(slab, Order::ZERO));
    raw!(global::put_page(page));
    raw!(global::free_contig_range(page, 1));
    raw!(global::free_pages_exact(page, PAGE_BYTES));

    let area = global::vmalloc(2 * PAGE_BYTES).expect("memory").at();
    let inside = VirtAddr::new(area.get() + 8);
    raw!(global::vfree(inside));
    raw!(global::vfree_atomic(inside));
    raw!(global::vunmap(area));
    raw!(global::vm_unmap_ram(area, 2));
    raw!(global::kvfree(inside));
    raw!(global::iounmap(area));
    raw!(global::memunmap(area));
    raw!(global::vfree(area));

    let percpu = global::alloc_percpu(64, 8).expect("memory");
    raw!(global::free_percpu(percpu));
    raw!(global::free_percpu(percpu));

    raw!(global::kfree_sensitive(object));
    raw!(global::kfree_sensitive(object));
    log::info!("all refused");
}

ktest!(each_free_has_a_sister_that_answers);
fn each_free_has_a_sister_that_answers() {
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    assert_eq!(raw!(global::try_free_page(page)), Ok(()));
    assert!(raw!(global::try_free_page(page)).is_err());
    assert!(raw!(global::try_free_pages(page, Order::ZERO)).is_err());
    assert!(raw!(global::try_put_page(page)).is_err());
    assert!(raw!(global::try_free_contig_range(page, 1)).is_err());
    assert!(raw!(global::try_free_pages_exact(page, PAGE_BYTES)).is_err());

    let area = global::kvmalloc(1 << 20, Gfp::KERNEL).expect("memory");
    let inside = area.as_ptr().wrapping_add(8);
    assert!(raw!(global::try_kvfree(inside)).is_err());
    assert!(raw!(global::try_vfree(inside)).is_err());
    assert!(raw!(global::try_vfree_atomic(inside)).is_err());
    assert!(raw!(global::try_vunmap(inside)).is_err());
    assert!(raw!(global::try_vm_unmap_ram(inside, 1)).is_err());
    assert!(raw!(global::try_iounmap(inside)).is_err());
    assert!(raw!(global::try_kfree(inside)).is_err());
    assert!(raw!(global::try_kfree_sensitive(inside)).is_err());
    assert_eq!(raw!(global::try_kvfree(area)), Ok(()));
    assert!(raw!(global::try_kvfree(area)).is_err());
    assert!(raw!(global::try_memunmap(VirtAddr::new(8))).is_err());

    let percpu = global::alloc_percpu(64, 8).expect("memory");
    assert_eq!(raw!(global::try_free_percpu(percpu)), Ok(()));
    assert!(raw!(global::try_free_percpu(percpu)).is_err());
}

ktest!(nothing_is_freed_of_null);
fn nothing_is_freed_of_null() {
    let null = core::ptr::null_mut::<u8>();
    assert!(raw!(global::try_vfree(null)).is_ok() && raw!(global::try_vunmap(VirtAddr::ZERO)).is_ok());
    assert!(raw!(global::try_iounmap(null)).is_ok() && raw!(global::try_memunmap(null)).is_ok());
    assert!(raw!(global::try_kfree(null)).is_ok() && raw!(global::try_kvfree(null)).is_ok());
    assert!(raw!(global::try_kfree_sensitive(null)).is_ok());
}

// Behaviours 191, 230, 287, 342: the table in docs/safety.md.
ktest!(no_bytes_are_a_marker_or_are_refused_alike);
fn no_bytes_are_a_marker_or_are_refused_alike() {
    let gfp = Gfp::KERNEL;
    // Objects: a pointer that is not null and is not used, and is nothing to free.
    let markers = [
        global::kmalloc(0, gfp),
        global::kzalloc(0, gfp),
        global::kmalloc_array(0, 8, gfp),
        global::kcalloc(8, 0, gfp),
        raw!(global::krealloc(global::kmalloc(64, gfp).expect("memory"), 0, gfp)),
    ]
    .map(|marker| marker.expect("no bytes are always there"));
    let either = [
        global::kvmalloc(0, gfp),
        global::kvzalloc(0, gfp),
        global::kvcalloc(0, 8, gfp),
        raw!(global::kvrealloc(global::kvmalloc(64, gfp).expect("memory"), 0, gfp)),
        raw!(global::kvrealloc(global::kvmalloc(5 << 20, gfp).expect("memory"), 0, gfp)),
    ]
    .map(|marker| marker.expect("no bytes are always there"));
    for marker in markers.into_iter().chain(either) {
        assert!(marker == markers[0] && marker.at().get() < PAGE_SIZE);
        raw!(global::kfree(marker));
        raw!(global::kvfree(marker));
        raw!(global::kfree_sensitive(marker));
    }

    // Whole pages, areas, mappings: an error that is called `Empty`.
    let area = global::vmalloc(PAGE_BYTES).expect("memory");
    let areas = [
        global::vmalloc(0),
        global::vzalloc(0),
        global::vmalloc_user(0),
        global::vmalloc_gfp(0, gfp),
        global::vmalloc_exec(0),
        global::vmalloc_huge(0, gfp),
        raw!(global::vrealloc(area, 0, gfp)),
        global::vmap(&[], VmFlags::empty(), Prot::KERNEL_RW),
        global::vm_map_ram(&[], Prot::KERNEL_RW),
    ];
    assert!(areas.iter().all(|refused| *refused == Err(VmallocError::Empty)), "{areas:?}");
    assert_eq!(raw!(global::set_memory_ro(area, 0)), Err(SetMemoryError::Empty));
    raw!(global::vfree(area));
    assert_eq!(global::alloc_pages_exact(gfp, 0), Err(AllocError::Empty));
    assert_eq!(global::alloc_contig_pages(0, 1, gfp), Err(ContigError::Empty));
    let nowhere = PhysAddr::new(0);
    let devices =
        [global::ioremap, global::ioremap_np, global::ioremap_wc, global::ioremap_wt].map(|map| map(nowhere, 0));
    assert!(devices.iter().all(|refused| *refused == Err(IoError::Empty)), "{devices:?}");
    assert_eq!(global::memremap(nowhere, 0, MemoryType::WriteBack), Err(IoError::Empty));
    assert_eq!(global::request_mem_region(nowhere, 0, "nothing").err(), Some(ResourceError::Empty));
    assert_eq!(global::alloc_percpu(0, 8), Err(PerCpuError::Empty));
    assert_eq!(global::alloc_stack(0, "nothing"), Err(StackAllocError::Empty));
    let spec = CacheSpec { name: "nothing", size: 0, align: 8, flags: SlabFlags::empty(), constructor: None };
    assert_eq!(global::KmemCache::create(&spec).err(), Some(CreateError::Empty));
}

ktest!(
    a_refused_free_is_the_end_where_that_is_asked_for,
    machine = "append=panic_on_warn=1",
    report = "BUG vunmap(0x",
    report = "panic at "
);
fn a_refused_free_is_the_end_where_that_is_asked_for() {
    let page = global::alloc_page(Gfp::KERNEL).expect("memory");
    let mapped = global::vm_map_ram(&[page], Prot::KERNEL_RW).expect("addresses").at();
    raw!(global::vunmap(mapped));
    log::error!("a refused call was not the end");
}
