//! This kernel's own address space: that of vmalloc, called as `vmap` and `ioremap` call it. Every area has a guard page
//! beside the bytes that were asked for, is found by any address inside, and the calls are safe on any CPU.

use crate::areas::AreaAllocator;
use crate::arena::Arena;
use crate::meter::Unable;
use crate::rows::QUARRY;
use quarry::addr::{VirtAddr, to_usize};
use quarry::global;
use quarry::mm::vmalloc::{AreaRequest, VmFlags};

/// The kernel's space; the arena is not needed.
pub(crate) struct QuarryAreas(());

impl AreaAllocator for QuarryAreas {
    const NAME: &'static str = QUARRY;
    const LARGEST: usize = usize::MAX;

    fn new(_: Arena) -> Result<Self, Unable> {
        global::vmap_space().purge_all();
        global::vmap_space().region().map(|_| Self(())).ok_or("the space is not set up")
    }

    #[inline]
    fn alloc(&mut self, bytes: usize) -> Option<usize> {
        let area = global::vmap_space().alloc(&AreaRequest::new(bytes as u64, VmFlags::MAP)).ok()?;
        Some(to_usize(area.start().get()))
    }

    #[inline]
    fn free(&mut self, start: usize, _: usize) -> bool {
        let space = global::vmap_space();
        // Nothing was mapped.
        raw!(space.remove(VirtAddr::new(start as u64), VmFlags::MAP)).map(|area| raw!(space.recycle(area))).is_ok()
    }
}
