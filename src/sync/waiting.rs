//! Wait strategy for the locks of the crate `spin`: the machine's. No type of that crate is in a public signature.
#![forbid(unsafe_code)]

use super::LockHal;
use core::marker::PhantomData;
use spin::relax::RelaxStrategy;

/// Waits as `R` does.
pub(crate) struct Waiting<R>(PhantomData<fn() -> R>);

impl<R: LockHal> RelaxStrategy for Waiting<R> {
    #[inline(always)]
    fn relax() {
        R::relax();
    }
}

/// A value that is set once. A CPU that asks while another sets it waits as `R` does.
pub(crate) type Once<T, R> = spin::once::Once<T, Waiting<R>>;
