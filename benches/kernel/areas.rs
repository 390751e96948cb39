//! Address ranges alone, nothing mapped: `area_alloc/LIVE`, `area_alloc_large/LIVE`. Among LIVE areas in use, a random one
//! is freed and another of random size allocated; the row counts an allocation or a free. Areas of the first rows are of
//! 1 to 16 pages; those of the second, of 64 to 79, are too large for this kernel's pools, and go through its trees.

use crate::arena::Arena;
use crate::heap::random::Random;
use crate::meter::{Figures, Meter, Unable};
use crate::rows::Row;
use core::hint::black_box;
use core::mem::MaybeUninit;
use quarry::addr::{Address, Order, PAGE_SIZE, to_usize};
use quarry::gfp::Gfp;
use quarry::global;

/// Something that hands out address ranges.
pub(crate) trait AreaAllocator: Sized {
    /// Name of its crate.
    const NAME: &'static str;
    /// The most areas with which it ends in bearable time.
    const LARGEST: usize;

    /// An allocator with nothing in use; 64 GiB of addresses or more. It may use the arena for itself.
    fn new(arena: Arena) -> Result<Self, Unable>;

    /// The start of a range of `bytes`, whole pages, aligned to a page: the lowest that fits, where it has the choice.
    fn alloc(&mut self, bytes: usize) -> Option<usize>;

    /// Takes the range back.
    fn free(&mut self, start: usize, bytes: usize) -> bool;
}

/// The rows of one implementation.
pub(crate) const fn rows<A: AreaAllocator>() -> [Row; 5] {
    [
        Row { name: "area_alloc/100", by: A::NAME, run: area_alloc::<A, 100, 1> },
        Row { name: "area_alloc/1024", by: A::NAME, run: area_alloc::<A, 1024, 1> },
        Row { name: "area_alloc/100000", by: A::NAME, run: area_alloc::<A, 100_000, 1> },
        Row { name: "area_alloc_large/1024", by: A::NAME, run: area_alloc::<A, 1024, 64> },
        Row { name: "area_alloc_large/100000", by: A::NAME, run: area_alloc::<A, 100_000, 64> },
    ]
}

/// Sizes differ by up to so many pages.
const SIZES: u32 = 16;
/// Steps after which the random sequence begins again.
const STEPS: usize = 4096;

const FAILED: Unable = "an allocation or a free failed";

/// One step: which area goes, and how large the next one is.
#[derive(Clone, Copy)]
struct Step {
    victim: usize,
    bytes: usize,
}

/// An array in pages of its own, which are lost: there may be too much of it for the heap.
fn array<T: Copy>(len: usize, mut next: impl FnMut(usize) -> Option<T>) -> Result<&'static mut [T], Unable> {
    let order = Order::for_bytes((len * size_of::<T>()) as u64).ok_or("too much for one block")?;
    let place = global::get_free_pages(Gfp::KERNEL, order).map_err(|_| "no memory")?.at().as_ptr::<MaybeUninit<T>>();
    for index in 0..len {
        // SAFETY: the block has just been allocated, and has room for so many.
        let slot = unsafe { place.add(index) };
        // SAFETY: aligned, as the block is to a page, and nobody else's.
        unsafe { slot.write(MaybeUninit::new(next(index).ok_or(FAILED)?)) };
    }
    // SAFETY: all of it has been written, and it is never freed.
    Ok(unsafe { core::slice::from_raw_parts_mut(place.cast::<T>(), len) })
}

/// An area in use.
#[derive(Clone, Copy)]
struct Live {
    start: usize,
    bytes: usize,
}

fn area_alloc<A: AreaAllocator, const LIVE: usize, const PAGES: u64>(meter: &mut Meter) -> Result<Figures, Unable> {
    if LIVE > A::LARGEST {
        return Err("so many areas take too long, or too much memory");
    }
    let mut random = Random::new(0);
    let bytes = |random: &mut Random| to_usize((PAGES + u64::from(random.below(SIZES))) * PAGE_SIZE);
    let places = u32::try_from(LIVE).map_err(|_| FAILED)?;
    let mut areas = A::new(Arena::get())?;
    let live = array(LIVE, |_| {
        let bytes = bytes(&mut random);
        Some(Live { start: areas.alloc(bytes)?, bytes })
    })?;
    let steps = array(STEPS, |_| Some(Step { victim: random.below(places) as usize, bytes: bytes(&mut random) }))?;
    let exchange = |areas: &mut A, live: &mut [Live], step: Step| {
        let Some(place) = live.get_mut(step.victim) else { return false };
        let freed = areas.free(place.start, place.bytes);
        let Some(start) = areas.alloc(step.bytes) else { return false };
        *place = Live { start: black_box(start), bytes: step.bytes };
        freed
    };
    // Long enough that the gaps are as scattered as they will be.
    let mut done = true;
    for step in steps.iter().cycle().take(4 * LIVE.min(STEPS)) {
        done &= exchange(&mut areas, live, *step);
    }
    prove(live)?;
    let mut next = 0;
    let figures = meter.measure_units(2, || {
        if let Some(step) = steps.get(next & (STEPS - 1)) {
            done &= exchange(&mut areas, live, *step);
        }
        next += 1;
    });
    prove(live)?;
    for area in live.iter() {
        done &= areas.free(area.start, area.bytes);
    }
    if done { Ok(figures) } else { Err(FAILED) }
}

/// No two areas overlap, and all are whole pages.
fn prove(live: &[Live]) -> Result<(), Unable> {
    let sorted = array(live.len(), |index| live.get(index).copied())?;
    sorted.sort_unstable_by_key(|area| area.start);
    let apart = sorted.windows(2).all(|pair| matches!(pair, [low, high] if low.start + low.bytes <= high.start));
    let aligned = sorted.iter().all(|area| area.start.is_multiple_of(to_usize(PAGE_SIZE)));
    if apart && aligned { Ok(()) } else { Err("two areas overlap, or one is not whole pages") }
}
