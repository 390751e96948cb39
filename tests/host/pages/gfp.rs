//! What each flag does. One line of the table for each of them.

use super::machine::{GIB, MIB, Reclaiming};
use super::reclaim::{Cache, Hook, alloc, exhaust, exhaust_reserves, finish, leak, machine};
use super::{Spec, order, range};
use quarry::addr::Order;
use quarry::gfp::{Gfp, ZoneType};
use quarry::hal::wait::Scope;
use quarry::mm::page::{MigrateType, Page, PageMap};
use quarry::mm::zone::{AllocError, PageHal};
use quarry::sync;
use std::sync::atomic::Ordering;

type Effect = fn();

/// Each flag and the test that shows what it does.
const EFFECTS: [(Gfp, Effect); 21] = [
    (Gfp::DMA, dma_is_that_zone_and_no_other),
    (Gfp::DMA32, dma32_is_never_above_4_gib),
    (Gfp::HIGHMEM, highmem_changes_nothing_for_pages),
    (Gfp::MOVABLE, uses_do_not_share_page_blocks),
    (Gfp::RECLAIMABLE, uses_do_not_share_page_blocks),
    (Gfp::HIGH, high_opens_part_of_the_reserve),
    (Gfp::IO, reclaim_is_told_what_it_may_do),
    (Gfp::FS, only_who_may_do_anything_gets_the_oom_hook),
    (Gfp::ZERO, zero_zeroes),
    (Gfp::DIRECT_RECLAIM, direct_reclaim_reclaims),
    (Gfp::KSWAPD_RECLAIM, kswapd_reclaim_wakes),
    (Gfp::NOWARN, nowarn_keeps_a_failure_out_of_the_log),
    (Gfp::RETRY_MAYFAIL, retry_mayfail_tries_and_fails_without_the_hook),
    (Gfp::NOFAIL, nofail_is_served_in_the_end),
    (Gfp::NORETRY, noretry_reclaims_once),
    (Gfp::MEMALLOC, memalloc_opens_all_of_the_reserve),
    (Gfp::NOMEMALLOC, nomemalloc_wins),
    (Gfp::COMP, comp_leads_to_the_head),
    (Gfp::ACCOUNT, account_counts),
    (Gfp::COLD, cold_and_hot_are_the_ends_of_a_list),
    (Gfp::HOT, cold_and_hot_are_the_ends_of_a_list),
];

#[test]
fn every_flag_has_a_test_of_its_effect() {
    for (name, flag) in Gfp::all().iter_names().filter(|(_, flag)| flag.bits().is_power_of_two()) {
        assert!(EFFECTS.iter().any(|(of, _)| *of == flag), "{name} has none");
    }
}

#[test]
fn compound_names_and_older_names_are_what_they_stand_for() {
    assert_eq!(Gfp::REPEAT, Gfp::RETRY_MAYFAIL);
    assert_eq!(Gfp::WAIT, Gfp::DIRECT_RECLAIM | Gfp::KSWAPD_RECLAIM);
    assert_eq!(Gfp::KERNEL, Gfp::WAIT | Gfp::IO | Gfp::FS);
    assert_eq!(Gfp::NOFS, Gfp::WAIT | Gfp::IO);
    assert_eq!(Gfp::NOIO, Gfp::WAIT);
    assert!(!Gfp::ATOMIC.may_wait() && Gfp::ATOMIC.contains(Gfp::HIGH | Gfp::KSWAPD_RECLAIM));
    assert_eq!(Gfp::NOWAIT, Gfp::KSWAPD_RECLAIM | Gfp::NOWARN);
    assert_eq!(Gfp::USER, Gfp::KERNEL);
    assert_eq!(Gfp::HIGHUSER_MOVABLE, Gfp::KERNEL | Gfp::HIGHMEM | Gfp::MOVABLE);
    assert_eq!(Gfp::KERNEL_ACCOUNT, Gfp::KERNEL | Gfp::ACCOUNT);
}

/// A machine with all three zones, 8 MiB each.
fn three_zones() -> Reclaiming {
    let banks = [range(GIB, 16 * MIB), range(4 * GIB, 8 * MIB)];
    Spec::new(&banks).limits(GIB + 8 * MIB).with_reclaimer()
}

/// All that these flags get, and the zones it comes from, by what is tried first.
fn drink(machine: Reclaiming, gfp: Gfp) -> (Vec<Page>, Vec<ZoneType>) {
    let taken: Vec<_> = std::iter::from_fn(|| alloc(machine, gfp, 0).ok()).collect();
    let mut zones = Vec::new();
    for zone in taken.iter().filter_map(|page| machine.pages.zone_of_page(*page)) {
        if !zones.contains(&zone) {
            zones.push(zone);
        }
    }
    (taken, zones)
}

// Behaviour 121.
#[test]
fn dma_is_that_zone_and_no_other() {
    let machine = three_zones();
    let (taken, zones) = drink(machine, Gfp::KERNEL | Gfp::DMA);
    assert_eq!(zones, [ZoneType::Dma]);
    finish(machine, taken);
}

#[test]
fn dma32_is_never_above_4_gib() {
    let machine = three_zones();
    let (taken, zones) = drink(machine, Gfp::KERNEL | Gfp::DMA32);
    assert_eq!(zones, [ZoneType::Dma32, ZoneType::Dma]);
    finish(machine, taken);
}

// Behaviour 122 too.
#[test]
fn highmem_changes_nothing_for_pages() {
    let machine = three_zones();
    let (taken, zones) = drink(machine, Gfp::HIGHUSER);
    let count = taken.len();
    super::give_back(machine.pages, taken, Order::ZERO);
    machine.pages.drain_all();
    let (taken, same) = drink(machine, Gfp::USER);
    assert_eq!((count, &zones), (taken.len(), &same));
    assert_eq!(zones, [ZoneType::Normal, ZoneType::Dma32, ZoneType::Dma]);
    finish(machine, taken);
}

#[test]
fn uses_do_not_share_page_blocks() {
    let machine = machine();
    let uses = [Gfp::empty(), Gfp::MOVABLE, Gfp::RECLAIMABLE];
    let taken: Vec<_> = uses.iter().map(|gfp| alloc(machine, Gfp::KERNEL | *gfp, 0).unwrap()).collect();
    let mut blocks: Vec<_> = taken.iter().map(|page| page.index() >> 9).collect();
    blocks.sort();
    blocks.dedup();
    assert_eq!(blocks.len(), 3);
    let free = machine.pages.free_blocks(ZoneType::Dma).unwrap();
    for kind in [MigrateType::Unmovable, MigrateType::Movable, MigrateType::Reclaimable] {
        assert!(free.blocks[kind.index()].iter().any(|count| *count != 0), "{kind:?}");
    }
    finish(machine, taken);
}

/// How many pages each of the flags gets, one after the other, from a machine with nothing above `min`.
fn reserve<const N: usize>(flags: [Gfp; N]) -> ([usize; N], u64) {
    let machine = machine();
    let mut taken = exhaust(machine);
    let counts = flags.map(|gfp| {
        let (more, _) = drink(machine, gfp);
        taken.extend(&more);
        more.len()
    });
    let left = machine.pages.free_page_count();
    finish(machine, taken);
    (counts, left)
}

// Behaviour 126.
#[test]
fn high_opens_part_of_the_reserve() {
    let waiting = Gfp::KERNEL | Gfp::HIGH | Gfp::NORETRY;
    let ([nowait, kernel, high, atomic], left) = reserve([Gfp::NOWAIT, Gfp::KERNEL, waiting, Gfp::ATOMIC]);
    assert_eq!((nowait, kernel), (0, 0));
    assert!(high > 0, "half of the reserve");
    assert!(atomic > 0, "a quarter of the rest");
    assert!(left > 0, "not all");
}

#[test]
fn memalloc_opens_all_of_the_reserve() {
    let ([atomic, memalloc], left) = reserve([Gfp::ATOMIC, Gfp::NOWAIT | Gfp::MEMALLOC]);
    assert!(atomic > 0 && memalloc > 0);
    assert_eq!(left, 0);
    // A scope does the same for flags that say nothing.
    let machine = machine();
    let mut taken = exhaust(machine);
    let scope = sync::enter(machine.pages.hal(), Scope::Memalloc);
    taken.extend(drink(machine, Gfp::NOWAIT).0);
    drop(scope);
    assert_eq!(machine.pages.free_page_count(), 0);
    finish(machine, taken);
}

#[test]
fn nomemalloc_wins() {
    let both = Gfp::MEMALLOC | Gfp::NOMEMALLOC;
    assert_eq!(reserve([Gfp::NOWAIT | both, Gfp::KERNEL | both]).0, [0, 0]);
    let ([atomic], less) = reserve([Gfp::ATOMIC | Gfp::NOMEMALLOC]);
    let ([full], more) = reserve([Gfp::ATOMIC]);
    assert!(atomic < full && less > more);
}

#[test]
fn reclaim_is_told_what_it_may_do() {
    let told = |gfp: Gfp, scope: Option<Scope>| {
        let machine = machine();
        let cache = Cache::new(machine);
        let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
        cache.fill();
        let scope = scope.map(|scope| sync::enter(machine.pages.hal(), scope));
        let page = alloc(machine, gfp, 0).unwrap();
        drop(scope);
        let asked = cache.asked.lock().unwrap()[0];
        cache.empty();
        finish(machine, vec![page]);
        asked & (Gfp::IO | Gfp::FS)
    };
    assert_eq!(told(Gfp::KERNEL, None), Gfp::IO | Gfp::FS);
    assert_eq!(told(Gfp::NOFS, None), Gfp::IO);
    assert_eq!(told(Gfp::NOIO, None), Gfp::empty());
    assert_eq!(told(Gfp::KERNEL, Some(Scope::NoFs)), Gfp::IO);
    assert_eq!(told(Gfp::KERNEL, Some(Scope::NoIo)), Gfp::empty());
}

/// How often a machine with nothing left reclaims and calls its hook for a request.
fn efforts(gfp: Gfp, o: u8) -> (u64, usize) {
    let machine = machine();
    let hook = Hook::register(machine);
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    let mut taken = exhaust(machine);
    // Something that is there and cannot be freed.
    let pinned = leak(Pinned);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), pinned).unwrap();
    assert_eq!(alloc(machine, gfp, o), Err(AllocError::OutOfMemory), "{gfp}");
    let efforts = (machine.reclaim.events().direct, hook.calls());
    taken.extend(exhaust(machine));
    finish(machine, taken);
    efforts
}

/// A cache in which everything is in use.
struct Pinned;

impl quarry::mm::zone::Shrinker for Pinned {
    fn name(&self) -> &str {
        "pinned"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        1000
    }

    fn scan_objects(&self, _: Gfp, _: u64) -> quarry::mm::zone::Scanned {
        quarry::mm::zone::Scanned::Freed(0)
    }
}

#[test]
fn only_who_may_do_anything_gets_the_oom_hook() {
    assert_eq!(efforts(Gfp::KERNEL, 0).1, 1);
    assert_eq!(efforts(Gfp::KERNEL, 3).1, 1);
    for (gfp, o) in [
        (Gfp::NOFS, 0),
        (Gfp::NOIO, 0),
        (Gfp::KERNEL, 4),
        (Gfp::KERNEL | Gfp::DMA, 0),
        (Gfp::KERNEL | Gfp::DMA32, 0),
        (Gfp::KERNEL | Gfp::NORETRY, 0),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 0),
        (Gfp::ATOMIC, 10),
        (Gfp::NOWAIT, 0),
    ] {
        assert_eq!(efforts(gfp, o).1, 0, "{gfp} order {o}");
    }
}

#[test]
fn retry_mayfail_tries_and_fails_without_the_hook() {
    let (reclaims, hooks) = efforts(Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 0);
    assert!((16..64).contains(&reclaims), "{reclaims}");
    assert_eq!(hooks, 0);
    assert!(efforts(Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 5).0 >= 16, "large blocks too");
    assert_eq!(efforts(Gfp::KERNEL, 5).0, 1, "which others do not get");
}

#[test]
fn noretry_reclaims_once() {
    assert_eq!(efforts(Gfp::KERNEL | Gfp::NORETRY, 0), (1, 0));
    assert_eq!(efforts(Gfp::KERNEL | Gfp::NORETRY, 9), (1, 0));
    // Once, and that may do.
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    cache.fill();
    let page = alloc(machine, Gfp::KERNEL | Gfp::NORETRY, 0).unwrap();
    cache.empty();
    finish(machine, vec![page]);
}

#[test]
fn nofail_is_served_in_the_end() {
    let machine = machine();
    let hook = Hook::register(machine);
    let mut taken = exhaust_reserves(machine);
    hook.victim.lock().unwrap().extend(taken.split_off(taken.len() - 64));
    // Not even the hook helps those who may not have it.
    assert!(alloc(machine, Gfp::NOFS, 0).is_err());
    taken.push(alloc(machine, Gfp::NOFS | Gfp::NOFAIL, 0).unwrap());
    finish(machine, taken);
}

#[test]
fn zero_zeroes() {
    let machine = machine();
    let page = alloc(machine, Gfp::KERNEL, 1).unwrap();
    machine.pages.hal().fill(page, 2, 0x5a);
    raw!(machine.pages.free_pages(page, order(1))).unwrap();
    let page = alloc(machine, Gfp::KERNEL | Gfp::ZERO, 1).unwrap();
    assert_eq!((machine.pages.hal().byte(page), machine.pages.hal().byte(page.offset(1))), (0, 0));
    raw!(machine.pages.free_pages(page, order(1))).unwrap();
    finish(machine, Vec::new());
}

#[test]
fn direct_reclaim_reclaims() {
    let machine = machine();
    let cache = Cache::new(machine);
    let _ = machine.reclaim.shrinkers().register(machine.pages.hal(), cache).unwrap();
    cache.fill();
    let before = cache.len();
    assert_eq!(alloc(machine, Gfp::KSWAPD_RECLAIM | Gfp::IO | Gfp::FS, 0), Err(AllocError::OutOfMemory));
    assert_eq!(cache.len(), before);
    let page = alloc(machine, Gfp::DIRECT_RECLAIM, 0).unwrap();
    assert!(cache.len() < before);
    cache.empty();
    finish(machine, vec![page]);
}

#[test]
fn kswapd_reclaim_wakes() {
    let machine = machine();
    let wakes = || machine.pages.hal().watcher.wakes.load(Ordering::Relaxed);
    let mut taken: Vec<_> = std::iter::from_fn(|| alloc(machine, Gfp::NOWARN, 0).ok()).collect();
    assert_eq!(wakes(), 0, "who does not say so wakes nobody");
    assert!(alloc(machine, Gfp::NOWAIT, 0).is_err());
    assert_eq!(wakes(), 1);
    taken.extend(exhaust(machine));
    finish(machine, taken);
}

// Behaviour 132.
#[test]
fn nowarn_keeps_a_failure_out_of_the_log() {
    let machine = machine();
    let taken = exhaust(machine);
    let failures = || machine.pages.hal().watcher.failures.load(Ordering::Relaxed);
    let before = failures();
    for gfp in [Gfp::NOWAIT, Gfp::KERNEL | Gfp::NOWARN, Gfp::NOFS | Gfp::NOWARN | Gfp::NORETRY] {
        assert!(machine.pages.alloc_pages(gfp, Order::ZERO).is_err());
    }
    assert_eq!(failures(), before);
    assert_eq!(machine.reclaim.events().waits, 0);
    assert!(machine.pages.alloc_pages(Gfp::KERNEL, Order::ZERO).is_err());
    assert!(machine.pages.alloc_pages(Gfp::KSWAPD_RECLAIM, Order::ZERO).is_err());
    assert_eq!(failures(), before + 2);
    finish(machine, taken);
}

// Behaviour 135.
#[test]
fn comp_leads_to_the_head() {
    let machine = machine();
    let head = alloc(machine, Gfp::KERNEL | Gfp::COMP, 3).unwrap();
    let map = machine.pages.hal().map();
    for index in 0..8 {
        let (found, state) = quarry::mm::page::find_head(&map, head.offset(index)).unwrap();
        assert_eq!((found, state.order()), (head, order(3)));
    }
    assert!(map.get(head).state().is_compound());
    raw!(machine.pages.free_pages(head, order(3))).unwrap();
    finish(machine, Vec::new());
}

#[test]
fn account_counts() {
    let machine = machine();
    let page = alloc(machine, Gfp::KERNEL_ACCOUNT, 2).unwrap();
    let other = alloc(machine, Gfp::KERNEL, 2).unwrap();
    assert_eq!(machine.pages.accounted_pages(), 4);
    raw!(machine.pages.free_pages(page, order(2))).unwrap();
    assert_eq!(machine.pages.accounted_pages(), 0);
    raw!(machine.pages.free_pages(other, order(2))).unwrap();
    finish(machine, Vec::new());
}

#[test]
fn cold_and_hot_are_the_ends_of_a_list() {
    let machine = machine();
    let taken: Vec<_> = (0..4).map(|_| alloc(machine, Gfp::KERNEL, 0).unwrap()).collect();
    machine.pages.drain_all();
    super::give_back(machine.pages, taken.iter().copied(), Order::ZERO);
    let hot = alloc(machine, Gfp::KERNEL | Gfp::HOT, 0).unwrap();
    assert_eq!(hot, taken[3], "freed last");
    let cold = alloc(machine, Gfp::KERNEL | Gfp::COLD, 0).unwrap();
    assert_eq!(cold, taken[0], "freed first");
    assert_eq!(alloc(machine, Gfp::KERNEL, 0), Ok(taken[2]), "hot is what nothing means");
    finish(machine, vec![hot, cold, taken[2]]);
}
