//! A tree that all CPUs share.
#![forbid(unsafe_code)]

use super::{Request, ResourceError, ResourceFlags, ResourceId, ResourceInfo, ResourceRecord, ResourceTree, Span};
use crate::addr::PhysAddr;
use crate::ds::Broken;
use crate::hal::cpu::Interrupts;
use crate::sync::{LockHal, OrderedLock, class};
use core::fmt;

/// Records in the first array, more than small machines have ranges; each further one is twice as long.
const FIRST_ROW: usize = 128;

/// A registry's interface to a machine.
pub trait ResourceHal<'a>: Interrupts {
    /// Way of waiting for a lock.
    type Relax: LockHal;

    /// Memory for `count` records, never freed, or `None`.
    fn row(&self, count: usize) -> Option<&'a mut [ResourceRecord<'a>]>;
}

/// A [`ResourceTree`] under a lock, which allocates its memory itself. Any context.
pub struct Resources<'a, H: ResourceHal<'a>> {
    hal: H,
    tree: OrderedLock<ResourceTree<'a>, class::ResourceTree, H::Relax>,
}

impl<'a, H: ResourceHal<'a>> Resources<'a, H> {
    /// A registry of `span`.
    pub const fn new(hal: H, span: Span, name: &'a str, flags: ResourceFlags) -> Self {
        Self { hal, tree: OrderedLock::new(ResourceTree::new(span, name, flags)) }
    }

    /// Runs `f` with the tree locked and interrupts masked. `f` must not wait, nor call this registry.
    pub fn with<R>(&self, f: impl FnOnce(&mut ResourceTree<'a>) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.tree.lock());
        self.hal.restore(saved);
        result
    }

    /// [`Resources::with`] for calls that may need a record: repeated as long as records were short and memory for more was
    /// found.
    ///
    /// # Errors
    ///
    /// The errors of `f`; [`ResourceError::NoMemory`] if there is no memory for a record.
    pub fn enter<R>(
        &self,
        mut f: impl FnMut(&mut ResourceTree<'a>) -> Result<R, ResourceError<'a>>,
    ) -> Result<R, ResourceError<'a>> {
        loop {
            let result = self.with(&mut f);
            if !matches!(result, Err(ResourceError::NoMemory)) {
                return result;
            }
            let rows = self.with(|tree| tree.rows());
            let row = self.hal.row(FIRST_ROW << rows).ok_or(ResourceError::NoMemory)?;
            if !self.with(|tree| tree.add_row(row)) {
                return result;
            }
        }
    }

    /// [`ResourceTree::request_region`] of the whole registry.
    ///
    /// # Errors
    ///
    /// The errors of [`ResourceTree::request_region`].
    pub fn request_region(&self, request: &Request<'a>) -> Result<ResourceId, ResourceError<'a>> {
        self.enter(|tree| tree.request_region(tree.root(), request))
    }

    /// [`ResourceTree::release_region`] of the whole registry.
    ///
    /// # Errors
    ///
    /// The errors of [`ResourceTree::release_region`].
    pub fn release_region(&self, span: Span) -> Result<(), ResourceError<'a>> {
        self.with(|tree| tree.release_region(tree.root(), span))
    }

    /// [`ResourceTree::insert`] into the whole registry.
    ///
    /// # Errors
    ///
    /// The errors of [`ResourceTree::insert`].
    pub fn insert(&self, request: &Request<'a>) -> Result<ResourceId, ResourceError<'a>> {
        self.enter(|tree| tree.insert(tree.root(), request))
    }

    /// [`ResourceTree::release`].
    ///
    /// # Errors
    ///
    /// The errors of [`ResourceTree::release`].
    pub fn release(&self, id: ResourceId) -> Result<(), ResourceError<'a>> {
        self.with(|tree| tree.release(id))
    }

    /// [`ResourceTree::at`].
    #[must_use]
    pub fn at(&self, addr: PhysAddr) -> Option<ResourceInfo<'a>> {
        self.with(|tree| tree.at(addr))
    }

    /// [`ResourceTree::check`].
    ///
    /// # Errors
    ///
    /// The errors of [`ResourceTree::check`].
    pub fn check(&self) -> Result<(), Broken> {
        self.with(|tree| tree.check())
    }
}

impl<'a, H: ResourceHal<'a>> fmt::Debug for Resources<'a, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources").field("ranges", &self.with(|tree| tree.len())).finish_non_exhaustive()
    }
}
