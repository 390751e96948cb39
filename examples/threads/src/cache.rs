//! A cache of pages that takes what memory is left, and gives it back when it is told to: by a shrinker, in the reclaimer's
//! thread or in whichever thread found too little.

use crate::board::Locked;
use crate::say;
use crate::sched::{name, yield_now};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use quarry::hal::wait::{Context, Scope};
use quarry::mm::zone::{Scanned, Shrinker};
use quarry::prelude::*;

/// Pages that are good for something, as long as nobody needs them for something better.
struct PageCache {
    pages: Locked<(usize, [Option<Page>; 10_000])>,
    calls: AtomicU32,
    /// Of those: in the reclaimer's thread.
    in_background: AtomicU32,
    shrunk: AtomicU64,
}

static CACHE: PageCache = PageCache {
    pages: Locked::new((0, [None; _])),
    calls: AtomicU32::new(0),
    in_background: AtomicU32::new(0),
    shrunk: AtomicU64::new(0),
};

impl PageCache {
    fn put(&self, page: Page) -> bool {
        self.pages.with(|(count, pages)| {
            let Some(place) = pages.get_mut(*count) else { return false };
            *place = Some(page);
            *count += 1;
            true
        })
    }

    fn take(&self) -> Option<Page> {
        self.pages.with(|(count, pages)| {
            *count = count.checked_sub(1)?;
            pages[*count].take()
        })
    }
}

impl Shrinker for PageCache {
    fn name(&self) -> &str {
        "page cache"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        self.pages.with(|(count, _)| *count as u64)
    }

    fn scan_objects(&self, _: Gfp, count: u64) -> Scanned {
        assert!(quarry::context().is_inside(Scope::Reclaim));
        self.calls.fetch_add(1, Ordering::Relaxed);
        if name() == "reclaimer" {
            self.in_background.fetch_add(1, Ordering::Relaxed);
        }
        if self.calls.load(Ordering::Relaxed).is_multiple_of(8) {
            yield_now();
        }
        let mut freed = 0;
        while freed < count
            && let Some(page) = self.take()
        {
            release(page);
            freed += 1;
        }
        self.shrunk.fetch_add(freed, Ordering::Relaxed);
        assert!(quarry::context().is_inside(Scope::Reclaim));
        Scanned::Freed(freed)
    }
}

/// Puts a page more into the cache; whether there was one to have, without waiting.
pub fn fill() -> bool {
    let Ok(page) = alloc_page(Gfp::NOWAIT | Gfp::NOWARN) else { return false };
    if CACHE.put(page) {
        return true;
    }
    release(page);
    false
}

/// Frees all of it.
pub fn empty() {
    while let Some(page) = CACHE.take() {
        release(page);
    }
}

fn release(page: Page) {
    // SAFETY: taken out of the cache, or never put there.
    unsafe { free_page(page) }.unwrap_or_else(|error| panic!("{error}"));
}

/// Pages that the shrinker has freed so far.
pub fn shrunk() -> u64 {
    CACHE.shrunk.load(Ordering::Relaxed)
}

/// Fills memory again and again, and leaves it to the reclaimer to make room.
pub fn run() {
    let registered = quarry::reclaim().shrinkers().register(quarry::context(), &CACHE);
    registered.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let direct = quarry::reclaim().events().direct;
    let calls = || CACHE.in_background.load(Ordering::Relaxed);
    let mut rounds = 0;
    while rounds < 20 {
        let before = calls();
        while calls() == before {
            if !fill() {
                yield_now();
            }
        }
        rounds += 1;
    }
    empty();
    assert_eq!(quarry::reclaim().events().direct, direct, "nobody else has reclaimed");
    assert_eq!(calls(), CACHE.calls.load(Ordering::Relaxed));
    say!("{} calls of the shrinker in the reclaimer's thread, which freed {} pages", calls(), shrunk());
}
