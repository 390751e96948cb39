//! The soak: many threads allocate, check and free objects, pages and areas, inside of scopes and outside; a cache takes
//! all memory that is left, and its shrinker, in the reclaimer's thread or in an allocating thread, gives it back.

use crate::sched::{CPUS, counts, spawn, yield_now};
use crate::{cache, phases, say};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use quarry::hal::wait::{Context, Scope};
use quarry::prelude::*;
use quarry::sync::enter;

const WORKERS: u64 = 12;
const OPERATIONS: u64 = 16_000;
/// Maximum number of allocations of a worker.
const HELD: usize = 24;

/// Random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Memory of a worker, with the words that it wrote at both ends.
enum Memory {
    Object(VirtAddr, u64),
    Pages(Page, Order),
    Area(VirtAddr, u64),
}

struct Piece {
    memory: Memory,
    word: u64,
}

impl Piece {
    /// Takes some memory of a random kind and size; `None` if there is none.
    fn take(random: &mut Random) -> Option<Self> {
        let gfp = match random.below(8) {
            0 => Gfp::ATOMIC,
            1 => Gfp::NOFS,
            2 => Gfp::KERNEL | Gfp::NOFAIL,
            _ => Gfp::KERNEL,
        } | Gfp::NOWARN;
        let memory = match random.below(10) {
            0 => {
                let size = PAGE_SIZE * (1 + random.below(12));
                let at = quarry::vmalloc_gfp(size as usize, gfp.difference(Gfp::NOFAIL)).ok()?;
                Memory::Area(VirtAddr::of(at.as_ptr()), size)
            }
            1 | 2 => {
                let order = Order::new(random.below(4) as u8)?;
                Memory::Pages(alloc_pages(gfp, order).ok()?, order)
            }
            _ => {
                let most = if random.below(8) == 0 { 12_000 } else { 500 };
                let size = 16 + random.below(most);
                Memory::Object(VirtAddr::of(kmalloc(size as usize, gfp).ok()?.as_ptr()), size)
            }
        };
        let piece = Self { memory, word: random.below(u64::MAX) };
        piece.ends().for_each(|at| {
            // SAFETY: memory that is the piece's.
            unsafe { at.as_ptr::<u64>().write_unaligned(piece.word) };
        });
        Some(piece)
    }

    fn ends(&self) -> impl Iterator<Item = VirtAddr> + use<> {
        let (start, size) = match self.memory {
            Memory::Object(at, size) | Memory::Area(at, size) => (at, size),
            Memory::Pages(page, order) => (page_address(page), order.bytes()),
        };
        [start, VirtAddr::new(start.get() + size - 8)].into_iter()
    }

    /// Whether nobody else has written there.
    fn is_intact(&self) -> bool {
        // SAFETY: the first and the last word of memory that is the piece's own.
        self.ends().all(|at| unsafe { at.as_ptr::<u64>().read_unaligned() } == self.word)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        assert!(self.is_intact(), "memory that two have");
        match self.memory {
            // SAFETY: the piece's own, and not used any more.
            Memory::Object(at, _) => unsafe { try_kfree(at) }.unwrap_or_else(|error| panic!("{error}")),
            // SAFETY: the piece's own, and not used any more.
            Memory::Pages(page, order) => {
                unsafe { try_free_pages(page, order) }.unwrap_or_else(|error| panic!("{error}"))
            }
            // SAFETY: the piece's own, and not used any more.
            Memory::Area(at, _) => unsafe { try_vfree(at) }.unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
/// Operations that each CPU has done.
static OPERATIONS_OF: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
/// Times that a scope was held while its thread went to another CPU.
static CARRIED: AtomicU64 = AtomicU64::new(0);
/// Two numbers that are equal while nobody holds the lock.
static EQUAL: SpinLock<(u64, u64)> = spin_lock((0, 0));

fn worker(number: u64) {
    let mut random = Random(number);
    let mut held: [Option<Piece>; HELD] = [const { None }; HELD];
    for operation in 0..OPERATIONS {
        let place = &mut held[random.below(HELD as u64) as usize];
        match place.take() {
            Some(piece) => drop(piece),
            None => *place = Piece::take(&mut random),
        }
        OPERATIONS_OF[quarry::this_cpu().get() as usize].fetch_add(1, Ordering::Relaxed);
        match operation % 16 {
            5 => yield_now(),
            10 => hold_a_scope(&mut random),
            15 => {
                let mut equal = EQUAL.lock();
                assert_eq!(equal.0, equal.1, "two have the lock");
                equal.0 += 1;
                assert!(quarry::context().atomic().is_some(), "waiting with a lock held");
                equal.1 += 1;
            }
            _ => {}
        }
    }
    held.into_iter().for_each(drop);
    DONE.fetch_add(1, Ordering::Release);
}

/// Allocates inside of a scope, before and after other threads have run.
fn hold_a_scope(random: &mut Random) {
    let scope = [Scope::NoFs, Scope::NoIo, Scope::Reclaim][random.below(3) as usize];
    let others = [Scope::NoFs, Scope::NoIo, Scope::Reclaim].into_iter().filter(|other| *other != scope);
    let context = quarry::context();
    let cpu = quarry::this_cpu();
    let guard = enter(context, scope);
    for _ in 0..=random.below(3) {
        yield_now();
        assert!(context.is_inside(scope), "{scope:?} is left behind");
    }
    assert!(!others.clone().any(|other| context.is_inside(other)), "in the scope of another thread");
    // A reclaimer may not wait for memory.
    if scope != Scope::Reclaim {
        drop(Piece::take(random));
    }
    drop(guard);
    assert!(!context.is_inside(scope));
    CARRIED.fetch_add(u64::from(cpu != quarry::this_cpu()), Ordering::Relaxed);
}

/// Fills the cache as long as the soak runs.
fn filler(_: u64) {
    while !STOP.load(Ordering::Acquire) {
        for _ in 0..32 {
            if !cache::fill() {
                break;
            }
        }
        yield_now();
    }
    cache::empty();
}

/// Pages that are free, or would be if no CPU kept stacks for the next threads.
fn pages_at_rest() -> u64 {
    quarry::slab_allocator().shrink_all();
    quarry::vmap_space().purge_all();
    quarry::drain_all_pages();
    quarry::nr_free_pages() + u64::from(quarry::stack_count()) * (KernelStack::SIZE / PAGE_BYTES) as u64
}

pub fn run() {
    let before = pages_at_rest();
    let (restarts, shrunk) = (counts().restarts, cache::shrunk());
    (1..=WORKERS).for_each(|number| spawn("worker", worker, number));
    spawn("filler", filler, 0);
    while DONE.load(Ordering::Acquire) != WORKERS {
        yield_now();
    }
    STOP.store(true, Ordering::Release);
    phases::wait_for_others();
    let of = OPERATIONS_OF.each_ref().map(|count| count.load(Ordering::Relaxed));
    let (carried, scanned) = (CARRIED.load(Ordering::Relaxed), cache::shrunk() - shrunk);
    let restarts = counts().restarts - restarts;
    let after = pages_at_rest();
    assert!(after + 64 > before, "{} pages are lost", before - after);
    quarry::check_all(&mut |part, sound| {
        if let Err(broken) = sound {
            panic!("{part}: {broken}");
        }
    });
    let rounds = WORKERS * OPERATIONS / 16;
    assert!(*EQUAL.lock() == (rounds, rounds));
    assert!(of.iter().all(|count| *count > OPERATIONS), "{of:?}");
    assert!(carried > 100 && scanned > 1000 && restarts > 0, "{carried}, {scanned}, {restarts}");
    say!(
        "soak: {} operations of {WORKERS} threads, by CPU {of:?}, {restarts} sequences begun again",
        of.iter().sum::<u64>()
    );
    say!("soak: {carried} scopes went to another CPU, the shrinker freed {scanned} pages");
    say!("soak: {before} pages before, {after} after: all invariants hold");
}
