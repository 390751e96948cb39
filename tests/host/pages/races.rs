//! Several CPUs that free, split or keep one block at the same moment: one of them has it, and the others are told.

use super::machine::{MIB, Pages, between, on_cpus, run_on, was_between};
use super::{Spec, blocks, order};
use quarry::addr::Order;
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::page::{Kind, Page};
use quarry::mm::zone::{FreeError, PageBatch};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// How a block is allocated and freed.
struct Way {
    name: &'static str,
    gfp: Gfp,
    order: u8,
    claim: Option<Kind>,
    free: fn(&Pages<'_>, Page, Order) -> Result<(), FreeError>,
}

impl Way {
    fn alloc(&self, pages: &Pages<'_>) -> Page {
        let page = pages.alloc_pages(self.gfp, order(self.order)).unwrap();
        if let Some(kind) = self.claim {
            raw!(pages.claim(page, kind, 7)).unwrap();
        }
        page
    }

    fn free(&self, pages: &Pages<'_>, page: Page) -> Result<(), FreeError> {
        (self.free)(pages, page, order(self.order))
    }
}

fn plainly(pages: &Pages<'_>, page: Page, order: Order) -> Result<(), FreeError> {
    raw!(pages.free_pages(page, order))
}

fn in_a_batch(pages: &Pages<'_>, page: Page, _: Order) -> Result<(), FreeError> {
    let mut batch = PageBatch::<1>::new();
    assert!(batch.push(page));
    let freed = raw!(pages.free_pages_bulk(&mut batch));
    // What could not be freed stays in it.
    assert_eq!(batch.pop().is_some(), freed.is_err());
    freed
}

fn disowned(pages: &Pages<'_>, page: Page, order: Order) -> Result<(), FreeError> {
    raw!(pages.disown(page, Kind::User))?;
    raw!(pages.free_pages(page, order))
}

const fn way(
    name: &'static str,
    gfp: Gfp,
    order: u8,
    free: fn(&Pages<'_>, Page, Order) -> Result<(), FreeError>,
) -> Way {
    Way { name, gfp, order, claim: None, free }
}

const WAYS: [Way; 11] = [
    way("a page", Gfp::KERNEL, 0, plainly),
    way("a movable page", Gfp::HIGHUSER_MOVABLE, 0, plainly),
    way("a cold page", Gfp::KERNEL, 0, |pages, page, order| raw!(pages.free_pages_cold(page, order))),
    way("a page in a batch", Gfp::KERNEL, 0, in_a_batch),
    way("the last reference", Gfp::KERNEL, 0, |pages, page, _| raw!(pages.put_page(page))),
    way("a block", Gfp::KERNEL, 3, plainly),
    way("a block that is larger than lists hold", Gfp::KERNEL, 10, plainly),
    way("a compound block", Gfp::KERNEL.union(Gfp::COMP), 2, plainly),
    way("an accounted page", Gfp::KERNEL.union(Gfp::ACCOUNT), 0, plainly),
    way("an accounted compound block", Gfp::KERNEL.union(Gfp::ACCOUNT).union(Gfp::COMP), 4, plainly),
    Way { name: "a claimed block", gfp: Gfp::KERNEL, order: 1, claim: Some(Kind::User), free: disowned },
];

/// As many as run at once on a small desk machine.
const CPUS: u32 = 2;
const ROUNDS: u32 = if cfg!(miri) { 4 } else { 300 };

/// Where the CPUs meet: who waits spins, so that all go on within nanoseconds of each other.
struct Meeting(AtomicU32);

impl Meeting {
    /// Whether this one came last.
    fn wait(&self) -> bool {
        let arrived = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        let all = arrived.next_multiple_of(CPUS);
        for look in 0_u32.. {
            if self.0.load(Ordering::SeqCst) >= all {
                break;
            }
            if look > 1 << 8 {
                std::thread::yield_now();
            }
        }
        arrived == all
    }
}

/// Lets the others go on when a CPU's test has failed.
struct Failing<'m>(&'m Meeting);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.fetch_add(1 << 30, Ordering::SeqCst);
        }
    }
}

/// Lets each CPU `run` with one block, all at the same moment, and one of them look at it `after`wards: how many succeeded.
fn at_once(
    pages: &Pages<'_>,
    alloc: impl Fn() -> Page + Sync,
    run: impl Fn(u32, Page) -> bool + Sync,
    after: impl Fn(Page, u32) + Sync,
) {
    let (meeting, block, succeeded) = (Meeting(AtomicU32::new(0)), Mutex::new(None), AtomicU32::new(0));
    on_cpus(pages, CPUS, |cpu| {
        let _failing = Failing(&meeting);
        for round in 0..ROUNDS {
            if cpu == 0 {
                *block.lock().unwrap() = Some(alloc());
            }
            meeting.wait();
            let page = block.lock().unwrap().unwrap();
            meeting.wait();
            // One is a little later, more or less of it each time.
            if cpu == round % CPUS {
                (0..round % 61).for_each(|_| std::hint::spin_loop());
            }
            if run(cpu, page) {
                succeeded.fetch_add(1, Ordering::SeqCst);
            }
            if meeting.wait() {
                after(page, succeeded.swap(0, Ordering::SeqCst));
            }
            meeting.wait();
        }
    });
}

fn with_cpus(f: impl FnOnce(&Pages<'_>)) {
    Spec::of_size(64 * MIB).cpus(CPUS).run(|pages| {
        let before = blocks(pages);
        f(pages);
        assert_eq!(blocks(pages), before);
        assert_eq!(pages.accounted_pages(), 0);
    });
}

#[test]
fn of_cpus_that_free_one_block_at_once_one_succeeds() {
    with_cpus(|pages| {
        for way in &WAYS {
            at_once(
                pages,
                || way.alloc(pages),
                |_, page| way.free(pages, page).is_ok(),
                |_, succeeded| assert_eq!(succeeded, 1, "{}", way.name),
            );
        }
    });
}

/// Lets another CPU do `other` at each point of what `own` does to a fresh block, one after the other, and look at the block
/// `after` each: how many of the two succeeded.
fn at_every_point<P: Fn(Page) -> bool + Copy + 'static>(
    pages: &'static Pages<'static>,
    alloc: impl Fn() -> Page,
    own: impl Fn(Page) -> bool,
    other: P,
    after: impl Fn(Page, u32),
) {
    for point in 0.. {
        let page = alloc();
        let answer = Arc::new(Mutex::new(false));
        let told = answer.clone();
        between(point, 1, move || *told.lock().unwrap() = other(page));
        let own = own(page);
        let came = was_between();
        let other = if came { *answer.lock().unwrap() } else { other(page) };
        after(page, u32::from(own) + u32::from(other));
        for cpu in [1, 0] {
            run_on(cpu);
            pages.drain_local();
        }
        pages.check().unwrap();
        assert_eq!(pages.accounted_pages(), 0);
        if !came {
            assert!(point > 1);
            break;
        }
    }
}

// The same without chance: the other CPU comes at each point in turn.
#[test]
fn a_block_that_another_cpu_frees_in_the_middle_of_a_free_is_freed_once() {
    let pages = Spec::of_size(64 * MIB).cpus(CPUS).with_reclaimer().pages;
    for way in &WAYS {
        at_every_point(
            pages,
            || way.alloc(pages),
            |page| way.free(pages, page).is_ok(),
            move |page| way.free(pages, page).is_ok(),
            |page, succeeded| {
                assert_eq!(succeeded, 1, "{}", way.name);
                assert!(way.free(pages, page).is_err(), "{} is free", way.name);
            },
        );
    }
}

#[test]
fn a_block_that_another_cpu_frees_in_the_middle_of_a_split_is_split_or_freed() {
    let pages = Spec::of_size(64 * MIB).cpus(CPUS).with_reclaimer().pages;
    let quad = order(2);
    at_every_point(
        pages,
        || pages.alloc_pages(Gfp::KERNEL, quad).unwrap(),
        |page| raw!(pages.split_page(page, quad)).is_ok(),
        move |page| raw!(pages.free_pages(page, quad)).is_ok(),
        |page, succeeded| {
            assert_eq!(succeeded, 1);
            if pages.page_count(page) != 0 {
                (0..4).for_each(|index| raw!(pages.free_pages(page.offset(index), Order::ZERO)).unwrap());
            }
        },
    );
}

#[test]
fn a_block_that_another_cpu_frees_in_the_middle_of_a_change_is_changed_or_freed() {
    let pages = Spec::of_size(64 * MIB).cpus(CPUS).with_reclaimer().pages;
    at_every_point(
        pages,
        || pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap(),
        |page| raw!(pages.set_memory_type(page, MemoryType::NonCacheable)).is_ok(),
        move |page| raw!(pages.free_pages(page, Order::ZERO)).is_ok(),
        |page, succeeded| {
            assert_eq!(succeeded, 1);
            if pages.page_count(page) != 0 {
                raw!(pages.set_memory_type(page, MemoryType::WriteBack)).unwrap();
                raw!(pages.free_pages(page, Order::ZERO)).unwrap();
            }
        },
    );
}

// One of them drops its reference, the other the last one, whoever that is.
#[test]
fn of_cpus_that_drop_their_references_at_once_the_last_one_frees_the_block() {
    with_cpus(|pages| {
        for way in WAYS.iter().filter(|way| way.claim.is_none()) {
            let alloc = || {
                let page = way.alloc(pages);
                (1..CPUS).for_each(|_| pages.get_page(page).unwrap());
                page
            };
            at_once(
                pages,
                alloc,
                |_, page| way.free(pages, page).is_ok(),
                |page, succeeded| {
                    assert_eq!(succeeded, CPUS, "{}", way.name);
                    assert_eq!(pages.page_count(page), 0, "{}", way.name);
                },
            );
        }
    });
}

#[test]
fn a_block_that_is_split_and_freed_at_once_is_split_or_freed() {
    with_cpus(|pages| {
        let quad = order(2);
        at_once(
            pages,
            || pages.alloc_pages(Gfp::KERNEL, quad).unwrap(),
            |cpu, page| {
                if cpu == 0 { raw!(pages.split_page(page, quad)) } else { raw!(pages.free_pages(page, quad)) }.is_ok()
            },
            |page, succeeded| {
                assert_eq!(succeeded, 1);
                if pages.page_count(page) != 0 {
                    (0..4).for_each(|index| raw!(pages.free_pages(page.offset(index), Order::ZERO)).unwrap());
                }
            },
        );
    });
}

#[test]
fn a_block_that_is_referred_to_and_freed_at_once_stays_or_is_freed() {
    with_cpus(|pages| {
        let got = AtomicU32::new(0);
        at_once(
            pages,
            || pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap(),
            |cpu, page| match cpu {
                0 => pages.get_page(page).map(|()| got.store(1, Ordering::SeqCst)).is_ok(),
                _ => raw!(pages.free_pages(page, Order::ZERO)).is_ok(),
            },
            |page, _| {
                let references = got.swap(0, Ordering::SeqCst);
                assert_eq!(pages.page_count(page), references);
                if references != 0 {
                    raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                }
            },
        );
    });
}

#[test]
fn a_block_that_gets_a_memory_type_and_is_freed_at_once_has_it_or_is_free() {
    with_cpus(|pages| {
        at_once(
            pages,
            || pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap(),
            |cpu, page| match cpu {
                0 => raw!(pages.set_memory_type(page, MemoryType::NonCacheable)).is_ok(),
                _ => raw!(pages.free_pages(page, Order::ZERO)).is_ok(),
            },
            |page, succeeded| {
                assert_eq!(succeeded, 1);
                if pages.page_count(page) != 0 {
                    raw!(pages.set_memory_type(page, MemoryType::WriteBack)).unwrap();
                    raw!(pages.free_pages(page, Order::ZERO)).unwrap();
                }
            },
        );
    });
}
