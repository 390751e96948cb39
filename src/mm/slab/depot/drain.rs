//! Emptying the arrays of all CPUs: each empties its own, on request.
//!
//! A request is a bit for each cache in the data of the CPU, a count, and an interrupt, which is not sent again to a CPU
//! that has not answered the last one. The CPU takes one bit after the other, with interrupts masked for one cache at a
//! time, and answers when none is left. So one request may be for all caches, and none keeps interrupts out for long.
//!
//! A thread may move to another CPU wherever interrupts are open. So no code here reads the CPU number and relies on it later:
//! code that empties an array masks interrupts before it finds the array.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Chain, Registry};
use super::super::cpu::Array;
use super::super::object::{CacheId, CacheSet};
use super::super::words::Magazine;
use super::super::{SlabAllocator, SlabHal};
use crate::addr::CpuId;

/// Empty arrays that are checked with interrupts masked.
const AT_ONCE: usize = 32;

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Answers the requests of other CPUs to this one. Called by the handler of
    /// [`PerCpu::kick`](crate::hal::cpu::PerCpu::kick), and by an idle CPU. Any context. Interrupts are as the caller has them
    /// after each cache: a handler that runs with them masked, but wants to open them in between, calls
    /// [`SlabAllocator::answer_request`].
    pub fn answer_requests(&self) {
        while self.answer_request() {}
    }

    /// Answers the next part of other CPUs' requests to this one: it empties the array of one cache. Returns whether there is
    /// more to do. Any context.
    pub fn answer_request(&self) -> bool {
        let saved = self.hal().save();
        let more = self.answer_for(self.hal().local());
        self.hal().restore(saved);
        more
    }

    /// Does the next part of a CPU's requests. Returns whether there is more. Caller must be that CPU, or act for an offline
    /// one; interrupts masked.
    fn answer_for(&self, local: &H::Local) -> bool {
        let slabs = H::slabs(local);
        let requests = slabs.requests();
        if !slabs.owes(requests) {
            return false;
        }
        for _ in 0..AT_ONCE {
            let Some(number) = slabs.take_wanted() else {
                slabs.answer(requests);
                break;
            };
            // GLB-2: the record is in use up to the next restore of the mask, and the answer comes after.
            if self.cache(CacheId::new(number)).is_some_and(|cache| self.settle_array(cache, local)) {
                break;
            }
        }
        slabs.owes(slabs.requests())
    }

    /// Empties the arrays of some caches on every CPU, and switches them on or off as the caches require: at once on this CPU
    /// and on offline ones, on the others by a request. If the caller may wait, it returns when all have answered. Any context.
    pub(in crate::mm::slab) fn drain_all(&self, wanted: &CacheSet) {
        for (cpu, local) in self.all_cpus() {
            self.ask(cpu, local, wanted);
        }
        if self.may_wait() {
            self.await_answers();
        }
    }

    /// Empties the arrays that hold any objects, as [`SlabAllocator::drain_all`] does: a CPU with empty arrays is not asked.
    pub(super) fn drain_held(&self, registry: &Registry) {
        let mut asked = false;
        for (cpu, local) in self.all_cpus() {
            let mut wanted = CacheSet::NONE;
            self.for_each_in(registry, |cache| {
                let array = Array::new::<H>(local, cache.array);
                if array.held() != 0 || array.spare().is_some() {
                    wanted.add(cache.id);
                }
            });
            if wanted != CacheSet::NONE {
                self.ask(cpu, local, &wanted);
                asked = true;
            }
        }
        if asked && self.may_wait() {
            self.await_answers();
        }
    }

    fn all_cpus(&self) -> impl Iterator<Item = (CpuId, &H::Local)> {
        let cpus = (0..self.hal().cpus()).map(CpuId::new);
        cpus.filter_map(|cpu| self.hal().local_of(cpu).map(|local| (cpu, local)))
    }

    /// Asks a CPU to empty arrays, and empties them here if that is possible.
    fn ask(&self, cpu: CpuId, local: &H::Local, wanted: &CacheSet) {
        let slabs = H::slabs(local);
        let (request, is_kicked) = slabs.request(wanted);
        // A hint, which may be wrong if the thread has moved since: each CPU answers for itself, and only this one's answer
        // counts.
        if self.hal().cpu() == cpu {
            self.answer_requests();
        }
        if slabs.owes(request) && (self.hal().is_online(cpu) || !self.answer_offline(cpu)) && !is_kicked {
            self.hal().kick(cpu);
        }
    }

    /// Waits until every CPU has answered all requests made up to now.
    fn await_answers(&self) {
        for (cpu, local) in self.all_cpus() {
            let slabs = H::slabs(local);
            // Requests of the caller, and at most some later ones of others.
            let requests = slabs.requests();
            let mut step = 0;
            while slabs.owes(requests) {
                // The CPU may have gone offline instead of answering.
                if !self.hal().is_online(cpu) && self.answer_offline(cpu) {
                    continue;
                }
                // Two CPUs may wait for each other's answer.
                self.answer_requests();
                self.hal().waiting_for(cpu, step);
                step += 1;
                H::relax();
            }
        }
    }

    /// Answers the requests to a CPU that is offline. Returns whether it was offline. If requests are left when it comes
    /// online, it answers them itself before anything else.
    fn answer_offline(&self, cpu: CpuId) -> bool {
        let Some(local) = self.hal().local_of(cpu) else { return false };
        let mut more = true;
        while more {
            let part = &mut || {
                let saved = self.hal().save();
                more = self.answer_for(local);
                self.hal().restore(saved);
            };
            if !self.hal().while_offline(cpu, part) {
                return false;
            }
        }
        true
    }

    /// Returns all objects in the arrays of an offline CPU to their slabs. Returns whether the CPU was offline. Any context.
    pub fn drain_offline(&self, cpu: CpuId) -> bool {
        let Some(local) = self.hal().local_of(cpu) else { return false };
        // An online CPU would have to be told.
        let ask = &mut || _ = H::slabs(local).request(&CacheSet::ALL);
        self.hal().while_offline(cpu, ask) && self.answer_offline(cpu)
    }

    /// Empties the array of a cache on a CPU, and switches it on or off as the cache requires. Returns whether there was
    /// anything to do. Caller must be that CPU, or act for an offline one; interrupts masked.
    fn settle_array(&self, cache: &Cache<H>, local: &H::Local) -> bool {
        let array = Array::new::<H>(local, cache.array);
        let mut worked = array.count() != 0 || array.spare().is_some();
        // This comes first, as the array's memory may be an object of this very cache.
        self.release_spare(cache, &array);
        let chain = self.drain_array(cache, &array);
        let on = self.uses_arrays(cache);
        if array.has_memory() && array.is_off() == on {
            array.set_capacity(if on { cache.capacity } else { 0 });
            worked = true;
        }
        self.free_slabs(chain);
        worked
    }

    /// Puts the objects of an array back into their slabs. Interrupts masked.
    fn drain_array(&self, cache: &Cache<H>, array: &Array<'_>) -> Chain {
        let mut freed = Chain::NONE;
        if array.count() == 0 {
            return freed;
        }
        self.return_magazine(cache, &mut cache.node.lock(), array.magazine(), array.count(), &mut freed);
        array.set_count(0);
        freed
    }

    /// Puts the objects of the spare back into their slabs, and frees its memory. Interrupts masked.
    fn release_spare(&self, cache: &Cache<H>, array: &Array<'_>) {
        let Some(spare) = array.spare() else { return };
        let mut freed = Chain::NONE;
        self.return_magazine(cache, &mut cache.node.lock(), spare, array.spare_count(), &mut freed);
        array.set_spare(Magazine::NONE, 0);
        self.free_slabs(freed);
        self.free_magazine(spare);
    }
}
