//! Records for a call: allocated before it changes anything, so that nothing fails halfway.
#![forbid(unsafe_code)]

use super::vma::Vma;
use super::{MapError, VmaSource};
use crate::ds::rbtree::{Chain, Owned};
use crate::gfp::Gfp;

/// Records that are in no tree. [`Records::give_back`] ends their use.
#[must_use = "records that are dropped are lost"]
pub(super) struct Records<'a>(Chain<'a, Vma>);

impl<'a> Records<'a> {
    /// None.
    pub(super) const fn none() -> Self {
        Self(Chain::new())
    }

    /// So many.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`]; those that were taken have been given back.
    #[inline]
    pub(super) fn take(with: &impl VmaSource<'a>, count: usize) -> Result<Self, MapError> {
        let mut records = Self::none();
        for _ in 0..count {
            match with.take(Gfp::KERNEL_ACCOUNT) {
                Some(record) => records.0.push_front(record),
                None => {
                    records.give_back(with);
                    return Err(MapError::NoMemory);
                }
            }
        }
        Ok(records)
    }

    /// One more.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`].
    #[inline(always)]
    pub(super) fn take_one(&mut self, with: &impl VmaSource<'a>) -> Result<(), MapError> {
        self.0.push_front(with.take(Gfp::KERNEL_ACCOUNT).ok_or(MapError::NoMemory)?);
        Ok(())
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Owned<'a, Vma>> {
        self.0.pop_front()
    }

    #[inline]
    pub(super) fn push(&mut self, record: Owned<'a, Vma>) {
        self.0.push_front(record);
    }

    /// Gives those back that were not used.
    #[inline]
    pub(super) fn give_back(mut self, with: &impl VmaSource<'a>) {
        while let Some(record) = self.0.pop_front() {
            with.give(record);
        }
    }
}
