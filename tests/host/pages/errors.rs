//! Misuse is named, and changes nothing.

use super::damage::flip;
use super::machine::{GIB, MIB};
use super::{Spec, blocks, order, range};
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use quarry::gfp::{Gfp, GfpError};
use quarry::hal::prot::MemoryType;
use quarry::mm::layout;
use quarry::mm::page::{Kind, PageMap};
use quarry::mm::zone::{AllocError, FreeError, PageHal};

fn linear(phys: u64) -> VirtAddr {
    layout::phys_to_virt(PhysAddr::new(phys)).unwrap()
}

// Behaviours 89, 90, 94.
#[test]
fn freeing_with_another_order_is_named() {
    Spec::of_size(16 * MIB).run(|pages| {
        for allocated in 0..=10 {
            let page = pages.alloc_pages(Gfp::KERNEL, order(allocated)).unwrap();
            let pfn = pages.hal().map().pfn(page);
            let before = blocks(pages);
            for freed in (0..=10).filter(|freed| *freed != allocated) {
                let error = raw!(pages.free_pages(page, order(freed))).unwrap_err();
                let wrong = FreeError::WrongOrder { page: pfn, allocated: order(allocated), freed: order(freed) };
                let misaligned = FreeError::Misaligned { page: pfn, order: order(freed) };
                // Where no block of that order can begin, that is said.
                assert_eq!(error, if page.is_aligned(freed) { wrong } else { misaligned });
            }
            assert_eq!(blocks(pages), before);
            raw!(pages.free_pages(page, order(allocated))).unwrap();
        }
        assert_eq!(Order::new(11), None);
        assert_eq!(Order::new(63), None);
        assert_eq!(Order::new(255), None);
    });
}

// Behaviour 91: at once, after the page has gone back to its zone, and after it has merged.
#[test]
fn freeing_twice_is_named() {
    Spec::of_size(16 * MIB).run(|pages| {
        for o in 0..=10 {
            let page = pages.alloc_pages(Gfp::KERNEL, order(o)).unwrap();
            let pfn = pages.hal().map().pfn(page);
            raw!(pages.free_pages(page, order(o))).unwrap();
            assert_eq!(raw!(pages.free_pages(page, order(o))), Err(FreeError::DoubleFree(pfn)));
            pages.drain_all();
            assert_eq!(raw!(pages.free_pages(page, order(o))), Err(FreeError::DoubleFree(pfn)));
            pages.check().unwrap();
        }
    });
}

// Behaviour 92.
#[test]
fn freeing_inside_a_block_is_named() {
    Spec::of_size(16 * MIB).run(|pages| {
        for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::COMP] {
            let head = pages.alloc_pages(gfp, order(4)).unwrap();
            let map = pages.hal().map();
            for index in 1..16 {
                let inner = head.offset(index);
                for o in [0, 1, 4, 10] {
                    let error = raw!(pages.free_pages(inner, order(o))).unwrap_err();
                    assert_eq!(error, FreeError::InsideBlock { page: map.pfn(inner), head: map.pfn(head) });
                }
            }
            raw!(pages.free_pages(head, order(4))).unwrap();
        }
    });
}

// Behaviour 119, and freeing by address.
#[test]
fn addresses_that_are_no_pages_are_named() {
    let spec = Spec::new(&[range(GIB, 8 * MIB), range(GIB + 12 * MIB, MIB)]).reserve(range(GIB, 2 * PAGE_SIZE));
    spec.run(|pages| {
        let free = |addr| pages.page_at(addr).and_then(|page| raw!(pages.free_pages(page, Order::ZERO)));
        let pfn = |phys| Pfn::containing(PhysAddr::new(phys));
        assert_eq!(free(VirtAddr::new(0)), Err(FreeError::NotLinear(VirtAddr::new(0))));
        assert_eq!(free(VirtAddr::MAX), Err(FreeError::NotLinear(VirtAddr::MAX)));
        let image = VirtAddr::new(layout::KIMAGE_VADDR);
        assert_eq!(free(image), Err(FreeError::NotLinear(image)));
        assert_eq!(free(linear(GIB + 1)), Err(FreeError::Unaligned(linear(GIB + 1))));
        for beyond in [0, GIB - PAGE_SIZE, GIB + 8 * MIB, 1 << 46] {
            assert_eq!(free(linear(beyond)), Err(FreeError::NoDescriptor(PhysAddr::new(beyond))), "{beyond:#x}");
        }
        assert_eq!(free(linear(GIB + 13 * MIB)), Err(FreeError::Hole(pfn(GIB + 13 * MIB))));
        assert_eq!(free(linear(GIB + PAGE_SIZE)), Err(FreeError::Reserved(pfn(GIB + PAGE_SIZE))));
        assert_eq!(free(linear(GIB + MIB)), Err(FreeError::DoubleFree(pfn(GIB + MIB))));
    });
}

#[test]
fn what_somebody_owns_cannot_be_freed() {
    Spec::of_size(16 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, order(2)).unwrap();
        let pfn = pages.hal().map().pfn(page);
        raw!(pages.claim(page, Kind::Slab, 0x1234)).unwrap();
        let claimed = Err(FreeError::Claimed { page: pfn, kind: Kind::Slab });
        assert_eq!(raw!(pages.free_pages(page, order(2))), claimed);
        assert_eq!(raw!(pages.claim(page, Kind::User, 1)), claimed);
        assert_eq!(raw!(pages.disown(page, Kind::User)), claimed);
        assert_eq!(pages.hal().map().get(page).owner(), 0x1234);
        raw!(pages.disown(page.offset(3), Kind::Slab)).unwrap();
        raw!(pages.free_pages(page, order(2))).unwrap();
        assert_eq!(raw!(pages.claim(page, Kind::Slab, 0)), Err(FreeError::DoubleFree(pfn)));
    });
}

// A block whose descriptor was damaged to name a zone that it does not lie in goes into no zone.
#[test]
fn a_block_of_another_zone_is_named() {
    let one_zone = Spec::of_size(16 * MIB);
    let two_zones = Spec::of_size(16 * MIB).limits(GIB + 8 * MIB).without_reserve();
    for (spec, careful) in [(one_zone, false), (two_zones, true)] {
        spec.run(|pages| {
            pages.set_careful(careful);
            for (gfp, o) in [(Gfp::KERNEL, 0), (Gfp::KERNEL, 10), (Gfp::KERNEL | Gfp::COMP, 3)] {
                let page = pages.alloc_pages(gfp, order(o)).unwrap();
                let before = blocks(pages);
                let foreign = Err(FreeError::ForeignZone(pages.hal().map().pfn(page)));
                flip(pages, page, 2);
                assert_eq!(raw!(pages.free_pages(page, order(o))), foreign);
                assert_eq!(raw!(pages.put_page(page)), foreign);
                assert_eq!(raw!(pages.split_page(page, order(o))), foreign);
                assert_eq!(blocks(pages), before, "nothing has changed");
                flip(pages, page, 2);
                raw!(pages.free_pages(page, order(o))).unwrap();
            }
            pages.set_careful(false);
        });
    }
}

#[test]
fn memory_that_is_not_write_back_cannot_be_freed() {
    Spec::of_size(16 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let pfn = pages.hal().map().pfn(page);
        raw!(pages.set_memory_type(page, MemoryType::NonCacheable)).unwrap();
        let refused = FreeError::MemoryType { page: pfn, memory: MemoryType::NonCacheable };
        assert_eq!(raw!(pages.free_pages(page, Order::ZERO)), Err(refused));
        raw!(pages.set_memory_type(page, MemoryType::WriteBack)).unwrap();
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// Behaviour 134.
#[test]
fn flags_that_contradict_each_other_are_refused() {
    Spec::of_size(16 * MIB).run(|pages| {
        for (flags, error) in [
            (Gfp::KERNEL | Gfp::DMA | Gfp::HIGHMEM, GfpError::TwoZones),
            (Gfp::KERNEL | Gfp::DMA | Gfp::DMA32, GfpError::TwoZones),
            (Gfp::KERNEL | Gfp::MOVABLE | Gfp::RECLAIMABLE, GfpError::TwoMobilities),
            (Gfp::KERNEL | Gfp::NOFAIL | Gfp::NORETRY, GfpError::TwoEfforts),
            (Gfp::KERNEL | Gfp::REPEAT | Gfp::NORETRY, GfpError::TwoEfforts),
            (Gfp::ATOMIC | Gfp::NOFAIL, GfpError::NofailWithoutWait),
            (Gfp::KERNEL | Gfp::HOT | Gfp::COLD, GfpError::HotAndCold),
            (Gfp::from_bits_retain(1 << 31), GfpError::UnknownBits),
        ] {
            for o in [0, 3, 10] {
                assert_eq!(pages.alloc_pages(flags, order(o)), Err(AllocError::Flags(error)), "{flags}");
            }
        }
    });
}

#[test]
fn a_sleeping_allocation_in_an_interrupt_is_reported_and_served_without_sleep() {
    use std::sync::atomic::Ordering;
    Spec::of_size(64 * MIB).run(|pages| {
        let seen = || pages.hal().watcher.atomic_sleeps.load(Ordering::Relaxed);
        let page = super::machine::in_interrupt(|| pages.alloc_pages(Gfp::KERNEL, Order::ZERO)).unwrap();
        assert_eq!(seen(), 1);
        let other = super::machine::in_interrupt(|| pages.alloc_pages(Gfp::ATOMIC, Order::ZERO)).unwrap();
        assert_eq!(seen(), 1);
        super::give_back(pages, [page, other], Order::ZERO);
    });
}

#[test]
fn many_pages_at_once_in_an_interrupt_are_one_report() {
    use super::machine::in_interrupt;
    use quarry::mm::zone::PageBatch;
    use std::sync::atomic::Ordering;
    Spec::of_size(64 * MIB).run(|pages| {
        let seen = || pages.hal().watcher.atomic_sleeps.load(Ordering::Relaxed);
        let mut batch = PageBatch::<64>::new();
        for (gfp, reports) in [(Gfp::KERNEL, 1), (Gfp::KERNEL | Gfp::ZERO, 2), (Gfp::ATOMIC, 2)] {
            assert_eq!(in_interrupt(|| pages.alloc_pages_bulk(gfp, &mut batch)), Ok(64), "{gfp}");
            assert_eq!(seen(), reports, "{gfp}");
            raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        }
        // A list that has enough is no reason to say nothing.
        assert_eq!(pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch), Ok(64));
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        assert_eq!(in_interrupt(|| pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch)), Ok(64));
        assert_eq!(seen(), 3);
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        let nofail = Gfp::KERNEL | Gfp::NOFAIL | Gfp::ZERO;
        assert_eq!(in_interrupt(|| pages.alloc_pages_bulk(nofail, &mut batch)), Ok(64));
        assert_eq!(seen(), 4);
        raw!(pages.free_pages_bulk(&mut batch)).unwrap();
        let first = in_interrupt(|| pages.alloc_contig_pages(3, 1, Gfp::KERNEL)).unwrap();
        assert_eq!(seen(), 5);
        raw!(pages.free_contig_range(first, 3)).unwrap();
        in_interrupt(|| pages.alloc_contig_range(first, 3, Gfp::KERNEL)).unwrap();
        assert_eq!(seen(), 6);
        raw!(pages.free_contig_range(first, 3)).unwrap();
        let first = in_interrupt(|| pages.alloc_contig_pages(3, 1, Gfp::NOWAIT)).unwrap();
        assert_eq!(seen(), 6);
        raw!(pages.free_contig_range(first, 3)).unwrap();
    });
}
