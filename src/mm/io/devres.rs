//! What the driver of a device has, given back in reverse when the device goes (Linux: `drivers/base/devres.c`).

use crate::gfp::Gfp;
use crate::mm::alloc::{Allocator, KBox, Stateless};
use crate::mm::slab::AllocError;
use core::cell::Cell;
use core::fmt;

/// Anything that is given back by being dropped.
trait Kept: Send {}

impl<T: Send> Kept for T {}

/// A value, above those that were kept before.
struct Node<T: ?Sized, A: Allocator> {
    below: Top<A>,
    value: T,
}

type Top<A> = Option<KBox<Node<dyn Kept, A>, A>>;

/// What belongs to one device: values of any types, which are dropped last kept first, by [`Devres::release_all`] or when
/// this is dropped. Mapped registers, requested regions, memory, and whatever gives itself back.
///
/// Keeping needs memory, giving back never does. There is no lock: it goes from CPU to CPU, and is used by one at a time.
///
/// # Invariants
///
/// - `DEV-1`: a value stays where it is, and whole, until it is dropped; that needs `&mut`.
pub struct Devres<A: Allocator + Stateless> {
    top: Cell<Top<A>>,
    count: Cell<usize>,
}

/// How many values had been kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(usize);

impl<A: Allocator + Stateless> Default for Devres<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Allocator + Stateless> Devres<A> {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { top: Cell::new(None), count: Cell::new(0) }
    }

    /// Keeps a value, to be used as long as this is borrowed (Linux: `devm_add_action_or_reset`). Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; the value has been dropped then.
    pub fn keep<T: Send + 'static>(&self, value: T, gfp: Gfp) -> Result<&T, AllocError> {
        let node = KBox::<Node<T, A>, A>::into_raw(KBox::new(Node { below: None, value }, gfp)?);
        // SAFETY: of a box with the same allocator, by the line above.
        let mut top: KBox<Node<dyn Kept, A>, A> = unsafe { KBox::from_raw(node as *mut Node<dyn Kept, A>) };
        top.below = self.top.take();
        self.top.set(Some(top));
        self.count.set(self.count.get() + 1);
        // SAFETY: DEV-1: the box is kept, untouched, and is dropped only with `&mut`, when this borrow is over.
        Ok(unsafe { &(*node).value })
    }

    /// How many values there are, for [`Devres::release_to`] (Linux: `devres_open_group`).
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark(self.count.get())
    }

    /// Drops what was kept since `mark`, last kept first (Linux: `devres_release_group`). Any context in which the values
    /// may be dropped.
    pub fn release_to(&mut self, mark: Mark) {
        while self.count.get() > mark.0 {
            let Some(mut top) = self.top.take() else { return };
            // Unlinked before it is dropped: no drop runs inside another.
            self.top.set(top.below.take());
            self.count.set(self.count.get() - 1);
            drop(top);
        }
    }

    /// Drops everything, last kept first.
    pub fn release_all(&mut self) {
        self.release_to(Mark(0));
    }
}

impl<A: Allocator + Stateless> Drop for Devres<A> {
    fn drop(&mut self) {
        self.release_all();
    }
}

impl<A: Allocator + Stateless> fmt::Debug for Devres<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devres").field("kept", &self.mark().0).finish_non_exhaustive()
    }
}
