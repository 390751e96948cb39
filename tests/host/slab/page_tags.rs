//! Pages with memory tags: pointers to no page, and blocks whose neighbours have no tag.

use super::machine::Sim;
use super::*;
use quarry::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, Tag};
use quarry::mm::layout::VMALLOC_START;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::{FreeError, PageHal};
use std::sync::atomic::{AtomicU32, Ordering};

fn phys_of(sim: &Sim<'_>, page: Page) -> PhysAddr {
    sim.map().phys(page)
}

fn tag_at(sim: &Sim<'_>, page: Page) -> Tag {
    sim.tags(raw!(quarry::hal::Internal::promised())).unwrap().get(phys_of(sim, page))
}

/// Whether a tag is one that an owner may have.
fn is_owners(tag: Tag) -> bool {
    tag != Tag::MATCH_ALL && tag != Tag::FREE
}

#[test]
fn a_pointer_with_a_tag_leads_to_its_page_or_is_refused_by_name() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        let (pages, sim) = (slabs.pages(), slabs.hal());
        let page = pages.alloc_pages(KERNEL, Order::ZERO).unwrap();
        let (phys, tag) = (phys_of(sim, page), tag_at(sim, page));
        let start = sim.to_virt(phys);
        assert_eq!(pages.page_at(start.with_tag(tag)), Ok(page));
        assert_eq!(pages.page_at(start), Ok(page), "without a tag it is as good");

        let vmalloc = VirtAddr::new(VMALLOC_START);
        assert_eq!(pages.page_at(vmalloc), Err(FreeError::NotLinear(vmalloc)));
        let elsewhere = vmalloc.with_tag(tag);
        assert_eq!(pages.page_at(elsewhere), Err(FreeError::NotLinear(elsewhere)));
        let inside = offset(start, 8).with_tag(tag);
        assert_eq!(pages.page_at(inside), Err(FreeError::Unaligned(inside)));
        let beyond = offset(start, 1 << 40).with_tag(tag);
        assert_eq!(pages.page_at(beyond), Err(FreeError::NotLinear(beyond)));
        let wrong = start.with_tag(Tag::from_bits(u64::from(tag.get() ^ 1)));
        assert_eq!(pages.page_at(wrong), Err(FreeError::Stale { at: wrong, memory: tag }));

        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        let stale = start.with_tag(tag);
        assert_eq!(pages.page_at(stale), Err(FreeError::Stale { at: stale, memory: Tag::FREE }));
    });
}

// Below the first byte there is no address, and behind the last page no descriptor.
#[test]
fn all_of_ram_is_tagged_from_address_zero_to_its_end() {
    Spec::of_size(4 << 20).at(0).tagged().run(|slabs| {
        let (pages, sim) = (slabs.pages(), slabs.hal());
        let mut taken = Vec::new();
        while let Ok(page) = pages.alloc_pages(Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN, Order::ZERO) {
            taken.push(page);
        }
        taken.sort_unstable_by_key(|page| page.index());
        assert!(taken.iter().all(|page| is_owners(tag_at(sim, *page))));
        for pair in taken.windows(2).filter(|pair| pair[0].offset(1) == pair[1]) {
            assert_ne!(tag_at(sim, pair[0]), tag_at(sim, pair[1]), "{pair:?}");
        }
        // The first slab has had page 0 since before.
        let last = sim.map().find(Pfn::new((4 << 20) / PAGE_SIZE - 1)).unwrap();
        assert!(taken.contains(&last), "nobody else has it");
        taken.into_iter().for_each(|page| raw!(pages.free_pages(page, Order::ZERO)).unwrap());
    });
}

#[test]
fn a_neighbour_whose_descriptor_is_damaged_is_not_asked() {
    Spec::of_size(16 << 20).tagged().run(|slabs| {
        let (pages, sim) = (slabs.pages(), slabs.hal());
        let order = Order::new(3).unwrap();
        let blocks: Vec<_> = (0..8).map(|_| pages.alloc_pages(KERNEL | Gfp::COMP, order).unwrap()).collect();
        let beside = blocks.iter().find(|block| blocks.contains(&block.offset(8))).unwrap();
        let (last, behind) = (beside.offset(7), beside.offset(8));
        let descriptor = std::ptr::from_ref(sim.map().get(last));
        // SAFETY: the link of a tail to its head is the 32-bit atomic behind the state (`repr(C)`).
        let link = unsafe { &*descriptor.cast::<AtomicU32>().wrapping_add(2) };
        raw!(pages.free_pages(behind, order)).unwrap();
        let whole = link.fetch_xor(1 << 31, Ordering::Relaxed);
        assert_eq!(whole, beside.index());
        assert_eq!(pages.page_tag(last), Tag::MATCH_ALL, "nobody speaks for it");
        let again = pages.alloc_pages(KERNEL | Gfp::COMP, order).unwrap();
        assert_eq!(again, behind);
        assert!((0..8).all(|page| is_owners(tag_at(sim, again.offset(page)))));
        link.store(whole, Ordering::Relaxed);
        assert_ne!(pages.page_tag(last), Tag::MATCH_ALL);
        blocks.into_iter().for_each(|block| raw!(pages.free_pages(block, order)).unwrap());
    });
}
