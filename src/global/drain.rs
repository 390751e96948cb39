//! Work that one CPU does for another: it answers requests, and drains the caches of a CPU that went offline.

use super::pages::PAGES;
use super::slab::slab_allocator;
use super::stack::drain_stacks;
use crate::addr::CpuId;
use crate::hal::cpu::PerCpu;

/// Does what other CPUs have asked of this one: what [`Machine::kick`](super::Machine::kick) makes a CPU do. Any context.
pub fn answer_requests() {
    while answer_request() {}
}

/// Does the next part of it, after which a handler may let other interrupts in; whether there is more to do. Any context.
pub fn answer_request() -> bool {
    PAGES.answer_requests();
    slab_allocator().answer_request()
}

/// Drains the pages, objects and stacks cached on a CPU that is offline. Returns whether the CPU was offline. Any context in
/// which memory may be freed.
pub fn drain_offline_cpu(cpu: CpuId) -> bool {
    let Some(local) = PAGES.hal().local_of(cpu) else { return false };
    let slabs = slab_allocator().drain_offline(cpu);
    // Two that drain the same CPU's stacks would get different ones.
    if slabs {
        drain_stacks(PAGES.hal(), |_| local.stacks.take());
    }
    slabs && PAGES.drain_offline(cpu)
}
