//! `memory_set`: a BTreeMap of areas, searched for the lowest gap from the start of the region; nothing is mapped.

use crate::areas::AreaAllocator;
use crate::arena::Arena;
use crate::meter::Unable;
use memory_addr::{AddrRange, VirtAddr};
use memory_set::{MappingBackend, MemoryArea, MemorySet};

/// A mapping of nothing.
#[derive(Clone)]
pub(crate) struct Nothing;

impl MappingBackend for Nothing {
    type Addr = VirtAddr;
    type Flags = ();
    type PageTable = ();

    fn map(&self, _: VirtAddr, _: usize, (): (), (): &mut ()) -> bool {
        true
    }

    fn unmap(&self, _: VirtAddr, _: usize, (): &mut ()) -> bool {
        true
    }

    fn protect(&self, _: VirtAddr, _: usize, (): (), (): &mut ()) -> bool {
        true
    }
}

pub(crate) struct Areas(MemorySet<Nothing>);

const START: usize = 1 << 32;

impl AreaAllocator for Areas {
    const NAME: &'static str = "memory_set";
    const LARGEST: usize = 1024;

    fn new(_: Arena) -> Result<Self, Unable> {
        Ok(Self(MemorySet::new()))
    }

    #[inline]
    fn alloc(&mut self, bytes: usize) -> Option<usize> {
        let limit = AddrRange::from_start_size(VirtAddr::from_usize(START), 1 << 36);
        let start = self.0.find_free_area(limit.start, bytes, limit, 4096)?;
        self.0.map(MemoryArea::new(start, bytes, (), Nothing), &mut (), false).ok()?;
        Some(start.as_usize())
    }

    #[inline]
    fn free(&mut self, start: usize, bytes: usize) -> bool {
        self.0.unmap(VirtAddr::from_usize(start), bytes, &mut ()).is_ok()
    }
}
