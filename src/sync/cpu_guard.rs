//! Staying on a CPU.
#![forbid(unsafe_code)]

use super::held_locks::CHECKED;
use super::{ScopeGuard, enter};
use crate::addr::CpuId;
use crate::hal::cpu::PerCpu;
use crate::hal::wait::{Context, Scope};
use core::marker::PhantomData;

/// The running context stays on its CPU until this is dropped, and may not wait (Linux: `get_cpu`, `put_cpu`). It is not
/// `Send`: its guarantee is about the context that holds it.
///
/// ```compile_fail,E0277
/// use quarry::hal::{cpu::PerCpu, wait::Context};
/// fn is_send<T: Send>(_: T) {}
/// fn send<C: Context + PerCpu + Sync>(guard: quarry::sync::CpuGuard<'_, C>) {
///     is_send(guard);
/// }
/// ```
#[must_use = "the context may leave the CPU when the guard is dropped"]
#[derive(Debug)]
pub struct CpuGuard<'c, C: Context + PerCpu> {
    context: &'c C,
    cpu: CpuId,
    _scope: ScopeGuard<'c, C>,
    /// Neither `Send` nor `Sync`.
    this_cpu: PhantomData<*mut ()>,
}

/// Keeps the running context on its CPU.
pub fn pin_cpu<C: Context + PerCpu>(context: &C) -> CpuGuard<'_, C> {
    let scope = enter(context, Scope::Cpu);
    // From here on it stays the same.
    CpuGuard { context, cpu: context.cpu(), _scope: scope, this_cpu: PhantomData }
}

impl<C: Context + PerCpu> CpuGuard<'_, C> {
    /// The CPU.
    #[must_use]
    pub const fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl<C: Context + PerCpu> Drop for CpuGuard<'_, C> {
    fn drop(&mut self) {
        if CHECKED {
            let now = self.context.cpu();
            assert!(now == self.cpu, "a context left {:?} for {now:?} between get_cpu and put_cpu", self.cpu);
        }
    }
}
