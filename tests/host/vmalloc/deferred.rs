//! Frees by interrupt handlers, and the contexts that do the deferred work.

use super::kernel::{Vmalloc, free_pages, on_a_machine, take_page, touch};
use quarry::addr::{CpuId, Order, PAGE_SIZE, VirtAddr};
use quarry::arch::host::{Config, FaultKind, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::{MemoryType, Prot};
use quarry::mm::vmalloc::{VmFlags, VmallocError, VmallocRequest};
use std::sync::atomic::Ordering;

fn vmalloc(space: &Vmalloc<'_>, pages: u64) -> VirtAddr {
    space.vmalloc(&VmallocRequest::new(pages * PAGE_SIZE, Gfp::KERNEL)).unwrap()
}

// Behaviour 237: freed where nothing may wait, gone when somebody has the time.
#[test]
fn an_atomic_free_is_work_for_others() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let share = space.lazy_max_pages() / 2;
        let small = vmalloc(space, 4);
        let free = free_pages(space);
        raw!(space.vfree_atomic(small)).unwrap();
        assert_eq!((space.lazy_pages(), free_pages(space)), (4, free), "nothing is done yet");
        assert!(!space.purge_due(), "and nothing is due");
        assert!(raw!(space.vfree_atomic(small)).is_err(), "twice");
        raw!(space.vfree_atomic(VirtAddr::ZERO)).unwrap();
        if cfg!(miri) {
            return;
        }
        let large = vmalloc(space, share);
        raw!(space.vfree_atomic(large)).unwrap();
        assert_eq!(space.lazy_pages(), share + 4);
        assert!(space.purge_due());
        assert_eq!(space.lazy_pages(), 0);
        assert_eq!(free_pages(space), free + 4);
    });
}

#[test]
fn a_handler_frees_large_areas_without_a_flush() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let large = vmalloc(space, 600);
        touch(space, large, 600);
        space.hal().in_handler.store(true, Ordering::Relaxed);
        raw!(space.vfree(large)).unwrap();
        space.hal().in_handler.store(false, Ordering::Relaxed);
        assert_eq!(space.lazy_pages(), 600);
        assert!(space.purge_due());
        assert_eq!(space.lazy_pages(), 0);
    });
}

// Behaviour 272: nothing is refused, since unmapping neither sleeps nor waits for a lock that was interrupted.
#[test]
fn a_handler_may_unmap() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let page = take_page(space).unwrap();
        let addr = space.vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        touch(space, addr, 1);
        space.hal().in_handler.store(true, Ordering::Relaxed);
        raw!(space.vunmap(addr)).unwrap();
        space.hal().in_handler.store(false, Ordering::Relaxed);
        assert!(space.hal().machine.cpu(CpuId::new(1)).load(addr, Who::Kernel).is_err(), "on every CPU");
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// Behaviour 271: the other CPU sees a fault, not the page of the next mapping.
#[test]
fn an_address_that_was_unmapped_never_shows_the_next_page_to_a_cpu_that_kept_it() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let (first, second) = (take_page(space).unwrap(), take_page(space).unwrap());
        let other = space.hal().machine.cpu(CpuId::new(1));
        let mut places = Vec::new();
        for page in [first, second, first, second] {
            let addr = space.vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
            other.load(addr, Who::Kernel).unwrap();
            raw!(space.vunmap(addr)).unwrap();
            let fault = other.load(addr, Who::Kernel).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Translation(_)));
            places.push(addr);
        }
        places.dedup();
        assert_eq!(places.len(), 1, "the addresses are used again at once");
        for page in [first, second] {
            raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}

#[test]
fn pages_that_carry_tags_are_mapped_so() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let request = VmallocRequest { flags: VmFlags::KASAN, ..VmallocRequest::new(3 * PAGE_SIZE, Gfp::KERNEL) };
        let addr = space.vmalloc(&request).unwrap();
        assert_eq!(space.hal().table.translate(addr).unwrap().leaf.prot.memory(), MemoryType::WriteBackTagged);
        raw!(space.vfree(addr)).unwrap();
        let device = Prot::KERNEL_RW.with_memory(MemoryType::NonCacheable).unwrap();
        assert_eq!(space.vmalloc(&VmallocRequest { prot: device, ..request }), Err(VmallocError::Protection(device)));
    });
}

#[test]
fn areas_are_listed_as_linux_lists_them() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = vmalloc(space, 3);
        let page = take_page(space).unwrap();
        let mapping = space.vmap(&[page], VmFlags::USERMAP, Prot::KERNEL_RW).unwrap();
        let text = space.info().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let end = |addr: VirtAddr, pages: u64| addr.get() + pages * PAGE_SIZE;
        let first = format!("{:#018x}-{:#018x}   16384 ", addr.get(), end(addr, 4));
        assert!(lines[0].starts_with(&first) && lines[0].ends_with(" pages=3 vmalloc"), "{text}");
        assert!(lines[0].contains("deferred.rs:"), "{text}");
        let second = format!("{:#018x}-{:#018x}    8192 ", mapping.get(), end(mapping, 2));
        assert!(lines[1].starts_with(&second) && lines[1].ends_with(" vmap user"), "{text}");
        assert_eq!(lines.len(), 2);
        raw!(space.vunmap(mapping)).unwrap();
        raw!(space.vfree(addr)).unwrap();
        raw!(space.hal().pages.free_pages(page, Order::ZERO)).unwrap();
    });
}
