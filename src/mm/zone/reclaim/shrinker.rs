//! Shrinkers: caches that can do with less, asked in proportion to what they hold (Linux: `mm/shrinker.c`).
#![forbid(unsafe_code)]

use super::registry::Notes;
use crate::gfp::Gfp;
use core::sync::atomic::Ordering;

/// How many parts of what a cache holds are asked for first: 1/2^12. Each round without success halves it.
pub(super) const DEF_PRIORITY: u32 = 12;
/// Calls of one shrinker in a round, whatever it says that it holds.
const MAX_BATCHES: u64 = 1 << 10;

/// Result of a call of a shrinker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scanned {
    /// So many objects were freed.
    Freed(u64),
    /// It can free nothing here, for instance because the flags forbid what it would have to do; it is asked again in the
    /// next round (Linux: `SHRINK_STOP`).
    Stop,
}

/// A cache that frees objects when memory is short.
///
/// [`Shrinker::count_objects`] and [`Shrinker::scan_objects`] run inside [`Scope::Reclaim`](crate::hal::wait::Scope::Reclaim)
/// and nowhere else, with no lock held and interrupts unmasked, on any CPU, on several at once. They may allocate: such an
/// allocation may use all of the reserve, reclaims nothing itself and does not wait. `gfp` says what the allocation that
/// is short permits, scopes included: without [`Gfp::FS`] no file-system lock may be taken, without [`Gfp::IO`] nothing
/// may be written.
pub trait Shrinker: Sync {
    /// The name in reports. Any context, whatever locks are held: takes none.
    fn name(&self) -> &str;

    /// Objects that could be freed; zero if there are none, or none now. Cheap.
    fn count_objects(&self, gfp: Gfp) -> u64;

    /// Looks at `count` objects and frees those that nobody needs.
    fn scan_objects(&self, gfp: Gfp, count: u64) -> Scanned;

    /// Cost of making an object again, as a number of disk seeks: an object of few is freed sooner.
    /// Zero for one that costs nothing (Linux: `seeks`, `DEFAULT_SEEKS`).
    fn seeks(&self) -> u32 {
        2
    }

    /// Objects that one call looks at (Linux: `batch`, `SHRINK_BATCH`).
    fn batch(&self) -> u64 {
        128
    }
}

/// Result of a round over the shrinkers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Round {
    /// Objects that there were before.
    pub(super) objects: u64,
    /// Objects freed, as the shrinkers say.
    pub(super) freed: u64,
}

/// Asks one shrinker for its share: of what it holds, one part in 2^priority, less for objects that cost more; and what
/// was put off in earlier rounds because it was less than a batch, or because the shrinker stopped.
pub(super) fn shrink(shrinker: &dyn Shrinker, notes: &Notes, gfp: Gfp, priority: u32) -> Round {
    let objects = shrinker.count_objects(gfp);
    notes.set_held(objects);
    let deferred = &notes.deferred;
    if objects == 0 {
        return Round::default();
    }
    let share = match u64::from(shrinker.seeks()) {
        0 => objects / 2,
        seeks => (objects >> priority).saturating_mul(4) / seeks,
    };
    let put_off = deferred.swap(0, Ordering::Relaxed);
    let wanted = (put_off >> priority).saturating_add(share).min(objects.saturating_mul(2));
    let batch = shrinker.batch().max(1);
    let (mut freed, mut scanned, mut calls) = (0_u64, 0, 0);
    // Less than a batch is put off, unless it is all that there is.
    while calls < MAX_BATCHES && (wanted - scanned >= batch || (wanted >= objects && scanned < wanted)) {
        let now = batch.min(wanted - scanned);
        match shrinker.scan_objects(gfp, now) {
            Scanned::Stop => break,
            Scanned::Freed(objects) => freed = freed.saturating_add(objects),
        }
        scanned += now;
        calls += 1;
    }
    let next = put_off.saturating_add(share).saturating_sub(scanned).min(objects.saturating_mul(2));
    deferred.fetch_add(next, Ordering::Relaxed);
    Round { objects, freed }
}
