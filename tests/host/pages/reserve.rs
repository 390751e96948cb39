//! Single pages that a CPU keeps in reserve behind its lists.

use super::machine::{MIB, Pages, Spec, run_on};
use super::{blocks, give_back, order, take_all};
use quarry::addr::{CpuId, Order};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::Page;

const CPU: CpuId = CpuId::BOOT;
/// What a list holds without its reserve.
const HIGH: u64 = 128;
/// What moves at once.
const BATCH: u64 = 64;
/// An eighth of 64 MiB for each of three uses, in pages.
const SHARE: u64 = 64 * MIB / 4096 / 8 / 3;

fn machine() -> Spec {
    Spec::of_size(64 * MIB).without_reserve()
}

fn burst(pages: &Pages<'_>, count: usize) -> Vec<Page> {
    (0..count).map(|_| pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap()).collect()
}

#[test]
fn a_burst_is_served_again_from_what_the_cpu_kept() {
    machine().run(|pages| {
        let taken = burst(pages, 640);
        give_back(pages, taken.iter().copied(), Order::ZERO);
        pages.check().unwrap();
        let kept = pages.pages_on_lists(CPU);
        assert!(kept > HIGH && kept <= SHARE, "{kept} pages kept");
        let free = pages.free_page_count();
        let again = burst(pages, usize::try_from(kept).unwrap());
        assert_eq!(pages.free_page_count(), free, "the zone was not asked");
        assert_eq!(pages.pages_on_lists(CPU), 0);
        let known = again.iter().filter(|page| taken.contains(page)).count();
        assert!(again.len() - known < 64, "but for the rest of the batch that the list was filled with");
        let mut apart = again.clone();
        apart.sort();
        apart.dedup();
        assert_eq!(apart.len(), again.len(), "no page twice");
        give_back(pages, again, Order::ZERO);
    });
}

#[test]
fn a_cpu_keeps_no_more_than_its_share() {
    machine().run(|pages| {
        for _ in 0..3 {
            let mut most = 0;
            for page in burst(pages, 8000) {
                raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                most = pages.pages_on_lists(CPU).max(most);
            }
            assert!(most <= SHARE);
            assert_eq!(most, HIGH + (SHARE - HIGH) / BATCH * BATCH, "as many whole batches as there is room for");
        }
        pages.check().unwrap();
    });
}

#[test]
fn a_batch_is_kept_where_there_is_just_room_for_it() {
    machine().cpus(2).run(|pages| {
        pages.drain_all();
        run_on(1);
        let mut others = burst(pages, 200);
        run_on(0);
        // One refill: it may keep one batch.
        let own = burst(pages, usize::try_from(BATCH).unwrap());
        assert_eq!(pages.pages_on_lists(CPU), 0);
        let mut free = |count: u64| give_back(pages, others.drain(..usize::try_from(count).unwrap()), Order::ZERO);
        free(HIGH + 1);
        assert_eq!(pages.pages_on_lists(CPU), HIGH + 1, "the batch that made room is kept");
        free(BATCH - 1);
        assert_eq!(pages.pages_on_lists(CPU), HIGH + BATCH);
        free(1);
        assert_eq!(pages.pages_on_lists(CPU), HIGH + 1, "the next one is not");
        give_back(pages, own.into_iter().chain(others), Order::ZERO);
    });
}

#[test]
fn a_cpu_that_never_took_pages_keeps_a_list_and_no_more() {
    machine().cpus(2).run(|pages| {
        let taken = burst(pages, 2000);
        run_on(1);
        give_back(pages, taken, Order::ZERO);
        assert!(pages.pages_on_lists(CpuId::new(1)) <= HIGH);
        run_on(0);
    });
}

#[test]
fn draining_leaves_nothing_and_merges_all() {
    machine().run(|pages| {
        let before = blocks(pages);
        let taken = burst(pages, 3000);
        give_back(pages, taken, Order::ZERO);
        assert_ne!(pages.pages_on_lists(CPU), 0);
        assert_eq!(blocks(pages), before);
        assert_eq!(pages.pages_on_lists(CPU), 0);
        // Wherever they came from and went, they are counted once.
        let traffic = pages.traffic(ZoneType::Dma).unwrap();
        assert_eq!((traffic.allocated, traffic.freed), (3000, 3000));
    });
}

#[test]
fn what_is_kept_serves_larger_blocks_when_nothing_else_does() {
    machine().run(|pages| {
        let taken = burst(pages, 5000);
        give_back(pages, taken, Order::ZERO);
        assert_ne!(pages.pages_on_lists(CPU), 0);
        let all = take_all(pages, order(10));
        assert_eq!(all.len(), 16);
        give_back(pages, all, order(10));
    });
}

#[test]
fn nothing_is_kept_of_a_zone_that_is_short() {
    Spec::of_size(64 * MIB).cpus(2).run(|pages| {
        run_on(1);
        let taken = burst(pages, 2000);
        run_on(0);
        // Who may not wait asks no other CPU for its pages.
        let rest =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, Order::ZERO).ok()).collect::<Vec<_>>();
        run_on(1);
        give_back(pages, taken, Order::ZERO);
        assert!(pages.pages_on_lists(CpuId::new(1)) <= HIGH);
        run_on(0);
        give_back(pages, rest, Order::ZERO);
        assert!(pages.pages_on_lists(CPU) <= HIGH);
    });
}

#[test]
fn nothing_is_kept_where_every_call_goes_the_long_way() {
    machine().run(|pages| {
        let taken = burst(pages, 2000);
        give_back(pages, taken, Order::ZERO);
        pages.set_careful(true);
        let taken = burst(pages, 2000);
        give_back(pages, taken, Order::ZERO);
        assert_eq!(pages.pages_on_lists(CPU), 0);
        pages.set_careful(false);
    });
}
