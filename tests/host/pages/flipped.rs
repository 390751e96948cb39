//! Memory errors in the allocator's own records: whatever bit flips, no page is handed out twice, nothing panics.

use super::damage::flip;
use super::machine::{GIB, MIB, Pages, range};
use super::{Spec, order};
use quarry::addr::{Order, PAGE_SIZE};
use quarry::gfp::Gfp;
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::zone::PageHal;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SIZE: u64 = 8 * MIB;

/// Pages that somebody has.
struct Held {
    blocks: Vec<(Page, u8)>,
    frames: HashSet<u64>,
    /// Frames that they have got and should not have.
    wrong: Vec<u64>,
}

impl Held {
    /// Notes a block, which must be RAM that nobody else has.
    fn add(&mut self, pages: &Pages<'_>, page: Page, raw: u8) {
        for index in 0..1 << raw {
            let phys = super::phys(pages, page.offset(index));
            if !(GIB..GIB + SIZE).contains(&phys) || !self.frames.insert(phys) {
                self.wrong.push(phys);
            }
        }
        self.blocks.push((page, raw));
    }

    /// Takes all that there is.
    fn take_all(&mut self, pages: &Pages<'_>, raw: u8) {
        while let Ok(page) = pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, order(raw)) {
            self.add(pages, page, raw);
        }
    }
}

/// A machine with blocks of all kinds, one bit flipped in the descriptor of one of them: all memory is taken, as pages
/// of `raw`, and given back.
fn survive(victim: usize, bit: u32, raw: u8) {
    Spec::new(&[range(GIB, SIZE)]).without_reserve().run_setup(|pages, handed| {
        handed.unwrap();
        let mut held = Held { blocks: Vec::new(), frames: HashSet::new(), wrong: Vec::new() };
        let mut take = |gfp: Gfp, o: u8| {
            let page = pages.alloc_pages(gfp, order(o)).unwrap();
            held.add(pages, page, o);
            page
        };
        // Free blocks between allocated ones, several on one list.
        let singles: Vec<_> = (0..16).map(|_| take(Gfp::KERNEL, 0)).collect();
        let block = take(Gfp::KERNEL, 3);
        let compound = take(Gfp::KERNEL | Gfp::COMP, 3);
        let threes: Vec<_> = (0..6).map(|_| pages.alloc_pages(Gfp::KERNEL, order(3)).unwrap()).collect();
        for page in threes.iter().step_by(2) {
            raw!(pages.free_pages(*page, order(3))).unwrap();
        }
        for page in threes.iter().skip(1).step_by(2) {
            held.add(pages, *page, 3);
        }
        pages.drain_all();
        let map = pages.hal().map();
        let first = map.find(quarry::addr::Pfn::containing(quarry::addr::PhysAddr::new(GIB))).unwrap();
        let all = (0..u32::try_from(SIZE / PAGE_SIZE).unwrap()).map(|index| first.offset(index));
        let heads: Vec<_> = all.filter(|page| map.get(*page).state().kind() == Kind::Free).collect();
        let large = *heads.iter().max_by_key(|page| map.get(**page).state().order()).unwrap();
        let listed = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        raw!(pages.free_pages(listed, Order::ZERO)).unwrap();
        let victims = [
            ("a free block", threes[0]),
            ("another free block on its list", threes[2]),
            ("a large free block", large),
            ("inside a free block", large.offset(1)),
            ("further inside", large.offset(24)),
            ("an allocated page", singles[0]),
            ("an allocated block", block),
            ("inside an allocated block", block.offset(4)),
            ("a compound block", compound),
            ("a tail", compound.offset(7)),
            ("on a list of a CPU", listed),
        ];
        let (name, page) = victims[victim];
        flip(pages, page, bit);
        let survived = catch_unwind(AssertUnwindSafe(|| {
            held.take_all(pages, raw);
            held.take_all(pages, 0);
            // Whoever has a page whose descriptor is damaged may be refused; again nobody gets what another has.
            let back: Vec<_> = held.blocks.iter().copied().step_by(3).collect();
            for (page, o) in back {
                if raw!(pages.free_pages(page, order(o))).is_ok() {
                    for index in 0..1 << o {
                        held.frames.remove(&super::phys(pages, page.offset(index)));
                    }
                }
            }
            held.take_all(pages, 0);
            let _ = pages.check();
        }));
        let what = format!("bit {bit} of {name}, taken by order {raw}");
        assert!(held.wrong.is_empty(), "{what}: {:#x?}", held.wrong);
        assert!(survived.is_ok(), "{what}");
    });
}

const VICTIMS: usize = 11;

// Behaviours 455 and 504: a link that leads elsewhere is looked at before anything is written there.
#[test]
fn no_flipped_bit_makes_a_page_two_owners() {
    // The interpreter needs minutes for one bit; the tests of the checker flip them all there.
    let step = if cfg!(miri) { 31 } else { 1 };
    for victim in 0..VICTIMS {
        for bit in (0..128).step_by(step) {
            survive(victim, bit, if bit % 2 == 0 { 0 } else { 3 });
        }
    }
}
