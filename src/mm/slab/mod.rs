//! The slab allocator: many small objects in few pages (Linux: `mm/slub.c`, SLUB with sheaves).
//!
//! A **cache** has objects of one size. They lie in **slabs**, blocks of one to eight pages with objects side by side. A free
//! object is in one of four places: in the **array** of a CPU, in the cache's **depot**, on the **free list** of its slab, or,
//! if it was never allocated, it is **fresh**.
//!
//! ```text
//!   alloc ── array of this CPU ◄─ magazine ── depot ── slabs with free objects ── page allocator
//!   free  ── array of this CPU ── magazine ─► depot, or the objects' slabs ─► empty slabs ─► page allocator
//! ```
//!
//! The hot path touches the array of the CPU that runs it, the object, and on a free the page's descriptor, which it only
//! reads; it takes no lock and writes no line that another CPU writes. An object that is freed on another CPU than it was
//! allocated on goes into that CPU's array. `kmalloc` is a set of caches and, above 8 KiB, the page allocator.
//!
//! # Checks of a free
//!
//! The page's descriptor says whether the page belongs to a slab, to which cache, and by a multiplication whether an object
//! starts at the address. A free object is *marked*: a word of it holds a secret of the cache, exclusive-ored with the object's
//! address; allocation clears it. A free that finds the mark is a double free: it is reported, and changes nothing. Debugging
//! per cache ([`SlabFlags`]) finds more errors, at a cost; where it is off it costs nothing, since a cache that is debugged has
//! no arrays, so that every call takes the slow path by itself.
//!
//! # Layers
//!
//! From the ground up: a folder imports from those above it in the table, from `hal.rs` and from `error.rs`.
//!
//! | folder | what lives there |
//! |---|---|
//! | `object` | an object: its memory, its slot, and what a cache is made of |
//! | `words` | the words by which a call decides what an address is, without a lock |
//! | `cpu` | the arrays of one CPU, and the fast paths over them |
//! | `cache` | a cache: its record, its node, its slabs |
//! | `depot` | objects that move in numbers: arrays, depot, slabs, page allocator |
//! | `debug` | caches that are debugged |
//! | `calls` | allocation, free, `kmalloc`, making and destroying caches |
//! | `views` | check, figures, pictures |
//!
//! # Words
//!
//! | verb | what moves |
//! |---|---|
//! | pop, push | an object, off or onto this CPU's array |
//! | swap | this CPU's two magazines, with each other |
//! | exchange | a magazine of this CPU, with one of the depot |
//! | fill, drain | an array, from slabs or into them |
//! | take from slab, return | an object, out of its slab's free list or back onto it |
//! | claim | nothing: a word is changed so that the object or block is the caller's alone |
//! | release | memory of magazines, to `kmalloc` |
//! | free slabs | slabs that are empty, to the page allocator |
//!
//! # Switches that make calls take the slow path
//!
//! | of | switch | set |
//! |---|---|---|
//! | a call | flags that are not `is_fast` | by the caller |
//! | a page | a word of zero: `Shape::frees_on_slow_path` | when the slab is made: frees must look at more than the word says |
//! | a cache | `Shape::is_slow_path_only`, and with it a capacity of 0 | when the cache is made: debugging, memory tags |
//! | a cache | `arrays_on` | on when the cache has arrays, off while it is destroyed |
//! | the allocator | `careful` | by fault injection, `init_on_alloc=`, `init_on_free=` |
//! | an array of a CPU | `Array::is_off`: what the fast path sees of all the switches of caches and of the allocator | when the CPU drains |
//!
//! # Locks and contexts
//!
//! A CPU's arrays are its own. Each cache has one lock, taken with interrupts masked; no lock is held while pages are
//! allocated or freed, or a constructor runs. The registry's lock is taken by callers that make or destroy a cache, where
//! sleeping is allowed, and is outside all others. So allocating without the right to wait, and freeing, are allowed
//! everywhere: in interrupt handlers, with locks held, on any CPU.

mod object;

mod words;

mod cpu;
mod hal;

mod cache;

mod debug;
mod depot;

mod calls;

mod error;
mod views;

pub use cache::{Cache, Constructor, NodeEvents};
pub use calls::{
    CacheHandle, CacheSpec, KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE, KMALLOC_MIN_SIZE, KMALLOC_SIZES,
    KmallocCacheType, kmalloc_index, kmalloc_size,
};
pub use cpu::{CpuSlabs, masked};
pub use debug::Findings;
pub use error::{CreateError, DestroyError, InUse, Misuse, SlabAllocError, SlabBroken};
pub use hal::SlabHal;
pub use object::{MAX_CACHES, SlabFlags};
pub use views::{CacheInfo, Objects, SlabInfo, Slot};
pub use words::{ArrayHeader, ArrayOffset, CacheObjects, SlabWord};

use crate::mm::zone::PageAllocator;
use crate::sync::Once;
use crate::sync::{OrderedLock, class};
use cache::{Cache as CacheRecord, Node, Registry, Table};
use core::sync::atomic::{AtomicBool, Ordering};
use debug::DebugChoice;
use object::Random;

/// Boot arguments about slabs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlabOptions {
    /// `slub_debug=`: flags, and after a comma the names of caches; `None` if it is absent.
    pub debug: Option<&'static str>,
    /// `init_on_alloc=`: all objects and blocks are zeroed when they are allocated.
    pub init_on_alloc: bool,
    /// `init_on_free=`: all objects and blocks are zeroed when they are freed.
    pub init_on_free: bool,
    /// `panic_on_warn=`: misuse of an object ends the kernel.
    pub panic_on_misuse: bool,
}

/// The slab allocator of a machine, over its page allocator.
///
/// # Invariants
///
/// `SLAB-1` to `SLAB-4` of the nodes, `ARR-1` and `ARR-2` of the arrays, `WORD-1` of the page descriptors;
/// [`SlabAllocator::check`] tests them all.
pub struct SlabAllocator<'p, H: SlabHal> {
    pages: &'p PageAllocator<H>,
    /// The cache of records of caches.
    boot: Once<CacheRecord<H>, H::Relax>,
    table: Table<H>,
    registry: OrderedLock<Registry, class::SlabRegistry, H::Relax>,
    random: Random,
    careful: AtomicBool,
    init_on_alloc: AtomicBool,
    init_on_free: AtomicBool,
    panic_on_misuse: AtomicBool,
    debug: Once<DebugChoice, H::Relax>,
}

impl<'p, H: SlabHal> SlabAllocator<'p, H> {
    /// An allocator without caches: it refuses everything until [`SlabAllocator::start`].
    pub const fn new(pages: &'p PageAllocator<H>) -> Self {
        Self {
            pages,
            boot: Once::new(),
            table: [const { core::sync::atomic::AtomicPtr::new(core::ptr::null_mut()) }; MAX_CACHES],
            registry: OrderedLock::new(Registry::new()),
            random: Random::new(),
            careful: AtomicBool::new(false),
            init_on_alloc: AtomicBool::new(false),
            init_on_free: AtomicBool::new(false),
            panic_on_misuse: AtomicBool::new(false),
            debug: Once::new(),
        }
    }

    /// Makes the first caches. Once, when the page allocator is up and every CPU that may ever run has its data; by the boot
    /// CPU, while no other runs.
    ///
    /// # Errors
    ///
    /// [`CreateError::OutOfMemory`].
    pub fn start(&self, options: SlabOptions) -> Result<(), CreateError> {
        self.random.seed(self.hal().entropy());
        self.debug.call_once(|| DebugChoice::parse(options.debug));
        self.init_on_alloc.store(options.init_on_alloc, Ordering::Relaxed);
        self.init_on_free.store(options.init_on_free, Ordering::Relaxed);
        self.panic_on_misuse.store(options.panic_on_misuse, Ordering::Relaxed);
        self.careful.store(options.init_on_alloc || options.init_on_free, Ordering::Relaxed);
        self.make_boot().ok_or(CreateError::OutOfMemory)?;
        self.make_kmalloc_caches()
    }

    /// The machine.
    #[inline(always)]
    pub const fn hal(&self) -> &H {
        self.pages.hal()
    }

    /// The page allocator below.
    pub const fn pages(&self) -> &'p PageAllocator<H> {
        self.pages
    }

    fn is_careful(&self) -> bool {
        self.careful.load(Ordering::Relaxed)
    }

    fn zeroes_on_alloc(&self) -> bool {
        self.init_on_alloc.load(Ordering::Relaxed)
    }

    fn zeroes_on_free(&self) -> bool {
        self.init_on_free.load(Ordering::Relaxed)
    }

    /// Runs `f` with the node of a cache locked and interrupts masked.
    fn with_node<R>(&self, cache: &Cache<H>, f: impl FnOnce(&mut Node) -> R) -> R {
        let saved = self.hal().save();
        let result = f(&mut cache.node.lock());
        self.hal().restore(saved);
        result
    }
}
