//! The pool: allocating, freeing, changing the size of the reserve.

use super::backing::Backing;
use super::error::{NotFreed, PoolCreateError, PoolDestroyError, PoolEmpty, PoolResizeError};
use super::poison::{Element, Seal};
use super::reserve::Reserve;
use crate::addr::{Order, VirtAddr};
use crate::gfp::Gfp;
use crate::hal::wait::{Wait, WaitQueue};
use crate::mm::alloc::{KVec, Refused};
use crate::mm::slab::{SlabAllocator, SlabHal};
use crate::sync::{CHECKED, OrderedLock, class};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// A pool's interface to a machine.
pub trait PoolHal: SlabHal + Wait {}

impl<H: SlabHal + Wait> PoolHal for H {}

/// Specification of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolSpec {
    /// Name used in reports.
    pub name: &'static str,
    /// Elements that the reserve holds, at least one (Linux: `min_nr`).
    pub min: u32,
    /// Flags for allocating the elements of the reserve: [`Gfp::KERNEL`], with [`Gfp::DMA`] where elements must be DMA memory.
    pub gfp: Gfp,
    /// Whether elements of the reserve are filled with a pattern, and all of it is looked at when they leave it. Without
    /// that their first word alone is.
    pub poison: bool,
}

impl PoolSpec {
    /// A pool with a reserve of `min` elements, of any memory. Poisoned in the checking build.
    #[must_use]
    pub const fn new(name: &'static str, min: u32) -> Self {
        Self { name, min, gfp: Gfp::KERNEL, poison: CHECKED }
    }

    /// The same, poisoned in every build, or in none.
    #[must_use]
    pub const fn with_poison(mut self, poison: bool) -> Self {
        self.poison = poison;
        self
    }
}

/// State of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolStats {
    /// Elements that the reserve shall hold (Linux: `min_nr`).
    pub min: u32,
    /// Elements that it holds (Linux: `curr_nr`).
    pub reserve: u32,
    /// Damaged elements that were found in it and are lost.
    pub set_aside: u32,
}

type List<'s, H> = KVec<Element, &'s SlabAllocator<'s, H>>;

/// State of a pool before and after its end: any other value is not a pool's.
const ALIVE: u32 = 0x706f_6f6c;
const DESTROYED: u32 = 0xdead_706f;

/// A pool of elements that are pointers (Linux: `mempool_t`). [`Mempool`](super::Mempool) has values in them.
///
/// Dropping it frees its reserve, even while elements are in use; [`RawMempool::destroy`] refuses then.
///
/// # Invariants
///
/// - `POOL-1`, `POOL-3` of the reserve, `POOL-4` of its elements.
/// - `POOL-2`: `lacking` is the number of elements that the reserve lacked when its lock was last free.
/// - `POOL-5`: a free that puts an element into the reserve wakes the waiters afterwards, and a waiter checks the reserve after
///   it has been counted (`WAIT-1`). A context waits only after it found the reserve empty, so elements are lacking then, and
///   each free fills it.
///
/// [`RawMempool::check`] tests them.
pub struct RawMempool<'s, H: PoolHal, B: Backing> {
    pub(super) slabs: &'s SlabAllocator<'s, H>,
    backing: ManuallyDrop<B>,
    pub(super) lacking: AtomicU32,
    state: AtomicU32,
    /// Elements in use, which the checking build alone counts.
    out: AtomicU32,
    freed: WaitQueue,
    pub(super) reserve: OrderedLock<Reserve<&'s SlabAllocator<'s, H>>, class::Mempool, H::Relax>,
    name: &'static str,
    gfp: Gfp,
    poison: bool,
    seal: Seal,
}

/// Elements that a list has room for. An address space has room for 2^32 pointers.
const fn room_for(min: u32) -> usize {
    min as usize
}

impl<'s, H: PoolHal, B: Backing> RawMempool<'s, H, B> {
    /// Makes a pool, and allocates its reserve (Linux: `mempool_create`). Where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// With the backing, [`PoolCreateError`]; the elements allocated for the reserve have been freed then.
    pub fn create(
        slabs: &'s SlabAllocator<'s, H>,
        spec: &PoolSpec,
        backing: B,
    ) -> Result<Self, Refused<B, PoolCreateError>> {
        let list = match slabs.pages().might_sleep("RawMempool::create") {
            Err(error) => Err(PoolCreateError::Atomic(error)),
            Ok(()) if spec.min == 0 => Err(PoolCreateError::NoElements),
            Ok(()) => List::<'s, H>::with_capacity_in(room_for(spec.min), Gfp::KERNEL | Gfp::NOWARN, slabs)
                .map_err(PoolCreateError::from),
        };
        let list = match list {
            Ok(list) => list,
            Err(error) => return Err(Refused { value: backing, error }),
        };
        let PoolSpec { name, min, gfp, poison } = *spec;
        // An element of the reserve may hold anything, and there are to be all or none.
        let gfp = (gfp - Gfp::ZERO - Gfp::NOFAIL) | Gfp::NOWARN;
        let seal = Seal::new(poison);
        let pool = Self {
            slabs,
            backing: ManuallyDrop::new(backing),
            lacking: AtomicU32::new(min),
            state: AtomicU32::new(ALIVE),
            out: AtomicU32::new(0),
            freed: WaitQueue::new(),
            reserve: OrderedLock::new(Reserve::new(list, min)),
            name,
            gfp,
            poison,
            seal,
        };
        if pool.fill() {
            return Ok(pool);
        }
        Err(Refused { value: pool.dissolve(), error: PoolCreateError::OutOfMemory })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its backing.
    #[must_use]
    pub fn backing(&self) -> &B {
        &self.backing
    }

    pub(super) const fn poison(&self) -> bool {
        self.poison
    }

    /// Its current state. Any context.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.locked(|reserve| PoolStats {
            min: reserve.wanted(),
            reserve: reserve.count(),
            set_aside: reserve.set_aside(),
        })
    }

    /// Allocates an element, whose content is undefined (Linux: `mempool_alloc`). Context as `gfp` says; with
    /// [`Gfp::DIRECT_RECLAIM`] it waits until there is one. Cost: two instructions more than the backing's fast path.
    ///
    /// # Errors
    ///
    /// [`PoolEmpty`]: without the right to wait [`PoolEmpty::Empty`]; with it only for bad flags, and where no CPU is left that
    /// could free an element.
    #[inline(always)]
    pub fn alloc(&self, gfp: Gfp) -> Result<NonNull<u8>, PoolEmpty> {
        if gfp.check().is_ok()
            && !gfp.contains(Gfp::ZERO)
            && let Some(element) = self.backing.alloc_at_hand(gfp)
        {
            self.count_out(1);
            return Ok(element);
        }
        self.alloc_slow(gfp)
    }

    /// Takes an element out of the reserve, without a look at the backing (Linux: `mempool_alloc_preallocated`); `None` if
    /// it is empty. Any context.
    pub fn alloc_preallocated(&self) -> Option<NonNull<u8>> {
        self.take_reserved(self.slabs.hal().return_address()).inspect(|_| self.count_out(1))
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, gfp: Gfp) -> Result<NonNull<u8>, PoolEmpty> {
        let caller = self.slabs.hal().return_address();
        gfp.check().map_err(PoolEmpty::Flags)?;
        if gfp.contains(Gfp::ZERO) {
            return Err(PoolEmpty::Zero);
        }
        let waits = gfp.may_wait() && self.may_wait(gfp);
        // The pool has a reserve of its own, so it neither takes from the zones' reserve nor waits or searches for long.
        let brief = (gfp - Gfp::NOFAIL - Gfp::RETRY_MAYFAIL) | Gfp::NOMEMALLOC | Gfp::NORETRY | Gfp::NOWARN;
        let never_waits = brief - Gfp::DIRECT_RECLAIM - Gfp::IO;
        let at_once = || self.backing.alloc(never_waits).or_else(|| self.take_reserved(caller));
        let mut element = at_once();
        if element.is_none() && waits {
            let wait = || self.wait_for_element(gfp, never_waits, caller);
            element = self.backing.alloc(brief).or_else(wait);
        }
        let element = element.ok_or(if waits { PoolEmpty::WouldNeverWake } else { PoolEmpty::Empty })?;
        self.count_out(1);
        Ok(element)
    }

    /// Whether the caller may wait where it is; it is reported if not.
    fn may_wait(&self, gfp: Gfp) -> bool {
        let may = self.slabs.may_wait();
        if !may {
            self.slabs.hal().waits_in_atomic(gfp, Order::ZERO);
        }
        may
    }

    /// Waits until an element is freed, or until there is memory again. Where nobody would, the last means that the flags allow
    /// are tried, the OOM hook among them.
    fn wait_for_element(&self, gfp: Gfp, never_waits: Gfp, caller: VirtAddr) -> Option<NonNull<u8>> {
        let mut element = None;
        let _ = self.slabs.hal().wait(&self.freed, &mut || {
            // INVARIANT: POOL-5.
            element = element.or_else(|| self.take_reserved(caller)).or_else(|| self.backing.alloc(never_waits));
            element.is_some()
        });
        element.or_else(|| self.backing.alloc(gfp - Gfp::NOFAIL)).or_else(|| self.take_reserved(caller))
    }

    /// An element of the reserve that nobody has written to since it came there.
    fn take_reserved(&self, caller: VirtAddr) -> Option<NonNull<u8>> {
        loop {
            let element = self.locked(Reserve::take)?;
            let Some(damage) = element.damage(self.poison) else {
                element.unseal(self.poison);
                // Pairs with the fence in `free`: any later owner of this element sees that the reserve lacks it.
                fence(Ordering::Release);
                return Some(element.pointer());
            };
            self.locked(Reserve::set_one_aside);
            self.report(format_args!(
                "mempool poison overwritten: byte {} of the element at {} is {:#04x} instead of {:#04x}: it was written to \
                 after it was freed, and is set aside",
                damage.offset,
                element.addr(),
                damage.found,
                damage.expected
            ), caller);
        }
    }

    /// [`Self::free`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline(always)]
    pub(crate) fn do_free(&self, element: NonNull<u8>) -> Result<(), NotFreed> {
        // Pairs with the fence in `take_reserved`. Where the element came here by anything with an order it does nothing.
        fence(Ordering::Acquire);
        let looks_reserved = self.backing.first_word(element) == self.seal.word(element);
        if self.lacking.load(Ordering::Relaxed) != 0 || looks_reserved {
            return self.free_slow(element);
        }
        self.count_out(1_u32.wrapping_neg());
        // SAFETY: an element of the backing that nobody uses, as the caller of the raw call promises.
        unsafe { self.backing.free(element) };
        Ok(())
    }

    /// Frees an element while the reserve lacks some, or one that looks as if it were there.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, element: NonNull<u8>) -> Result<(), NotFreed> {
        let at = VirtAddr::of(element.as_ptr());
        if self.state.load(Ordering::Relaxed) != ALIVE {
            return Err(NotFreed::Destroyed(at));
        }
        self.backing.verify(element).map_err(|why| NotFreed::Foreign { at, why })?;
        // SAFETY: POOL-4: verified, and nobody uses it, as the caller of the raw call promises.
        let element = unsafe { Element::new(element, self.backing.bytes()) };
        if element.looks_sealed(self.poison) && self.locked(|reserve| reserve.holds(element)) {
            return Err(NotFreed::InReserve(at));
        }
        self.count_out(1_u32.wrapping_neg());
        element.seal(self.poison);
        match self.locked(|reserve| reserve.put(element)) {
            // INVARIANT: POOL-5.
            Ok(()) => Wait::wake(self.slabs.hal(), &self.freed),
            // Others were faster.
            Err(element) => self.give_back(element),
        }
        Ok(())
    }

    /// [`Self::do_free`], with a report of an error.
    #[inline(always)]
    pub(crate) fn do_free_reported(&self, element: NonNull<u8>) {
        if let Err(wrong) = self.do_free(element) {
            self.report_free(&wrong);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn report_free(&self, wrong: &NotFreed) {
        self.report(format_args!("{wrong}"), self.slabs.hal().return_address());
    }

    /// Lets the reserve hold `min` elements from now on (Linux: `mempool_resize`). A larger one is filled as far as there is
    /// memory, and for the rest by the next frees; of a smaller one the surplus goes back. Where sleeping is allowed; others
    /// may allocate and free meanwhile.
    ///
    /// # Errors
    ///
    /// [`PoolResizeError`]; the reserve is as large as before then.
    pub fn resize(&self, min: u32) -> Result<(), PoolResizeError> {
        self.slabs.pages().might_sleep("RawMempool::resize").map_err(PoolResizeError::Atomic)?;
        if min == 0 {
            return Err(PoolResizeError::NoElements);
        }
        let larger = if room_for(min) > self.locked(|reserve| reserve.room()) {
            let gfp = Gfp::KERNEL | Gfp::NOWARN;
            List::<'s, H>::with_capacity_in(room_for(min), gfp, self.slabs).map_err(|_| PoolResizeError::OutOfMemory)?
        } else {
            List::<'s, H>::new_in(self.slabs)
        };
        // Freed without the lock.
        drop(self.locked(|reserve| reserve.resize(min, larger)));
        while let Some(element) = self.locked(Reserve::take_surplus) {
            self.give_back(element);
        }
        self.fill();
        Ok(())
    }

    /// Gives the pool up: its reserve goes back to the backing, which is given back too (Linux: `mempool_destroy`). Where
    /// sleeping is allowed.
    ///
    /// # Errors
    ///
    /// With the pool, which is unchanged: [`PoolDestroyError`]; elements in use have been reported.
    #[inline(never)]
    #[expect(clippy::result_large_err, reason = "the pool comes back as it was, by value")]
    pub fn destroy(self) -> Result<B, (Self, PoolDestroyError)> {
        let caller = self.slabs.hal().return_address();
        if let Err(error) = self.slabs.pages().might_sleep("RawMempool::destroy") {
            return Err((self, PoolDestroyError::Atomic(error)));
        }
        let missing = self.missing();
        if missing != 0 {
            self.report(format_args!("pool destroyed with {missing} elements in use"), caller);
            return Err((self, PoolDestroyError::InUse { missing }));
        }
        Ok(self.dissolve())
    }

    /// The backing of a pool that ends.
    fn dissolve(self) -> B {
        let mut this = ManuallyDrop::new(self);
        this.end();
        // SAFETY: `end` has given up all else that a drop would, and nobody uses the pool any more.
        unsafe { ManuallyDrop::take(&mut this.backing) }
    }

    /// Elements in use, as far as is known.
    fn missing(&self) -> u32 {
        if CHECKED { self.out.load(Ordering::Relaxed) } else { self.locked(|reserve| reserve.owed()) }
    }

    /// Frees everything that the pool has, except the backing itself.
    fn end(&mut self) {
        while let Some(element) = self.locked(Reserve::empty) {
            self.give_back(element);
        }
        let none = List::<'s, H>::new_in(self.slabs);
        drop(self.locked(|reserve| reserve.replace_list(none)));
        self.state.store(DESTROYED, Ordering::Relaxed);
        // So that each free goes the slow way, which looks at the state.
        self.lacking.store(u32::MAX, Ordering::Relaxed);
    }

    /// Fills the reserve from the backing. Returns whether it is full.
    fn fill(&self) -> bool {
        while self.lacking.load(Ordering::Relaxed) != 0 {
            let Some(element) = self.backing.alloc(self.gfp) else { return false };
            // SAFETY: POOL-4: just allocated.
            let element = unsafe { Element::new(element, self.backing.bytes()) };
            element.seal(self.poison);
            match self.locked(|reserve| reserve.fill(element)) {
                // INVARIANT: POOL-5.
                Ok(()) => Wait::wake(self.slabs.hal(), &self.freed),
                Err(element) => self.give_back(element),
            }
        }
        true
    }

    fn give_back(&self, element: Element) {
        element.unseal(self.poison);
        // SAFETY: POOL-4: the backing's, without another owner.
        unsafe { self.backing.free(element.pointer()) };
    }

    #[inline(always)]
    fn count_out(&self, by: u32) {
        if CHECKED {
            self.out.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Runs `f` with the reserve locked and interrupts masked.
    pub(super) fn locked<R>(&self, f: impl FnOnce(&mut Reserve<&'s SlabAllocator<'s, H>>) -> R) -> R {
        let saved = self.slabs.hal().save();
        let mut reserve = self.reserve.lock();
        let result = f(&mut reserve);
        // INVARIANT: POOL-2.
        self.lacking.store(reserve.lacking(), Ordering::Relaxed);
        drop(reserve);
        self.slabs.hal().restore(saved);
        result
    }

    /// Rule, object, owner and caller.
    fn report(&self, what: fmt::Arguments<'_>, caller: VirtAddr) {
        let code = Code { hal: self.slabs.hal(), at: caller };
        self.slabs.hal().print(format_args!("{what}; mempool \"{}\", by {code}", self.name));
    }
}

impl<H: PoolHal, B: Backing> Drop for RawMempool<'_, H, B> {
    fn drop(&mut self) {
        let missing = self.missing();
        if missing != 0 {
            let caller = self.slabs.hal().return_address();
            self.report(format_args!("pool dropped with {missing} elements in use"), caller);
        }
        self.end();
        // SAFETY: not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.backing) };
    }
}

impl<H: PoolHal, B: Backing> fmt::Debug for RawMempool<'_, H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMempool").field("name", &self.name).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// An address in the code as the machine writes it.
struct Code<'h, H> {
    hal: &'h H,
    at: VirtAddr,
}

impl<H: SlabHal> fmt::Display for Code<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hal.fmt_code(self.at, f)
    }
}
