//! Bringing the memory subsystem up in a kernel: one call, in the one order that works.
//!
//! ```text
//!   memory ─▶ tables of TTBR1 ─▶ descriptors, CPUs' data ─▶ page allocator ─▶ slabs ─▶ vmalloc, per-CPU memory, devices
//! ```

mod cpus;
mod error;
mod memory;
mod pages;
mod tables;

pub use cpus::{CpuRefused, join_cpu};
pub use error::BringUpError;

use super::slab::start_slabs;
use super::{cma_areas_of, dma_init, io, percpu_init, set_memory_init, vmalloc_init};
use crate::addr::{PhysAddr, PhysRange, VirtRange};
use crate::arch::aarch64::cpu::random;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{dcache, errata, mem, rseq, tlb, uaccess};
use crate::fdt::Tree;
use crate::mm::io::ReservedMap;
use crate::mm::memblock::ContiguousRequest;
use crate::mm::slab::SlabOptions;
use crate::mm::zone::{Handed, Scrub, WatermarkTuning};

/// The memory of the machine.
#[derive(Clone, Copy, Debug)]
pub enum Memory<'s> {
    /// RAM, and the parts of it that are in use: the kernel's image and stacks, its page tables, the boot loader's data. Counts
    /// to the byte.
    Ranges {
        /// The banks.
        ram: &'s [PhysRange],
        /// Memory in use for good.
        reserved: &'s [PhysRange],
    },
    /// The memory in a device tree: banks, reservations, the initial RAM disk.
    Tree {
        /// The tree.
        tree: &'s Tree<'s>,
        /// Where its bytes are.
        range: PhysRange,
        /// The kernel's image, stacks and page tables.
        image: PhysRange,
    },
    /// [`memblock`](super::memblock) has been filled already.
    Known,
}

/// Owner of the page tables in TTBR1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tables {
    /// The kernel's own, live in `TTBR1_EL1`: four levels of 4 KiB, 48-bit addresses.
    Adopt,
    /// None: a new root, made here, which [`bring_up`] and [`join_cpu`] put into `TTBR1_EL1`. For a kernel that lives in
    /// TTBR0.
    New,
}

/// The settings of a kernel. [`Options::DEFAULT`] suits most.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Settings for reclaim.
    pub watermarks: WatermarkTuning,
    /// End of the memory that the least able device reaches, if it does not reach all.
    pub dma_end: Option<PhysAddr>,
    /// Bytes of the zone for such devices, if it should be smaller (`dma_zone=`).
    pub dma_zone: Option<u64>,
    /// How pages are scrubbed when they are allocated and freed.
    pub scrub: Scrub,
    /// Debugging of objects.
    pub slabs: SlabOptions,
    /// Bytes of the vmalloc region; `None` for all of it.
    pub vmalloc: Option<u64>,
    /// The default contiguous area, if it is not the device tree's (`cma=`); one of no bytes for none.
    pub cma: Option<ContiguousRequest>,
    /// Bounce slots of 2 KiB for devices that do not reach all memory or are not coherent, if not as many as 1 MiB has
    /// (`swiotlb=`); zero for none.
    pub bounce_slots: Option<u64>,
}

impl Options {
    /// The default settings.
    pub const DEFAULT: Self = Self {
        watermarks: WatermarkTuning::DEFAULT,
        dma_end: None,
        dma_zone: None,
        scrub: Scrub::empty(),
        slabs: SlabOptions { debug: None, init_on_alloc: false, init_on_free: false, panic_on_misuse: false },
        vmalloc: None,
        cma: None,
        bounce_slots: None,
    };
}

/// Arguments of [`bring_up`].
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    /// The memory.
    pub memory: Memory<'s>,
    /// The page tables.
    pub tables: Tables,
    /// Number of CPUs that may ever run, the boot CPU included: their numbers are below it.
    pub cpus: u32,
    /// Random bits unknown outside the machine, if there are any: the seed of the caches' secrets and of the order of objects.
    /// The CPU's own random bits are added, if it has a source.
    pub seed: u64,
    /// All other settings.
    pub options: Options,
}

/// The result of [`bring_up`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Up {
    /// The memory of the page allocator.
    pub pages: Handed,
    /// Bytes that the page descriptors take.
    pub descriptors: u64,
    /// The vmalloc region.
    pub vmalloc: VirtRange,
}

/// Brings the memory subsystem up. When it returns, everything in this crate's prelude may be called on this CPU; further CPUs
/// call [`join_cpu`]. Boot CPU, once, with interrupts masked.
///
/// Cost: about two million instructions for 1 GiB.
///
/// # Errors
///
/// [`BringUpError`]; the kernel has no memory subsystem then, and this is not called again.
///
/// # Safety
///
/// - The machine that [`machine!`](crate::machine) names keeps its promises (MACH-1, MACH-2).
/// - `setup.memory` is true: every byte of RAM in it that is in use is reserved.
/// - This CPU runs at EL1, alone, with interrupts masked, MMU and caches on. `TPIDR_EL1` and `TPIDRRO_EL0` are this crate's from
///   here on, on every CPU.
/// - `MAIR_EL1` is [`mair_el1`](crate::arch::aarch64::mair::mair_el1), and `TCR_EL1` has 48-bit addresses of 4 KiB pages for
///   TTBR1; both are checked. In the upper half only the image is mapped in the regions of [the address
///   map](crate::mm::layout), and only this crate maps anything there later.
/// - The kernel's exception vectors call [`repair`](super::repair) for synchronous exceptions from EL1, and always return to
///   EL1 through [`resume_at`](super::resume_at).
pub unsafe fn bring_up(setup: &Setup<'_>) -> Result<Up, BringUpError> {
    let cpu = IdRegisters::read();
    tables::check_registers()?;
    mem::use_features(&cpu);
    uaccess::use_features(&cpu);
    errata::note(cpu.errata());
    tlb::init_cpu(true);
    dcache::init_cpu(true);
    // SAFETY: third bullet of `# Safety`: this CPU is alone and its registers are this crate's; nothing was called before.
    unsafe { super::start_boot_cpu() };
    memory::fill(&setup.memory, cpu.physical_bits(), setup.options.cma)?;
    // SAFETY: second and fourth bullet of `# Safety`: memblock knows all memory in use, and the tables are as described.
    unsafe { tables::take_over(setup.tables) }?;
    super::add_entropy(setup.seed);
    super::add_entropy(random(&cpu).unwrap_or_default());
    let (pages, descriptors) = bring_allocators_up(setup.cpus, &setup.options)?;
    if let Memory::Tree { tree, .. } = setup.memory {
        cma_areas_of(tree);
    }
    let vmalloc = bring_areas_up(&setup.options)?;
    io::io_init(cpu.physical_bits(), VirtRange::default(), ReservedMap::NONE)?;
    set_memory_init()?;
    Ok(Up { pages, descriptors, vmalloc })
}

/// Pages and objects. Boot CPU, once, when memblock and the final tables are ready; interrupts masked.
pub(crate) fn bring_allocators_up(cpus: u32, options: &Options) -> Result<(Handed, u64), BringUpError> {
    let handed = pages::start(cpus, options)?;
    rseq::init();
    start_slabs(options.slabs)?;
    Ok(handed)
}

/// Areas and their users. Boot CPU, once, when pages and objects can be allocated.
pub(crate) fn bring_areas_up(options: &Options) -> Result<VirtRange, BringUpError> {
    let region = vmalloc_init(options.vmalloc)?;
    percpu_init()?;
    dma_init(options.bounce_slots)?;
    Ok(region)
}
