//! The last resort: a hook of the kernel that may free something big, and the report that it gets.
#![forbid(unsafe_code)]

use super::super::blocks::Mark;
use super::super::{PageAllocator, PageHal, Relief, Shortage};
use super::direct::COSTLY_ORDER;
use super::{Reclaim, ReclaimHal, count};
use crate::addr::{CpuId, MAX_ORDER, Order};
use crate::gfp::{Gfp, ZoneType};
use crate::hal::wait::{Scope, Wait, WaitQueue, Waited};
use crate::mm::page::MigrateType;
use crate::sync;
use crate::sync::LockHal;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// A kernel's last resort, when nothing can be reclaimed.
///
/// Called with no lock held and interrupts as the allocation found them, unmasked; on one CPU at a time. It may allocate:
/// that uses the reserve, and neither reclaims nor waits.
pub trait OomHook: Sync {
    /// Frees something, and says [`Relief::Retry`]; or [`Relief::GiveUp`], and the allocation fails, or waits if it has
    /// [`Gfp::NOFAIL`]. A hook that claims to have freed something and has not is called a few times more.
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief;
}

/// Report for an [`OomHook`]. Printed, it is the request, then all of [`MemReport`], then the holders of memory that could
/// not be reclaimed.
#[non_exhaustive]
pub struct OomReport<'a> {
    /// The request.
    pub shortage: Shortage,
    /// Nobody is left who could free anything: the allocation is one that would wait, and would do so for ever.
    pub stuck: bool,
    /// Pages of all zones that are free, those on CPUs' lists not counted.
    pub free: u64,
    /// Pages of all zones.
    pub total: u64,
    details: &'a dyn fmt::Display,
}

impl fmt::Display for OomReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { gfp, order, attempt, .. } = self.shortage;
        writeln!(f, "out of memory: order:{}, mode:{gfp}, after {attempt} attempts", order.get())?;
        if self.stuck {
            writeln!(f, "nobody is left who could free memory")?;
        }
        self.details.fmt(f)
    }
}

/// One CPU's turn at the hooks.
pub(super) struct Turn {
    taken: AtomicBool,
    queue: WaitQueue,
}

impl Turn {
    pub(super) const fn new() -> Self {
        Self { taken: AtomicBool::new(false), queue: WaitQueue::new() }
    }
}

impl<R: LockHal> Reclaim<R> {
    /// Whether the hook is called for such a request (Linux: `__alloc_pages_may_oom`): not for large blocks, which killing
    /// does not make; nor for who has another way, wants a zone that devices need, or keeps reclaim from doing its best.
    pub(super) fn is_worth_killing(&self, shortage: &Shortage) -> bool {
        shortage.order.get() <= COSTLY_ORDER
            && shortage.gfp.contains(Gfp::FS)
            && !shortage.gfp.intersects(Gfp::NORETRY | Gfp::RETRY_MAYFAIL)
            && shortage.zone == ZoneType::Normal
    }

    /// Calls the hooks, one CPU at a time; who finds another at it waits for the end and tries again.
    pub(super) fn out_of_memory<H: ReclaimHal<Relax = R>>(
        &self,
        pages: &PageAllocator<H>,
        shortage: &Shortage,
        stuck: bool,
    ) -> Relief {
        let hal = pages.hal();
        if self.hook.taken.swap(true, Ordering::Acquire) {
            let waited = hal.wait(&self.hook.queue, &mut || !self.hook.taken.load(Ordering::Acquire));
            return if waited == Waited::Woken { Relief::Fruitless } else { Relief::GiveUp };
        }
        let answer = {
            // INVARIANT: RCL-2.
            let _scope = sync::enter(hal, Scope::Reclaim);
            // Another CPU's hook may just have freed enough.
            if pages.is_above(shortage.zone, shortage.order, Mark::High) {
                Relief::Retry
            } else {
                self.call_hooks(pages, shortage, stuck)
            }
        };
        self.hook.taken.store(false, Ordering::Release);
        Wait::wake(hal, &self.hook.queue);
        answer
    }

    fn call_hooks<H: ReclaimHal<Relax = R>>(
        &self,
        pages: &PageAllocator<H>,
        shortage: &Shortage,
        stuck: bool,
    ) -> Relief {
        count(&self.counters.oom, 1);
        let report = OomReport {
            shortage: *shortage,
            stuck,
            free: pages.free_page_count(),
            total: pages.total_pages(),
            details: &self.report(pages),
        };
        let freed = self.hooks.visit(pages.hal(), |hook, _| {
            let answer = hook.out_of_memory(&report);
            (answer != Relief::GiveUp).then_some(())
        });
        // Whether it helped is for the allocation to find out.
        freed.map_or(Relief::GiveUp, |()| Relief::Fruitless)
    }

    /// State of memory for the report of a shortage (Linux: `show_mem`).
    pub const fn report<'a, H: ReclaimHal<Relax = R>>(&'a self, pages: &'a PageAllocator<H>) -> MemReport<'a, H, R> {
        MemReport { reclaim: self, pages }
    }
}

/// Prints zones, free blocks and who could give something back, in the format of Linux's `Mem-Info`. Takes locks of the
/// allocator for moments; allocates nothing, asks no shrinker. Any context in which memory may be freed.
pub struct MemReport<'a, H: PageHal, R> {
    reclaim: &'a Reclaim<R>,
    pages: &'a PageAllocator<H>,
}

/// The letter of a migrate type in a list of free blocks, as Linux has it.
const fn letter(kind: MigrateType) -> char {
    match kind {
        MigrateType::Unmovable => 'U',
        MigrateType::Movable => 'M',
        MigrateType::Reclaimable => 'E',
        MigrateType::HighAtomic => 'H',
        MigrateType::Cma => 'C',
        MigrateType::Isolate => 'I',
    }
}

impl<H: ReclaimHal<Relax = R>, R: LockHal> fmt::Display for MemReport<'_, H, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.pages;
        writeln!(f, "Mem-Info:")?;
        let zones = || ZoneType::ALL.into_iter().filter_map(|kind| pages.zone(kind));
        for zone in zones() {
            write!(f, "{}", zone.kind.name())?;
            for (name, value) in [
                ("free", zone.free),
                ("boost", zone.boost),
                ("min", zone.marks.min),
                ("low", zone.marks.low),
                ("high", zone.marks.high),
                ("reserved_highatomic", zone.high_atomic),
                ("present", zone.present),
                ("managed", zone.managed),
                ("free_cma", zone.free_cma),
            ] {
                write!(f, " {name}:{}kB", value * 4)?;
            }
            let [dma, dma32, normal] = zone.lowmem_reserve;
            writeln!(f, "\nlowmem_reserve[]: {dma} {dma32} {normal}")?;
        }
        for zone in zones() {
            let free = pages.free_blocks(zone.kind).unwrap_or_default();
            write!(f, "{}:", zone.kind.name())?;
            for order in (0..=MAX_ORDER).filter_map(Order::new) {
                write!(f, " {}*{}kB", free.blocks_of(order), order.bytes() >> 10)?;
                let held = MigrateType::ALL
                    .iter()
                    .zip(&free.blocks)
                    .filter(|(_, row)| row.get(order.get() as usize).is_some_and(|count| *count != 0));
                let mut open = false;
                for (kind, _) in held {
                    write!(f, "{}{}", if open { "" } else { " (" }, letter(*kind))?;
                    open = true;
                }
                f.write_str(if open { ")" } else { "" })?;
            }
            writeln!(f, " = {}kB", free.pages() * 4)?;
        }
        let listed: u64 = (0..pages.hal().cpus()).map(|cpu| pages.pages_on_lists(CpuId::new(cpu))).sum();
        writeln!(
            f,
            "{} pages RAM, {} free, {listed} on CPUs' lists, {} accounted",
            pages.total_pages(),
            pages.free_page_count(),
            pages.accounted_pages()
        )?;
        self.write_holders(f)
    }
}

impl<H: ReclaimHal<Relax = R>, R: LockHal> MemReport<'_, H, R> {
    /// Writes what each shrinker said it holds when reclaim asked it last. A report may come with locks held or from an
    /// interrupt handler, where asking a shrinker is not legal.
    fn write_holders(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hal = self.pages.hal();
        let mut write = |name: &str, held: Option<u64>, what: &str| match held {
            Some(held) => writeln!(f, "  {name:<24} {held} {what} when asked last").err(),
            None => writeln!(f, "  {name:<24} not asked yet").err(),
        };
        let shrinkers =
            self.reclaim.shrinkers.visit(hal, |shrinker, notes| write(shrinker.name(), notes.held(), "objects"));
        let purges = || self.reclaim.purges.visit(hal, |purge, notes| write(purge.name(), notes.held(), "lazy pages"));
        shrinkers.or_else(purges).map_or(Ok(()), Err)
    }
}
