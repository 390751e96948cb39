//! The candidate that was not taken: slabs as Linux's SLUB had them before sheaves, with this kernel's checks.
//!
//! A CPU has one slab at a time, all of whose free objects are its own, on a list through the objects: it takes from
//! the list and gives to it by replacing two words at once ([`short`](super::short)). An object of another slab goes to
//! that slab's own list, which it shares with all CPUs, again by replacing two words: the list, and what is counted of
//! the slab. Slabs with free objects that no CPU has are on a list behind a lock; an empty one goes back to the page
//! allocator, unless there are few. Linux can also put a slab aside for a CPU when the first object comes back to it
//! (`cpu_partial`), which saves the lock once a slab; that is not here.
//!
//! Pages and descriptors are real. The word that a free looks at stands in the page's descriptor, as the kept design's does;
//! the two shared words have no room there, and lie in a table beside. The CPU's data, which would be behind TPIDR_EL1, are
//! behind TPIDR_EL0, which this kernel uses for nothing else while it lives. One cache, of 64 bytes, one CPU.

use super::short::{CompareExchange, Given};
use super::slabs::{Counts, DESCRIPTORS, NONE, OBJECTS, Partial, SIZE, Table};
use crate::heap::Unable;
use crate::heap::random::Random;
use aarch64_cpu::registers::TPIDR_EL0;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use quarry::addr::{Order, VirtAddr};
use quarry::arch::aarch64::irq;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::mm::page::Page;
use spin::mutex::SpinMutex;
use tock_registers::interfaces::Writeable;

/// Where a free object keeps its link: in the middle, as in Linux since 5.7.
pub(crate) const LINK: u64 = SIZE / 2;
/// Empty slabs stay as long as no more have free objects (Linux: `min_partial`).
const MIN_PARTIAL: u32 = 5;
/// Where the CPU has its part of the cache, from the start of its data.
pub(crate) const SLOT: u64 = 64;
/// First word of free objects, and the secret mixed into links.
const MARK: u64 = 0x5bd1_e995_1b87_3593;
const SECRET: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// Data of a CPU.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Local {
    /// [`DESCRIPTORS`].
    pub(super) descriptors: AtomicU64,
    /// [`MARK`].
    pub(super) mark: AtomicU64,
    cache: CpuSlab,
}

/// A CPU's part of a cache (Linux: `struct kmem_cache_cpu`).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CpuSlab {
    /// The first free object of its slab, or zero.
    pub(super) freelist: AtomicU64,
    /// How often the list has changed.
    pub(super) tid: AtomicU64,
    /// The descriptor of its slab, or zero.
    pub(super) slab: AtomicU64,
    /// [`SECRET`].
    pub(super) secret: AtomicU64,
    /// [`LINK`], for who does not know the cache.
    pub(super) link: AtomicU64,
}

static LOCAL: Local = Local {
    descriptors: AtomicU64::new(DESCRIPTORS),
    mark: AtomicU64::new(MARK),
    cache: CpuSlab {
        freelist: AtomicU64::new(0),
        tid: AtomicU64::new(0),
        slab: AtomicU64::new(0),
        secret: AtomicU64::new(SECRET),
        link: AtomicU64::new(LINK),
    },
};

const _: () = assert!(offset_of!(Local, cache) as u64 == SLOT);

/// The cache.
pub(crate) struct Slub {
    table: Table,
    partial: SpinMutex<Partial>,
    /// Slabs that there are.
    slabs: AtomicU32,
    order: SpinMutex<Random>,
}

impl Slub {
    /// A cache without slabs. One at a time.
    pub(crate) fn new() -> Result<Self, Unable> {
        let table = Table::new()?;
        TPIDR_EL0.set(VirtAddr::of(&raw const LOCAL).get());
        let (partial, order) = (SpinMutex::new(Partial::EMPTY), SpinMutex::new(Random::new(6)));
        Ok(Self { table, partial, slabs: AtomicU32::new(0), order })
    }

    /// Allocates an object.
    #[inline(always)]
    pub(crate) fn take<E: CompareExchange>(&self) -> Option<VirtAddr> {
        let object = match E::take() {
            Some(object) => object,
            None => self.take_slow::<E>()?,
        };
        word(object, 0).store(0, Relaxed);
        Some(object)
    }

    /// Frees an object; whether it was one, and in use.
    #[inline(always)]
    pub(crate) fn give<E: CompareExchange>(&self, object: VirtAddr) -> bool {
        match E::give(object) {
            Given::Done => true,
            Given::Elsewhere => self.give_elsewhere::<E>(object),
            Given::Refused => false,
        }
    }

    /// Gives all slabs back that are not in use; how many are. Nobody uses the cache meanwhile.
    pub(crate) fn shrink<E: CompareExchange>(&self) -> u32 {
        let _masked = irq::local_irq_save();
        self.flush::<E>();
        let mut partial = self.partial.lock();
        let mut number = partial.first;
        while number != NONE {
            let next = self.table.next(number);
            if self.table.row(number).get().1.in_use() == 0 {
                self.table.remove(&mut partial, number);
                self.free_slab(number);
            }
            number = next;
        }
        self.slabs.load(Relaxed)
    }

    /// Takes this CPU's slab away, with its objects. Interrupts masked.
    fn flush<E: CompareExchange>(&self) {
        let Some(page) = self.table.page_at(LOCAL.cache.slab.load(Relaxed)) else { return };
        let mut objects = [VirtAddr::ZERO; OBJECTS];
        let mut count = 0;
        while let Some(place) = objects.get_mut(count)
            && let Some(object) = E::take()
        {
            *place = object;
            count += 1;
        }
        self.load(0, 0);
        objects.iter().take(count).for_each(|object| {
            self.give_elsewhere::<E>(*object);
        });
        let row = self.table.row(page.index());
        let (first, counts) = row.get();
        row.replace::<E>((first, counts), (first, counts.thawed()));
        match counts.in_use() {
            0 => self.free_slab(page.index()),
            _ if first != 0 => self.table.insert(&mut self.partial.lock(), page.index()),
            _ => {}
        }
    }

    /// Gets this CPU a slab with free objects, and takes one.
    #[cold]
    #[inline(never)]
    fn take_slow<E: CompareExchange>(&self) -> Option<VirtAddr> {
        loop {
            let masked = irq::local_irq_save();
            self.refill::<E>()?;
            drop(masked);
            // An interrupt that comes here may take them all.
            if let Some(object) = E::take() {
                return Some(object);
            }
        }
    }

    /// Interrupts masked.
    fn refill<E: CompareExchange>(&self) -> Option<()> {
        let cache = &LOCAL.cache;
        if cache.freelist.load(Relaxed) != 0 {
            return Some(());
        }
        if let Some(own) = self.table.page_at(cache.slab.load(Relaxed)) {
            // Objects that other CPUs have freed meanwhile; if none, all its objects are in use, and it is on no list.
            let first = self.take_all::<E>(own.index(), true);
            if first != 0 {
                self.load(first, own.index());
                return Some(());
            }
        }
        let mut partial = self.partial.lock();
        let number = partial.first;
        if number != NONE {
            self.table.remove(&mut partial, number);
            // With the lock held: once it is frozen nobody looks for it on the list.
            let first = self.take_all::<E>(number, false);
            self.load(first, number);
            return Some(());
        }
        drop(partial);
        self.load(0, 0);
        let page = global::alloc_pages(Gfp::ATOMIC, Order::ZERO).ok()?;
        let first = self.prepare(page);
        self.load(first, page.index());
        Some(())
    }

    /// Takes all objects of a slab's shared list for a CPU: the first, or zero. If there are none it is thawed where
    /// `thaw` says so.
    fn take_all<E: CompareExchange>(&self, number: u32, thaw: bool) -> u64 {
        let row = self.table.row(number);
        loop {
            let (first, counts) = row.get();
            let taken = if first == 0 && thaw { Counts::TAKEN.thawed() } else { Counts::TAKEN };
            if row.replace::<E>((first, counts), (0, taken)) {
                return first;
            }
        }
    }

    /// This CPU's list and slab from here on. Interrupts masked; who was interrupted starts again.
    fn load(&self, first: u64, number: u32) {
        let cache = &LOCAL.cache;
        let slab = if first == 0 { 0 } else { VirtAddr::of(self.table.descriptor(number)).get() };
        cache.freelist.store(first, Relaxed);
        cache.slab.store(slab, Relaxed);
        cache.tid.store(cache.tid.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Makes a page a slab, all of whose objects are this CPU's: the first of them.
    fn prepare(&self, page: Page) -> u64 {
        let start = global::page_address(page).get();
        let mut order: [u64; OBJECTS] = core::array::from_fn(|index| start + index as u64 * SIZE);
        self.order.lock().shuffle(&mut order);
        let mut next = 0;
        for object in order {
            store_link(VirtAddr::new(object), next);
            word(VirtAddr::new(object), 0).store(MARK, Relaxed);
            next = object;
        }
        self.table.row(page.index()).set(Counts::TAKEN);
        self.table.descriptor(page.index()).aux().store(((1 << 32) / SIZE) | (SLOT << 40), Relaxed);
        self.slabs.fetch_add(1, Relaxed);
        next
    }

    fn free_slab(&self, number: u32) {
        self.table.descriptor(number).aux().store(0, Relaxed);
        self.slabs.fetch_sub(1, Relaxed);
        let Some(page) = self.table.page(number) else { return };
        if let Err(error) = raw!(global::try_free_pages(page, Order::ZERO)) {
            panic!("a slab: {error}");
        }
    }

    /// Frees an object of a slab that is not this CPU's (Linux: `__slab_free`).
    #[inline(never)]
    fn give_elsewhere<E: CompareExchange>(&self, object: VirtAddr) -> bool {
        let Ok(page) = global::virt_to_page(object) else { return false };
        let number = page.index();
        let row = self.table.row(number);
        word(object, 0).store(MARK, Relaxed);
        loop {
            let (first, counts) = row.get();
            store_link(object, first);
            let less = counts.less_one();
            let was_full = first == 0;
            if counts.is_frozen() || !(was_full || less.in_use() == 0) {
                if row.replace::<E>((first, counts), (object.get(), less)) {
                    return true;
                }
                continue;
            }
            // It comes to the list of slabs, or may leave it.
            let masked = irq::local_irq_save();
            let mut partial = self.partial.lock();
            let done = row.replace::<E>((first, counts), (object.get(), less));
            let mut is_left = false;
            if done && was_full {
                self.table.insert(&mut partial, number);
            } else if done && partial.count > MIN_PARTIAL {
                self.table.remove(&mut partial, number);
                is_left = true;
            }
            drop(partial);
            drop(masked);
            if is_left {
                self.free_slab(number);
            }
            if done {
                return true;
            }
        }
    }
}

impl Drop for Slub {
    fn drop(&mut self) {
        TPIDR_EL0.set(0);
    }
}

/// Makes a free object point to `next`.
fn store_link(object: VirtAddr, next: u64) {
    word(object, LINK).store(next ^ SECRET ^ (object.get() + LINK).swap_bytes(), Relaxed);
}

/// A word of an object.
fn word<'m>(object: VirtAddr, offset: u64) -> &'m AtomicU64 {
    // SAFETY: an object of a slab, of 64 bytes, in the linear map.
    unsafe { AtomicU64::from_ptr(VirtAddr::new(object.get() + offset).as_ptr()) }
}
