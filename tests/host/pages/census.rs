//! The count of what every page is used for: exact at rest, bounded while others allocate, and wrong counts are named.

use super::machine::{MIB, run_on};
use super::{Spec, order};
use quarry::gfp::Gfp;
use quarry::mm::page::Kind;
use quarry::mm::zone::{Census, Miscount, Stock};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn every_kind_is_counted_and_the_sum_stays() {
    let reserved = super::range(1 << 30, 3 * MIB);
    Spec::of_size(32 * MIB).reserve(reserved).limits((1 << 30) + 16 * MIB).run(|pages| {
        let before = pages.census().unwrap();
        assert_eq!(before.managed(), 29 * MIB / 4096);
        assert_eq!(before.reserved(), 3 * MIB / 4096);
        assert_eq!(before.of(Kind::Free), before.managed());
        assert_eq!(before.zones().count(), 2);
        let kinds =
            [Kind::Slab, Kind::LargeKmalloc, Kind::Vmalloc, Kind::PageTable, Kind::User, Kind::Dma, Kind::PerCpu];
        let mut held = Vec::new();
        for (raw, kind) in (0..).zip(kinds) {
            let page = pages.alloc_pages(Gfp::KERNEL | Gfp::COMP, order(raw)).unwrap();
            raw!(pages.claim(page, kind, 1)).unwrap();
            held.push((page, raw, kind));
            let now = pages.census().unwrap();
            assert_eq!(now.of(kind), 1 << raw, "{kind:?}");
            assert_eq!(now.managed(), before.managed());
            assert_eq!(now.reserved(), before.reserved());
        }
        let plain = pages.alloc_pages(Gfp::DMA, order(3)).unwrap();
        assert_eq!(pages.census().unwrap().of(Kind::Block), 8);
        raw!(pages.free_pages(plain, order(3))).unwrap();
        for (page, raw, kind) in held {
            raw!(pages.disown(page, kind)).unwrap();
            raw!(pages.free_pages(page, order(raw))).unwrap();
        }
        assert!(pages.census().unwrap().of(Kind::Pcp) != 0, "what was freed last is on a list of the CPU");
        pages.drain_all();
        let after = pages.census().unwrap();
        assert_eq!(after.of(Kind::Free), after.managed());
        assert!(after.zones().all(|zone| zone.moved == 0), "nothing moved while it was counted");
    });
}

#[test]
fn runs_show_where_reserved_memory_lies() {
    let reserved = super::range((1 << 30) + 5 * MIB, MIB);
    let spec = Spec::new(&[super::range(1 << 30, 8 * MIB), super::range((1 << 30) + 17 * MIB, MIB)]);
    spec.reserve(reserved).run(|pages| {
        let mut runs = Vec::new();
        pages.for_each_run(|run, stock| runs.push((run.start().get() - (1 << 30), run.size(), stock))).unwrap();
        let expected = [
            (0, 5 * MIB, Stock::Managed),
            (5 * MIB, MIB, Stock::Reserved),
            (6 * MIB, 2 * MIB, Stock::Managed),
            (16 * MIB, MIB, Stock::Hole),
            (17 * MIB, MIB, Stock::Managed),
            (18 * MIB, 2 * MIB, Stock::Hole),
        ];
        assert_eq!(runs, expected);
    });
}

/// Tells the others to stop when it goes out of scope: also when a test fails, which would wait for them otherwise.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes and gives back blocks of many orders until told to stop.
fn churn(pages: &super::Pages<'_>, cpu: u32, stop: &AtomicBool) {
    run_on(cpu);
    let mut held = std::collections::VecDeque::new();
    for round in 0_u32.. {
        let order = order(u8::try_from(round.wrapping_mul(2_654_435_761) >> 29).unwrap());
        held.extend(pages.alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, order).ok().map(|page| (page, order)));
        if held.len() > 40 || round % 5 == 0 {
            held.pop_front().into_iter().for_each(|(page, order)| raw!(pages.free_pages(page, order)).unwrap());
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    for (page, order) in held {
        raw!(pages.free_pages(page, order)).unwrap();
    }
    pages.drain_local();
}

#[test]
fn the_sum_holds_at_every_moment_while_others_allocate() {
    Spec::of_size(64 * MIB).cpus(3).run(|pages| {
        let managed = pages.total_pages();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for cpu in 1..3 {
                pages.hal().set_online(cpu, true);
                let stop = &stop;
                scope.spawn(move || churn(pages, cpu, stop));
            }
            let _stop = StopAtEnd(&stop);
            for _ in 0..50 {
                let census = pages.census().unwrap();
                assert_eq!(census.managed(), managed);
            }
        });
        for cpu in 1..3 {
            pages.hal().set_online(cpu, false);
        }
        run_on(0);
        pages.drain_all();
        let quiet = pages.census().unwrap();
        assert_eq!(quiet.of(Kind::Free), managed);
    });
}

// A count that cannot be wrong proves nothing: each sum in turn is made wrong by a page.
#[test]
fn a_page_too_many_or_too_few_is_named() {
    Spec::of_size(16 * MIB).run(|pages| {
        let census = pages.census().unwrap();
        let wrong = |change: &dyn Fn(&mut quarry::mm::zone::ZoneCensus)| {
            let mut census: Census = census;
            census.zones.iter_mut().flatten().for_each(change);
            match census.check() {
                Err(Miscount::Zone { what, found, counted, slack, .. }) => {
                    assert_eq!(found.abs_diff(counted), 1);
                    assert_eq!(slack, 0);
                    what
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wrong(&|zone| zone.zone.present += 1), "present");
        assert_eq!(wrong(&|zone| zone.zone.managed -= 1), "managed");
        assert_eq!(wrong(&|zone| zone.zone.free += 1), "free");
        assert_eq!(wrong(&|zone| zone.listed += 1), "on per-CPU lists");
        // What may have moved meanwhile is forgiven, but never a page that came from nowhere.
        let mut busy = census;
        busy.zones.iter_mut().flatten().for_each(|zone| {
            zone.zone.free += 1;
            zone.moved = 1;
        });
        assert_eq!(busy.check(), Ok(()));
        busy.zones.iter_mut().flatten().for_each(|zone| zone.zone.present += 1);
        assert!(matches!(busy.check(), Err(Miscount::Zone { what: "present", .. })));
    });
}

// A CPU that the allocator has never heard of frees to lists of its own: its pages are on no list that is counted.
#[test]
fn pages_on_a_list_that_nobody_counts_are_named() {
    Spec::of_size(16 * MIB).cpus(2).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, order(0)).unwrap();
        pages.drain_all();
        run_on(1);
        raw!(pages.free_pages(page, order(0))).unwrap();
        run_on(0);
        pages.hal().hide_cpu(1, true);
        let found = pages.census();
        pages.hal().hide_cpu(1, false);
        assert!(
            matches!(found, Err(Miscount::Zone { what: "on per-CPU lists", found: 1, counted: 0, .. })),
            "{found:?}"
        );
        assert!(found.unwrap_err().to_string().contains("1 pages are on per-CPU lists, and its counter says 0"));
    });
}

/// The labels of `lines`, up to the number.
fn labels(text: &str) -> Vec<String> {
    let label = |line: &str| line.trim_end_matches(|c: char| c.is_ascii_digit() || " kB(),".contains(c)).to_owned();
    text.lines().map(label).collect()
}

// Field by field as fs/proc/meminfo.c and mm/vmstat.c print them, of those that exist here.
#[test]
fn meminfo_and_zoneinfo_have_linuxs_lines_in_linuxs_columns() {
    Spec::of_size(32 * MIB).run(|pages| {
        let page = pages.alloc_pages(Gfp::KERNEL, order(2)).unwrap();
        raw!(pages.claim(page, Kind::Slab, 1)).unwrap();
        let meminfo = pages.meminfo().to_string();
        let names =
            "MemTotal MemFree MemAvailable AnonPages Slab PageTables VmallocTotal VmallocUsed Percpu CmaTotal CmaFree";
        let found: Vec<&str> = meminfo.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(found[..11].join(" "), names);
        assert!(meminfo.contains("\nSlab:                 16 kB\n"), "{meminfo}");
        for line in meminfo.lines().filter(|line| !line.starts_with("VmallocTotal")) {
            assert_eq!(line.len(), 27, "{line:?}");
        }
        let zoneinfo = pages.zoneinfo().to_string();
        let zone: String = zoneinfo.split("Node ").nth(1).unwrap().to_owned();
        let lines = labels(&zone);
        let expected = [
            "  pages free",
            "        boost",
            "        min",
            "        low",
            "        high",
            "        spanned",
            "        present",
            "        managed",
            "        cma",
            "        protection:",
        ];
        assert_eq!(lines[1..11], expected, "{zone}");
        let tail = &lines[lines.len() - 7..];
        let pageset = ["  pagesets", "    cpu:", "              count:", "              high:", "              batch:"];
        assert_eq!(tail[..5], pageset, "{zone}");
        assert_eq!(tail[5..], ["  node_unreclaimable:", "  start_pfn:"], "{zone}");
        assert!(zone.contains("\n      nr_free_pages ") && zone.contains("\n      nr_free_cma  0\n"), "{zone}");
        raw!(pages.disown(page, Kind::Slab)).unwrap();
        raw!(pages.free_pages(page, order(2))).unwrap();
    });
}
