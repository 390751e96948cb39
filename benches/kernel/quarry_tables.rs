//! This kernel's own tables, those in TTBR1, reached through the linear map.

use crate::arena::TableFrames;
use crate::mapping::Mapper;
use crate::meter::Unable;
use crate::rows::QUARRY;
use quarry::addr::{PhysAddr, VirtAddr, VirtRange};
use quarry::global::{self, KernelMmu};
use quarry::hal::prot::Prot;
use quarry::mm::layout::VMALLOC_END;
use quarry::mm::pgtable::{MapFlags, PageTable, UnmapFlags};

/// The tables that the kernel runs on.
pub(crate) struct QuarryTables(&'static PageTable<KernelMmu>);

impl Mapper for QuarryTables {
    const NAME: &'static str = QUARRY;
    // The far end of the vmalloc region: nothing comes there while benchmarks run.
    const FREE: VirtAddr = VirtAddr::new(VMALLOC_END - (1 << 30));

    fn new() -> Result<Self, Unable> {
        global::kernel_tables().map(Self).ok_or("the kernel is not on its final tables")
    }

    #[inline]
    fn map(&mut self, range: VirtRange, phys: PhysAddr) -> Result<(), Unable> {
        let flags = MapFlags::NO_HUGE.union(MapFlags::NO_CONT);
        let mapped = raw!(self.0.map(&TableFrames, range, phys, Prot::KERNEL_RW, flags));
        mapped.map_err(|_| "map failed")
    }

    #[inline]
    fn unmap(&mut self, range: VirtRange) -> Result<(), Unable> {
        let unmapped = raw!(self.0.unmap_and_flush(&TableFrames, range, UnmapFlags::KEEP_TABLES));
        unmapped.map_err(|_| "unmap failed")
    }
}
