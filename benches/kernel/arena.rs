//! Memory for the workloads: one stretch of RAM that each implementation gets anew, and table frames out of it.

use crate::heap::{Memory, Unable};
use core::num::NonZero;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{Order, PAGE_SIZE, PhysAddr, PhysRange, to_usize};
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::frame::{FrameSource, NoFrame};
use quarry::mm::layout::{LINEAR_MAP_SIZE, PAGE_OFFSET};
use quarry::mm::page::Page;
use spin::once::Once;

/// Bytes that a page allocator is given to manage: sixteen blocks of the largest order.
pub(crate) const ARENA_SIZE: u64 = 64 << 20;
/// Frames for the tables of those that map.
const TABLES_SIZE: u64 = 1 << 20;

// An OR adds where the offset and the addresses share no bit.
const _: () = assert!(PAGE_OFFSET & (LINEAR_MAP_SIZE - 1) == 0);

static MEMORY: Once<PhysRange> = Once::new();
/// Bytes of them that were handed out once.
static NEXT_TABLE: AtomicU64 = AtomicU64::new(0);
/// The first freed one, or 0.
static FREED_TABLE: AtomicU64 = AtomicU64::new(0);

/// Everything, taken at the first call.
fn memory() -> PhysRange {
    *MEMORY.call_once(|| {
        let pages = (ARENA_SIZE + TABLES_SIZE) / PAGE_SIZE;
        let frames = |bytes: u64| u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
        let taken = global::alloc_contig_pages(frames(pages * PAGE_SIZE), frames(ARENA_SIZE), Gfp::KERNEL);
        let first = taken.unwrap_or_else(|error| panic!("no memory for the benchmarks: {error}"));
        PhysRange::from_size(global::page_to_phys(first), pages * PAGE_SIZE).unwrap_or_default()
    })
}

/// A stretch of RAM that nothing else uses while one row runs, aligned to its size.
#[derive(Clone, Copy)]
pub(crate) struct Arena(PhysRange);

impl Arena {
    /// The arena, with the contents left by the row before.
    pub(crate) fn get() -> Self {
        match PhysRange::from_size(memory().start(), ARENA_SIZE) {
            Some(range) => Self(range),
            None => panic!("the arena does not wrap"),
        }
    }

    /// The arena, as heaps get it.
    pub(crate) fn memory(self) -> Memory {
        // SAFETY: nothing else uses the arena while a row runs.
        unsafe { Memory::new(self.start(), self.size()) }
    }

    /// Its first physical address.
    pub(crate) const fn phys(self) -> PhysAddr {
        self.0.start()
    }

    /// Its first byte.
    pub(crate) fn start(self) -> NonNull<u8> {
        linear(self.0.start())
    }

    /// Its first address, as a number.
    pub(crate) fn addr(self) -> usize {
        self.start().addr().get()
    }

    /// Bytes.
    pub(crate) const fn size(self) -> usize {
        to_usize(self.0.size())
    }

    /// Whether `bytes` from `block` on lie within.
    pub(crate) fn holds(self, block: NonNull<u8>, bytes: usize) -> bool {
        let offset = block.addr().get().wrapping_sub(self.addr());
        offset < self.size() && bytes <= self.size() - offset
    }

    /// The pointer to `addr`, a number that some peer calculated from [`Arena::addr`].
    #[cfg(feature = "peers")]
    pub(crate) fn pointer(self, addr: usize) -> NonNull<u8> {
        self.start().map_addr(|start| start.saturating_add(addr.wrapping_sub(start.get())))
    }
}

/// Room for what a row keeps of its own, too large for the stack and the early heap: a block of the largest order.
pub(crate) struct Scratch(Page);

impl Scratch {
    /// Some of the machine's own memory.
    pub(crate) fn new() -> Result<Self, Unable> {
        global::alloc_pages(Gfp::KERNEL, Order::MAX).map(Self).map_err(|_| "no room for what the row keeps")
    }

    /// `count` times `value`. They must fit.
    pub(crate) fn slice<T: Copy>(&mut self, count: usize, value: T) -> &mut [T] {
        assert!(count * size_of::<T>() <= to_usize(PAGE_SIZE) << Order::MAX.get(), "too much to keep");
        let start = global::page_address(self.0).as_ptr::<u8>().cast::<T>();
        for index in 0..count {
            // SAFETY: within the block, which is ours, and aligned to its size.
            unsafe { start.wrapping_add(index).write(value) };
        }
        // SAFETY: these have just been written.
        unsafe { slice::from_raw_parts_mut(start, count) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = raw!(global::try_free_pages(self.0, Order::MAX)) {
            panic!("the room of a row: {error}");
        }
    }
}

/// Where the linear map has `phys`: one instruction, since peers do it for each table that they pass.
#[inline(always)]
pub(crate) fn linear(phys: PhysAddr) -> NonNull<u8> {
    const OFFSET: NonZero<usize> = NonZero::new(to_usize(PAGE_OFFSET)).unwrap();
    NonNull::with_exposed_provenance(OFFSET | to_usize(phys.get()))
}

/// The physical address behind a pointer that [`linear`] gave.
#[cfg(feature = "peers")]
pub(crate) fn phys(pointer: NonNull<u8>) -> PhysAddr {
    use quarry::addr::VirtAddr;
    use quarry::mm::layout::virt_to_phys;

    match virt_to_phys(VirtAddr::of(pointer.as_ptr())) {
        Some(phys) => phys,
        None => panic!("{pointer:?} is not in the linear map"),
    }
}

/// Frames for tables, for this kernel's tables and for the peers'. Some instructions each way: a list of freed frames,
/// linked through their first words, before new ones. For one CPU.
#[derive(Clone, Copy)]
pub(crate) struct TableFrames;

// SAFETY: each frame is RAM of the arena's reservation, behind what `Arena` covers, mapped by the linear map, and handed
// out to one owner at a time: only the boot CPU runs benchmarks, and no interrupt handler takes tables.
unsafe impl FrameSource for TableFrames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        let freed = PhysAddr::new(FREED_TABLE.load(Ordering::Relaxed));
        if freed != PhysAddr::ZERO {
            // SAFETY: the frame is on the list, so it holds the address of the next.
            let next = unsafe { linear(freed).cast::<u64>().read() };
            FREED_TABLE.store(next, Ordering::Relaxed);
            return Ok(freed);
        }
        let offset = NEXT_TABLE.load(Ordering::Relaxed);
        if offset >= TABLES_SIZE {
            return Err(NoFrame);
        }
        NEXT_TABLE.store(offset + PAGE_SIZE, Ordering::Relaxed);
        memory().start().checked_add(ARENA_SIZE + offset).ok_or(NoFrame)
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        let next = FREED_TABLE.load(Ordering::Relaxed);
        // SAFETY: the frame is ours again, and nobody translates through it, by the contract of the trait.
        unsafe { linear(table).cast::<u64>().write(next) };
        FREED_TABLE.store(table.get(), Ordering::Relaxed);
    }
}
