//! Brings up pages and objects with the settings of the device tree and the boot arguments, and frees the memory that only
//! booting needed.

use super::bootargs::BootArgs;
use crate::addr::{Bytes, PAGE_SIZE, PhysAddr};
use crate::arch::aarch64::cpu::{MAX_CPUS, affinity};
use crate::arch::aarch64::secondary::AFFINITY;
use crate::boot::BootError;
use crate::boot::init_memory::free_init_memory;
use crate::fdt::{Cpu, Tree};
use crate::global::{self, Options};
use crate::mm::slab::SlabOptions;
use crate::mm::zone::{Scrub, WatermarkTuning};
use ::log::info;

/// Brings pages and objects up and retires the memblock. Boot CPU, once, when the linear map and the early heap are up.
pub(super) fn init(tree: &Tree<'_>, args: BootArgs<'static>) -> Result<(), BootError> {
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
    global::cma_areas_of(tree);
    let freed = free_init_memory()?;
    info!("pages: {} of boot-time image freed", Bytes(freed * PAGE_SIZE));
    Ok(())
}

/// Settings for memory in the tree and the boot arguments.
fn options(tree: &Tree<'_>, args: BootArgs<'static>) -> Options {
    // Linux used the second name until 6.9.
    let debug = args.words().filter(|word| matches!(word.name, "slab_debug" | "slub_debug")).last();
    Options {
        watermarks: tuning(args),
        dma_end: lowest_dma_end(tree),
        dma_zone: args.any_size("dma_zone"),
        scrub: scrub(args),
        cma: args.place("cma"),
        slabs: SlabOptions {
            debug: debug.map(|word| word.value.unwrap_or_default()),
            init_on_alloc: args.switch("init_on_alloc"),
            init_on_free: args.switch("init_on_free"),
            panic_on_misuse: args.switch("panic_on_warn"),
        },
        ..Options::DEFAULT
    }
}

/// Number of CPUs that may ever run: this one, and one for each other that the device tree has enabled.
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_CPUS")]
fn possible_cpus(tree: &Tree<'_>) -> u32 {
    let is_other =
        |cpu: &Cpu<'_, '_>| cpu.is_enabled() && cpu.mpidr().is_ok_and(|mpidr| mpidr & AFFINITY != affinity());
    tree.cpus().filter(is_other).count().saturating_add(1).min(MAX_CPUS) as u32
}

/// End of the memory that the least able device reaches.
fn lowest_dma_end(tree: &Tree<'_>) -> Option<PhysAddr> {
    tree.dma_ranges().filter_map(|range| range.ok().map(|range| range.cpu.end())).min()
}

/// The watermark settings of the boot arguments.
fn tuning(args: BootArgs<'_>) -> WatermarkTuning {
    let default = WatermarkTuning::DEFAULT;
    WatermarkTuning {
        min_free_kbytes: args.number("min_free_kbytes"),
        scale_factor: args.number("watermark_scale_factor").unwrap_or(default.scale_factor),
        boost_factor: args.number("watermark_boost_factor").unwrap_or(default.boost_factor),
        ..default
    }
}

/// The boot arguments' settings for pages that change hands.
pub(super) fn scrub(args: BootArgs<'_>) -> Scrub {
    let mut scrub = Scrub::empty();
    scrub.set(Scrub::ZERO_ON_ALLOC, args.switch("init_on_alloc"));
    scrub.set(Scrub::ZERO_ON_FREE, args.switch("init_on_free"));
    scrub.set(Scrub::POISON, args.switch("page_poison"));
    scrub.set(Scrub::UNMAP, args.switch("debug_pagealloc"));
    scrub
}
