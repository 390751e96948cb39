//! Work that one CPU does for another: it answers requests, and drains the caches of a CPU that went offline.

use super::pages::PAGES;
use super::slab::slab_allocator;
use super::stack::drain_stacks;
use crate::addr::CpuId;
use crate::hal::cpu::PerCpu;

/// Answers the requests of other CPUs to this one; the handler of [`Machine::kick`](super::Machine::kick)'s interrupt calls it.
/// Any context.
pub fn answer_requests() {
    while answer_request() {}
}

/// Answers the next part of the requests, after which a handler may let other interrupts in. Returns whether there is more to
/// do. Any context.
pub fn answer_request() -> bool {
    PAGES.answer_requests();
    slab_allocator().answer_request()
}

/// Drains the pages, objects and stacks cached on a CPU that is offline. Returns whether the CPU was offline. Any context in
/// which memory may be freed.
pub fn drain_offline_cpu(cpu: CpuId) -> bool {
    let Some(local) = PAGES.hal().local_of(cpu) else { return false };
    let slabs = slab_allocator().drain_offline(cpu);
    // Two CPUs that drain the same CPU's stacks get different ones.
    if slabs {
        drain_stacks(PAGES.hal(), |_| local.stacks.take());
    }
    slabs && PAGES.drain_offline(cpu)
}
