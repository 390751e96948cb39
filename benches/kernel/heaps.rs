//! Heaps: the rows of `kmalloc`, and of everything else behind the trait [`Heap`]. A pair is an allocation and a free.

use crate::arena::{Arena, Scratch};
use crate::counter::{self, READING};
use crate::figures::Headline;
use crate::fullness::{self, Filled};
use crate::heap::churn::{self, ChurnSlot, Step};
use crate::heap::random::Random;
use crate::heap::{BULK, FAILED, Heap, Memory, check, hidden, layout};
use crate::meter::{Figures, Meter, Unable};
use crate::rows::Row;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;

/// Bytes that a heap gets for most rows.
const SMALL: usize = 16 << 20;
/// And where it is filled to the brim.
const LARGE: usize = 32 << 20;

fn memory(size: usize) -> Memory {
    Arena::get().memory().split(size).0
}

/// The rows of one implementation.
pub(crate) const fn rows<H: Heap>() -> [Row; 45] {
    macro_rules! row {
        ($name:literal, $run:expr) => {
            Row { name: $name, by: H::NAME, run: $run }
        };
    }
    [
        row!("kmalloc/8", pair::<H, 8>),
        row!("kmalloc/16", pair::<H, 16>),
        row!("kmalloc/32", pair::<H, 32>),
        row!("kmalloc/64", pair::<H, 64>),
        row!("kmalloc/96", pair::<H, 96>),
        row!("kmalloc/128", pair::<H, 128>),
        row!("kmalloc/192", pair::<H, 192>),
        row!("kmalloc/256", pair::<H, 256>),
        row!("kmalloc/512", pair::<H, 512>),
        row!("kmalloc/1024", pair::<H, 1024>),
        row!("kmalloc/2048", pair::<H, 2048>),
        row!("kmalloc/4096", pair::<H, 4096>),
        row!("kmalloc/8192", pair::<H, 8192>),
        row!("kmalloc_runtime/8", runtime_pair::<H, 8>),
        row!("kmalloc_runtime/16", runtime_pair::<H, 16>),
        row!("kmalloc_runtime/32", runtime_pair::<H, 32>),
        row!("kmalloc_runtime/64", runtime_pair::<H, 64>),
        row!("kmalloc_runtime/96", runtime_pair::<H, 96>),
        row!("kmalloc_runtime/128", runtime_pair::<H, 128>),
        row!("kmalloc_runtime/192", runtime_pair::<H, 192>),
        row!("kmalloc_runtime/256", runtime_pair::<H, 256>),
        row!("kmalloc_runtime/512", runtime_pair::<H, 512>),
        row!("kmalloc_runtime/1024", runtime_pair::<H, 1024>),
        row!("kmalloc_runtime/2048", runtime_pair::<H, 2048>),
        row!("kmalloc_runtime/4096", runtime_pair::<H, 4096>),
        row!("kmalloc_runtime/8192", runtime_pair::<H, 8192>),
        row!("kzalloc/64", zeroed_pair::<H, 64>),
        row!("kzalloc/256", zeroed_pair::<H, 256>),
        row!("kzalloc/1024", zeroed_pair::<H, 1024>),
        row!("kzalloc/4096", zeroed_pair::<H, 4096>),
        row!("kmalloc_batch_fifo/64", fifo::<H, 64>),
        row!("kmalloc_batch_lifo/64", lifo::<H, 64>),
        row!("kmalloc_batch_random/64", random::<H, 64>),
        row!("kmalloc_batch_fifo/1024", fifo::<H, 1024>),
        row!("kmalloc_batch_lifo/1024", lifo::<H, 1024>),
        row!("kmalloc_batch_random/1024", random::<H, 1024>),
        row!("kmalloc_bulk/64", bulk::<H>),
        row!("kmalloc_large/16384", pair::<H, 16_384>),
        row!("kmalloc_large/65536", pair::<H, 65_536>),
        row!("kmalloc_large/1048576", pair::<H, 1_048_576>),
        row!("kmalloc_large/4194304", pair::<H, 4_194_304>),
        row!("churn/1024", replace::<H>),
        row!("churn_max", worst::<H>),
        row!("churn_max/p99", worst_percent::<H>),
        row!("memory_lost", lost::<H>),
    ]
}

/// A fresh heap, of whose like one has been seen to keep blocks of the sizes that `sizes` gives apart.
fn prepare<H: Heap>(meter: &mut Meter, sizes: impl FnMut(&mut Random) -> Layout) -> Result<H, Unable> {
    if !meter.is_tracing() {
        check::check::<H>(memory(SMALL), sizes)?;
        meter.begin();
    }
    H::new(memory(SMALL))
}

/// A pair of one size, which is a constant where it is called.
#[inline(always)]
fn measure_pair<H: Heap>(meter: &mut Meter, size: impl Fn() -> u32) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, |_| layout(size()))?;
    // As a kernel's heap is: somewhere in memory, where others may have been at it.
    let heap = black_box(&mut heap);
    let mut done = true;
    let figures = meter.measure(|| {
        let layout = layout(size());
        match heap.alloc(layout) {
            // SAFETY: it has just been allocated with this layout.
            Some(block) => unsafe { heap.dealloc(black_box(block), layout) },
            None => done = false,
        }
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

fn pair<H: Heap, const SIZE: u32>(meter: &mut Meter) -> Result<Figures, Unable> {
    measure_pair::<H>(meter, || SIZE)
}

/// One copy of the code for all sizes.
#[inline(never)]
fn runtime_pair_of<H: Heap>(meter: &mut Meter, size: u32) -> Result<Figures, Unable> {
    measure_pair::<H>(meter, || hidden(size))
}

fn runtime_pair<H: Heap, const SIZE: u32>(meter: &mut Meter) -> Result<Figures, Unable> {
    runtime_pair_of::<H>(meter, SIZE)
}

fn zeroed_pair<H: Heap, const SIZE: u32>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, |_| layout(SIZE))?;
    let heap = black_box(&mut heap);
    let mut done = true;
    let figures = meter.measure(|| match heap.alloc_zeroed(layout(SIZE)) {
        // SAFETY: it has just been allocated with this layout.
        Some(block) => unsafe { heap.dealloc(black_box(block), layout(SIZE)) },
        None => done = false,
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

/// Bytes of a block of the batches.
const BATCHED: u32 = 64;

/// Allocates as many blocks as `order` has numbers, then frees them in this order. The row counts a pair.
#[inline(never)]
fn batch<H: Heap>(meter: &mut Meter, order: &[u16]) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, |_| layout(BATCHED))?;
    let count = u32::try_from(order.len()).unwrap_or(1);
    let heap = black_box(&mut heap);
    let mut blocks: Vec<_> = order.iter().map(|_| None).collect();
    let mut done = true;
    let figures = meter.measure_units(count, || {
        for block in &mut blocks {
            *block = heap.alloc(layout(BATCHED));
        }
        for &index in order {
            match blocks.get(usize::from(index)) {
                // SAFETY: each was allocated with this layout, and comes once.
                Some(&Some(block)) => unsafe { heap.dealloc(block, layout(BATCHED)) },
                _ => done = false,
            }
        }
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

fn fifo<H: Heap, const COUNT: u16>(meter: &mut Meter) -> Result<Figures, Unable> {
    batch::<H>(meter, &(0..COUNT).collect::<Vec<_>>())
}

fn lifo<H: Heap, const COUNT: u16>(meter: &mut Meter) -> Result<Figures, Unable> {
    batch::<H>(meter, &(0..COUNT).rev().collect::<Vec<_>>())
}

fn random<H: Heap, const COUNT: u16>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut order: Vec<_> = (0..COUNT).collect();
    Random::new(3).shuffle(&mut order);
    batch::<H>(meter, &order)
}

/// Bytes of a block of the bulk calls.
const IN_BULK: u32 = 256;

/// The row counts the allocation of all and the free of all, in another order, together.
fn bulk<H: Heap>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, |_| layout(IN_BULK))?;
    let heap = black_box(&mut heap);
    let mut done = true;
    let mut blocks = [None; BULK];
    let figures = meter.measure(|| {
        done &= heap.alloc_bulk(layout(IN_BULK), &mut blocks);
        // Neither the first come first nor the last: by stretches of eight.
        let (front, back) = blocks.split_at_mut(BULK / 2);
        front.swap_with_slice(back);
        // SAFETY: all were allocated with this layout.
        unsafe { heap.free_bulk(layout(IN_BULK), black_box(&mut blocks)) };
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

/// Blocks that live while others are replaced.
const LIVE: u16 = 1024;
/// Replacements before they repeat.
const STEPS: usize = 4096;

/// Replaces a random one of the live blocks by one of random size. The row counts the free and the allocation.
fn replace<H: Heap>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, Random::layout)?;
    let mut random = Random::new(4);
    let mut slots: Vec<_> = (0..LIVE).map(|_| ChurnSlot::default()).collect();
    churn::fill(&mut heap, &mut slots, &mut random)?;
    let steps: Vec<_> = (0..STEPS).map(|_| Step::random(&mut random, LIVE)).collect();
    let heap = black_box(&mut heap);
    let mut next = 0;
    let mut done = true;
    let figures = meter.measure(|| {
        done &= steps.get(next).is_some_and(|step| step.replace(&mut slots, heap));
        next = (next + 1) % STEPS;
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

/// Single operations of [`mixed`].
const MIXED: usize = 200_000;

/// Instructions of one operation.
#[inline(always)]
fn counted(op: impl FnOnce()) -> u32 {
    let before = counter::read();
    op();
    counter::read().wrapping_sub(before).wrapping_sub(READING)
}

/// Counts each of many operations by itself: a random slot's block is freed, or the slot gets one of random size.
#[inline(never)]
fn mixed<H: Heap>(meter: &mut Meter, headline: Headline) -> Result<Figures, Unable> {
    let mut heap = prepare::<H>(meter, Random::layout)?;
    let mut random = Random::new(5);
    let mut slots: Vec<_> = (0..LIVE).map(|_| ChurnSlot::default()).collect();
    let heap = black_box(&mut heap);
    let mut samples = Scratch::new()?;
    let samples = samples.slice(MIXED, 0);
    for sample in samples.iter_mut() {
        let step = Step::random(&mut random, LIVE);
        let slot = step.slot(&mut slots).ok_or(FAILED)?;
        let (mut freed, mut filled) = (false, false);
        *sample = counted(|| freed = slot.free(heap));
        if !freed {
            let size = hidden(step.size());
            *sample = counted(|| filled = slot.fill(heap, size));
            if !filled {
                return Err(FAILED);
            }
        }
    }
    Ok(Figures::of(samples, 1, headline))
}

fn worst<H: Heap>(meter: &mut Meter) -> Result<Figures, Unable> {
    mixed::<H>(meter, Headline::Max)
}

fn worst_percent<H: Heap>(meter: &mut Meter) -> Result<Figures, Unable> {
    mixed::<H>(meter, Headline::P99)
}

/// Share of a full heap that nobody requested.
fn lost<H: Heap>(_: &mut Meter) -> Result<Figures, Unable> {
    let mut slots = Scratch::new()?;
    let slots = slots.slice(LARGE / 512, ChurnSlot::default());
    let Filled { requested, taken, .. } = fullness::fill_half_and_fill::<H>(memory(LARGE), slots)?;
    Ok(Figures::percent(taken.saturating_sub(requested) as u64, taken as u64))
}

/// Share of a full heap that its classes do not cause: slabs that are not full, arrays, tables.
pub(crate) fn lost_by_slabs<H: Heap>(_: &mut Meter) -> Result<Figures, Unable> {
    let mut slots = Scratch::new()?;
    let slots = slots.slice(LARGE / 512, ChurnSlot::default());
    let Filled { in_classes, taken, .. } = fullness::fill_half_and_fill::<H>(memory(LARGE), slots)?;
    Ok(Figures::percent(taken.saturating_sub(in_classes) as u64, taken as u64))
}
