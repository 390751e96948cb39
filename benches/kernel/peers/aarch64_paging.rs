//! `aarch64-paging`: the page tables of Google's bare-metal projects. They are live in TTBR0.

use crate::arena::{self, TableFrames};
use crate::mapping::Mapper;
use crate::meter::Unable;
use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};
use core::ptr::NonNull;
use quarry::addr::{PhysAddr, VirtAddr, VirtRange, to_usize};
use quarry::hal::frame::FrameSource;
use quarry::hal::prot::MemoryType;

struct LinearMap;

impl Translation<El1Attributes> for LinearMap {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let Ok(frame) = TableFrames.alloc_table() else { panic!("no frame for a table") };
        let table = arena::linear(frame).cast::<PageTable<El1Attributes>>();
        // SAFETY: the frame is new, mapped, and as large as a table.
        unsafe { table.write_bytes(0, 1) };
        (table, PhysicalAddress(to_usize(frame.get())))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<El1Attributes>>) {
        // SAFETY: the table came from `allocate_table`, and its user does not need it any more.
        unsafe { TableFrames.free_table(arena::phys(table.cast())) };
    }

    fn physical_to_virtual(&self, phys: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        arena::linear(PhysAddr::new(phys.0 as u64)).cast()
    }
}

pub(crate) struct Tables {
    mapping: Mapping<LinearMap, El1And0>,
    ttbr0: usize,
}

const WRITE_BACK: El1Attributes =
    El1Attributes::from_bits_retain((MemoryType::WriteBack.index() as usize) << 2 | El1Attributes::ACCESSED.bits());

fn region(range: VirtRange) -> MemoryRegion {
    MemoryRegion::new(to_usize(range.start().get()), to_usize(range.end().get()))
}

const PAGES_ONLY: Constraints = Constraints::NO_BLOCK_MAPPINGS.union(Constraints::NO_CONTIGUOUS_HINT);

impl Mapper for Tables {
    const NAME: &'static str = "aarch64-paging";
    const FREE: VirtAddr = VirtAddr::new(1 << 30);

    fn new() -> Result<Self, Unable> {
        let mapping = Mapping::with_asid_and_va_range(LinearMap, 1, 0, El1And0, VaRange::Lower);
        // SAFETY: the kernel uses no address of the lower half.
        let ttbr0 = unsafe { mapping.activate() };
        Ok(Self { mapping, ttbr0 })
    }

    #[inline]
    fn map(&mut self, range: VirtRange, phys: PhysAddr) -> Result<(), Unable> {
        let attributes = WRITE_BACK
            | El1Attributes::VALID
            | El1Attributes::INNER_SHAREABLE
            | El1Attributes::NON_GLOBAL
            | El1Attributes::PXN
            | El1Attributes::UXN;
        let phys = PhysicalAddress(to_usize(phys.get()));
        let mapped = self.mapping.map_range(&region(range), phys, attributes, PAGES_ONLY);
        mapped.map_err(|_| "map failed")
    }

    #[inline]
    fn unmap(&mut self, range: VirtRange) -> Result<(), Unable> {
        let nothing = El1Attributes::empty();
        let unmapped = self.mapping.map_range(&region(range), PhysicalAddress(0), nothing, PAGES_ONLY);
        unmapped.map_err(|_| "unmap failed")
    }

    fn retire(self) {
        // SAFETY: what TTBR0 held before maps nothing that is in use.
        unsafe { self.mapping.deactivate(self.ttbr0) };
    }
}
