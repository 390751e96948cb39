//! Page allocators: `alloc_pages/ORDER`, `get_zeroed_page`, `alloc_pages_bulk/64`, `pages_batch_random/4096`. Each row
//! counts allocation and free together.

use crate::arena::Arena;
use crate::heap::random::Random;
use crate::meter::{Figures, Meter, Unable};
use crate::rows::Row;
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::addr::PAGE_SIZE;
use quarry::addr::to_usize;
use spin::mutex::SpinMutex;

const PAGE: usize = to_usize(PAGE_SIZE);

/// A page allocator under test. An implementation is one of these and a line in `rows::ROWS`. Orders are constants, as
/// they are where a kernel calls its own.
pub(crate) trait PageAllocator: Sized {
    /// Name of its crate.
    const NAME: &'static str;
    /// Value that an allocation returns and a free takes, besides the order.
    type Block: Copy;

    /// An allocator that manages the arena, unless it has memory of its own.
    fn new(arena: Arena) -> Result<Self, Unable>;

    /// 2^`ORDER` pages.
    fn alloc<const ORDER: u8>(&mut self) -> Option<Self::Block>;

    /// Gives them back; whether they were taken.
    fn free<const ORDER: u8>(&mut self, block: Self::Block) -> bool;

    /// Where a block lies. Not counted.
    fn start(&self, block: Self::Block) -> NonNull<u8>;

    /// Whether `bytes` from `start` on are the allocator's to give. Not counted.
    fn manages(&self, start: NonNull<u8>, bytes: usize) -> bool {
        Arena::get().holds(start, bytes)
    }

    /// One zeroed page. An allocator that knows no better fills it with this image's `memset`, which is the kernel's.
    #[inline(always)]
    fn alloc_zeroed(&mut self) -> Option<Self::Block> {
        let block = self.alloc::<0>()?;
        // SAFETY: the page has just been allocated.
        unsafe { self.start(block).write_bytes(0, PAGE) };
        Some(block)
    }

    /// Allocates [`BULK`] single pages and frees them; whether it could. An allocator that knows no better takes them
    /// one by one, and keeps them in `blocks`, which are `None` before and after.
    #[inline(always)]
    fn bulk(&mut self, blocks: &mut [Option<Self::Block>; BULK]) -> bool {
        for block in blocks.iter_mut() {
            *block = self.alloc::<0>();
        }
        let complete = black_box(&mut *blocks).iter().all(Option::is_some);
        blocks.iter_mut().filter_map(Option::take).fold(complete, |done, block| done & self.free::<0>(block))
    }
}

/// Pages of [`PageAllocator::bulk`].
pub(crate) const BULK: usize = 64;

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

const FAILED: Unable = "an allocation or a free failed";

/// A fresh allocator whose blocks of `ORDER` are whole pages of its own, apart from each other.
fn prepare<P: PageAllocator, const ORDER: u8>() -> Result<P, Unable> {
    const LIVE: usize = 4;
    let bytes = PAGE << ORDER;
    let mut pages = P::new(Arena::get())?;
    let mut blocks = [None; LIVE];
    for index in 0..LIVE {
        let block = pages.alloc::<ORDER>().ok_or(FAILED)?;
        let start = pages.start(block);
        if !pages.manages(start, bytes) || !start.addr().get().is_multiple_of(PAGE) {
            return Err("a block is not whole pages of its own");
        }
        let apart = |other: P::Block| pages.start(other).addr().get().abs_diff(start.addr().get()) >= bytes;
        if !blocks.iter().flatten().all(|&other| apart(other)) {
            return Err("two blocks overlap");
        }
        if let Some(place) = blocks.get_mut(index) {
            *place = Some(block);
        }
    }
    let freed = blocks.into_iter().flatten().fold(true, |done, block| done & pages.free::<ORDER>(block));
    if freed { Ok(pages) } else { Err(FAILED) }
}

fn alloc_pages<P: PageAllocator, const ORDER: u8>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P, ORDER>()?;
    let mut done = true;
    let figures = meter.measure(|| match pages.alloc::<ORDER>() {
        Some(block) => done &= pages.free::<ORDER>(black_box(block)),
        None => done = false,
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

fn get_zeroed_page<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P, 0>()?;
    let dirty = pages.alloc::<0>().ok_or(FAILED)?;
    // SAFETY: the page has just been allocated.
    unsafe { pages.start(dirty).write_bytes(0xa5, PAGE) };
    pages.free::<0>(dirty);
    let page = pages.alloc_zeroed().ok_or(FAILED)?;
    // SAFETY: the page has just been allocated.
    let bytes = unsafe { NonNull::slice_from_raw_parts(pages.start(page), PAGE).as_ref() };
    if bytes.iter().any(|&byte| byte != 0) {
        return Err("the page is not zero");
    }
    pages.free::<0>(page);
    let mut done = true;
    let figures = meter.measure(|| match pages.alloc_zeroed() {
        Some(block) => done &= pages.free::<0>(black_box(block)),
        None => done = false,
    });
    if done { Ok(figures) } else { Err(FAILED) }
}

/// The row counts the 64 allocations and frees together.
fn alloc_pages_bulk<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P, 0>()?;
    let mut done = true;
    let mut blocks = [None; BULK];
    let figures = meter.measure(|| done &= pages.bulk(&mut blocks));
    if done { Ok(figures) } else { Err(FAILED) }
}

/// Pages of a batch.
const BATCH: u16 = 4096;

/// In which order the batch is freed: every number below [`BATCH`] once.
static SHUFFLED: SpinMutex<[u16; BATCH as usize]> = SpinMutex::new([0; BATCH as usize]);

/// Shuffles the numbers, always in the same way.
fn shuffle(order: &mut [u16; BATCH as usize]) {
    for (place, number) in order.iter_mut().zip(0..) {
        *place = number;
    }
    Random::new(0).shuffle(order);
}

/// Allocates 4,096 single pages, then frees them in random order. The row counts an allocation and a free.
fn pages_batch_random<P: PageAllocator>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut pages = prepare::<P, 0>()?;
    let mut order = SHUFFLED.lock();
    shuffle(&mut order);
    let mut done = true;
    // On the early heap: too large for the stack, and the arena is the allocator's.
    let mut blocks: Vec<Option<P::Block>> = (0..BATCH).map(|_| None).collect();
    let figures = meter.measure_units(u32::from(BATCH), || {
        for place in &mut blocks {
            *place = pages.alloc::<0>();
            done &= place.is_some();
        }
        for &index in order.iter() {
            if let Some(block) = blocks.get_mut(usize::from(index)).and_then(Option::take) {
                done &= pages.free::<0>(block);
            }
        }
    });
    if done { Ok(figures) } else { Err(FAILED) }
}
