//! A call that is refused leaves everything as it was: every descriptor, every counter, every list.

use super::damage::flip;
use super::machine::{GIB, MIB, Pages, in_interrupt, range, run_on};
use super::reclaim::{Hook, alloc, exhaust_reserves, finish, machine};
use super::{Spec, order};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::prot::MemoryType;
use quarry::mm::page::{Kind, MigrateType, PAGEBLOCK_PAGES, Page, PageMap};
use quarry::mm::zone::{AllocError, FreeError, OomHook, OomReport, PageBatch, PageHal, Relief, ZoneSnapshot};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// All that the allocator knows.
#[derive(PartialEq, Debug)]
struct Everything {
    descriptors: Vec<(u64, String)>,
    types: Vec<u8>,
    zones: Vec<Option<ZoneSnapshot>>,
    listed: Vec<u64>,
    accounted: u64,
}

fn everything(pages: &Pages<'_>) -> Everything {
    let map = pages.hal().map();
    let all = || map.sections().iter().flat_map(|section| section.first..section.end);
    let page = |index: u32| map.find(Pfn::new(map.origin().get() + u64::from(index))).unwrap();
    Everything {
        descriptors: all()
            .map(|index| map.get(page(index)))
            .map(|descriptor| (descriptor.owner(), format!("{:?}", descriptor.state())))
            .collect(),
        types: all()
            .step_by(PAGEBLOCK_PAGES as usize)
            .map(|index| map.block_type(page(index)).load(Ordering::Relaxed))
            .collect(),
        zones: ZoneType::ALL.iter().map(|kind| pages.zone(*kind)).collect(),
        listed: (0..quarry::hal::cpu::PerCpu::cpus(pages.hal()))
            .map(|cpu| pages.pages_on_lists(CpuId::new(cpu)))
            .collect(),
        accounted: pages.accounted_pages(),
    }
}

type Call<'a> = (&'a str, Box<dyn Fn(&Pages<'_>) -> bool + 'a>);

/// Sees that each call is refused, and changes nothing.
fn all_refused(pages: &Pages<'_>, calls: &[Call<'_>]) {
    pages.drain_all();
    let before = everything(pages);
    for (name, call) in calls {
        assert!(!call(pages), "{name} is not refused");
        let after = everything(pages);
        assert!(before == after, "{name} has changed something");
    }
}

#[test]
fn a_refused_call_changes_nothing() {
    let cma = range(GIB + 4 * MIB, 2 * MIB);
    let ram = [range(GIB, 8 * MIB), range(GIB + 12 * MIB, MIB)];
    Spec::new(&ram).reserve(range(GIB, 2 * PAGE_SIZE)).reserve(cma).without_reserve().run(|pages| {
        let map = pages.hal().map();
        let at = |offset| map.find(Pfn::containing(PhysAddr::new(GIB + offset))).unwrap();
        let (reserved, hole, kept) = (at(0), at(14 * MIB), at(4 * MIB));
        let take = |gfp, o| pages.alloc_pages(gfp, order(o)).unwrap();
        let one = take(Gfp::KERNEL | Gfp::ACCOUNT, 0);
        let quad = take(Gfp::KERNEL, 2);
        let comp = take(Gfp::KERNEL | Gfp::COMP | Gfp::ACCOUNT, 3);
        let (claimed, shared, typed) = (take(Gfp::KERNEL, 1), take(Gfp::KERNEL, 1), take(Gfp::KERNEL, 0));
        raw!(pages.claim(claimed, Kind::User, 7)).unwrap();
        pages.get_page(shared).unwrap();
        raw!(pages.set_memory_type(typed, MemoryType::NonCacheable)).unwrap();
        let free = take(Gfp::KERNEL, 0);
        raw!(pages.free_pages(free, Order::ZERO)).unwrap();
        let free_with = |page: Page, o| -> Call<'_> {
            ("free_pages", Box::new(move |pages: &Pages<'_>| raw!(pages.free_pages(page, order(o))).is_ok()))
        };
        let cold_with = |page: Page, o| -> Call<'_> {
            ("free_pages_cold", Box::new(move |pages: &Pages<'_>| raw!(pages.free_pages_cold(page, order(o))).is_ok()))
        };
        let mut calls: Vec<Call<'_>> = Vec::new();
        for (page, o) in [
            (one, 1),
            (quad, 1),
            (quad, 3),
            (quad.offset(1), 0),
            (quad.offset(2), 1),
            (comp, 2),
            (comp.offset(7), 0),
            (claimed, 1),
            (typed, 0),
            (free, 0),
            (reserved, 0),
            (reserved.offset(1), 0),
            (hole, 0),
        ] {
            calls.extend([free_with(page, o), cold_with(page, o)]);
        }
        calls.push((
            "free_pages_bulk",
            Box::new(move |pages| {
                let mut batch = PageBatch::<2>::new();
                assert!(batch.push(claimed));
                raw!(pages.free_pages_bulk(&mut batch)).is_ok() || batch.pop() != Some(claimed)
            }),
        ));
        calls.push((
            "free_pages_exact",
            Box::new(move |pages| raw!(pages.free_pages_exact(free, 3 * PAGE_SIZE)).is_ok()),
        ));
        calls.push((
            "free_contig_range",
            Box::new(move |pages| raw!(pages.free_contig_range(quad.offset(1), 2)).is_ok()),
        ));
        calls.push(("put_page of a free page", Box::new(move |pages| raw!(pages.put_page(free)).is_ok())));
        calls.push(("put_page of a claimed page", Box::new(move |pages| raw!(pages.put_page(claimed)).is_ok())));
        calls.push(("get_page", Box::new(move |pages| pages.get_page(free).is_ok())));
        calls.push((
            "claim of a claimed page",
            Box::new(move |pages| raw!(pages.claim(claimed, Kind::Slab, 9)).is_ok()),
        ));
        calls.push(("claim of a free page", Box::new(move |pages| raw!(pages.claim(free, Kind::Slab, 9)).is_ok())));
        calls.push(("disown of another kind", Box::new(move |pages| raw!(pages.disown(claimed, Kind::Slab)).is_ok())));
        calls.push(("disown of nobody's page", Box::new(move |pages| raw!(pages.disown(one, Kind::User)).is_ok())));
        calls.push((
            "set_memory_type",
            Box::new(move |pages| raw!(pages.set_memory_type(free, MemoryType::NonCacheable)).is_ok()),
        ));
        for (page, o) in [(comp, 3), (shared, 1), (claimed, 1), (quad, 1), (quad, 3), (quad.offset(1), 1), (free, 0)] {
            calls.push(("split_page", Box::new(move |pages| raw!(pages.split_page(page, order(o))).is_ok())));
        }
        calls.push(("free_reserved", Box::new(move |pages| super::free_reserved(pages, reserved, 3).is_ok())));
        calls.push(("add_cma of too little", Box::new(move |pages| super::add_cma(pages, kept, 100).is_ok())));
        calls.push(("add_cma beyond", Box::new(move |pages| super::add_cma(pages, kept, 1024).is_ok())));
        // A page of it in use, and one that is reserved.
        calls.push((
            "alloc_contig_range of a page in use",
            Box::new(move |pages| pages.alloc_contig_range(one, 1, Gfp::KERNEL).is_ok()),
        ));
        calls.push((
            "alloc_contig_range of reserved pages",
            Box::new(move |pages| pages.alloc_contig_range(reserved, 8, Gfp::KERNEL).is_ok()),
        ));
        calls.push((
            "alloc_contig_pages of too many",
            Box::new(|pages| pages.alloc_contig_pages(4096, 1, Gfp::KERNEL).is_ok()),
        ));
        let twice = Gfp::KERNEL.union(Gfp::DMA).union(Gfp::DMA32);
        calls.push(("alloc_pages", Box::new(move |pages| pages.alloc_pages(twice, Order::ZERO).is_ok())));
        calls.push(("alloc_pages_exact", Box::new(|pages| pages.alloc_pages_exact(Gfp::KERNEL, 0).is_ok())));
        all_refused(pages, &calls);
        // A block whose descriptor names another zone, on the short way and on the long one.
        flip(pages, quad, 2);
        all_refused(pages, &[free_with(quad, 2)]);
        flip(pages, quad, 2);

        raw!(pages.set_memory_type(typed, MemoryType::WriteBack)).unwrap();
        raw!(pages.disown(claimed, Kind::User)).unwrap();
        for (page, o) in [(one, 0), (quad, 2), (comp, 3), (claimed, 1), (shared, 1), (shared, 1), (typed, 0)] {
            raw!(pages.free_pages(page, order(o))).unwrap();
        }
        assert_eq!(pages.accounted_pages(), 0);
    });
}

// A page block that somebody else has isolated, at the end of a range: nothing of the range becomes isolated.
#[test]
fn a_range_is_isolated_as_a_whole_or_not_at_all() {
    Spec::of_size(16 * MIB).run(|pages| {
        let map = pages.hal().map();
        let first = map.find(Pfn::containing(PhysAddr::new(GIB + 4 * MIB))).unwrap();
        let last = map.block_type(first.offset(PAGEBLOCK_PAGES));
        let kind = last.swap(MigrateType::Isolate as u8, Ordering::Relaxed);
        let refused = |pages: &Pages<'_>| pages.alloc_contig_range(first, 2 * PAGEBLOCK_PAGES, Gfp::KERNEL).is_ok();
        all_refused(pages, &[("alloc_contig_range", Box::new(refused))]);
        last.store(kind, Ordering::Relaxed);
    });
}

#[test]
fn who_may_not_wait_asks_nobody_for_memory() {
    let machine = machine();
    let hook = Hook::register(machine);
    let taken = exhaust_reserves(machine);
    let reliefs = &machine.pages.hal().watcher.reliefs;
    let before = reliefs.load(Ordering::Relaxed);
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::KERNEL - Gfp::DIRECT_RECLAIM, Gfp::ATOMIC | Gfp::RETRY_MAYFAIL] {
        for o in [0, 3] {
            assert_eq!(alloc(machine, gfp, o), Err(AllocError::OutOfMemory), "{gfp}");
        }
    }
    // Who says that he may, where it is not so.
    assert_eq!(in_interrupt(|| alloc(machine, Gfp::KERNEL, 0)), Err(AllocError::OutOfMemory));
    assert_eq!(in_interrupt(|| alloc(machine, Gfp::KERNEL | Gfp::NOFAIL, 0)), Err(AllocError::OutOfMemory));
    assert_eq!(reliefs.load(Ordering::Relaxed), before);
    assert_eq!(hook.calls(), 0);
    finish(machine, taken);
}

/// Returns from its first call when another CPU waits for that, and gives up.
struct Turnstile {
    machine: super::machine::Reclaiming,
    inside: AtomicBool,
    calls: AtomicU32,
}

impl OomHook for Turnstile {
    fn out_of_memory(&self, _: &OomReport<'_>) -> Relief {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            let waits = &self.machine.pages.hal().watcher.waits;
            let before = waits.load(Ordering::SeqCst);
            self.inside.store(true, Ordering::SeqCst);
            while waits.load(Ordering::SeqCst) == before {
                self.machine.pages.answer_requests();
                std::thread::yield_now();
            }
        }
        Relief::GiveUp
    }
}

// Nothing else wakes it: the CPU that called the hook frees nothing and asks for nothing afterwards.
#[test]
fn whoever_waits_for_another_cpus_hook_is_woken_when_that_returns() {
    let machine = Spec::of_size(16 * MIB).cpus(2).with_reclaimer();
    let hal = machine.pages.hal();
    hal.others.store(true, Ordering::SeqCst);
    let taken = exhaust_reserves(machine);
    let hook = super::reclaim::leak(Turnstile { machine, inside: false.into(), calls: 0.into() });
    let _ = machine.reclaim.oom_hooks().register(hal, hook).unwrap();
    std::thread::scope(|threads| {
        hal.set_online(1, true);
        let first = threads.spawn(|| {
            run_on(1);
            assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
            hal.set_online(1, false);
        });
        while !hook.inside.load(Ordering::SeqCst) {
            machine.pages.answer_requests();
            std::thread::yield_now();
        }
        assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
        first.join().unwrap();
    });
    assert_eq!(hook.calls.load(Ordering::SeqCst), 2, "each has had its turn");
    finish(machine, taken);
}

#[test]
fn a_block_that_cannot_be_counted_once_more_stays_as_it_is() {
    Spec::of_size(16 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        (33..64).for_each(|bit| flip(pages, page, bit));
        assert_eq!(pages.get_page(page), Err(FreeError::Corrupt(pages.hal().map().pfn(page))));
        let get = |pages: &Pages<'_>| pages.get_page(page).is_ok();
        all_refused(pages, &[("get_page", Box::new(get))]);
        (33..64).for_each(|bit| flip(pages, page, bit));
        raw!(pages.free_pages(page, Order::ZERO)).unwrap();
    });
}
