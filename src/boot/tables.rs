//! The final page tables: the image by section, all mapped RAM, and the fixmap's mappings, each with exact permissions.

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::hal::frame::FrameSource;
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;
use crate::mm::layout;
use crate::mm::pgtable::{MapFlags, Marker, PageTable, PgtableError};

/// The kernel image by permission: the ranges mapped at their link addresses. The pages between the parts are guards.
fn image_parts() -> [(VirtRange, Prot); 7] {
    let range = |start, end| VirtRange::new(start, end).unwrap_or_default();
    [
        (range(boot::image_start(), boot::text_end()), Prot::KERNEL_RX),
        (range(boot::rodata_start(), boot::rodata_end()), Prot::KERNEL_RO),
        // Parts that only booting needs are mapped separately, so that they can be unmapped without splitting anything.
        (range(boot::data_start(), boot::init_start()), Prot::KERNEL_RW),
        (range(boot::init_start(), boot::init_end()), Prot::KERNEL_RW),
        (range(boot::init_end(), boot::boot_stack_guard()), Prot::KERNEL_RW),
        (range(boot::boot_stack_bottom(), boot::boot_stack_top()), Prot::KERNEL_RW),
        (range(boot::overflow_stack_bottom(), boot::overflow_stack_top()), Prot::KERNEL_RW),
    ]
}

/// The part of the image whose frames nobody may write: text and read-only data.
fn read_only_frames(boot: &BootInfo) -> PhysRange {
    let end = boot.image_phys(boot::rodata_end());
    PhysRange::new(boot.image, end).unwrap_or_default()
}

/// Maps everything that the kernel needs to run.
///
/// `ram` is what the linear map holds: all RAM but `no-map` regions. `fixmap` is what must keep its address across the
/// switch. `linear` is how it maps what may be written, and what it must not
/// use.
pub(crate) fn fill<M: Mmu, F: FrameSource>(
    table: &PageTable<M>,
    frames: &F,
    boot: &BootInfo,
    ram: impl Iterator<Item = PhysRange>,
    fixmap: impl Iterator<Item = (VirtAddr, PhysAddr, Prot)>,
    (linear, flags): (Prot, MapFlags),
) -> Result<(), PgtableError> {
    // A range between two parts may be empty.
    for (range, prot) in image_parts().into_iter().filter(|(range, _)| !range.is_empty()) {
        table.do_map(frames, range, boot.image_phys(range.start()), prot, MapFlags::empty())?;
    }
    let read_only = read_only_frames(boot);
    for bank in ram.filter_map(|bank| bank.align_inwards(PAGE_SIZE)) {
        let before = PhysRange::new(bank.start(), read_only.start().min(bank.end()));
        let inside = bank.intersection(read_only);
        let after = PhysRange::new(read_only.end().max(bank.start()), bank.end());
        for (part, prot) in [(before, linear), (inside, Prot::KERNEL_RO), (after, linear)] {
            let Some(part) = part.filter(|part| !part.is_empty()) else { continue };
            let virt = layout::phys_range_to_virt(part).ok_or(PgtableError::OutsideSpace)?;
            table.do_map(frames, virt, part.start(), prot, flags)?;
        }
    }
    // Pages that follow on make one run: the device tree is hundreds of them.
    let mut run: Option<(VirtRange, PhysAddr, Prot)> = None;
    for (virt, phys, prot) in fixmap {
        let page = VirtRange::from_size(virt, PAGE_SIZE).ok_or(PgtableError::OutsideSpace)?;
        run = match run {
            Some((range, first, same))
                if range.end() == virt && first.checked_add(range.size()) == Some(phys) && same == prot =>
            {
                VirtRange::new(range.start(), page.end()).map(|range| (range, first, prot))
            }
            before => {
                map_run(table, frames, before)?;
                Some((page, phys, prot))
            }
        };
    }
    map_run(table, frames, run)
}

fn map_run<M: Mmu, F: FrameSource>(
    table: &PageTable<M>,
    frames: &F,
    run: Option<(VirtRange, PhysAddr, Prot)>,
) -> Result<(), PgtableError> {
    run.map_or(Ok(()), |(range, phys, prot)| table.do_map(frames, range, phys, prot, MapFlags::empty()))
}

/// The regions of the address map, as `ptdump` wants them.
pub(crate) fn markers() -> [Marker<'static>; layout::REGIONS.len()] {
    layout::REGIONS.map(|region| Marker { start: region.start, name: region.name })
}
