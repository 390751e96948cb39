//! The candidates for the fast path of `kmalloc` and `kfree`, on equal terms: objects of 64 bytes, without the right to wait,
//! every check on. `docs/slab.md` has the figures and says which was taken.
//!
//! - `fast_path/NAME`: a pair, an object that is freed by who has just allocated it.
//! - `fast_path_elsewhere/NAME`: of 1,024 live objects, in slabs that are half full, one after the other in a random order
//!   is freed and another allocated in its place; the steps through the order count too. With slabs of a CPU's own nearly
//!   every free is one to another slab.

mod check;
mod short;
mod slabs;
mod slub;

use crate::heap::random::Random;
use crate::heap::{FAILED, Unable};
use crate::meter::{Figures, Meter};
use crate::rows::Row;
use alloc::vec::Vec;
use core::hint::black_box;
use core::marker::PhantomData;
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::Internal;
use quarry::mm::slab::{ArrayOffset, KmallocCacheType, masked};
use short::{CompareAndSwapPair, CompareExchange, Exclusives};
use slub::Slub;

/// Owner name of the rows: not this kernel, of which one is a part, nor a peer.
const BY: &str = "candidate";

pub(crate) const ROWS: &[Row] = &[
    Row { name: "fast_path/rseq", by: BY, run: pair::<Kmalloc> },
    Row { name: "fast_path/masked", by: BY, run: pair::<Masked> },
    Row { name: "fast_path/cmpxchg", by: BY, run: pair::<Cmpxchg<Exclusives>> },
    Row { name: "fast_path/cmpxchg_casp", by: BY, run: pair::<Cmpxchg<CompareAndSwapPair>> },
    Row { name: "fast_path_elsewhere/rseq", by: BY, run: elsewhere::<Kmalloc> },
    Row { name: "fast_path_elsewhere/masked", by: BY, run: elsewhere::<Masked> },
    Row { name: "fast_path_elsewhere/cmpxchg", by: BY, run: elsewhere::<Cmpxchg<Exclusives>> },
    Row { name: "fast_path_elsewhere/cmpxchg_casp", by: BY, run: elsewhere::<Cmpxchg<CompareAndSwapPair>> },
];

/// Bytes of an object.
const SIZE: usize = 64;
/// Live objects.
const LIVE: usize = 1024;

/// A way of allocating and freeing objects of 64 bytes.
trait Candidate: Sized {
    /// Ready to be measured, once it has been seen to do what it must; that is left out in a trace.
    fn new(check: bool) -> Result<Self, Unable>;

    fn take(&self) -> Option<VirtAddr>;

    /// Whether it was an object in use.
    fn give(&self, object: VirtAddr) -> bool;

    /// Ends it; whether everything was given back.
    fn finish(self) -> bool {
        true
    }
}

/// This kernel's own code: restartable sequences over an array of free objects.
struct Kmalloc;

impl Candidate for Kmalloc {
    fn new(_: bool) -> Result<Self, Unable> {
        Ok(Self)
    }

    #[inline(always)]
    fn take(&self) -> Option<VirtAddr> {
        global::kmalloc(SIZE, Gfp::ATOMIC).ok().map(|object| VirtAddr::of(object.as_ptr()))
    }

    #[inline(always)]
    fn give(&self, object: VirtAddr) -> bool {
        // SAFETY: the rows free what they have allocated, and forget it.
        unsafe { global::kfree(object) };
        true
    }
}

/// The same array with interrupts masked: the functions that a machine without such sequences runs.
struct Masked(ArrayOffset);

impl Candidate for Masked {
    fn new(_: bool) -> Result<Self, Unable> {
        let cache = global::slab_allocator().kmalloc_cache(KmallocCacheType::Normal, SIZE).ok_or(FAILED)?;
        Ok(Self(cache.array()))
    }

    #[inline(always)]
    fn take(&self) -> Option<VirtAddr> {
        // SAFETY: the slot is the cache's, whose objects have their mark in the first word.
        let internal = unsafe { Internal::promised() };
        match masked::pop(internal, global::slab_allocator().hal(), self.0, 0, false) {
            Some(object) => Some(object),
            None => Kmalloc.take(),
        }
    }

    #[inline(always)]
    fn give(&self, object: VirtAddr) -> bool {
        // SAFETY: the rows free what they have allocated, and forget it.
        let internal = unsafe { Internal::promised() };
        masked::push(internal, global::slab_allocator().hal(), object, |_| true) || Kmalloc.give(object)
    }
}

/// A slab of the CPU's own, two words of which are compared and exchanged.
struct Cmpxchg<E>(Slub, PhantomData<E>);

impl<E: CompareExchange> Candidate for Cmpxchg<E> {
    fn new(check: bool) -> Result<Self, Unable> {
        if !E::is_there(&IdRegisters::read()) {
            return Err("the CPU has no such instruction");
        }
        if check {
            check::check::<E>()?;
        }
        Ok(Self(Slub::new()?, PhantomData))
    }

    #[inline(always)]
    fn take(&self) -> Option<VirtAddr> {
        self.0.take::<E>()
    }

    #[inline(always)]
    fn give(&self, object: VirtAddr) -> bool {
        self.0.give::<E>(object)
    }

    fn finish(self) -> bool {
        self.0.shrink::<E>() == 0
    }
}

fn prepare<C: Candidate>(meter: &mut Meter) -> Result<C, Unable> {
    let candidate = C::new(!meter.is_tracing())?;
    meter.begin();
    Ok(candidate)
}

fn pair<C: Candidate>(meter: &mut Meter) -> Result<Figures, Unable> {
    let candidate = prepare::<C>(meter)?;
    let mut done = true;
    let figures = meter.measure(|| match candidate.take() {
        Some(object) => done &= candidate.give(black_box(object)),
        None => done = false,
    });
    if candidate.finish() && done { Ok(figures) } else { Err(FAILED) }
}

fn elsewhere<C: Candidate>(meter: &mut Meter) -> Result<Figures, Unable> {
    let candidate = prepare::<C>(meter)?;
    let mut live = Vec::with_capacity(2 * LIVE);
    for _ in 0..2 * LIVE {
        live.push(candidate.take().ok_or(FAILED)?);
    }
    let mut random = Random::new(7);
    random.shuffle(&mut live);
    let mut done = live.drain(LIVE..).all(|object| candidate.give(object));
    let mut order: Vec<usize> = (0..LIVE).collect();
    random.shuffle(&mut order);
    let mut next = 0;
    let figures = meter.measure(|| {
        let index = order.get(next % LIVE).copied().unwrap_or(0);
        if let Some(place) = live.get_mut(index) {
            done &= candidate.give(*place);
            match candidate.take() {
                Some(object) => *place = object,
                None => done = false,
            }
        }
        next += 1;
    });
    done &= live.into_iter().all(|object| candidate.give(object));
    if candidate.finish() && done { Ok(figures) } else { Err(FAILED) }
}
