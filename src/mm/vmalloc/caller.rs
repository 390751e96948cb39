//! Requester of an area, stored so that several CPUs may read it.

use core::panic::Location;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A place in the source, or none.
///
/// # Invariants
///
/// - `CALLER-1`: the pointer is null or was a `&'static Location`.
pub(super) struct Caller(AtomicPtr<Location<'static>>);

impl Caller {
    pub(super) const fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(super) fn set(&self, location: Option<&'static Location<'static>>) {
        // INVARIANT: CALLER-1.
        self.0
            .store(location.map_or(ptr::null_mut(), |location| ptr::from_ref(location).cast_mut()), Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<&'static Location<'static>> {
        // SAFETY: CALLER-1: null, or good for ever and never written; the acquire pairs with the release of `set`.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}
