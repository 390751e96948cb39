//! The kernel's address map: every region of the TTBR1 half, in one place, with the gaps asserted.
//!
//! 48-bit addresses, 4 KiB granule. The linear map adds a constant to a physical address, so that translating one costs
//! an addition; RAM at or above [`LINEAR_MAP_SIZE`] (128 TiB) is refused.

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, Range, VirtAddr, VirtRange};
use core::fmt;

/// Start of the linear map of all RAM: the virtual address of physical address zero.
pub const PAGE_OFFSET: u64 = 0xffff_0000_0000_0000;
/// Bytes of physical address space that the linear map can reach.
pub const LINEAR_MAP_SIZE: u64 = 1 << 47;
/// Start of the region for executable code outside the image; all of it is within 128 MiB of all of the image.
pub const MODULES_VADDR: u64 = 0xffff_8000_7a00_0000;
/// End of the region for executable code.
pub const MODULES_END: u64 = KIMAGE_VADDR - REGION_GAP;
/// Link address of the kernel image.
pub const KIMAGE_VADDR: u64 = 0xffff_8000_8000_0000;
/// The largest image, BSS and boot stacks included.
pub const KIMAGE_SIZE_MAX: u64 = 32 << 20;
/// Start of the region that vmalloc, vmap and ioremap share.
pub const VMALLOC_START: u64 = 0xffff_8001_0000_0000;
/// End of the vmalloc region.
pub const VMALLOC_END: u64 = 0xffff_fc00_0000_0000;
/// Start of the types of page blocks, a byte for each 2 MiB that the linear map can reach.
pub const PAGEBLOCK_START: u64 = 0xffff_fc80_0000_0000;
/// End of the types of page blocks.
pub const PAGEBLOCK_END: u64 = PAGEBLOCK_START + LINEAR_MAP_SIZE / (2 << 20);
/// Start of the page descriptors, one for each frame that the linear map can reach.
pub const VMEMMAP_START: u64 = 0xffff_fd00_0000_0000;
/// Bytes of one page descriptor.
pub const PAGE_DESCRIPTOR_SIZE: u64 = 32;
/// End of the page descriptors.
pub const VMEMMAP_END: u64 = VMEMMAP_START + (LINEAR_MAP_SIZE / PAGE_SIZE) * PAGE_DESCRIPTOR_SIZE;
/// Start of the fixmap: slots for the early console and for table pages that nothing else maps yet.
pub const FIXMAP_START: u64 = 0xffff_ffff_fe00_0000;
/// End of the fixmap slots.
pub const FIXMAP_END: u64 = FIXMAP_START + (2 << 20);
/// Start of the window through which the device tree is read.
pub const FDT_WINDOW_START: u64 = FIXMAP_END;
/// End of the device-tree window: the largest tree, anywhere in a page.
pub const FDT_WINDOW_END: u64 = FDT_WINDOW_START + (4 << 20);
/// At least this much stays unmapped between two regions, so that an overrun of one never reaches the next.
pub const REGION_GAP: u64 = 64 << 10;

/// A named region of the map.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Its name, as `ptdump` prints it.
    pub name: &'static str,
    /// First address.
    pub start: VirtAddr,
    /// One past the last address.
    pub end: VirtAddr,
}

const fn region(name: &'static str, start: u64, end: u64) -> Region {
    Region { name, start: VirtAddr::new(start), end: VirtAddr::new(end) }
}

/// All regions, by address. The fixmap and the device-tree window are one region in two parts.
pub const REGIONS: [Region; 8] = [
    region("linear map", PAGE_OFFSET, PAGE_OFFSET + LINEAR_MAP_SIZE),
    region("modules", MODULES_VADDR, MODULES_END),
    region("kernel image", KIMAGE_VADDR, KIMAGE_VADDR + KIMAGE_SIZE_MAX),
    region("vmalloc", VMALLOC_START, VMALLOC_END),
    region("page blocks", PAGEBLOCK_START, PAGEBLOCK_END),
    region("vmemmap", VMEMMAP_START, VMEMMAP_END),
    region("fixmap", FIXMAP_START, FIXMAP_END),
    region("device tree", FDT_WINDOW_START, FDT_WINDOW_END),
];

const _: () = {
    let mut rest: &[Region] = &REGIONS;
    while let [below, tail @ ..] = rest {
        assert!(below.start.get() < below.end.get());
        if let [above, ..] = tail {
            let one_region = below.end.get() == FDT_WINDOW_START;
            let gap = above.start.get() - below.end.get();
            assert!(one_region || gap >= REGION_GAP, "two regions of the address map touch or overlap");
        }
        rest = tail;
    }
    assert!(FDT_WINDOW_END <= u64::MAX - REGION_GAP, "an error pointer must not look like a mapped address");
    assert!(KIMAGE_VADDR + KIMAGE_SIZE_MAX - MODULES_VADDR <= 128 << 20, "a branch reaches 128 MiB");
    assert!(FIXMAP_START.is_multiple_of(2 << 20) && KIMAGE_VADDR.is_multiple_of(2 << 20));
};

/// The linear-map address of `phys`, or `None` if the linear map cannot reach it. Whether anything is mapped there is
/// another question: only RAM without `no-map` is. Any context; three instructions.
#[must_use]
pub const fn phys_to_virt(phys: PhysAddr) -> Option<VirtAddr> {
    if phys.get() < LINEAR_MAP_SIZE { Some(VirtAddr::new(PAGE_OFFSET + phys.get())) } else { None }
}

/// The physical address behind a linear-map address, or `None` for an address outside the linear map. Any context.
#[must_use]
pub const fn virt_to_phys(virt: VirtAddr) -> Option<PhysAddr> {
    match virt.get().checked_sub(PAGE_OFFSET) {
        Some(offset) if offset < LINEAR_MAP_SIZE => Some(PhysAddr::new(offset)),
        _ => None,
    }
}

/// The linear-map range of a physical range, or `None` if it does not fit.
#[must_use]
pub const fn phys_range_to_virt(phys: PhysRange) -> Option<VirtRange> {
    match phys_to_virt(phys.start()) {
        Some(start) if phys.end().get() <= LINEAR_MAP_SIZE => Range::<VirtAddr>::from_size(start, phys.size()),
        _ => None,
    }
}

/// One past the last address that a page number, right or wrong, can point to: page numbers have 32 bits and count from the
/// start of RAM, which may be as high as the linear map goes.
pub const PAGE_NUMBERS_END: u64 = VMEMMAP_END + (1 << 32) * PAGE_DESCRIPTOR_SIZE;

/// Where page descriptors and the types of page blocks lie and would lie, and nothing else: mapped only where RAM is.
#[must_use]
pub fn descriptors() -> VirtRange {
    VirtRange::new(VirtAddr::new(PAGEBLOCK_START), VirtAddr::new(PAGE_NUMBERS_END)).unwrap_or_default()
}

const _: () = {
    assert!(PAGEBLOCK_END + ((1 << 32) >> 9) <= VMEMMAP_START, "the gap between the two is mapped by nobody");
    assert!(PAGE_NUMBERS_END <= FIXMAP_START, "what a wrong page number leads to is mapped by nobody");
};

/// The region that `addr` lies in.
#[must_use]
pub fn region_of(addr: VirtAddr) -> Option<Region> {
    REGIONS.into_iter().find(|r| r.start <= addr && addr < r.end)
}

/// Prints the map as a table, one region a line.
pub struct AddressMap;

impl fmt::Display for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for region in REGIONS {
            let size = region.end.get() - region.start.get();
            let (amount, unit) = match size {
                0x0..0x10_0000 => (size >> 10, "KiB"),
                0x10_0000..0x4000_0000 => (size >> 20, "MiB"),
                0x4000_0000..0x100_0000_0000 => (size >> 30, "GiB"),
                _ => (size >> 40, "TiB"),
            };
            writeln!(f, "  {:#018x}-{:#018x}  {amount:>4} {unit}  {}", region.start, region.end, region.name)?;
        }
        Ok(())
    }
}
