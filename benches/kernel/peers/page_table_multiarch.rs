//! `page_table_multiarch`: the page tables of ArceOS. They are live in TTBR0. Their entries count on other memory
//! types in `MAIR_EL1`: what they mean as Normal memory is a Device type here, which QEMU reads all the same.

use crate::arena::{self, TableFrames};
use crate::mapping::Mapper;
use crate::meter::Unable;
use core::arch::asm;
use memory_addr::{PhysAddr as PeerPhys, VirtAddr as PeerVirt};
use page_table_multiarch::aarch64::A64PageTable;
use page_table_multiarch::{MappingFlags, PagingHandler};
use quarry::addr::{PhysAddr, VirtAddr, VirtRange, to_usize};
use quarry::hal::frame::FrameSource;

struct Handler;

impl PagingHandler for Handler {
    fn alloc_frames(num: usize, _: usize) -> Option<PeerPhys> {
        if num != 1 {
            return None;
        }
        let frame = TableFrames.alloc_table().ok()?;
        Some(PeerPhys::from(to_usize(frame.get())))
    }

    fn dealloc_frames(phys: PeerPhys, _: usize) {
        // SAFETY: the frame came from `alloc_frames`, one at a time.
        unsafe { TableFrames.free_table(PhysAddr::new(phys.as_usize() as u64)) };
    }

    fn phys_to_virt(phys: PeerPhys) -> PeerVirt {
        PeerVirt::from(arena::linear(PhysAddr::new(phys.as_usize() as u64)).addr().get())
    }
}

pub(crate) struct Tables {
    tables: A64PageTable<Handler>,
    ttbr0: u64,
}

fn set_ttbr0(root: u64) -> u64 {
    let before: u64;
    // SAFETY: the kernel uses no address of the lower half, so that what TTBR0 translates concerns the peer alone.
    unsafe {
        asm!(
            "mrs {before}, ttbr0_el1", "dsb ishst", "msr ttbr0_el1, {root}", "isb", "tlbi vmalle1is", "dsb ish", "isb",
            before = out(reg) before, root = in(reg) root, options(nostack, preserves_flags)
        );
    }
    before
}

impl Mapper for Tables {
    const NAME: &'static str = "page_table_multiarch";
    const FREE: VirtAddr = VirtAddr::new(1 << 30);

    fn new() -> Result<Self, Unable> {
        let tables = A64PageTable::try_new().map_err(|_| "no root table")?;
        let ttbr0 = set_ttbr0(tables.root_paddr().as_usize() as u64);
        Ok(Self { tables, ttbr0 })
    }

    #[inline]
    fn map(&mut self, range: VirtRange, phys: PhysAddr) -> Result<(), Unable> {
        let start = PeerVirt::from(to_usize(range.start().get()));
        let delta = to_usize(phys.get().wrapping_sub(range.start().get()));
        let phys = |virt: PeerVirt| PeerPhys::from(virt.as_usize().wrapping_add(delta));
        let flags = MappingFlags::READ | MappingFlags::WRITE;
        let mut cursor = self.tables.cursor();
        cursor.map_region(start, phys, to_usize(range.size()), flags, false).map_err(|_| "map failed")
    }

    #[inline]
    fn unmap(&mut self, range: VirtRange) -> Result<(), Unable> {
        let start = PeerVirt::from(to_usize(range.start().get()));
        // The cursor flushes when it is dropped.
        let mut cursor = self.tables.cursor();
        cursor.unmap_region(start, to_usize(range.size())).map_err(|_| "unmap failed")
    }

    fn retire(self) {
        set_ttbr0(self.ttbr0);
    }
}
