//! Slice operations of the array: inserting, removing, copying, comparing, printing.
#![forbid(unsafe_code)]

use super::allocator::{Allocator, Refused};
use super::kvec::{InsertError, KVec};
use crate::gfp::Gfp;
use crate::mm::slab::SlabAllocError;
use core::fmt;
use core::ops::{Deref, DerefMut};

impl<T, A: Allocator> KVec<T, A> {
    /// Inserts a value at `index`; those from there on move up by one.
    ///
    /// # Errors
    ///
    /// [`InsertError`], with the value; the array is unchanged then.
    pub fn insert(&mut self, index: usize, value: T, gfp: Gfp) -> Result<(), Refused<T, InsertError>> {
        if index > self.len() {
            return Err(Refused { value, error: InsertError::OutOfBounds });
        }
        self.push(value, gfp)
            .map_err(|Refused { value, error }| Refused { value, error: InsertError::Memory(error) })?;
        if let Some(tail) = self.get_mut(index..) {
            tail.rotate_right(1);
        }
        Ok(())
    }

    /// Removes and returns the value at `index`; those behind it move down by one. `None` if it is out of bounds.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        self.get_mut(index..).filter(|tail| !tail.is_empty())?.rotate_left(1);
        self.pop()
    }

    /// Removes and returns the value at `index`; the last one takes its place. `None` if it is out of bounds.
    pub fn swap_remove(&mut self, index: usize) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        if index > last {
            return None;
        }
        self.swap(index, last);
        self.pop()
    }

    /// Drops the values that `keep` rejects. The others keep their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut kept = 0;
        for index in 0..self.len() {
            if self.get_mut(index).is_some_and(&mut keep) {
                self.swap(kept, index);
                kept += 1;
            }
        }
        self.truncate(kept);
    }

    /// Appends copies of all of `values`.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the array is unchanged then.
    pub fn extend_from_slice(&mut self, values: &[T], gfp: Gfp) -> Result<(), SlabAllocError>
    where
        T: Clone,
    {
        self.reserve(values.len(), gfp)?;
        for value in values {
            if self.push_within_capacity(value.clone()).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Appends `count` copies of a value.
    ///
    /// # Errors
    ///
    /// As for [`KVec::extend_from_slice`].
    pub fn extend_with(&mut self, count: usize, value: T, gfp: Gfp) -> Result<(), SlabAllocError>
    where
        T: Clone,
    {
        self.reserve(count, gfp)?;
        for _ in 1..count {
            if self.push_within_capacity(value.clone()).is_err() {
                return Ok(());
            }
        }
        if count != 0 {
            let _ = self.push_within_capacity(value);
        }
        Ok(())
    }

    /// Drops values at the end, or appends copies of `value`, until there are `len`.
    ///
    /// # Errors
    ///
    /// As for [`KVec::extend_from_slice`].
    pub fn resize(&mut self, len: usize, value: T, gfp: Gfp) -> Result<(), SlabAllocError>
    where
        T: Clone,
    {
        match len.checked_sub(self.len()) {
            Some(more) => self.extend_with(more, value, gfp),
            None => {
                self.truncate(len);
                Ok(())
            }
        }
    }

    /// Appends all values of an iterator.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`], with the value for which there was no room; those before it are in the array.
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>, gfp: Gfp) -> Result<(), Refused<T>> {
        let values = values.into_iter();
        // `size_hint` is only a hint; failing to reserve for it is not an error.
        let _ = self.reserve(values.size_hint().0, gfp | Gfp::NOWARN);
        values.into_iter().try_for_each(|value| self.push(value, gfp))
    }
}

impl<T, A: Allocator> Deref for KVec<T, A> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T, A: Allocator> DerefMut for KVec<T, A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a KVec<T, A> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a mut KVec<T, A> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: PartialEq, A: Allocator, S: AsRef<[T]> + ?Sized> PartialEq<S> for KVec<T, A> {
    fn eq(&self, other: &S) -> bool {
        **self == *other.as_ref()
    }
}

impl<T, A: Allocator> AsRef<[T]> for KVec<T, A> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: fmt::Debug, A: Allocator> fmt::Debug for KVec<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
