//! Stacks with a guard below, in slots of the vmalloc region: those of CPUs, and [`KernelStack`] for the threads of the
//! embedding kernel.
//!
//! A slot is as large as a stack's alignment. The stack is at its start, the rest is never mapped and guards the stack in the
//! next slot. So nothing else can ever lie below a stack, and the stack of an address is found by arithmetic.

use super::cpu::KernelPages;
use super::pages::PAGES;
use super::{
    BuddyFrames, alloc_page, kernel_tables, kfree, kzalloc, page_to_pfn, pfn_to_page, vmalloc_to_page, vmap_space,
};
use crate::addr::{Order, PAGE_BYTES, PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::stack::{self, STACK_ALIGN, STACK_SIZE_MAX, Stack, StackOwner, ThreadName};
use crate::gfp::Gfp;
use crate::hal::cpu::{Interrupts, PerCpu};
use crate::hal::prot::Prot;
use crate::mm::page::{Kind, Page};
use crate::mm::pgtable::{PgtableError, UnmapFlags};
use crate::mm::slab;
use crate::mm::vmalloc::{AreaError, AreaRequest, VmFlags};
use crate::mm::zone::AllocError;
use crate::sync::{OrderedLock, class};
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Slots that are made at once: one bit each in a word. The first never has a stack: it guards the second.
const SLOTS: usize = 64;
/// The bit of the first slot.
const GUARD: u64 = 1;
// An array has its page tables to itself.
const _: () = assert!((SLOTS as u64 * STACK_ALIGN) & (PMD_SIZE - 1) == 0);
/// Limit on the number of arrays of slots.
const CHUNKS: usize = 256;
/// Pages of the largest stack.
const PAGES_MAX: usize = to_usize(STACK_SIZE_MAX / PAGE_SIZE);

/// An array of slots.
struct Chunk {
    /// The address of the first slot.
    base: AtomicU64,
    /// A bit for each slot that has a stack, and [`GUARD`]. All are set while the tables of an empty array are freed.
    used: AtomicU64,
    slots: [StackRecord; SLOTS],
}

/// Contents of a slot. All-zero is an empty one.
struct StackRecord {
    /// Bytes of the stack, or zero.
    size: AtomicU64,
    /// A [`ThreadName`]. A reader that races with a change sees parts of both names.
    name: [AtomicU64; ThreadName::WORDS],
}

/// The arrays, made one after the other and never freed.
///
/// - `CHUNK-1`: a pointer that is not null points to a [`Chunk`] that is never freed.
static ROWS: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS];
/// Held while an array of slots is made.
static MAKING: OrderedLock<(), class::StackRows, Relax> = OrderedLock::new(());

/// Reason why there is no stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StackAllocError {
    /// The size is 0.
    Empty,
    /// The size is not whole pages, or larger than the largest stack.
    BadSize(usize),
    /// No pages.
    Pages(AllocError),
    /// No memory for the record of more stacks.
    Row(slab::SlabAllocError),
    /// No addresses.
    Area(AreaError),
    /// The pages could not be mapped.
    Tables(PgtableError),
    /// The maximum number of stacks exists already.
    TooMany,
    /// Memory is not up yet.
    NotReady,
}

impl fmt::Display for StackAllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no stack: ")?;
        match self {
            Self::Empty => f.write_str("a stack of no bytes"),
            Self::BadSize(size) => write!(f, "{size} bytes are no stack's size"),
            Self::Pages(error) => error.fmt(f),
            Self::Row(error) => error.fmt(f),
            Self::Area(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::TooMany => f.write_str("too many stacks"),
            Self::NotReady => f.write_str("memory is not up yet"),
        }
    }
}

impl core::error::Error for StackAllocError {}

fn rows() -> impl Iterator<Item = &'static Chunk> {
    let pointers = ROWS.iter().map(|row| row.load(Ordering::Acquire)).take_while(|row| !row.is_null());
    // SAFETY: CHUNK-1.
    pointers.map(|row| unsafe { &*row })
}

impl Chunk {
    fn range(&self) -> VirtRange {
        let base = VirtAddr::new(self.base.load(Ordering::Relaxed));
        VirtRange::from_size(base, SLOTS as u64 * STACK_ALIGN).unwrap_or_default()
    }

    /// Takes a free slot. Any context.
    fn take(&self) -> Option<usize> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let free = (!used).trailing_zeros();
            let bit = 1_u64.checked_shl(free)?;
            match self.used.compare_exchange_weak(used, used | bit, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(free as usize),
                Err(now) => used = now,
            }
        }
    }

    fn give(&self, slot: usize) {
        self.used.fetch_and(!(1 << slot), Ordering::Release);
    }

    /// Frees the page tables of an array that has no stack.
    fn trim(&self) {
        // All slots are taken, so that nobody maps there meanwhile.
        if self.used.compare_exchange(GUARD, u64::MAX, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        let units = (0..self.range().size() / PMD_SIZE).map(|unit| self.range().start().checked_add(unit * PMD_SIZE));
        for unit in units.flatten().filter_map(|start| VirtRange::from_size(start, PMD_SIZE)) {
            if let Some(tables) = kernel_tables() {
                tables.free_tables(&BuddyFrames::ATOMIC, unit);
            }
        }
        self.used.fetch_and(GUARD, Ordering::Release);
    }
}

impl StackRecord {
    fn set_name(&self, name: &str) {
        for (place, word) in self.name.iter().zip(ThreadName::new(name).words()) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn name(&self) -> ThreadName {
        ThreadName::from_words(self.name.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

/// The slot at or right above `addr`: of the stack, or guard, that contains it. Takes no lock.
fn find(addr: VirtAddr) -> Option<Stack> {
    let above = addr.checked_add(STACK_SIZE_MAX)?.align_down(STACK_ALIGN);
    let row = rows().find(|row| row.range().contains(above))?;
    let index = to_usize(above.offset_from(row.range().start())? / STACK_ALIGN);
    let slot = row.slots.get(index)?;
    let range = VirtRange::from_size(above, slot.size.load(Ordering::Acquire)).filter(|range| !range.is_empty())?;
    Some(Stack { owner: StackOwner::Thread(slot.name()), range })
}

/// Takes a slot, making more if there is none.
fn take_slot() -> Result<(&'static Chunk, usize), StackAllocError> {
    loop {
        if let Some(found) = rows().find_map(|row| row.take().map(|slot| (row, slot))) {
            return Ok(found);
        }
        let Some(_making) = MAKING.try_lock() else {
            stack_relax();
            continue;
        };
        let place = ROWS.iter().find(|row| row.load(Ordering::Acquire).is_null()).ok_or(StackAllocError::TooMany)?;
        let memory = kzalloc(size_of::<Chunk>(), Gfp::KERNEL | Gfp::RECLAIMABLE).map_err(StackAllocError::Row)?;
        let row = memory.cast::<Chunk>().as_ptr();
        // It is never completed, so that nobody unmaps it by its address.
        let flags = VmFlags::MAP | VmFlags::NO_GUARD | VmFlags::UNINITIALIZED;
        let request = AreaRequest { align: PMD_SIZE, ..AreaRequest::new(SLOTS as u64 * STACK_ALIGN, flags) };
        let area = vmap_space().alloc(&request).map_err(|error| {
            // SAFETY: allocated above, and nobody knows of it.
            unsafe { kfree(memory.as_ptr()) };
            StackAllocError::Area(error)
        })?;
        // SAFETY: zeroed memory of kmalloc, large enough and aligned to words, never freed; zero is a valid array.
        let fresh = unsafe { &*row };
        fresh.base.store(area.start().get(), Ordering::Relaxed);
        fresh.used.store(GUARD, Ordering::Relaxed);
        // INVARIANT: CHUNK-1.
        place.store(row, Ordering::Release);
        stack::set_thread_stacks(find);
    }
}

fn stack_relax() {
    <Relax as crate::sync::LockHal>::relax();
}

/// Maps a new stack of `size` bytes in a slot of its own. May wait.
///
/// As a value: [`KernelStack`].
///
/// # Errors
///
/// [`StackAllocError`]; nothing has changed then.
pub fn alloc_stack(size: usize, name: &str) -> Result<VirtRange, StackAllocError> {
    let count = size / PAGE_BYTES;
    if size == 0 {
        return Err(StackAllocError::Empty);
    }
    if !size.is_multiple_of(PAGE_BYTES) || count > PAGES_MAX {
        return Err(StackAllocError::BadSize(size));
    }
    let size = size as u64;
    let tables = kernel_tables().ok_or(StackAllocError::NotReady)?;
    let (row, index) = take_slot()?;
    let start = VirtAddr::new(row.range().start().get() + index as u64 * STACK_ALIGN);
    let mut frames = [Pfn::new(0); PAGES_MAX];
    let mut had = 0;
    let mut result = Ok(());
    for frame in frames.iter_mut().take(count) {
        match alloc_page(Gfp::KERNEL) {
            Ok(page) => {
                // A fresh page is unclaimed.
                let _ = PAGES.do_claim(page, Kind::Vmalloc, start.get());
                *frame = page_to_pfn(page);
                had += 1;
            }
            Err(error) => {
                result = Err(StackAllocError::Pages(error));
                break;
            }
        }
    }
    let frames = frames.get(..had).unwrap_or(&[]);
    if result.is_ok() {
        let mapped =
            tables.do_map_frames(&BuddyFrames::new(Gfp::KERNEL), start, frames.iter().copied(), Prot::KERNEL_RW);
        result = mapped.map_err(StackAllocError::Tables);
    }
    if let Err(error) = result {
        frames.iter().filter_map(|frame| pfn_to_page(*frame)).for_each(release_page);
        row.give(index);
        return Err(error);
    }
    let range = VirtRange::from_size(start, size).unwrap_or_default();
    if let Some(slot) = row.slots.get(index) {
        slot.set_name(name);
        slot.size.store(size, Ordering::Release);
    }
    Ok(range)
}

fn release_page(page: Page) {
    let freed = PAGES.do_disown(page, Kind::Vmalloc).and_then(|()| PAGES.do_free_pages(page, Order::ZERO));
    if let Err(error) = freed {
        log::error!("a page of a stack is lost: {error}");
    }
}

/// Unmaps the stack in `range` and frees its pages, once no CPU translates them.
fn free_stack(range: VirtRange) {
    let (Some(tables), Some(row)) = (kernel_tables(), rows().find(|row| row.range().contains(range.start()))) else {
        return;
    };
    let index = range.start().offset_from(row.range().start()).unwrap_or(0) / STACK_ALIGN;
    let Some(slot) = row.slots.get(to_usize(index)) else { return };
    let mut pages = [None; PAGES_MAX];
    let count = to_usize(range.size() / PAGE_SIZE);
    for (number, page) in pages.iter_mut().take(count).enumerate() {
        *page = range.start().checked_add(number as u64 * PAGE_SIZE).and_then(vmalloc_to_page);
    }
    slot.size.store(0, Ordering::Release);
    if let Err(error) = tables.do_unmap_and_flush(&BuddyFrames::ATOMIC, range, UnmapFlags::empty()) {
        log::error!("a stack at {} is lost: {error}", range.start());
        return;
    }
    pages.into_iter().flatten().for_each(release_page);
    row.give(to_usize(index));
    row.trim();
}

fn rename(range: VirtRange, name: &str) {
    let Some(row) = rows().find(|row| row.range().contains(range.start())) else { return };
    let index = range.start().offset_from(row.range().start()).unwrap_or(0) / STACK_ALIGN;
    if let Some(slot) = row.slots.get(to_usize(index)) {
        slot.set_name(name);
    }
}

/// The stack of a kernel's own thread: [`KernelStack::SIZE`] bytes, guarded below, so that an overflow is a report that names
/// the thread and not a corruption (Linux: `CONFIG_VMAP_STACK`). Its previous contents are not cleared.
///
/// Raw: [`alloc_stack`].
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/stacks.rs"), "```")]
///
/// # Invariants
///
/// - `KSTK-1`: `range` is a stack of [`alloc_stack`], mapped and without another owner.
#[derive(Debug)]
pub struct KernelStack {
    range: VirtRange,
}

impl KernelStack {
    /// Bytes of a stack: a build option of this package.
    pub const SIZE: usize = crate::KERNEL_STACK_SIZE;

    /// A stack for the thread `name`: one that this CPU has kept, or a new one, whose pages are allocated as
    /// `KERNEL` says.
    ///
    /// # Errors
    ///
    /// [`StackAllocError`].
    pub fn new(name: &str) -> Result<Self, StackAllocError> {
        let hal = PAGES.hal();
        let saved = hal.save();
        let kept = hal.local().stacks.take();
        hal.restore(saved);
        let kept = kept.and_then(|start| VirtRange::from_size(start, Self::SIZE as u64));
        let range = match kept {
            Some(range) => {
                rename(range, name);
                range
            }
            None => alloc_stack(Self::SIZE, name)?,
        };
        // INVARIANT: KSTK-1: a kept stack was one, and has left the place where it was kept.
        Ok(Self { range })
    }

    /// The usable addresses.
    #[must_use]
    pub const fn range(&self) -> VirtRange {
        self.range
    }

    /// Initial stack pointer: the end, a multiple of 16.
    #[must_use]
    pub const fn top(&self) -> VirtAddr {
        self.range.end()
    }

    /// Calls `function` on this stack and returns when it does: a thread that its creator waits for. Not from an interrupt
    /// handler.
    pub fn run<F: FnMut()>(&mut self, mut function: F) {
        extern "C" fn call<F: FnMut()>(argument: *mut ()) {
            // SAFETY: the function below gave a pointer to this very type, which nobody else uses meanwhile.
            let function = unsafe { &mut *argument.cast::<F>() };
            function();
        }
        let argument = (&raw mut function).cast::<()>();
        // SAFETY: KSTK-1, and the exclusive borrow: nobody else runs on it.
        unsafe { stack::call(self.top(), call::<F>, argument) };
    }
}

impl Drop for KernelStack {
    /// Keeps the stack for the next thread on this CPU, or frees it.
    fn drop(&mut self) {
        let hal = PAGES.hal();
        let saved = hal.save();
        let kept = hal.local().stacks.keep(self.range.start());
        hal.restore(saved);
        match kept {
            true => rename(self.range, "nobody: kept for the next thread"),
            false => free_stack(self.range),
        }
    }
}

/// Frees the stacks that `take` finds, with interrupts masked, among those that a CPU keeps.
pub(super) fn drain_stacks(hal: &KernelPages, take: impl Fn(&KernelPages) -> Option<VirtAddr>) {
    loop {
        let saved = hal.save();
        let start = take(hal);
        hal.restore(saved);
        match start.and_then(|start| VirtRange::from_size(start, KernelStack::SIZE as u64)) {
            Some(range) => free_stack(range),
            None => return,
        }
    }
}

/// Number of stacks: those of CPUs except the boot CPU's first two, of threads, and kept ones. Any context.
#[must_use]
pub fn stack_count() -> u32 {
    rows().map(|row| (row.used.load(Ordering::Relaxed) & !GUARD).count_ones()).sum()
}

/// Frees the stacks that this CPU keeps for its next threads. Any context in which memory may be freed.
pub fn drain_kernel_stacks() {
    drain_stacks(PAGES.hal(), |hal| hal.local().stacks.take());
}
