//! Host only: workloads in real time. Each takes a heap through about a hundred thousand operations, in one thread or in two
//! at once, and tells how many nanoseconds passed for each.

use crate::heap::churn::{self, ChurnSlot, Step};
use crate::heap::random::Random;
use crate::heap::{BULK, FAILED, Heap, Memory, Unable, hidden, layout};
use core::hint::black_box;
use core::ptr::NonNull;
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

/// Pairs of one stretch in one thread.
const PAIRS: u32 = 50_000;
/// Pairs before the clock starts.
const WARM_UP: u32 = 2_000;
/// Blocks of a batch, and blocks that live while others are replaced.
const LIVE: u16 = 1024;

/// A workload: prepares what it needs for one thread, and returns a function that does that many pairs, or fails.
pub(crate) trait Workload: Copy + Send + Sync {
    /// Data of a thread.
    type State;

    /// Prepares a thread.
    fn prepare<H: Heap>(self, heap: &mut H, seed: u64) -> Result<Self::State, Unable>;

    /// Does at least `pairs` allocations and frees; how many it did, or `None` if one failed.
    fn run<H: Heap>(self, heap: &mut H, state: &mut Self::State, pairs: u32) -> Option<u32>;

    /// Gives back what the thread still has.
    fn end<H: Heap>(self, heap: &mut H, state: Self::State);
}

/// A block of one size, again and again.
#[derive(Clone, Copy)]
pub(crate) struct Pair(pub(crate) u32);

impl Workload for Pair {
    type State = ();

    fn prepare<H: Heap>(self, _: &mut H, _: u64) -> Result<(), Unable> {
        Ok(())
    }

    #[inline(always)]
    fn run<H: Heap>(self, heap: &mut H, (): &mut (), pairs: u32) -> Option<u32> {
        let size = hidden(self.0);
        for _ in 0..pairs {
            let block = heap.alloc(layout(size))?;
            // SAFETY: it has just been allocated with this layout.
            unsafe { heap.dealloc(black_box(block), layout(size)) };
        }
        Some(pairs)
    }

    fn end<H: Heap>(self, _: &mut H, (): ()) {}
}

/// 1,024 blocks of 64 bytes, freed in random order.
#[derive(Clone, Copy)]
pub(crate) struct Batch;

impl Workload for Batch {
    type State = (Vec<u16>, Vec<ChurnSlot>);

    fn prepare<H: Heap>(self, _: &mut H, seed: u64) -> Result<Self::State, Unable> {
        let mut order: Vec<_> = (0..LIVE).collect();
        Random::new(seed).shuffle(&mut order);
        Ok((order, vec![ChurnSlot::default(); usize::from(LIVE)]))
    }

    #[inline(always)]
    fn run<H: Heap>(self, heap: &mut H, (order, slots): &mut Self::State, pairs: u32) -> Option<u32> {
        let rounds = pairs.div_ceil(u32::from(LIVE));
        let mut done = true;
        for _ in 0..rounds {
            for slot in slots.iter_mut() {
                done &= slot.fill(heap, 64);
            }
            for &index in order.iter() {
                done &= slots.get_mut(usize::from(index)).is_some_and(|slot| slot.free(heap));
            }
        }
        done.then_some(rounds * u32::from(LIVE))
    }

    fn end<H: Heap>(self, _: &mut H, _: Self::State) {}
}

/// 64 blocks of 256 bytes in one call each way.
#[derive(Clone, Copy)]
pub(crate) struct Bulk;

impl Workload for Bulk {
    type State = [Option<NonNull<u8>>; BULK];

    fn prepare<H: Heap>(self, _: &mut H, _: u64) -> Result<Self::State, Unable> {
        Ok([None; BULK])
    }

    #[inline(always)]
    fn run<H: Heap>(self, heap: &mut H, blocks: &mut Self::State, pairs: u32) -> Option<u32> {
        let mut done = 0;
        while done < pairs {
            let complete = heap.alloc_bulk(layout(256), blocks);
            // SAFETY: all were allocated with this layout.
            unsafe { heap.free_bulk(layout(256), black_box(blocks)) };
            if !complete {
                return None;
            }
            done += 64;
        }
        Some(done)
    }

    fn end<H: Heap>(self, _: &mut H, _: Self::State) {}
}

/// A random one of 1,024 live blocks replaced by one of random size.
#[derive(Clone, Copy)]
pub(crate) struct Churn;

impl Workload for Churn {
    type State = (Vec<Step>, Vec<ChurnSlot>);

    fn prepare<H: Heap>(self, heap: &mut H, seed: u64) -> Result<Self::State, Unable> {
        let mut random = Random::new(seed);
        let mut slots = vec![ChurnSlot::default(); usize::from(LIVE)];
        churn::fill(heap, &mut slots, &mut random)?;
        Ok(((0..4096).map(|_| Step::random(&mut random, LIVE)).collect(), slots))
    }

    #[inline(always)]
    fn run<H: Heap>(self, heap: &mut H, (steps, slots): &mut Self::State, pairs: u32) -> Option<u32> {
        let rounds = steps.iter().cycle().zip(0..pairs);
        rounds.fold(true, |done, (step, _)| done & step.replace(slots, heap)).then_some(pairs)
    }

    fn end<H: Heap>(self, heap: &mut H, (_, mut slots): Self::State) {
        for slot in &mut slots {
            slot.free(heap);
        }
    }
}

/// Nanoseconds a pair, in one thread.
pub(crate) fn alone<H: Heap, W: Workload>(memory: Memory, workload: W) -> Result<f64, Unable> {
    let mut heap = H::new(memory)?;
    let heap = black_box(&mut heap);
    let mut state = workload.prepare(heap, 1)?;
    let _ = workload.run(heap, &mut state, WARM_UP).ok_or(FAILED)?;
    let start = Instant::now();
    let done = workload.run(heap, &mut state, PAIRS).ok_or(FAILED)?;
    let passed = start.elapsed();
    workload.end(heap, state);
    Ok(passed.as_secs_f64() * 1e9 / f64::from(done))
}

/// Nanoseconds a pair while two threads do as much each on one heap: by the wall, over the pairs of both.
pub(crate) fn together<H: Heap + Clone + Send, W: Workload>(memory: Memory, workload: W) -> Result<f64, Unable> {
    let heap = H::new(memory)?;
    let barrier = Barrier::new(2);
    let thread = |mut heap: H, seed| {
        let prepared = workload.prepare(&mut heap, seed);
        // Both come here, whether they succeed or fail.
        barrier.wait();
        let mut state = prepared?;
        let _ = workload.run(&mut heap, &mut state, WARM_UP).ok_or(FAILED)?;
        let start = Instant::now();
        let done = workload.run(&mut heap, &mut state, PAIRS).ok_or(FAILED)?;
        let end = Instant::now();
        workload.end(&mut heap, state);
        Ok((start, end, done))
    };
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn({
            let heap = heap.clone();
            let thread = &thread;
            move || thread(heap, 2)
        });
        let first = thread(heap.clone(), 1);
        other.join().map_or(Err("a thread panicked"), |second| Ok((first, second)))
    })?;
    let ((start_1, end_1, done_1), (start_2, end_2, done_2)) = (first?, second?);
    let passed = end_1.max(end_2) - start_1.min(start_2);
    Ok(passed.as_secs_f64() * 1e9 / f64::from(done_1 + done_2))
}

/// Blocks that are under way from one thread to the other.
const UNDER_WAY: usize = 16;

/// One thread allocates blocks of 256 bytes, 64 at a time, the other frees them. Nanoseconds a block.
pub(crate) fn handed_over<H: Heap + Clone + Send>(memory: Memory) -> Result<f64, Unable> {
    struct Block(NonNull<u8>);
    // SAFETY: a block belongs to the holder of its address.
    unsafe impl Send for Block {}

    let heap = H::new(memory)?;
    let (sender, receiver) = sync_channel::<Vec<Block>>(UNDER_WAY);
    let rounds = PAIRS / 64;
    let start = Instant::now();
    let complete = thread::scope(|scope| {
        let mut freeing = heap.clone();
        scope.spawn(move || {
            for Block(block) in receiver.into_iter().flatten() {
                // SAFETY: it was allocated with this layout, and came here alone.
                unsafe { freeing.dealloc(block, layout(256)) };
            }
        });
        let mut allocating = heap.clone();
        let mut complete = true;
        for _ in 0..rounds {
            let blocks: Vec<_> = (0..64).filter_map(|_| allocating.alloc(layout(256)).map(Block)).collect();
            complete &= blocks.len() == 64 && sender.send(blocks).is_ok();
        }
        drop(sender);
        complete
    });
    let passed = start.elapsed();
    if complete { Ok(passed.as_secs_f64() * 1e9 / f64::from(rounds * 64)) } else { Err(FAILED) }
}
