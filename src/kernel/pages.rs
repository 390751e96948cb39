//! Pages and objects, as the device tree and the boot arguments want them, and the memory that only booting needed.

use super::bootargs::BootArgs;
use super::bytes::Bytes;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtRange};
use crate::arch::aarch64::boot;
use crate::arch::aarch64::cpu::{MAX_CPUS, affinity};
use crate::arch::aarch64::secondary::AFFINITY;
use crate::fdt::{Cpu, Tree};
use crate::global::{self, BringUpError, BuddyFrames, Options};
use crate::mm::memblock::BOOT_ONLY;
use crate::mm::pgtable::{PgtableError, UnmapFlags};
use crate::mm::slab::SlabOptions;
use crate::mm::zone::{FreeError, Scrub, SetupError, WatermarkTuning};
use ::log::info;
use alloc::vec::Vec;
use core::fmt;

/// Why there can be no page allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PagesError {
    BringUp(BringUpError),
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
        if let Self::BringUp(error) = self {
            return error.fmt(f);
        }
        f.write_str("page allocator: ")?;
        match self {
            Self::BringUp(_) => Ok(()),
            Self::Tables(error) => error.fmt(f),
            Self::Setup(error) => error.fmt(f),
            Self::Free(error) => error.fmt(f),
            Self::NoTables => f.write_str("no page tables"),
            Self::NoMemory => f.write_str("the early heap is too small for so many regions"),
        }
    }
}

impl From<BringUpError> for PagesError {
    fn from(error: BringUpError) -> Self {
        Self::BringUp(error)
    }
}

impl From<PgtableError> for PagesError {
    fn from(error: PgtableError) -> Self {
        Self::Tables(error)
    }
}

/// Brings pages and objects up and retires the memblock. Boot CPU, once, when the linear map and the early heap are there.
pub(super) fn init(tree: &Tree<'_>, args: BootArgs<'static>) -> Result<(), PagesError> {
    let options = options(tree, args);
    let (handed, descriptors) = global::bring_allocators_up(possible_cpus(tree), &options)?;
    if !options.scrub.is_empty() {
        info!("pages: {:?}, every call takes the slow path", options.scrub);
    }
    info!(
        "pages: {} of {} in {} zones, {} for descriptors",
        Bytes(handed.managed * PAGE_SIZE),
        Bytes(handed.present * PAGE_SIZE),
        handed.zones,
        Bytes(descriptors)
    );
    info!("slab: kmalloc up");
    free_init_memory()
}

/// What the tree and the boot arguments say about memory.
fn options(tree: &Tree<'_>, args: BootArgs<'static>) -> Options {
    // Linux called it by the second name until 6.9.
    let debug = args.words().filter(|word| matches!(word.name, "slab_debug" | "slub_debug")).last();
    Options {
        watermarks: tuning(args),
        dma_end: lowest_dma_end(tree),
        dma_zone: args.any_size("dma_zone"),
        scrub: scrub(args),
        slabs: SlabOptions {
            debug: debug.map(|word| word.value.unwrap_or_default()),
            init_on_alloc: args.switch("init_on_alloc"),
            init_on_free: args.switch("init_on_free"),
            panic_on_misuse: args.switch("panic_on_warn"),
        },
        ..Options::DEFAULT
    }
}

/// How many CPUs may ever run: this one, and one for each other that the device tree has enabled.
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_CPUS")]
fn possible_cpus(tree: &Tree<'_>) -> u32 {
    let is_other =
        |cpu: &Cpu<'_, '_>| cpu.is_enabled() && cpu.mpidr().is_ok_and(|mpidr| mpidr & AFFINITY != affinity());
    tree.cpus().filter(is_other).count().saturating_add(1).min(MAX_CPUS) as u32
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

/// Gives the memory of the image that only booting needed to the page allocator, but for what the device tree reserves.
fn free_init_memory() -> Result<(), PagesError> {
    let Some(range) = VirtRange::new(boot::init_start(), boot::init_end()).filter(|range| !range.is_empty()) else {
        return Ok(());
    };
    let parts = {
        let memblock = global::memblock();
        if memblock.is_lent() {
            // It is still in use.
            return Ok(());
        }
        let boot_only = || memblock.reserved().regions().iter().filter(|region| region.owner == Some(BOOT_ONLY));
        list_of(boot_only().filter_map(|region| region.range.align_inwards(PAGE_SIZE)), boot_only().count())?
    };
    let table = global::kernel_tables().ok_or(PagesError::NoTables)?;
    let frames = BuddyFrames::ATOMIC;
    // Its name in the image goes first; the linear map is what the next owner uses.
    table.do_unmap_and_flush(&frames, range, UnmapFlags::KEEP_TABLES)?;
    let mut freed = 0;
    for part in parts {
        let first = Pfn::containing(part.start());
        let page = global::pfn_to_page(first).ok_or(PagesError::Setup(SetupError::NoDescriptor(first)))?;
        let count = u32::try_from(part.size() / PAGE_SIZE).unwrap_or(u32::MAX);
        // SAFETY: the image's memory for booting, less what the tree reserves: the caller has done with it, and its mapping
        // in the image has just gone.
        freed += unsafe { global::page_allocator().free_reserved(page, count) }.map_err(PagesError::Free)?;
    }
    info!("pages: {} of boot-time image freed", Bytes(u64::from(freed) * PAGE_SIZE));
    Ok(())
}
