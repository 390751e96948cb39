//! Calls built on vmalloc: `vrealloc`, `kvmalloc`, deferred frees, reclaim, and the output of the prompt.

use crate::vmalloc::{at, leaves_nothing, read, use_memory, write};
use alloc::vec::Vec;
use core::ptr;
use quarry::addr::{Address, Order, PAGE_BYTES, PAGE_SIZE, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::global::{self, KVec, Pages, ThisKernel, VBox, VVec, Vmap};
use quarry::hal::level::LeafLevel;
use quarry::kernel::{init, prompt};
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::layout::{MODULES_END, MODULES_VADDR, VMALLOC_END, VMALLOC_START};
use quarry::mm::vmalloc::{SetMemoryError, VmallocError};

const MIB: u64 = 1 << 20;

fn vrealloc(addr: VirtAddr, size: u64, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
    // SAFETY: the tests are the only users of what they allocate, and forget the old address.
    unsafe { global::vrealloc(addr, to_usize(size), gfp) }.map(Address::at)
}

// Behaviour 252
ktest!(memory_keeps_what_it_holds_when_its_length_changes);
fn memory_keeps_what_it_holds_when_its_length_changes() {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    leaves_nothing(|| {
        let mut addr = vrealloc(VirtAddr::ZERO, 5 * PAGE_SIZE, gfp).expect("memory");
        use_memory(addr, 5 * PAGE_SIZE);
        let was = |offset| read(at(addr, offset));
        let words: [u64; 4] = [was(0), was(512), was(4096), was(8192)];
        // The tail is zero from the new end on, whether it is mapped or not.
        assert_eq!(vrealloc(addr, 2 * PAGE_SIZE + 512, gfp), Ok(addr));
        assert_eq!(vrealloc(addr, 5 * PAGE_SIZE, gfp), Ok(addr), "its addresses are still its own");
        let kept = |addr, size: u64| {
            let expected = [0, 512, 4096, 8192].into_iter().zip(words);
            expected.filter(|(offset, _)| *offset < size).all(|(offset, word)| read(at(addr, offset)) == word)
        };
        assert!(kept(addr, 5 * PAGE_SIZE));
        assert!((2 * PAGE_SIZE + 512..5 * PAGE_SIZE).step_by(8).all(|offset| read(at(addr, offset)) == 0));
        for size in [9 * PAGE_SIZE, MIB, 3 * MIB, 7 * PAGE_SIZE, 3 * PAGE_SIZE] {
            addr = vrealloc(addr, size, gfp).expect("memory");
            assert!(kept(addr, size));
            assert!((8192 + 8..size).step_by(512).all(|offset| read(at(addr, offset)) == 0), "{size:#x}");
        }
        assert_eq!(vrealloc(addr, 0, gfp), Err(VmallocError::Empty), "refused");
        assert!(kept(addr, 3 * PAGE_SIZE), "and as it was");
        raw!(global::vfree(addr));
    });
}

ktest!(kvmalloc_takes_what_it_can_get);
fn kvmalloc_takes_what_it_can_get() {
    let is_vmalloc =
        |memory: ptr::NonNull<u8>| global::is_vmalloc_addr(VirtAddr::new(memory.as_ptr().expose_provenance() as u64));
    leaves_nothing(|| {
        for (size, area) in [(8, false), (4096, false), (100_000, false), (4 << 20, false), (5 << 20, true)] {
            let memory = global::kvzalloc(size, Gfp::KERNEL).expect("memory");
            assert_eq!(is_vmalloc(memory), area, "{size}");
            // SAFETY: so many bytes, just allocated.
            let bytes = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(0x5a);
            // SAFETY: allocated above, and not used afterwards.
            let longer = unsafe { global::kvrealloc(memory.as_ptr(), size + 3_000_000, Gfp::KERNEL) }.expect("memory");
            // SAFETY: at least so many bytes.
            let bytes = unsafe { core::slice::from_raw_parts(longer.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0x5a), "{size}");
            // SAFETY: not used afterwards.
            unsafe { global::kvfree(longer.as_ptr()) };
        }
        assert!(global::kvmalloc(1 << 31, Gfp::KERNEL).is_err());
        assert!(global::kvcalloc(usize::MAX / 2, 4, Gfp::KERNEL).is_err());
        // SAFETY: null is nothing to free.
        unsafe { global::kvfree(ptr::null_mut::<u8>()) };
    });
}

// Behaviour 237
ktest!(whoever_is_idle_does_what_atomic_frees_have_left);
fn whoever_is_idle_does_what_atomic_frees_have_left() {
    let space = global::vmap_space();
    space.purge_all();
    let share = space.lazy_max_pages();
    let mut waiting = 0;
    while waiting < share {
        let addr = global::vmalloc(16 * PAGE_BYTES).expect("memory").at();
        write(addr, 1);
        raw!(global::try_vfree_atomic(addr)).expect("an area");
        waiting += 16;
        assert_eq!(space.lazy_pages(), waiting, "nothing is done by the free");
    }
    global::idle();
    assert_eq!(space.lazy_pages(), 0);
    assert!(raw!(global::try_vfree_atomic(VirtAddr::ZERO)).is_ok());
}

ktest!(memory_that_waits_is_there_when_it_is_needed);
fn memory_that_waits_is_there_when_it_is_needed() {
    let space = global::vmap_space();
    space.purge_all();
    let addr = global::vmalloc(100 * PAGE_BYTES).expect("memory").at();
    raw!(global::try_vfree_atomic(addr)).expect("an area");
    assert_eq!(space.lazy_pages(), 100);
    let mut taken = Vec::with_capacity(to_usize(global::nr_free_pages()));
    while let Ok(page) = global::alloc_page(Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN) {
        taken.push(page);
    }
    assert_eq!(space.lazy_pages(), 0, "the purge is the reclaimer's to call");
    for page in taken {
        raw!(global::try_free_page(page)).expect("ours");
    }
}

// Behaviours 246, 247 and 497
ktest!(no_failed_area_loses_anything, timeout = 60);
fn no_failed_area_loses_anything() {
    for pages in [1, 5, 40, 700] {
        let make = || global::vmalloc(to_usize(pages * PAGE_SIZE));
        // Tables that stay, and tables that others left and a block takes the place of.
        raw!(global::try_vfree(make().expect("memory"))).expect("an area");
        let rounds =
            fail_every(&ThisKernel, MayRecover::Yes, make, |addr| raw!(global::try_vfree(addr)).expect("an area"));
        assert!(rounds.expect("sound").points >= 1, "{pages}");
    }
    let memory = || global::kvmalloc(6 << 20, Gfp::KERNEL);
    // SAFETY: what has just been allocated.
    let free = |memory: ptr::NonNull<u8>| unsafe { global::kvfree(memory.as_ptr()) };
    // Tables that smaller areas have left go when blocks take their place.
    free(memory().expect("memory"));
    assert!(fail_every(&ThisKernel, MayRecover::Yes, memory, free).expect("sound").points >= 1);
}

// Behaviour 251: never among other areas, near enough for a branch, and not writable while it is executable.
ktest!(code_has_a_region_of_its_own, machine a72 = "", machine max = "cpu=max");
fn code_has_a_region_of_its_own() {
    let prot = |addr| global::kernel_tables().and_then(|tables| tables.translate(addr)).expect("mapped").leaf.prot;
    let data = global::vmalloc(PAGE_BYTES).expect("memory").at();
    let code = global::vmalloc_exec(2 * PAGE_BYTES).expect("memory").at();
    assert!((MODULES_VADDR..MODULES_END).contains(&code.get()) && !global::is_vmalloc_addr(code));
    assert!(global::is_vmalloc_addr(data));
    assert!(prot(code).is_writable() && !prot(code).is_executable());
    // mov w0, #42; ret
    write(code, 0xd65f_03c0_5280_0540);
    assert_eq!(raw!(global::set_memory_x(code, 2)), Err(SetMemoryError::WritableExecutable(code)));
    raw!(global::set_memory_ro(code, 2)).expect("an area");
    raw!(global::set_memory_x(code, 2)).expect("read-only");
    let alias = global::page_address(global::vmalloc_to_page(code).expect("mapped"));
    assert!(prot(code).is_executable() && !prot(alias).is_writable());
    // SAFETY: the function has been written there, and is executable.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(code.as_ptr::<()>()) };
    assert_eq!(function(), 42);
    assert!(global::execmem_space().resize(code, PAGE_SIZE, Gfp::KERNEL).is_err(), "as long as it is executable");
    raw!(global::try_vfree(code)).expect("an area");
    assert!(prot(alias).is_writable(), "whoever gets the page can write it");
    raw!(global::try_vfree(data)).expect("an area");
    global::check_vmalloc().expect("sound");
}

ktest!(code_moves_within_its_region_and_read_only_code_does_not);
fn code_moves_within_its_region_and_read_only_code_does_not() {
    leaves_nothing(|| {
        let first = global::vmalloc_exec(PAGE_BYTES).expect("memory").at();
        write(first, 42);
        let moved = vrealloc(first, MIB, Gfp::KERNEL).expect("memory");
        assert!((MODULES_VADDR..MODULES_END).contains(&moved.get()), "in reach of a branch: {moved}");
        assert_eq!(read(moved), 42);
        raw!(global::set_memory_ro(moved, 1)).expect("an area");
        for size in [8, MIB, 2 * MIB] {
            let refused = vrealloc(moved, size, Gfp::KERNEL | Gfp::ZERO);
            assert!(matches!(refused, Err(VmallocError::NotWritable(_))), "{refused:?}");
        }
        assert_eq!(read(moved), 42);
        raw!(global::try_vfree(moved)).expect("an area");
    });
}

// Behaviour 244
ktest!(the_region_has_its_edges);
fn the_region_has_its_edges() {
    let inside = |addr: u64| global::is_vmalloc_addr(VirtAddr::new(addr));
    let edges = [VMALLOC_START - 1, VMALLOC_START, VMALLOC_END - 1, VMALLOC_END];
    assert_eq!(edges.map(inside), [false, true, true, false]);
}

ktest!(
    the_prompt_shows_areas_and_reads_any_address,
    report = "pages=3 vmalloc",
    report = "vmalloc: ok",
    report = "cannot be read"
);
fn the_prompt_shows_areas_and_reads_any_address() {
    let machine = init::machine().expect("booted");
    let addr = global::vmalloc(3 * PAGE_BYTES).expect("memory").at();
    prompt::execute(machine, "vmallocinfo");
    prompt::execute(machine, "check");
    prompt::execute(machine, &alloc::format!("peek {:#x}", at(addr, 3 * PAGE_SIZE).get()));
}

ktest!(values_live_in_areas);
fn values_live_in_areas() {
    leaves_nothing(|| {
        let mut large: VBox<[u64; 3000]> = {
            let room = VBox::<[u64; 3000]>::zeroed(Gfp::KERNEL).expect("memory");
            // SAFETY: zeroes are numbers.
            unsafe { room.assume_init() }
        };
        assert!(global::is_vmalloc_addr(VirtAddr::of(&raw const *large)));
        assert!(large.iter().all(|number| *number == 0));
        large.fill(7);
        let mut row = VVec::new();
        for number in 0..100_000_u64 {
            row.push(number, Gfp::KERNEL).expect("memory");
        }
        assert!(row.as_slice().iter().zip(0_u64..).all(|(found, number)| *found == number));
        assert!(global::is_vmalloc_addr(VirtAddr::of(row.as_slice().as_ptr())));
        row.truncate(10);
        row.shrink_to_fit(Gfp::KERNEL).expect("less");
        assert_eq!((row.len(), row.as_slice().last(), large.iter().sum::<u64>()), (10, Some(&9), 21_000));

        #[repr(align(16384))]
        struct Aligned(u8);
        let aligned = VBox::new(Aligned(3), Gfp::KERNEL).expect("memory");
        assert!(VirtAddr::of(&raw const *aligned).is_aligned(16384) && aligned.0 == 3);
    });
}

ktest!(owned_pages_are_mapped_in_a_row);
fn owned_pages_are_mapped_in_a_row() {
    leaves_nothing(|| {
        let mut blocks = KVec::new();
        for order in [0, 2, 1] {
            let order = Order::new(order).expect("an order");
            blocks.push(Pages::new(Gfp::KERNEL, order).expect("memory"), Gfp::KERNEL).expect("memory");
        }
        let addresses: Vec<VirtAddr> = blocks.as_slice().iter().map(Pages::address).collect();
        let mut mapped = Vmap::new(blocks).expect("addresses");
        assert_eq!(mapped.range().size(), 7 * PAGE_SIZE);
        for (byte, number) in mapped.bytes().iter_mut().zip(0_u64..) {
            byte.write((number / PAGE_SIZE).to_le_bytes()[0]);
        }
        let first = |addr: VirtAddr| read(addr).to_le_bytes()[0];
        let found: Vec<u8> = addresses.iter().map(|addr| first(*addr)).collect();
        assert_eq!(found, [0, 1, 5]);
        let second = addresses.get(1).expect("three");
        assert_eq!(first(at(*second, 3 * PAGE_SIZE)), 4);
    });
}

ktest!(huge_areas_are_aligned_for_blocks);
fn huge_areas_are_aligned_for_blocks() {
    leaves_nothing(|| {
        let addr = global::vmalloc_huge(to_usize(4 * MIB), Gfp::KERNEL).expect("memory").at();
        assert!(addr.is_aligned(2 * MIB));
        let found = global::kernel_tables().expect("the final tables").translate(addr).expect("mapped");
        assert_eq!(found.leaf.level, LeafLevel::Pmd);
        raw!(global::try_vfree(addr)).expect("an area");
        let small = global::vmalloc_huge(100, Gfp::KERNEL).expect("memory").at();
        raw!(global::try_vfree(small)).expect("an area");
    });
}
