//! The caches of a machine: making, finding, merging and destroying them.
//!
//! A cache is known to its slabs by a number. Its record is an object of the first cache, whose own record is part of
//! the allocator.

use super::super::cache::{Cache, Constructor, Node, Registry, array_capacity, depot_magazines, min_partial};
use super::super::cpu::Array;
use super::super::error::{CreateError, DestroyError};
use super::super::object::{CACHE_LINE, CacheId, CacheSet, Shape, SlabFlags};
use super::super::words::Divisor;
use super::super::{SlabAllocator, SlabHal};
use super::kmalloc::KMALLOC_CACHES;
use crate::addr::{CpuId, VirtAddr};
use crate::gfp::Gfp;
use crate::mm::zone::SleepsInAtomic;
use crate::sync::OrderedLock;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};

/// Specification of a cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheSpec {
    /// Name used in reports: not empty, without white space and control characters.
    pub name: &'static str,
    /// Bytes of an object.
    pub size: u32,
    /// Every object starts at a multiple of this: a power of two up to a page, or 0 for the default.
    pub align: u32,
    /// Properties.
    pub flags: SlabFlags,
    /// Initialises an object of a new slab to its state between users.
    pub constructor: Option<Constructor>,
}

/// A handle of a cache. Dropping the handle keeps the cache for good; [`SlabAllocator::destroy`] takes it back.
#[must_use = "a cache that nobody holds cannot be destroyed"]
pub struct CacheHandle<H: SlabHal>(NonNull<Cache<H>>);

impl<H: SlabHal> fmt::Debug for CacheHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache().fmt(f)
    }
}

// SAFETY: a handle is a shared reference to a record of atomics and locks (GLB-1).
unsafe impl<H: SlabHal> Send for CacheHandle<H> {}
// SAFETY: a handle is a shared reference to a record of atomics and locks (GLB-1).
unsafe impl<H: SlabHal> Sync for CacheHandle<H> {}

impl<H: SlabHal> CacheHandle<H> {
    /// The cache.
    #[must_use]
    #[inline(always)]
    pub const fn cache(&self) -> &Cache<H> {
        // SAFETY: GLB-1: the record is there as long as a handle is.
        unsafe { self.0.as_ref() }
    }
}

/// # Invariants
///
/// - `GLB-1`: a record that is in the table is complete and never moves; it leaves the table, and is freed, together with its
///   handle, when the cache has no slab. The cache of records is not in the table: its own record is part of the allocator, and
///   moves with it.
/// - `GLB-2`: code that takes a record out of the table and has neither an object of the cache, a handle nor the lock of the
///   registry, has interrupts masked from before that until after the last use. A record that has left the table is freed when
///   every CPU has answered a request since, and no CPU answers one in the middle of such a use.
impl<H: SlabHal> SlabAllocator<'_, H> {
    /// The cache with this number.
    #[inline]
    pub(in crate::mm::slab) fn cache(&self, id: CacheId) -> Option<&Cache<H>> {
        let record = self.table.get(usize::from(id.get()))?.load(Ordering::Acquire);
        // SAFETY: GLB-1: the caller has an object of the cache, a handle, the lock of the registry, or GLB-2.
        unsafe { record.as_ref() }.or_else(|| self.boot.get().filter(|boot| boot.id == id))
    }

    /// The cache of an entry of the table.
    pub(in crate::mm::slab) fn cache_of<'t>(&'t self, entry: &'t AtomicPtr<Cache<H>>) -> Option<&'t Cache<H>> {
        // SAFETY: GLB-1, as in `cache`.
        unsafe { entry.load(Ordering::Acquire).as_ref() }
    }

    /// The existing caches: a CPU that answers a request checks each of its numbers. A cache that is being made
    /// is among them, or sees the caller's writes before a fence. Any context.
    pub(in crate::mm::slab) fn caches(&self) -> CacheSet {
        let mut set = CacheSet::of(CacheId::BOOT);
        for (number, record) in (0..).zip(&self.table) {
            if !record.load(Ordering::Acquire).is_null() {
                set.add(CacheId::new(number));
            }
        }
        set
    }

    /// Runs `f` for every cache, by number. Caches are neither made nor destroyed meanwhile, so `f` must do neither. Where
    /// sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`SleepsInAtomic`]; `f` has not run then.
    pub fn for_each(&self, f: impl FnMut(&Cache<H>)) -> Result<(), SleepsInAtomic> {
        self.pages.might_sleep("SlabAllocator::for_each")?;
        self.for_each_in(&self.registry.lock(), f);
        Ok(())
    }

    /// The same for a caller that has the lock.
    pub(in crate::mm::slab) fn for_each_in(&self, registry: &Registry, mut f: impl FnMut(&Cache<H>)) {
        for raw in 0..registry.len {
            #[expect(clippy::cast_possible_truncation, reason = "at most MAX_CACHES")]
            if let Some(cache) = self.cache(CacheId::new(raw as u16)) {
                f(cache);
            }
        }
    }

    /// Makes a cache (Linux: `kmem_cache_create`). Where sleeping is allowed; not from an interrupt.
    ///
    /// Unlike Linux's, caches of one shape are never merged: each keeps its name and its slabs, so that a leak at
    /// [`SlabAllocator::destroy`] and a free to the wrong cache are always seen.
    ///
    /// # Errors
    ///
    /// [`CreateError`]. With [`SlabFlags::PANIC`] an error is the end of the kernel.
    pub fn create(&self, spec: &CacheSpec) -> Result<CacheHandle<H>, CreateError> {
        let made = self.try_create(spec);
        if let Err(error) = &made
            && spec.flags.contains(SlabFlags::PANIC)
        {
            #[expect(clippy::panic, reason = "what the caller has asked for")]
            {
                panic!("cache {}: {error}", spec.name);
            }
        }
        made
    }

    fn try_create(&self, spec: &CacheSpec) -> Result<CacheHandle<H>, CreateError> {
        self.pages.might_sleep("SlabAllocator::create").map_err(CreateError::Atomic)?;
        if spec.name.is_empty() || spec.name.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(CreateError::Name);
        }
        if self.boot.get().is_none() {
            return Err(CreateError::NotReady);
        }
        let flags = (spec.flags - SlabFlags::PANIC - SlabFlags::KASAN) | self.tag_flag();
        let shape = self.shape_for(spec.name, flags, |flags| {
            Shape::new(spec.size, spec.align, flags, spec.constructor.is_some(), self.hal().cpus())
        })?;
        // Before the lock: no lock is held while memory is reclaimed.
        let mut memory = Some(self.record_memory()?);
        let made = self.add_named(spec, shape, &mut memory);
        if let Some(unused) = memory {
            self.free_record(unused);
        }
        made.map(CacheHandle)
    }

    /// Memory for the record of a cache.
    pub(super) fn record_memory(&self) -> Result<VirtAddr, CreateError> {
        let boot = self.boot.get().ok_or(CreateError::NotReady)?;
        // The allocator's own memory, whose accesses are not checked.
        self.alloc_object(boot, Gfp::KERNEL).map(|memory| self.untag(memory)).map_err(|_| CreateError::OutOfMemory)
    }

    fn free_record(&self, memory: VirtAddr) {
        if let Some(Err(misuse)) = self.boot.get().map(|boot| self.do_free_object(boot, memory)) {
            self.report(&misuse);
        }
    }

    /// Makes a cache in `memory`, which it takes, unless another one has the name.
    fn add_named(
        &self,
        spec: &CacheSpec,
        shape: Shape,
        memory: &mut Option<VirtAddr>,
    ) -> Result<NonNull<Cache<H>>, CreateError> {
        let mut registry = self.registry.lock();
        let caches = self.table.iter().take(registry.len).filter_map(|entry| self.cache_of(entry));
        if caches.chain(self.boot.get()).any(|cache| cache.name == spec.name) {
            return Err(CreateError::Duplicate);
        }
        let mut free = self.table.iter().enumerate().skip(KMALLOC_CACHES.into());
        let free = free.find(|(_, record)| record.load(Ordering::Relaxed).is_null()).map(|(number, _)| number);
        #[expect(clippy::cast_possible_truncation, reason = "less than MAX_CACHES")]
        let id = CacheId::new(free.ok_or(CreateError::TooMany)? as u16);
        let memory = memory.take().ok_or(CreateError::OutOfMemory)?;
        self.add(&mut registry, id, (spec.name, shape, spec.constructor), memory)
    }

    /// Makes the record of a cache in `memory` and puts it in the table.
    pub(super) fn add(
        &self,
        registry: &mut Registry,
        id: CacheId,
        (name, shape, constructor): (&'static str, Shape, Option<Constructor>),
        memory: VirtAddr,
    ) -> Result<NonNull<Cache<H>>, CreateError> {
        let number = usize::from(id.get());
        let Some(entry) = self.table.get(number) else { return Err(CreateError::TooMany) };
        let cache = self.record(name, id, shape, constructor);
        let record = memory.as_ptr::<Cache<H>>();
        let Some(record) = NonNull::new(record) else { return Err(CreateError::OutOfMemory) };
        // SAFETY: a fresh object of the cache for records: large enough, aligned, and nobody else's.
        unsafe { record.write(cache) };
        // SAFETY: written above.
        let cache = unsafe { record.as_ref() };
        self.share_mark(cache);
        let careful = self.is_careful();
        if id.get() >= KMALLOC_CACHES {
            self.make_arrays(cache, careful);
        }
        // INVARIANT: GLB-1. Release pairs with the acquire in `cache`.
        entry.store(record.as_ptr(), Ordering::Release);
        // Pairs with the fence in `set_careful`: the switch of all arrays finds the record, or is seen here.
        fence(Ordering::SeqCst);
        if self.is_careful() != careful {
            self.drain_all(&CacheSet::of(cache.id));
        }
        registry.len = registry.len.max(number + 1);
        Ok(record)
    }

    /// Gives each CPU the secret of the cache's marks, before the cache has objects.
    fn share_mark(&self, cache: &Cache<H>) {
        let cpus = (0..self.hal().cpus()).map(CpuId::new);
        for local in cpus.filter_map(|cpu| self.hal().local_of(cpu)) {
            Array::new::<H>(local, cache.array).set_mark(cache.mark_secret);
        }
    }

    /// Initial contents of a record.
    pub(super) fn record(
        &self,
        name: &'static str,
        id: CacheId,
        shape: Shape,
        constructor: Option<Constructor>,
    ) -> Cache<H> {
        Cache {
            name,
            id,
            shape,
            constructor,
            array: H::array_offset(id.get()),
            capacity: if shape.is_slow_path_only() { 0 } else { array_capacity(shape.size) },
            min_partial: min_partial(shape.size),
            divisor: Divisor::new(shape.size),
            secret: self.random.next(),
            mark_secret: self.random.next() | 1,
            node: OrderedLock::new(Node::new(depot_magazines(shape.size))),
            arrays_on: AtomicBool::new(false),
        }
    }

    /// Makes the cache of records of caches, once.
    pub(in crate::mm::slab) fn make_boot(&self) -> Option<&Cache<H>> {
        let mut registry = self.registry.lock();
        let size = u32::try_from(size_of::<Cache<H>>()).ok()?;
        let align = CACHE_LINE.max(u32::try_from(align_of::<Cache<H>>()).ok()?);
        let shape = Shape::new(size, align, SlabFlags::NO_MERGE | self.tag_flag(), false, self.hal().cpus()).ok()?;
        // Without arrays: there is no memory for them yet, and records are few.
        let boot =
            self.boot.call_once(|| Cache { capacity: 0, ..self.record("kmem_cache", CacheId::BOOT, shape, None) });
        self.share_mark(boot);
        registry.len = registry.len.max(1);
        Some(boot)
    }

    /// Destroys a cache (Linux: `kmem_cache_destroy`). Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// With the handle, if the cache stays: [`DestroyError::InUse`] if objects of the cache are in use, and
    /// [`DestroyError::Atomic`], which have been reported; [`DestroyError::Foreign`].
    #[inline(never)]
    pub fn destroy(&self, handle: CacheHandle<H>) -> Result<(), (CacheHandle<H>, DestroyError)> {
        let caller = self.hal().return_address();
        if let Err(error) = self.pages.might_sleep("SlabAllocator::destroy") {
            return Err((handle, DestroyError::Atomic(error)));
        }
        let registry = self.registry.lock();
        let cache = handle.cache();
        let entry = self.table.get(usize::from(cache.id.get()));
        let Some(entry) = entry.filter(|entry| entry.load(Ordering::Relaxed) == handle.0.as_ptr()) else {
            return Err((handle, DestroyError::Foreign));
        };
        self.switch_arrays(cache, false);
        self.empty_node(cache, u64::MAX);
        self.free_slabs(self.recover(cache));
        if let Some(left) = self.in_use(cache) {
            self.switch_arrays(cache, true);
            self.report_in_use(cache, &left, caller);
            drop(registry);
            return Err((handle, DestroyError::InUse(left)));
        }
        self.free_arrays(cache);
        // INVARIANT: GLB-1: there is no slab, and the one handle is ours.
        entry.store(core::ptr::null_mut(), Ordering::Release);
        // INVARIANT: GLB-2: a CPU may have found the record in the table before: it has ended when it answers this.
        self.drain_all(&CacheSet::of(cache.id));
        let record = handle.0;
        // SAFETY: GLB-1: nobody else reaches the record from here on.
        unsafe { record.drop_in_place() };
        self.free_record(VirtAddr::of(record.as_ptr()));
        Ok(())
    }
}
