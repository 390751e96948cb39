//! Page allocators: `alloc_pages/ORDER`, `get_zeroed_page`, `alloc_pages_bulk/64`, `pages_batch_random/4096`. Each row
//! counts allocation and free together.

use crate::arena::Arena;
use crate::meter::{Figures, Meter, Unable};
use crate::rows::Row;
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::addr::PAGE_SIZE;
use quarry::addr::to_usize;
use spin::mutex::SpinMutex;

const PAGE: usize = to_usize(PAGE_SIZE);

/// A page allocator under test. An implementation is one of these and a line in `rows::ROWS`.
pub(crate) trait PageAllocator: Sized {
    /// Whose it is.
    const NAME: &'static str;
    /// What an allocation gives and a free takes, besides the order.
    type Block: Copy;

    /// An allocator that manages the arena.
    fn new(arena: Arena) -> Result<Self, Unable>;

    /// 2^`order` pages.
    fn alloc(&mut self, order: u8) -> Option<Self::Block>;

    /// Gives them back.
    fn free(&mut self, block: Self::Block, order: u8);

    /// Where a block lies. Not counted.
    fn start(&self, block: Self::Block) -> NonNull<u8>;

    /// One zeroed page. An allocator that knows no better fills it with this image's `memset`, which is the kernel's.
    fn alloc_zeroed(&mut self) -> Option<Self::Block> {
        let block = self.alloc(0)?;
        // SAFETY: the page has just been allocated.
        unsafe { self.start(block).write_bytes(0, PAGE) };
        Some(block)
    }

    /// Fills `blocks` with single pages, as many as there are. An allocator that knows no better takes them one by one.
    fn alloc_bulk(&mut self, blocks: &mut [Option<Self::Block>]) {
        for block in blocks {
            *block = self.alloc(0);
        }
    }

    /// Gives single pages back.
    fn free_bulk(&mut self, blocks: &mut [Option<Self::Block>]) {
        for block in blocks.iter_mut().filter_map(Option::take) {
            self.free(block, 0);
        }
    }
}

/// The rows of one implementation.
pub(crate) const fn rows<P: PageAllocator>() -> [Row; 8] {
    [
        Row { name: "alloc_pages/0", by: P::NAME, run: alloc_pages::<P, 0> },
        Row { name: "alloc_pages/3", by: P::NAME, run: alloc_pages::<P, 3> },
        Row { name: "alloc_pages/4", by: P::NAME, run: alloc_pages::<P, 4> },
        Row { name: "alloc_pages/9", by: P::NAME, run: alloc_pages::<P, 9> },
        Row { name: "alloc_pages/10", by: P::NAME, run: alloc_pages::<P, 10> },
        Row { name: "get_zeroed_page", by: P::NAME, run: get_zeroed_page::<P> },
        Row { name: "alloc_pages_bulk/64", by: P::NAME, run: alloc_pages_bulk::<P> },
        Row { name: "pages_batch_random/4096", by: P::NAME, run: pages_batch_random::<P> },
    ]
}

pub(crate) const EXHAUSTED: Unable = "an allocation failed";

/// A fresh allocator whose blocks of `order` lie in the arena, apart from each other.
fn prepare<P: PageAllocator>(order: u8) -> Result<P, Unable> {
    const LIVE: usize = 4;
    let arena = Arena::get();
    let bytes = PAGE << order;
    let mut pages = P::new(arena)?;
    let mut blocks = [None; LIVE];
    for index in 0..LIVE {
        let block = pages.alloc(order).ok_or(EXHAUSTED)?;
        let start = pages.start(block);
        if !arena.holds(start, bytes) || !start.addr().get().is_multiple_of(PAGE) {
            return Err("a block is not whole pages of the arena");
        }
        let apart = |other: P::Block| pages.start(other).addr().get().abs_diff(start.addr().get()) >= bytes;
        if !blocks.iter().flatten().all(|&other| apart(other)) {
            return Err("two blocks overlap");
        }
        if let Some(place) = blocks.get_mut(index) {
            *place = Some(block);
        }
    }
    for block in blocks.into_iter().flatten() {
        pages.free(block, order);
    }
    Ok(pages)
}

fn alloc_pages<P: PageAllocator, const ORDER: u8>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P>(ORDER)?;
    let mut failed = false;
    let figures = meter.measure(|| match pages.alloc(black_box(ORDER)) {
        Some(block) => pages.free(black_box(block), black_box(ORDER)),
        None => failed = true,
    });
    if failed { Err(EXHAUSTED) } else { Ok(figures) }
}

fn get_zeroed_page<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P>(0)?;
    let mut failed = false;
    let figures = meter.measure(|| match pages.alloc_zeroed() {
        Some(block) => pages.free(black_box(block), black_box(0)),
        None => failed = true,
    });
    if failed { Err(EXHAUSTED) } else { Ok(figures) }
}

/// The row counts the 64 allocations and frees together.
fn alloc_pages_bulk<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P>(0)?;
    let mut failed = false;
    let mut blocks = [None; 64];
    let figures = meter.measure(|| {
        pages.alloc_bulk(black_box(&mut blocks));
        failed |= blocks.iter().last().is_none_or(Option::is_none);
        pages.free_bulk(black_box(&mut blocks));
    });
    if failed { Err(EXHAUSTED) } else { Ok(figures) }
}

/// Pages of a batch.
pub(crate) const BATCH: u16 = 4096;

/// In which order the batch is freed: every number below [`BATCH`] once.
pub(crate) static SHUFFLED: SpinMutex<[u16; BATCH as usize]> = SpinMutex::new([0; BATCH as usize]);

/// Shuffles the numbers, always in the same way.
pub(crate) fn shuffle(order: &mut [u16; BATCH as usize]) {
    for (place, number) in order.iter_mut().zip(0..) {
        *place = number;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in (1..order.len()).rev() {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        order.swap(index, to_usize(random % (index as u64 + 1)));
    }
}

/// Allocates 4,096 single pages, then frees them in random order. The row counts an allocation and a free.
fn pages_batch_random<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P>(0)?;
    let mut order = SHUFFLED.lock();
    shuffle(&mut order);
    let mut failed = false;
    // On the early heap: too large for the stack, and the arena is the allocator's.
    let mut blocks: Vec<Option<P::Block>> = (0..BATCH).map(|_| None).collect();
    let figures = meter.measure_units(u32::from(BATCH), || {
        for place in blocks.iter_mut() {
            *place = pages.alloc(0);
            failed |= place.is_none();
        }
        for &index in order.iter() {
            if let Some(block) = blocks.get_mut(usize::from(index)).and_then(Option::take) {
                pages.free(block, 0);
            }
        }
    });
    if failed { Err(EXHAUSTED) } else { Ok(figures) }
}
