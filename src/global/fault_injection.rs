//! Fault injection in this kernel: one injector for all its allocators.
#![forbid(unsafe_code)]

use super::machine::machine;
use super::pages::{PAGES, drain_all_pages, nr_free_pages, page_allocator};
use super::slab::slab_allocator;
use super::vmalloc::vmap_space;
use crate::arch::aarch64::cpu;
use crate::gfp::Gfp;
use crate::hal::cpu::with_local;
use crate::mm::fault_inject::{FaultAttr, FaultContext, FaultInjector, FaultRequest, FaultSite, FaultTarget};
use crate::mm::zone::ZoneBroken;

static FAULTS: FaultInjector = FaultInjector::new(print_stack);

fn print_stack() {
    machine().print_backtrace();
}

/// The injector that decides which allocations of this kernel fail: its settings and statistics can be read. To change
/// settings: [`configure_faults`].
#[must_use]
pub fn fault_injector() -> &'static FaultInjector {
    &FAULTS
}

/// Sets when a site fails, and makes every allocator take the slow path, which asks the injector, or lets it take the fast path
/// again. Any context in which the per-CPU lists may be drained.
pub fn configure_faults(site: FaultSite, attr: &FaultAttr) {
    FAULTS.configure(site, attr);
    go_carefully(FAULTS.is_armed());
}

/// Makes every allocator of this kernel take the slow path, which asks the injector.
fn go_carefully(careful: bool) {
    page_allocator().set_careful(careful);
    slab_allocator().set_careful(careful);
}

/// From now on an allocation is served from this CPU's caches only: it fails before it takes a lock. For the CPU that reports
/// the end of the kernel, when all others have stopped. Takes no lock.
pub fn refuse_allocations() {
    FAULTS.close();
    page_allocator().ask_always();
    slab_allocator().ask_always();
}

/// Whether this call of a site must fail. Any context. Cost while nothing is to fail: a load and a branch.
#[inline(always)]
pub(super) fn should_fail(site: FaultSite, gfp: Gfp, size: u64) -> bool {
    FAULTS.is_armed() && decide(site, gfp, size)
}

#[cold]
#[inline(never)]
fn decide(site: FaultSite, gfp: Gfp, size: u64) -> bool {
    FAULTS.should_fail(site, FaultRequest { context: running(), gfp, size })
}

/// The running thread; the CPU in a kernel without threads.
fn running() -> FaultContext {
    with_local(PAGES.hal(), |local| {
        local.thread.number().map_or(FaultContext::of_cpu(cpu::current()), FaultContext::new)
    })
}

/// This kernel, for [`fail_every`](crate::mm::fault_inject::fail_every): the calls of the running thread are counted, or of this
/// CPU where there are no threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisKernel;

/// Counts that an operation and its undoing must leave unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelCounts {
    /// Free pages.
    pub free_pages: u64,
    /// Pages that user space has caused.
    pub accounted_pages: u64,
}

impl FaultTarget for ThisKernel {
    type Counts = KernelCounts;
    type Broken = ZoneBroken;

    fn injector(&self) -> &FaultInjector {
        &FAULTS
    }

    fn context(&self) -> FaultContext {
        running()
    }

    fn set_careful(&self, careful: bool) {
        go_carefully(careful || FAULTS.is_armed());
    }

    fn counts(&self) -> KernelCounts {
        slab_allocator().shrink_all();
        vmap_space().purge_all();
        drain_all_pages();
        KernelCounts { free_pages: nr_free_pages(), accounted_pages: page_allocator().accounted_pages() }
    }

    fn check(&self) -> Result<(), ZoneBroken> {
        page_allocator().check()
    }
}
