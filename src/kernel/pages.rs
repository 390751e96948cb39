//! From memblock to the page allocator: descriptors for all RAM, each CPU's lists, the hand-over.

use super::bootargs::BootArgs;
use super::bytes::Bytes;
use crate::addr::{CpuId, PAGE_SIZE, PMD_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::arch::aarch64::boot;
use crate::arch::aarch64::cpu::{MAX_CPUS, affinity};
use crate::arch::aarch64::mem;
use crate::arch::aarch64::secondary::AFFINITY;
use crate::fdt::{Cpu, Tree};
use crate::hal::prot::Prot;
use crate::instance::{self, BuddyFrames, MemblockFrames};
use crate::mm::layout::{self, PAGE_DESCRIPTOR_SIZE, PAGEBLOCK_START, VMEMMAP_START};
use crate::mm::memblock::{BOOT_ONLY, MemblockError, Window};
use crate::mm::page::{PAGEBLOCK_PAGES, Vmemmap, sections_of};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::zone::{FreeError, Scrub, SetupError, WatermarkTuning, ZoneLimits};
use ::log::info;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

/// Why there can be no page allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PagesError {
    Memblock(MemblockError),
    Tables(PgtableError),
    Setup(SetupError),
    Free(FreeError),
    /// The page tables are not the final ones yet.
    NoTables,
    /// The early heap has no room for the list of what to hand over.
    NoMemory,
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("page allocator: ")?;
        match self {
            Self::Memblock(error) => error.fmt(f),
            Self::Tables(error) => error.fmt(f),
            Self::Setup(error) => error.fmt(f),
            Self::Free(error) => error.fmt(f),
            Self::NoTables => f.write_str("no page tables"),
            Self::NoMemory => f.write_str("the early heap is too small for so many regions"),
        }
    }
}

impl From<MemblockError> for PagesError {
    fn from(error: MemblockError) -> Self {
        Self::Memblock(error)
    }
}

impl From<PgtableError> for PagesError {
    fn from(error: PgtableError) -> Self {
        Self::Tables(error)
    }
}

impl From<SetupError> for PagesError {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

/// Brings the page allocator up and retires the memblock. Boot CPU, once, when the linear map and the early heap are
/// there.
pub(super) fn init(tree: &Tree<'_>, args: BootArgs<'_>) -> Result<(), PagesError> {
    let ram = {
        let memblock = instance::memblock();
        let banks = memblock.mapped_ranges().filter_map(|bank| bank.align_inwards(PAGE_SIZE));
        list_of(banks, memblock.memory().len())?
    };
    let Some(first) = ram.first() else { return Err(PagesError::Setup(SetupError::NoMemory)) };
    let limits = ZoneLimits::new(first.start(), lowest_dma_end(tree), args.any_size("dma_zone"));
    let (map, metadata) = build_map(&ram)?;
    for cpu in possible_cpus(tree) {
        let place = instance::memblock().alloc(instance::CPU_LOCAL_SIZE, PAGE_SIZE, Window::ANYWHERE)?;
        let virt = layout::phys_range_to_virt(place).ok_or(MemblockError::NoMemory)?;
        // SAFETY: zeroed pages that memblock has just given to us, in the linear map; each CPU once, exceptions masked.
        unsafe { instance::give_cpu(cpu, virt.start(), map) };
    }
    let handed = {
        let mut memblock = instance::memblock();
        let most = memblock.free_ranges().count();
        let free = list_of(memblock.retire()?, most)?;
        let pages = instance::page_allocator();
        let handed = pages.do_hand_over(ram.iter().copied(), free.into_iter(), limits, tuning(args))?;
        let scrub = scrub(args) | if instance::tags_are_on() { Scrub::TAG } else { Scrub::empty() };
        if !scrub.is_empty() {
            info!("pages: {scrub:?}, all calls go the long way");
            pages.set_scrub(scrub);
        }
        handed
    };
    info!(
        "pages: {} of {} in {} zones, {} for descriptors",
        Bytes(handed.managed * PAGE_SIZE),
        Bytes(handed.present * PAGE_SIZE),
        handed.zones,
        Bytes(metadata)
    );
    free_init_memory()
}

/// The CPUs that may ever run: this one, and one for each other that the device tree has enabled.
fn possible_cpus(tree: &Tree<'_>) -> impl Iterator<Item = CpuId> {
    let is_other =
        |cpu: &Cpu<'_, '_>| cpu.is_enabled() && cpu.mpidr().is_ok_and(|mpidr| mpidr & AFFINITY != affinity());
    let count = tree.cpus().filter(is_other).count().saturating_add(1).min(MAX_CPUS);
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_CPUS")]
    (0..count as u32).map(CpuId::new)
}

/// Where the memory ends that the least able device reaches.
fn lowest_dma_end(tree: &Tree<'_>) -> Option<PhysAddr> {
    tree.dma_ranges().filter_map(|range| range.ok().map(|range| range.cpu.end())).min()
}

/// The watermarks as the boot arguments want them.
fn tuning(args: BootArgs<'_>) -> WatermarkTuning {
    let default = WatermarkTuning::DEFAULT;
    WatermarkTuning {
        min_free_kbytes: args.number("min_free_kbytes"),
        scale_factor: args.number("watermark_scale_factor").unwrap_or(default.scale_factor),
        boost_factor: args.number("watermark_boost_factor").unwrap_or(default.boost_factor),
        ..default
    }
}

/// What the boot arguments want done to pages that change hands.
pub(super) fn scrub(args: BootArgs<'_>) -> Scrub {
    let mut scrub = Scrub::empty();
    scrub.set(Scrub::ZERO_ON_ALLOC, args.switch("init_on_alloc"));
    scrub.set(Scrub::ZERO_ON_FREE, args.switch("init_on_free"));
    scrub.set(Scrub::POISON, args.switch("page_poison"));
    scrub.set(Scrub::UNMAP, args.switch("debug_pagealloc"));
    scrub
}

/// The items of `list`, of which there are no more than `most`.
fn list_of<T>(list: impl Iterator<Item = T>, most: usize) -> Result<Vec<T>, PagesError> {
    let mut items = Vec::new();
    items.try_reserve_exact(most).map_err(|_| PagesError::NoMemory)?;
    // No more than there is room for: a list that grows would need twice the room.
    items.extend(list.take(most));
    Ok(items)
}

/// Makes descriptors for `ram` and maps them: the map, and the bytes that it takes.
fn build_map(ram: &[PhysRange]) -> Result<(Vmemmap, u64), PagesError> {
    let (sections, origin) = sections_of(ram.iter().copied());
    let most = sections_of(ram.iter().copied()).0.count();
    let mut too_far = false;
    let sections = list_of(sections.inspect(|section| too_far |= section.is_none()).flatten(), most)?;
    if too_far {
        return Err(SetupError::SpanTooLarge.into());
    }
    let mut bytes = 0;
    let mut blocks_mapped = VirtAddr::ZERO;
    for section in &sections {
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
    let map = unsafe { Vmemmap::new(base, blocks, origin, sections.leak()) };
    Ok((map, bytes))
}

/// Maps zeroed memory behind the addresses from `start` to `end`, both page aligned: how many bytes.
fn back(start: VirtAddr, end: VirtAddr) -> Result<u64, PagesError> {
    let table = instance::kernel_tables().ok_or(PagesError::NoTables)?;
    let mut at = start;
    let mut piece = end.get() - start.get();
    while at < end {
        piece = piece.min(end.get() - at.get());
        let align = if piece >= PMD_SIZE { PMD_SIZE } else { PAGE_SIZE };
        // One piece if there is one: fewer tables, and 2 MiB blocks.
        let found = instance::memblock().alloc_raw(piece, align, Window::ANYWHERE);
        let memory = match found {
            Ok(memory) => memory,
            Err(_) if piece > PAGE_SIZE => {
                piece = (piece / 2).next_multiple_of(PAGE_SIZE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let range = VirtRange::from_size(at, piece).ok_or(PgtableError::OutsideSpace)?;
        let virt = layout::phys_range_to_virt(memory).ok_or(MemblockError::NoMemory)?;
        if let Some(first) = NonNull::new(virt.start().as_ptr::<mem::Page>()) {
            // SAFETY: memblock has just given the memory to us, and the linear map maps it; it is not empty.
            unsafe { mem::clear_pages(first, piece / PAGE_SIZE) };
        }
        table.do_map(&MemblockFrames, range, memory.start(), Prot::KERNEL_RW, MapFlags::empty())?;
        at = range.end();
    }
    Ok(end.get() - start.get())
}

/// Gives the memory of the image that only booting needed to the page allocator, but for what the device tree reserves.
fn free_init_memory() -> Result<(), PagesError> {
    let Some(range) = VirtRange::new(boot::init_start(), boot::init_end()).filter(|range| !range.is_empty()) else {
        return Ok(());
    };
    let parts = {
        let memblock = instance::memblock();
        if memblock.is_lent() {
            // It is still in use.
            return Ok(());
        }
        let boot_only = || memblock.reserved().regions().iter().filter(|region| region.owner == Some(BOOT_ONLY));
        list_of(boot_only().filter_map(|region| region.range.align_inwards(PAGE_SIZE)), boot_only().count())?
    };
    let table = instance::kernel_tables().ok_or(PagesError::NoTables)?;
    let frames = BuddyFrames::ATOMIC;
    // Its name in the image goes first; the linear map is what the next owner uses.
    table.do_unmap_and_flush(&frames, range, UnmapFlags::KEEP_TABLES)?;
    let mut freed = 0;
    for part in parts {
        let first = Pfn::containing(part.start());
        let page = instance::pfn_to_page(first).ok_or(PagesError::Setup(SetupError::NoDescriptor(first)))?;
        let count = u32::try_from(part.size() / PAGE_SIZE).unwrap_or(u32::MAX);
        // SAFETY: the image's memory for booting, less what the tree reserves: the caller has done with it, and its mapping
        // in the image has just gone.
        freed += unsafe { instance::page_allocator().free_reserved(page, count) }.map_err(PagesError::Free)?;
    }
    info!("pages: {} of boot-time image freed", Bytes(u64::from(freed) * PAGE_SIZE));
    Ok(())
}
