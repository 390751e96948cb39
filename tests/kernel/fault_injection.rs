//! Allocations of the running kernel that fail on request: by boot argument, at the prompt, and each one once.

use alloc::vec::Vec;
use quarry::addr::{Address, Order, PAGE_BYTES, PAGE_SIZE, PMD_SIZE, VirtAddr, VirtRange, to_usize};
use quarry::gfp::Gfp;
use quarry::global::{self, BuddyFrames, Pages, ThisKernel, configure_faults, fault_injector};
use quarry::hal::prot::Prot;
use quarry::kernel::{init, prompt};
use quarry::ktest;
use quarry::mm::fault_inject::{FaultAttr, FaultSite, FaultTarget, MayRecover, Probability, fail_every};
use quarry::mm::layout::VMALLOC_START;
use quarry::mm::percpu::UNIT_SIZE;
use quarry::mm::pgtable::{MapFlags, UnmapFlags};
use quarry::mm::vmalloc::VmallocRequest;
use quarry::mm::zone::PageBatch;

/// Addresses that nothing else uses, far enough from those of other tests to have tables of their own.
fn area(size: u64) -> VirtRange {
    // All that one top-level entry translates.
    let start = (VMALLOC_START + (1 << 40)).next_multiple_of(1 << 39);
    VirtRange::from_size(VirtAddr::new(start), size).expect("no wrap")
}

/// Maps a block of `order` at `area`, with pages alone.
fn map(order: Order) -> Result<Pages, &'static str> {
    let block = Pages::new(Gfp::KERNEL, order).map_err(|_| "no pages")?;
    let tables = global::kernel_tables().ok_or("no tables")?;
    let memory = global::page_to_phys(block.page());
    let mapped =
        raw!(tables.map(&BuddyFrames::ATOMIC, area(order.bytes()), memory, Prot::KERNEL_RW, MapFlags::NO_HUGE));
    mapped.map_err(|_| "no frames")?;
    Ok(block)
}

fn unmap(block: Pages) {
    let tables = global::kernel_tables().expect("the final tables");
    // With the tables above, which are nobody else's.
    let whole = area(1 << 39);
    raw!(tables.unmap_and_flush(&BuddyFrames::ATOMIC, whole, UnmapFlags::empty())).expect("whole leaves");
    drop(block);
}

// Behaviour 497: what the kernel offers once it has booted.
ktest!(no_failed_allocation_loses_anything, timeout = 120);
fn no_failed_allocation_loses_anything() {
    let orders = [0, 1, 3, 9, 10].map(|order| Order::new(order).expect("an order"));
    for order in orders {
        let rounds = fail_every(&ThisKernel, MayRecover::No, || Pages::new(Gfp::KERNEL, order), drop);
        assert_eq!(rounds.expect("sound").points, 1);
    }
    let free = |start| raw!(global::try_free_pages_exact(start, 5 * PAGE_BYTES)).expect("allocated");
    let rounds =
        fail_every(&ThisKernel, MayRecover::No, || global::alloc_pages_exact(Gfp::KERNEL, 5 * PAGE_BYTES), free);
    assert_eq!(rounds.expect("sound").points, 1);
    let free = |first| raw!(global::try_free_contig_range(first, 700)).expect("allocated");
    let rounds = fail_every(&ThisKernel, MayRecover::No, || global::alloc_contig_pages(700, 1, Gfp::KERNEL), free);
    assert_eq!(rounds.expect("sound").points, 1);
    let bulk = || {
        let mut batch = PageBatch::<8>::new();
        global::alloc_pages_bulk(Gfp::KERNEL, &mut batch).map(|_| batch)
    };
    let free = |mut batch| raw!(global::try_free_pages_bulk(&mut batch)).expect("allocated");
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, bulk, free).expect("sound");
    assert_eq!((rounds.points, rounds.recovered), (8, 7));
}

// Behaviour 500: the block, then three tables, each of which is asked for at its own site and at that of its page.
ktest!(no_failed_table_loses_anything, timeout = 60);
fn no_failed_table_loses_anything() {
    let order = Order::for_bytes(PMD_SIZE).expect("an order");
    let rounds = fail_every(&ThisKernel, MayRecover::No, || map(order).inspect_err(|_| give_tables_back()), unmap);
    assert_eq!(rounds.expect("sound").points, 1 + 3 * 2);
}

/// Empty tables that a failed mapping leaves for the next one.
fn give_tables_back() {
    let tables = global::kernel_tables().expect("the final tables");
    raw!(tables.unmap_and_flush(&BuddyFrames::ATOMIC, area(1 << 39), UnmapFlags::empty())).expect("nothing there");
}

// Behaviours 495, 496: settings on the boot line are in force from the moment there is a page allocator.
ktest!(
    a_kernel_whose_allocations_fail_goes_on,
    machine some = "append='fail_page_alloc=3,50,0,-1,min-order=0,ignore-gfp-wait=0,verbose=0,seed=9'",
    machine tables = "append='fail_page_table=7,100,0,-1,verbose=0 fail_page_alloc=1,100,0,-1,verbose=0'"
);
fn a_kernel_whose_allocations_fail_goes_on() {
    let faults = fault_injector();
    let site = FaultSite::ALL.into_iter().find(|site| faults.attr(*site).interval > 1).expect("one is set");
    assert!(faults.is_armed());
    let before = faults.statistics(site).forced;
    let order = Order::new(2).expect("an order");
    let (mut whole, mut failed) = (0, 0);
    for _ in 0..200 {
        match map(order) {
            Ok(block) => {
                whole += 1;
                unmap(block);
            }
            Err(_) => failed += 1,
        }
    }
    give_tables_back();
    assert!(whole > 20 && failed > 20, "{whole} succeeded, {failed} failed");
    assert!(faults.statistics(site).forced >= before + failed);
    ThisKernel.check().expect("sound");
    for site in FaultSite::ALL {
        configure_faults(site, &FaultAttr::off(site));
    }
    let counts = ThisKernel.counts();
    for _ in 0..20 {
        unmap(map(order).expect("nothing fails any more"));
    }
    assert_eq!(ThisKernel.counts(), counts);
    ThisKernel.check().expect("sound");
}

/// Runs `f` while every allocation of a site fails that may.
fn with_failing(site: FaultSite, f: impl FnOnce()) {
    configure_faults(site, &FaultAttr::always());
    f();
    configure_faults(site, &FaultAttr::off(site));
}

// Promise 6: NOFAIL reaches the pages, tables, descriptors and records behind what is asked for.
ktest!(what_must_not_fail_does_not_fail, timeout = 60);
fn what_must_not_fail_does_not_fail() {
    let gfp = Gfp::KERNEL | Gfp::NOFAIL;
    for site in [FaultSite::PageAlloc, FaultSite::PageTable, FaultSite::Slab] {
        let mut live = Vec::new();
        let mut per_cpu = Vec::new();
        let mut large = Vec::new();
        live.reserve(200);
        per_cpu.reserve(50);
        large.reserve(50);
        with_failing(site, || {
            for round in 1..=50_u64 {
                // As sparse as their tables can be.
                let start = VirtAddr::new(VMALLOC_START + (1 << 40) + (round << 30));
                let within = VirtRange::from_size(start, 1 << 30);
                let request = VmallocRequest { within, ..VmallocRequest::new(round * PAGE_SIZE, gfp) };
                live.push(global::vmap_space().vmalloc(&request).expect("NOFAIL"));
                let addr = global::vmalloc_gfp(to_usize(round * 5 * PAGE_SIZE), gfp).expect("NOFAIL").at();
                // SAFETY: nobody else knows of it.
                live.push(
                    unsafe { global::vrealloc(addr, to_usize(round * 11 * PAGE_SIZE), gfp) }.expect("NOFAIL").at(),
                );
                large.push(global::kvmalloc(to_usize(round * 3 * PAGE_SIZE), gfp).expect("NOFAIL"));
                per_cpu.push(global::alloc_percpu_gfp(to_usize(UNIT_SIZE / 2), 8, gfp).expect("NOFAIL"));
            }
        });
        live.into_iter().for_each(|addr| raw!(global::try_vfree(addr)).expect("an area"));
        per_cpu.into_iter().for_each(|ptr| raw!(global::try_free_percpu(ptr)).expect("allocated"));
        // SAFETY: allocated above, and used no more.
        large.into_iter().for_each(|memory| unsafe { global::kvfree(memory.as_ptr()) });
        global::percpu_trim();
        ThisKernel.check().expect("sound");
        global::check_vmalloc().expect("sound");
    }
}

ktest!(
    boot: the_boot_line_says_what_it_makes_of_settings,
    machine = "append='fail_page_alloc=2,10,0,5,seed=7 failslab=1,200,0,1'",
    report = "fail_page_alloc=2,10,0,5,seed=7",
    report = "boot argument failslab: \"200\" is no value",
    exit = 0
);

// A failure is announced with what was asked for, the settings, and the callers.
ktest!(
    a_forced_failure_says_who_asked,
    report = "FAULT_INJECTION: forcing a failure: fail_page_alloc: 4 pages",
    report = "a_forced_failure_says_who_asked"
);
fn a_forced_failure_says_who_asked() {
    let machine = init::machine().expect("booted");
    prompt::execute(machine, "faults fail_page_alloc 1,100,0,1,verbose=2");
    let order = Order::new(2).expect("an order");
    assert!(Pages::new(Gfp::ATOMIC, order).is_err());
    assert!(Pages::new(Gfp::ATOMIC, order).is_ok(), "only once");
}

ktest!(
    the_prompt_shows_and_sets_what_fails,
    report = "no site \"fail_everything\"",
    report = "wanted: interval,probability,space,times",
    report = "fail_page_alloc         3 asked         2 eligible         2 failed",
    report = "over"
);
fn the_prompt_shows_and_sets_what_fails() {
    let machine = init::machine().expect("booted");
    prompt::execute(machine, "faults fail_everything off");
    prompt::execute(machine, "faults failslab 1,2");
    prompt::execute(machine, "faults fail_page_alloc 1,100,0,-1,verbose=0");
    for (gfp, fails) in [(Gfp::ATOMIC, true), (Gfp::KERNEL, false), (Gfp::ATOMIC, true)] {
        assert_eq!(Pages::new(gfp, Order::new(1).expect("an order")).is_err(), fails);
    }
    prompt::execute(machine, "faults");
    prompt::execute(machine, "faults fail_page_alloc off");
    assert!(!fault_injector().is_armed());
    assert_eq!(fault_injector().attr(FaultSite::PageAlloc).probability, Probability::NEVER);
    log::info!("over");
}
