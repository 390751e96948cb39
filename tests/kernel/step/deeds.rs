//! The deeds of an interrupt, and the things that it and the caller allocate and free by them.
#![expect(clippy::indexing_slicing, reason = "a test that runs out of its own places has failed")]

use core::ptr::NonNull;
use quarry::addr::VirtAddr;
use spin::mutex::SpinMutex;

/// Things that somebody has, by address: the caller, or the interrupt.
pub(super) struct Held {
    pub(super) items: [u64; 512],
    pub(super) len: usize,
}

impl Held {
    pub(super) const fn new() -> Self {
        Self { items: [0; 512], len: 0 }
    }

    pub(super) fn push(&mut self, item: u64) {
        self.items[self.len] = item;
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> u64 {
        self.len -= 1;
        self.items[self.len]
    }
}

pub(super) static HELD: SpinMutex<Held> = SpinMutex::new(Held::new());

/// A way to allocate and a way to free: which must fit each other.
pub(super) struct Calls {
    pub(super) alloc: fn(&mut [NonNull<u8>]),
    pub(super) free: fn(&[NonNull<u8>]),
    /// How many in one call.
    pub(super) count: usize,
    /// Numbers of cached objects at which paths differ.
    pub(super) states: &'static [usize],
    /// Call of an interrupt handler, which may not wait: one for each kind.
    pub(super) handler_alloc: fn() -> u64,
    pub(super) handler_free: fn(u64),
    /// Whether the caller's calls have restartable sequences; `None` if only their slow paths have.
    pub(super) restarts: Option<bool>,
}

/// The thing that is allocated and freed.
pub(super) trait Pool {
    /// Bytes of one that the test fills.
    const SIZE: usize;
    /// Number cached on this CPU.
    fn at_hand() -> usize;
    /// How many are in use.
    fn in_use() -> u64;
    /// Drains the cached ones, where sleeping is allowed.
    fn shrink();
    /// Drains them anywhere.
    fn drain();
    /// Tests every invariant.
    fn check();
    /// Whether an operation on so many from a state has about a hundred instructions more.
    fn takes_the_long_way(operation: Operation, state: usize, count: usize) -> bool {
        if operation == Operation::Alloc { state < count } else { state + count > Self::FULL }
    }
    /// Maximum number cached.
    const FULL: usize;
    /// More than that.
    const MANY: usize;
}

/// Action of the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    Take,
    TakeTwo,
    Give,
    GiveTwo,
    /// The count is the same afterwards, and so is what lies on top.
    TakeAndGive,
    /// The count is the same afterwards, and something else lies on top.
    Exchange,
    /// The other way round: what lies on top is another than before.
    GiveAndTake,
    /// A number that empties all caches.
    TakeMany,
    /// So many that there is no room.
    GiveMany,
    /// What memory is at hand is drained, as another CPU may ask.
    Drain,
}

pub(super) const DEEDS: [Deed; 10] = [
    Deed::Take,
    Deed::TakeTwo,
    Deed::Give,
    Deed::GiveTwo,
    Deed::TakeAndGive,
    Deed::Exchange,
    Deed::GiveAndTake,
    Deed::TakeMany,
    Deed::GiveMany,
    Deed::Drain,
];

impl Deed {
    /// Whether it goes beyond the caches: the actions that are tried in the slow paths too.
    pub(super) const fn moves_much(self) -> bool {
        matches!(self, Self::TakeMany | Self::GiveMany | Self::Drain)
    }

    pub(super) fn run<P: Pool>(self, calls: &Calls) {
        let mut held = HELD.lock();
        let take = |held: &mut Held, count: usize| (0..count).for_each(|_| held.push((calls.handler_alloc)()));
        let give = |held: &mut Held, count: usize| (0..count).for_each(|_| (calls.handler_free)(held.pop()));
        match self {
            Self::Take => take(&mut held, 1),
            Self::TakeTwo => take(&mut held, 2),
            Self::Give => give(&mut held, 1),
            Self::GiveTwo => give(&mut held, 2),
            Self::TakeAndGive => {
                take(&mut held, 1);
                give(&mut held, 1);
            }
            Self::Exchange => {
                take(&mut held, 2);
                let (second, first) = (held.pop(), held.pop());
                (calls.handler_free)(first);
                (calls.handler_free)(second);
            }
            Self::GiveAndTake => {
                give(&mut held, 2);
                take(&mut held, 2);
            }
            Self::TakeMany => take(&mut held, P::MANY),
            Self::GiveMany => give(&mut held, P::MANY),
            Self::Drain => P::drain(),
        }
    }
}

/// The caller's operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Alloc,
    Free,
}

pub(super) fn pointer(object: u64) -> NonNull<u8> {
    NonNull::new(VirtAddr::new(object).as_ptr()).expect("an object")
}

pub(super) fn name(object: NonNull<u8>) -> u64 {
    object.addr().get() as u64
}

/// The most in one call.
pub(super) const MOST: usize = 40;
