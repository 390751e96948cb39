//! Zones: where memory comes from, how far it goes, and for whom.

use super::damage::flip;
use super::machine::{GIB, MIB, Pages};
use super::{Spec, blocks, give_back, order, phys, range, take_all};
use quarry::addr::{Order, PAGE_SIZE, PhysAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::zone::{Mark, PageHal, Relief, WatermarkTuning, ZoneLimits};
use std::sync::atomic::Ordering;

/// 16 MiB of DMA memory, 32 MiB of DMA32, 64 MiB of Normal.
fn three_zones() -> Spec {
    let banks = [range(GIB, 48 * MIB), range(4 * GIB, 64 * MIB)];
    Spec::new(&banks).limits(GIB + 16 * MIB)
}

fn zone_of(pages: &Pages<'_>, page: Page) -> ZoneType {
    pages.zone_of_page(page).unwrap()
}

// Behaviour 70, and the limits of each board.
#[test]
fn zones_end_where_devices_do() {
    let at = PhysAddr::new;
    let kinds = |limits: ZoneLimits, probes: &[u64]| -> Vec<ZoneType> {
        probes.iter().map(|addr| limits.zone_of(at(*addr))).collect()
    };
    use ZoneType::{Dma, Dma32, Normal};
    // QEMU's virt: no limit stated, RAM from 1 GiB on.
    let virt = ZoneLimits::new(at(GIB), None, None);
    assert_eq!(kinds(virt, &[GIB, 2 * GIB - 1, 2 * GIB, 4 * GIB - 1, 4 * GIB]), [Dma, Dma, Dma32, Dma32, Normal]);
    // The Pi 4: 30 bits.
    let pi = ZoneLimits::new(at(0), Some(at(GIB)), None);
    assert_eq!(kinds(pi, &[0, GIB - 1, GIB, 4 * GIB]), [Dma, Dma, Dma32, Normal]);
    // A limit below all RAM is none.
    assert_eq!(ZoneLimits::new(at(GIB), Some(at(GIB)), None), virt);
    // RAM that starts above 4 GiB.
    let high = ZoneLimits::new(at(8 * GIB), None, None);
    assert_eq!(kinds(high, &[8 * GIB, 9 * GIB, 12 * GIB]), [Dma, Dma32, Normal]);
    // dma_zone= says otherwise, and may say nothing at all.
    let chosen = ZoneLimits::new(at(GIB), Some(at(2 * GIB)), Some(64 * MIB));
    assert_eq!(kinds(chosen, &[GIB + 64 * MIB - 1, GIB + 64 * MIB]), [Dma, Dma32]);
    assert_eq!(kinds(ZoneLimits::new(at(GIB), None, Some(0)), &[GIB]), [Dma32]);
    // A device that reaches beyond 4 GiB leaves DMA32 empty.
    let wide = ZoneLimits::new(at(0), Some(at(16 * GIB)), None);
    assert_eq!(kinds(wide, &[8 * GIB, 16 * GIB]), [Dma, Normal]);
    // An odd end is rounded down to a page.
    assert_eq!(ZoneLimits::new(at(0), Some(at(GIB + 5)), None), pi);
}

// Behaviour 121.
#[test]
fn a_zone_modifier_never_gets_a_higher_page() {
    three_zones().without_reserve().run(|pages| {
        for (modifier, highest) in [(Gfp::DMA, ZoneType::Dma), (Gfp::DMA32, ZoneType::Dma32)] {
            let flags = Gfp::MEMALLOC | Gfp::NOWARN | modifier;
            let taken: Vec<Page> = std::iter::from_fn(|| pages.alloc_pages(flags, Order::ZERO).ok()).collect();
            assert!(taken.iter().all(|page| zone_of(pages, *page) <= highest));
            let managed: u64 =
                ZoneType::ALL.iter().filter(|kind| **kind <= highest).map(|k| pages.zone(*k).unwrap().managed).sum();
            assert_eq!(taken.len() as u64, managed, "all of the zone and of those below");
            give_back(pages, taken, Order::ZERO);
        }
    });
}

// Behaviour 122.
#[test]
fn an_exhausted_zone_falls_back_downwards() {
    three_zones().without_reserve().run(|pages| {
        let taken = take_all(pages, Order::ZERO);
        let zones: Vec<ZoneType> = taken.iter().map(|page| zone_of(pages, *page)).collect();
        let mut order = zones.clone();
        order.dedup();
        // Down to the low marks first, then below them, each time downwards.
        let downwards = [ZoneType::Normal, ZoneType::Dma32, ZoneType::Dma];
        assert_eq!(order[..3], downwards);
        assert!(order.chunks(3).all(|round| downwards.starts_with(round)), "{order:?}");
        assert_eq!(zones.len() as u64, pages.total_pages());
        give_back(pages, taken, Order::ZERO);
    });
}

#[test]
fn empty_zones_are_no_trouble() {
    // Everything is DMA.
    Spec::of_size(16 * MIB).run(|pages| {
        assert_eq!(pages.zone(ZoneType::Normal), None);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        assert_eq!(zone_of(pages, page), ZoneType::Dma);
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
    // Nothing is.
    let mut spec = Spec::new(&[range(4 * GIB, 16 * MIB)]);
    spec.limits = Some(ZoneLimits::new(PhysAddr::new(0), None, None));
    spec.run(|pages| {
        assert_eq!(pages.zone(ZoneType::Dma), None);
        assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::DMA | Gfp::NOWARN, Order::ZERO).is_err());
        assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::DMA32 | Gfp::NOWARN, order(3)).is_err());
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        assert_eq!(zone_of(pages, page), ZoneType::Normal);
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}

// Behaviour 144: spanned is present and holes, managed is present without what is reserved.
#[test]
fn a_zone_counts_its_holes_and_its_reserved_pages() {
    let banks = [range(GIB, 8 * MIB), range(GIB + 20 * MIB, 4 * MIB)];
    Spec::new(&banks).reserve(range(GIB + MIB, MIB)).run(|pages| {
        let zone = pages.zone(ZoneType::Dma).unwrap();
        let pages_of = |bytes: u64| bytes / PAGE_SIZE;
        assert_eq!(zone.spanned, pages_of(24 * MIB));
        assert_eq!(zone.present, pages_of(12 * MIB));
        assert_eq!(zone.managed, pages_of(11 * MIB));
        assert_eq!(zone.free, zone.managed);
    });
}

/// Leaves exactly `left` free pages in the one zone, and none on lists.
fn leave(pages: &Pages<'_>, left: u64) -> Vec<Page> {
    pages.set_careful(true);
    let mut taken = Vec::new();
    while pages.free_page_count() > left {
        taken.push(pages.alloc_pages(Gfp::MEMALLOC, Order::ZERO).unwrap());
    }
    taken
}

// Behaviours 125, 126.
#[test]
fn the_marks_say_who_gets_the_last_pages() {
    Spec::of_size(64 * MIB).run(|pages| {
        let marks = pages.zone(ZoneType::Dma).unwrap().marks;
        let wakes = || pages.hal().watcher.wakes.load(Ordering::Relaxed);
        let mut held = leave(pages, marks.low + 1);
        held.push(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap());
        assert_eq!(wakes(), 0, "above low nobody is woken");
        // At low and below, the reclaimer is woken, once.
        for _ in 0..3 {
            held.push(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap());
        }
        assert_eq!(wakes(), 1);
        pages.reclaimer_rests();
        held.push(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap());
        assert_eq!(wakes(), 2, "when it has done what it could it wants to be woken again");

        let last = |flags: Gfp| {
            let taken: Vec<Page> =
                std::iter::from_fn(|| pages.alloc_pages(flags | Gfp::NOWARN, Order::ZERO).ok()).collect();
            (pages.free_page_count(), taken)
        };
        let (left, taken) = last(Gfp::KERNEL);
        assert_eq!(left, marks.min);
        held.extend(taken);
        assert_eq!(last(Gfp::NOWAIT).0, marks.min, "who has another way gets nothing of the reserve");
        let (left, taken) = last(Gfp::KERNEL | Gfp::HIGH);
        assert_eq!(left, marks.min - marks.min / 2, "half of it");
        held.extend(taken);
        let (left, taken) = last(Gfp::ATOMIC);
        let half = marks.min - marks.min / 2;
        assert_eq!(left, half - half / 4, "and a quarter of the rest for who cannot wait");
        held.extend(taken);
        let (left, taken) = last(Gfp::ATOMIC | Gfp::MEMALLOC | Gfp::NOMEMALLOC);
        assert!(taken.is_empty(), "NOMEMALLOC wins over MEMALLOC; {left} left");
        let (left, taken) = last(Gfp::MEMALLOC);
        assert_eq!(left, 0, "all of it");
        held.extend(taken);
        give_back(pages, held, Order::ZERO);
        pages.set_careful(false);
    });
}

// Behaviour 132.
#[test]
fn nowait_fails_quietly_and_without_help() {
    Spec::of_size(16 * MIB).run(|pages| {
        let held = leave(pages, 0);
        let watcher = &pages.hal().watcher;
        assert!(pages.alloc_pages(Gfp::NOWAIT, Order::ZERO).is_err());
        assert_eq!(watcher.failures.load(Ordering::Relaxed), 0, "no log line");
        assert_eq!(watcher.reliefs.load(Ordering::Relaxed), 0, "no waiting");
        assert!(pages.alloc_pages(Gfp::ATOMIC, Order::ZERO).is_err());
        assert_eq!(watcher.failures.load(Ordering::Relaxed), 1);
        assert!(pages.alloc_pages(Gfp::KERNEL, Order::ZERO).is_err());
        assert_eq!(watcher.reliefs.load(Ordering::Relaxed), 1, "who may wait asks for help");
        give_back(pages, held, Order::ZERO);
        pages.set_careful(false);
    });
}

// Behaviour 137 in small: help that frees memory lets the allocation succeed, however often it takes.
#[test]
fn an_allocation_tries_again_as_long_as_there_is_relief() {
    Spec::of_size(16 * MIB).run(|pages| {
        let held = leave(pages, 0);
        let kept = pages.zone(ZoneType::Dma).unwrap().marks.min;
        let (give, keep) = held.split_at(usize::try_from(kept).unwrap() + 1);
        let left = std::sync::Arc::new(std::sync::Mutex::new(give.to_vec()));
        let source = left.clone();
        let attempts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = attempts.clone();
        let queue = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let out = queue.clone();
        *pages.hal().watcher.relief.lock().unwrap() = Some(Box::new(move |shortage| {
            seen.lock().unwrap().push(shortage.attempt);
            match source.lock().unwrap().pop() {
                Some(page) => out.lock().unwrap().push(page),
                None => return Relief::GiveUp,
            }
            Relief::Retry
        }));
        // The hook cannot reach the allocator here, so the test frees what the hook has chosen.
        let page = loop {
            match pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, Order::ZERO) {
                Ok(page) => break page,
                Err(_) => give_back(pages, queue.lock().unwrap().drain(..), Order::ZERO),
            }
        };
        *pages.hal().watcher.relief.lock().unwrap() = None;
        assert_eq!(attempts.lock().unwrap()[..3], [0, 1, 2]);
        give_back(pages, left.lock().unwrap().drain(..), Order::ZERO);
        give_back(pages, queue.lock().unwrap().drain(..), Order::ZERO);
        give_back(pages, keep.iter().copied().chain([page]), Order::ZERO);
        pages.set_careful(false);
    });
}

// Behaviour 124, and the ratio at run time.
#[test]
fn lower_zones_keep_something_from_requests_that_had_a_choice() {
    three_zones().run(|pages| {
        let zone = |kind| pages.zone(kind).unwrap();
        let normal = zone(ZoneType::Normal).managed;
        let dma32 = zone(ZoneType::Dma32).managed;
        assert_eq!(zone(ZoneType::Dma).lowmem_reserve, [0, dma32 / 256, (dma32 + normal) / 256]);
        assert_eq!(zone(ZoneType::Dma32).lowmem_reserve, [0, 0, normal / 256]);
        assert_eq!(zone(ZoneType::Normal).lowmem_reserve, [0, 0, 0]);

        let tuning = WatermarkTuning { lowmem_reserve_ratio: [4, 0, 0], ..pages.tuning() };
        pages.set_tuning(tuning);
        assert_eq!(zone(ZoneType::Dma).lowmem_reserve, [0, dma32 / 4, (dma32 + normal) / 4]);
        assert_eq!(zone(ZoneType::Dma32).lowmem_reserve, [0, 0, 0]);
        // A request that could have been served higher up gets nothing from the DMA zone; one for it does.
        pages.set_careful(true);
        let taken: Vec<Page> =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, Order::ZERO).ok()).collect();
        assert!(taken.iter().all(|page| zone_of(pages, *page) != ZoneType::Dma));
        let page = pages.alloc_pages(Gfp::KERNEL | Gfp::DMA, Order::ZERO).unwrap();
        assert_eq!(zone_of(pages, page), ZoneType::Dma);
        give_back(pages, taken.into_iter().chain([page]), Order::ZERO);
        pages.set_careful(false);
    });
}

// Behaviour 127.
#[test]
fn enough_single_pages_are_not_enough_for_a_block() {
    Spec::of_size(64 * MIB).run(|pages| {
        let taken = take_all(pages, Order::ZERO);
        let (kept, freed): (Vec<_>, Vec<_>) = taken.into_iter().partition(|page| page.index() % 2 == 0);
        give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert!(zone.free > zone.marks.high);
        assert!(pages.watermark_ok(ZoneType::Dma, Order::ZERO, Mark::High));
        assert!(!pages.watermark_ok(ZoneType::Dma, order(3), Mark::Min));
        assert!(pages.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, order(3)).is_err());
        // Behaviour 141.
        let free = pages.free_blocks(ZoneType::Dma).unwrap();
        assert_eq!(free.unusable_index(Order::ZERO), 0);
        assert_eq!(free.unusable_index(order(1)), 1000);
        assert_eq!(free.fragmentation_index(Order::ZERO), None, "it could be served");
        assert!(free.fragmentation_index(order(3)).unwrap() > 800, "fragmentation is what hurts");
        give_back(pages, kept, Order::ZERO);
    });
}

// Behaviour 129.
#[test]
fn marks_rise_whatever_the_size() {
    let tunings = [
        WatermarkTuning::DEFAULT,
        WatermarkTuning { min_free_kbytes: Some(0), ..WatermarkTuning::DEFAULT },
        WatermarkTuning { min_free_kbytes: Some(u64::MAX), scale_factor: u64::MAX, ..WatermarkTuning::DEFAULT },
    ];
    for tuning in tunings {
        for managed in [0, 1, 2, 3, 100, 4096, 1 << 20, 1 << 32, 1 << 40] {
            let marks = tuning.marks(managed, managed, tuning.min_pages(managed));
            assert!(marks.min <= marks.low && marks.low <= marks.high && marks.high <= managed, "{marks:?}");
            assert_eq!(marks.min == 0, managed == 0);
        }
    }
    // Linux's figures: 1 GiB keeps 4 MiB.
    let pages = GIB / PAGE_SIZE;
    assert_eq!(WatermarkTuning::DEFAULT.min_pages(pages), 1024);
    let marks = WatermarkTuning::DEFAULT.marks(pages, pages, 1024);
    assert_eq!((marks.min, marks.low, marks.high), (1024, 1286, 1548));
}

// Behaviour 130.
#[test]
fn marks_change_while_others_allocate() {
    Spec::of_size(64 * MIB).cpus(2).run(|pages| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                super::machine::run_on(1);
                while !stop.load(Ordering::Acquire) {
                    let marks = pages.zone(ZoneType::Dma).unwrap().marks;
                    assert!(marks.min <= marks.low && marks.low <= marks.high, "{marks:?}");
                    let page = pages.alloc_pages(Gfp::ATOMIC, order(5)).unwrap();
                    raw!(pages.free_pages(page, order(5))).unwrap();
                }
            });
            for scale in (1..if cfg!(miri) { 5 } else { 500 }).chain([10]) {
                pages.set_tuning(WatermarkTuning { scale_factor: scale, ..pages.tuning() });
            }
            stop.store(true, Ordering::Release);
        });
        super::machine::run_on(0);
    });
}

// Behaviour 140.
#[test]
fn unmovable_pages_stay_together() {
    Spec::of_size(256 * MIB).without_reserve().run(|pages| {
        // Movable memory everywhere, and holes in it.
        let movable: Vec<Page> =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::MOVABLE | Gfp::NOWARN, Order::ZERO).ok())
                .collect();
        let (freed, kept): (Vec<Page>, Vec<Page>) =
            movable.into_iter().partition(|page| page.index() / 512 % 4 == 0 || page.index() % 3 == 0);
        give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        let unmovable: Vec<Page> = (0..4096).map(|_| pages.alloc_pages(Gfp::MEMALLOC, Order::ZERO).unwrap()).collect();
        let mut touched: Vec<u32> = unmovable.iter().map(|page| page.index() / 512).collect();
        touched.sort_unstable();
        touched.dedup();
        assert!(touched.len() <= 9, "4096 pages in {} page blocks", touched.len());
        assert!(pages.zone(ZoneType::Dma).unwrap().events.stolen_blocks >= 8);
        give_back(pages, unmovable.into_iter().chain(kept), Order::ZERO);
    });
}

#[test]
fn stealing_raises_the_marks_for_a_while() {
    Spec::of_size(GIB / 2).run(|pages| {
        // Only small movable blocks are left.
        let movable: Vec<Page> =
            std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::MOVABLE | Gfp::NOWARN, Order::ZERO).ok())
                .collect();
        let (freed, kept): (Vec<Page>, Vec<Page>) = movable.into_iter().partition(|page| page.index() % 512 < 64);
        give_back(pages, freed, Order::ZERO);
        pages.drain_all();
        assert_eq!(pages.zone(ZoneType::Dma).unwrap().boost, 0);
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert!(zone.boost > 0 && zone.boost <= zone.marks.high.max(512) * 3 / 2, "{zone:?}");
        assert!(pages.settle_boost());
        assert_eq!(pages.zone(ZoneType::Dma).unwrap().boost, 0);
        give_back(pages, kept.into_iter().chain([page]), Order::ZERO);
    });
}

#[test]
fn atomic_blocks_have_page_blocks_of_their_own() {
    Spec::of_size(GIB / 2).run(|pages| {
        pages.set_careful(true);
        let block = pages.alloc_pages(Gfp::ATOMIC, order(3)).unwrap();
        // Reserved when the ordinary way was closed: fill the zone down to the mark first.
        raw!(pages.free_pages(block, order(3))).unwrap();
        let marks = pages.zone(ZoneType::Dma).unwrap().marks;
        let mut held = leave(pages, marks.low);
        let block = pages.alloc_pages(Gfp::ATOMIC, order(3)).unwrap();
        let zone = pages.zone(ZoneType::Dma).unwrap();
        assert_eq!(zone.high_atomic, 512, "a page block was put aside");
        assert_eq!(zone.events.high_atomic_reserved, 1);
        // An ordinary request does not touch it.
        while let Ok(page) = pages.alloc_pages(Gfp::NOWAIT, Order::ZERO) {
            held.push(page);
        }
        pages.check().unwrap();
        raw!(pages.free_pages(block, order(3))).unwrap();
        assert!(pages.zone(ZoneType::Dma).unwrap().free_high_atomic >= 8);
        let again = pages.alloc_pages(Gfp::ATOMIC, order(3)).unwrap();
        raw!(pages.free_pages(again, order(3))).unwrap();
        // A damaged block of the reserve is not handed out.
        pages.drain_all();
        let map = pages.hal().map();
        let head = (0..8).map(|up| again.align_down(3 + up)).find(|page| map.get(*page).state().kind() == Kind::Free);
        let head = head.unwrap();
        flip(pages, head, 20);
        let atomic = || pages.alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, order(3)).ok();
        let others: Vec<_> = std::iter::from_fn(atomic).take(100).collect();
        assert!(!others.contains(&head));
        flip(pages, head, 20);
        give_back(pages, others, order(3));
        give_back(pages, held, Order::ZERO);
        pages.set_careful(false);
        let before = blocks(pages);
        assert_eq!(before.iter().enumerate().map(|(o, n)| n << o).sum::<u64>(), pages.total_pages());
    });
}

// Behaviour 135.
#[test]
fn every_page_of_a_compound_page_knows_its_head() {
    Spec::of_size(64 * MIB).run(|pages| {
        for o in 1..=10 {
            let head = pages.alloc_pages(Gfp::KERNEL | Gfp::COMP, order(o)).unwrap();
            for index in 0..1_u32 << o {
                let (found, state) = pages.head(head.offset(index)).unwrap();
                assert_eq!((found, state.order().get(), state.is_compound()), (head, o, true));
                assert_eq!(pages.page_order(head.offset(index)), Ok(order(o)));
            }
            pages.check().unwrap();
            raw!(pages.free_pages(head, order(o))).unwrap();
        }
        // Without COMP the head is found as well, by probing.
        let head = pages.alloc_pages(Gfp::KERNEL, order(6)).unwrap();
        assert!((0..64).all(|index| pages.head(head.offset(index)).unwrap().0 == head));
        raw!(pages.free_pages(head, order(6))).unwrap();
    });
}

// Behaviours 99, 136.
#[test]
fn zeroed_pages_are_zero_wherever_they_come_from() {
    Spec::of_size(64 * MIB).run(|pages| {
        for o in 0..=10 {
            for _ in 0..3 {
                let page = pages.alloc_pages(Gfp::KERNEL, order(o)).unwrap();
                pages.hal().fill(page, 1 << o, 0xab);
                raw!(pages.free_pages(page, order(o))).unwrap();
                let page = pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, order(o)).unwrap();
                assert!((0..1 << o).all(|index| pages.hal().byte(page.offset(index)) == 0), "order {o}");
                raw!(pages.free_pages(page, order(o))).unwrap();
            }
        }
    });
}

#[test]
fn accounted_pages_are_counted_until_they_are_freed() {
    Spec::of_size(64 * MIB).run(|pages| {
        let one = pages.alloc_pages(Gfp::KERNEL_ACCOUNT, order(3)).unwrap();
        let two = pages.alloc_pages(Gfp::KERNEL_ACCOUNT | Gfp::COMP, order(2)).unwrap();
        assert_eq!(pages.accounted_pages(), 12);
        raw!(pages.free_pages(one, order(3))).unwrap();
        raw!(pages.free_pages(two, order(2))).unwrap();
        assert_eq!(pages.accounted_pages(), 0);
    });
}

#[test]
fn the_reports_read_like_linux() {
    three_zones().run(|pages| {
        let buddyinfo = pages.buddyinfo().to_string();
        let lines: Vec<&str> = buddyinfo.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("Node 0, zone      DMA "), "{buddyinfo}");
        let numbers: Vec<u64> = lines[2].split_whitespace().skip(4).map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16]);
        let zoneinfo = pages.zoneinfo().to_string();
        for part in ["Node 0, zone   Normal", "        protection: (0, 0, 0)", "  pages free     16384", "    cpu: 0"] {
            assert!(zoneinfo.contains(part), "{part:?} in {zoneinfo}");
        }
        let meminfo = pages.meminfo().to_string();
        assert!(meminfo.contains("MemTotal:         114688 kB"), "{meminfo}");
        let types = pages.pagetypeinfo().to_string();
        assert!(types.contains("Node    0, zone   Normal, type      Movable"), "{types}");
        assert!(types.contains("Node 0, zone      DMA            0            8 "), "{types}");
    });
}

#[test]
fn a_page_belongs_to_the_zone_of_its_address() {
    three_zones().without_reserve().run(|pages| {
        for page in take_all(pages, Order::ZERO) {
            let at = phys(pages, page);
            let expected = if at < GIB + 16 * MIB {
                ZoneType::Dma
            } else if at < 4 * GIB {
                ZoneType::Dma32
            } else {
                ZoneType::Normal
            };
            assert_eq!(zone_of(pages, page), expected);
            assert_eq!(pages.hal().map().find(quarry::addr::Pfn::containing(PhysAddr::new(at))), Some(page));
            raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}
