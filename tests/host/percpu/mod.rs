//! Per-CPU memory on a machine whose TLBs keep what they have: against a model of bytes, with failing allocations, and
//! misused.

mod counter;
mod model;
mod rules;

use crate::vmalloc::kernel::{Kernel, Vmalloc, at_rest, with_machine};
use quarry::addr::VirtRange;
use quarry::arch::host::Config;
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::mm::percpu::{Chunk, PerCpuAllocator, PerCpuHal};
use std::sync::atomic::Ordering;

// SAFETY: no memory is behind the addresses; each row is leaked once.
unsafe impl<'m> PerCpuHal<'m> for Kernel<'m> {
    fn row(&self, count: usize, _: Gfp) -> Option<&'m mut [Chunk<'m>]> {
        if self.no_rows.load(Ordering::Relaxed) {
            return None;
        }
        self.rows.fetch_add(1, Ordering::Relaxed);
        Some(Box::leak(vec![Chunk::FREE; count].into_boxed_slice()))
    }

    fn free_row(&self, row: &'m mut [Chunk<'m>]) {
        self.rows.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: leaked above, and this is the only reference.
        drop(unsafe { Box::from_raw(std::ptr::from_mut(row)) });
    }

    fn clear(&self, _: Internal, range: VirtRange) {
        self.cleared.lock().unwrap().push(range);
    }
}

type PerCpu<'s, 'm> = PerCpuAllocator<'s, 'm, Kernel<'m>>;

/// Runs `f` with an allocator, and sees that everything is as before in the end but for `kept` pages and one chunk.
fn with_allocator(f: impl FnOnce(&Vmalloc<'_>, &PerCpu<'_, '_>)) {
    with_machine(Config::CORTEX_A72, |space| {
        space.hal().pages.drain_all();
        let free = space.hal().pages.free_page_count();
        let percpu = PerCpuAllocator::new(space);
        f(space, &percpu);
        percpu.check().unwrap();
        assert_eq!((percpu.stats().allocations, percpu.stats().bytes), (0, 0));
        percpu.trim();
        percpu.check().unwrap();
        assert_eq!((percpu.stats().chunks, percpu.stats().pages), (0, 0));
        at_rest(space, free);
    });
}
