//! From memblock to the page allocator: descriptors for all RAM, each CPU's data, the hand-over.

use super::{BringUpError, Options};
use crate::addr::{CpuId, PAGE_SIZE, PMD_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::arch::aarch64::cpu::MAX_CPUS;
use crate::arch::aarch64::mem;
use crate::gfp::ZoneType;
use crate::global::linear::{phys_range_to_virt, phys_to_virt};
use crate::global::{
    BootMemblock, MemblockFrames, add_cma_area, cpu_local_size, cpu_local_used, give_cpu, kernel_tables, memblock,
    page_allocator, tags_are_on,
};
use crate::hal::prot::Prot;
use crate::mm::layout::{PAGE_DESCRIPTOR_SIZE, PAGEBLOCK_START, VMEMMAP_START};
use crate::mm::memblock::{MemblockError, Window};
use crate::mm::page::{PAGEBLOCK_PAGES, Section, Vmemmap, sections_of};
use crate::mm::pgtable::{MapFlags, PgtableError};
use crate::mm::zone::{Handed, Scrub, SetupError, ZoneLimits};
use core::ptr::NonNull;

/// Starts the page allocator and retires memblock. Returns the pages handed over, and the bytes of the descriptors. Boot CPU,
/// once, when the linear map is there.
pub(super) fn start(cpus: u32, options: &Options) -> Result<(Handed, u64), BringUpError> {
    let first = memblock().mapped_range_from(PhysAddr::ZERO).ok_or(SetupError::NoMemory)?;
    let limits = ZoneLimits::new(first.start(), options.dma_end, options.dma_zone);
    let contiguous = options.cma.filter(|request| request.size != 0).and_then(|request| {
        // In the zone that every device reaches.
        let reserved = memblock().reserve_contiguous(request, limits.range(ZoneType::Dma).end());
        reserved.inspect_err(|error| log::warn!("no contiguous area (cma=): {error}")).ok()
    });
    let boot = memblock().alloc(cpu_local_size(), PAGE_SIZE, Window::ANYWHERE)?;
    let (map, metadata) = build_map(boot)?;
    #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
    for cpu in 0..cpus.clamp(1, MAX_CPUS as u32) {
        let place = match cpu {
            0 => boot,
            _ => memblock().alloc(cpu_local_size(), PAGE_SIZE, Window::ANYWHERE)?,
        };
        let virt = phys_range_to_virt(place).ok_or(MemblockError::NoMemory)?;
        // SAFETY: zeroed pages that memblock has just given to us, in the linear map; each CPU once, exceptions masked. The bytes
        // behind its data may hold the sections.
        unsafe { give_cpu(CpuId::new(cpu), virt.start(), map) };
    }
    let mut memblock = memblock();
    // The free ranges are read again below, together with the banks.
    let _ = memblock.retire()?;
    let pages = page_allocator();
    let handed = pages.do_hand_over(banks(&memblock), memblock.free_pages(), limits, options.watermarks)?;
    drop(memblock);
    if let Some(range) = contiguous {
        // SAFETY: reserved above for this alone, and nobody has it.
        let added = unsafe { add_cma_area(range, None, true) };
        if let Err(error) = added {
            log::warn!("no contiguous area at {range} (cma=): {error}");
        }
    }
    let scrub = options.scrub | if tags_are_on() { Scrub::TAG } else { Scrub::empty() };
    if !scrub.is_empty() {
        pages.set_scrub(scrub);
    }
    Ok((handed, metadata))
}

/// RAM in whole pages, by ascending address.
fn banks(memblock: &BootMemblock) -> impl Iterator<Item = PhysRange> + Clone {
    memblock.mapped_ranges().filter_map(|bank| bank.align_inwards(PAGE_SIZE))
}

/// Records the sections that have descriptors, for good: behind the used part of the boot CPU's data, in `place`, if there is
/// room. Returns them, and the frame of page 0.
fn place_sections(place: PhysRange) -> Result<(&'static [Section], Pfn), BringUpError> {
    let count = sections_of(banks(&memblock())).0.count();
    let bytes = (count * size_of::<Section>()) as u64;
    let used = cpu_local_used().next_multiple_of(align_of::<Section>() as u64);
    let place = match PhysRange::from_size(place.start(), cpu_local_size().saturating_sub(used)) {
        Some(rest) if rest.size() >= bytes => PhysAddr::new(place.start().get() + used),
        _ => memblock().alloc(bytes.next_multiple_of(PAGE_SIZE), PAGE_SIZE, Window::ANYWHERE)?.start(),
    };
    let first = phys_to_virt(place).ok_or(MemblockError::NoMemory)?.as_ptr::<Section>();
    let memblock = memblock();
    let (sections, origin) = sections_of(banks(&memblock));
    let mut written = 0;
    for section in sections.take(count) {
        let section = section.ok_or(SetupError::SpanTooLarge)?;
        // SAFETY: memory of memblock's that is ours, in the linear map, with room for `count` of them, aligned
        // for them.
        let slot = unsafe { first.add(written) };
        // SAFETY: one of the `count` places in that memory, aligned.
        unsafe { slot.write(section) };
        written += 1;
    }
    // SAFETY: the first `written` places in that memory, all written, and nobody changes them any more.
    Ok((unsafe { core::slice::from_raw_parts(first, written) }, origin))
}

/// Makes descriptors for all RAM and maps them. Returns the map, and the bytes that it takes. The boot CPU's data are in
/// `place`.
fn build_map(place: PhysRange) -> Result<(Vmemmap, u64), BringUpError> {
    let (sections, origin) = place_sections(place)?;
    let mut bytes = 0;
    let mut blocks_mapped = VirtAddr::ZERO;
    for section in sections {
        let pfn = |index: u32| origin.get() + u64::from(index);
        let descriptors = |index| VirtAddr::new(VMEMMAP_START + pfn(index) * PAGE_DESCRIPTOR_SIZE);
        bytes += back(descriptors(section.first), descriptors(section.end))?;
        // A page holds the types of 8 GiB, so two sections may share one.
        let types = |index| VirtAddr::new(PAGEBLOCK_START + pfn(index) / u64::from(PAGEBLOCK_PAGES));
        let start = types(section.first).align_down(PAGE_SIZE).max(blocks_mapped);
        let end = types(section.end - 1).align_down(PAGE_SIZE).checked_add(PAGE_SIZE).unwrap_or(start);
        if start < end {
            bytes += back(start, end)?;
            blocks_mapped = end;
        }
    }
    let base = VirtAddr::new(VMEMMAP_START + origin.get() * PAGE_DESCRIPTOR_SIZE).as_ptr();
    let blocks = VirtAddr::new(PAGEBLOCK_START + origin.get() / u64::from(PAGEBLOCK_PAGES)).as_ptr();
    // SAFETY: the loop has mapped zeroed memory behind the descriptors and the types of every section, and nothing else
    // is ever mapped in the two regions of the address map. Sections and origin are multiples of the section's size.
    let map = unsafe { Vmemmap::new(base, blocks, origin, sections) };
    Ok((map, bytes))
}

/// Maps zeroed memory behind the addresses from `start` to `end`, both page aligned. Returns the number of bytes.
fn back(start: VirtAddr, end: VirtAddr) -> Result<u64, BringUpError> {
    let table = kernel_tables().ok_or(PgtableError::OutsideSpace)?;
    let mut at = start;
    let mut piece = end.get() - start.get();
    while at < end {
        piece = piece.min(end.get() - at.get());
        let align = if piece >= PMD_SIZE { PMD_SIZE } else { PAGE_SIZE };
        // One piece, if one is free: fewer tables, and 2 MiB blocks.
        let found = memblock().alloc_raw(piece, align, Window::ANYWHERE);
        let memory = match found {
            Ok(memory) => memory,
            Err(_) if piece > PAGE_SIZE => {
                piece = (piece / 2).next_multiple_of(PAGE_SIZE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let range = VirtRange::from_size(at, piece).ok_or(PgtableError::OutsideSpace)?;
        let virt = phys_range_to_virt(memory).ok_or(MemblockError::NoMemory)?;
        if let Some(first) = NonNull::new(virt.start().as_ptr::<mem::Page>()) {
            // SAFETY: memblock has just given the memory to us, and the linear map maps it; it is not empty.
            unsafe { mem::clear_pages(first, piece / PAGE_SIZE) };
        }
        table.do_map(&MemblockFrames, range, memory.start(), Prot::KERNEL_RW, MapFlags::empty())?;
        at = range.end();
    }
    Ok(end.get() - start.get())
}
