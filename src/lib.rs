//! Quarry: the memory subsystem of a kernel for 64-bit Arm.
//!
//! From the first instruction after the boot loader to the allocators that a kernel lives on, in layers that import
//! only downwards (a test reads every `use` and fails on an upward edge):
//!
//! | layer | modules | what lives there |
//! |---|---|---|
//! | L6 | `boot` | from the boot stub to memory |
//! | L7 | `kernel` | the reference kernel's policy: order of boot, prompt, panic, tests |
//! | L5 | `global`, [`single`], [`prelude`] | the statics, and free functions over them; one CPU's heap; the face |
//! | L4 | [`arch`], `board`, `driver` | the machine: bodies of the L1 traits |
//! | L3 | [`mm`] | algorithms and policy, generic over L1 |
//! | L2 | [`sync`], [`ds`], [`fdt`] | locks, what a context may do; trees of nodes with links; device-tree reading |
//! | L1 | [`hal`] | what `mm` asks of a machine |
//! | L0 | [`addr`], [`gfp`] | vocabulary |
//!
//! # Where `unsafe` is
//!
//! Policy has none; mechanism has as little as it can, here and nowhere else (a test compares this list with the
//! sources):
//!
//! | file | what for |
//! |---|---|
//! | `ds/rbtree/node.rs` | links that their owner alone touches |
//! | `sync/held.rs` | references in a table of the checking build |
//! | `hal/cache.rs` | the promise of a machine with data caches |
//! | `hal/frame.rs` | the promise of a source of table frames |
//! | `hal/internal.rs` | the promise of who plays an allocator |
//! | `hal/io.rs` | the promise of a bus with device registers |
//! | `hal/mmu.rs` | the promise of a machine with page tables |
//! | `hal/user.rs` | the promise of a way to user memory |
//! | `mm/alloc/allocator.rs` | the promise of an allocator |
//! | `mm/alloc/cache.rs` | objects as values |
//! | `mm/alloc/global.rs` | the early heap's blocks, the allocator of `alloc` |
//! | `mm/alloc/into_iter.rs` | taking values out of a row |
//! | `mm/alloc/kbox.rs` | a block as a value |
//! | `mm/alloc/kmem.rs` | the slab allocator as one of blocks |
//! | `mm/alloc/kvec.rs` | a block as an array of values that grows |
//! | `mm/alloc/raw.rs` | room for values |
//! | `mm/alloc/with_gfp.rs` | the trait of `allocator-api2` |
//! | `mm/dma/hal.rs` | the promise of a machine with DMA |
//! | `mm/dma/owned.rs` | coherent memory as values |
//! | `mm/dma/raw_calls.rs` | what is owed by calls on mappings for devices |
//! | `mm/user/access/copy.rs` | user memory within its range |
//! | `mm/user/access/pointer.rs` | values as bytes |
//! | `mm/user/access/word.rs` | user memory within its range |
//! | `mm/io/devres.rs` | values of any type, kept |
//! | `mm/io/mmio.rs` | mapped registers |
//! | `mm/io/raw_calls.rs` | what is owed by calls on mappings of devices |
//! | `mm/mempool/backing.rs` | the promise of a source of elements |
//! | `mm/mempool/poison.rs` | memory of elements in a reserve |
//! | `mm/mempool/pool.rs` | elements as the pool's own |
//! | `mm/mempool/raw_calls.rs` | what is owed by calls on elements |
//! | `mm/mempool/typed.rs` | elements as values |
//! | `mm/page/map.rs` | the page descriptors as one array |
//! | `mm/percpu/hal.rs` | the promise of a machine with per-CPU memory |
//! | `mm/percpu/raw_calls.rs` | what is owed by calls on per-CPU memory |
//! | `mm/slab/global.rs` | records of caches as pointers |
//! | `mm/slab/hal.rs` | the promise of a machine with objects |
//! | `mm/slab/object.rs` | memory of objects |
//! | `mm/slab/raw_calls.rs` | what is owed by calls on objects |
//! | `mm/slab/slab.rs` | which memory is an object's |
//! | `mm/zone/reserved.rs` | reserved memory that is said to be no longer needed |
//! | `mm/pgtable/mod.rs` | making and taking over a root |
//! | `mm/pgtable/raw_calls.rs` | what is owed by changes of mappings |
//! | `mm/pgtable/table.rs` | entries of a table frame |
//! | `mm/user/map/fill.rs` | what is owed by giving frames to a process |
//! | `mm/user/pages/hal.rs` | the promise of a machine with user spaces |
//! | `mm/user/pages/raw_calls.rs` | what is owed by mapping memory of others |
//! | `mm/user/pages/spare.rs` | frames for tables, allocated in advance |
//! | `mm/user/space.rs` | what is owed by giving a page to a process |
//! | `mm/vmalloc/caller.rs` | where a call came from, as a pointer |
//! | `mm/vmalloc/hal.rs` | the promise of a machine with areas |
//! | `mm/vmalloc/raw_calls.rs` | what is owed by calls on areas |
//! | `mm/zone/hal.rs` | the promise of a machine with pages |
//! | `mm/zone/raw_calls.rs` | what is owed by calls on pages |
//! | `arch/aarch64/at.rs` | address translation by the CPU |
//! | `arch/aarch64/boot.rs` | the boot stub's symbols, exchanging TTBR1 |
//! | `arch/aarch64/break_window.rs` | entries of what the code itself lies behind |
//! | `arch/aarch64/cache.rs` | cache maintenance |
//! | `arch/aarch64/cpu.rs` | hints, CPU registers |
//! | `arch/aarch64/dcache.rs` | cache maintenance for devices |
//! | `arch/aarch64/early_fixmap.rs` | the fixmap's entries |
//! | `arch/aarch64/entries.rs` | runs of entries in pairs |
//! | `arch/aarch64/features.rs` | ID registers |
//! | `arch/aarch64/fixmap.rs` | table frames through fixmap slots |
//! | `arch/aarch64/hold.rs` | waiting out of registers |
//! | `arch/aarch64/icache.rs` | cache maintenance for instructions |
//! | `arch/aarch64/io.rs` | loads and stores of device registers |
//! | `arch/aarch64/irq.rs` | masking interrupts |
//! | `arch/aarch64/linear.rs` | free memory through the linear map |
//! | `arch/aarch64/mem.rs` | whole pages |
//! | `arch/aarch64/mmu.rs` | entries of live tables |
//! | `arch/aarch64/monitor.rs` | exclusive accesses |
//! | `arch/aarch64/mte.rs` | tags of memory, the registers that decide about them |
//! | `arch/aarch64/pmu.rs` | counters |
//! | `arch/aarch64/probe.rs` | loads that may fault |
//! | `arch/aarch64/protect.rs` | controls of access |
//! | `arch/aarch64/rseq.rs` | tables that the linker makes |
//! | `arch/aarch64/spin_table.rs` | the word that a CPU waits on |
//! | `arch/aarch64/stack.rs` | calls on another stack |
//! | `arch/aarch64/step.rs` | debug exceptions, breakpoints |
//! | `arch/aarch64/tlb.rs` | barriers, TLBI |
//! | `arch/aarch64/trap.rs` | the frame that the vectors make, stacks |
//! | `arch/aarch64/ttbr0.rs` | the tables of the lower half |
//! | `arch/aarch64/uaccess.rs` | user memory, the table that the linker makes |
//! | `arch/aarch64/user.rs` | the way to EL0 |
//! | `arch/host/cache.rs` | the simulated machine's RAM as bytes |
//! | `arch/host/cpu.rs` | the simulated machine's side of the promises |
//! | `arch/host/io.rs` | the simulated machine's registers |
//! | `arch/host/user.rs` | the simulated machine's user memory |
//! | `driver/gic/mod.rs` | interrupt-controller registers |
//! | `driver/gic/v2.rs` | interrupt-controller registers |
//! | `driver/gic/v3.rs` | interrupt-controller registers |
//! | `driver/uart/mini.rs` | serial-port registers |
//! | `driver/uart/mod.rs` | serial-port registers |
//! | `driver/uart/pl011.rs` | serial-port registers |
//! | `global/alloc.rs` | `kmalloc` as one of blocks |
//! | `global/bring_up/cpus.rs` | a CPU that comes |
//! | `global/bring_up/mod.rs` | all that a kernel promises |
//! | `global/bring_up/pages.rs` | mapping and clearing the page descriptors, the list of their sections |
//! | `global/bring_up/tables.rs` | taking TTBR1 over |
//! | `global/cma.rs` | reserved memory that is lent |
//! | `global/cpu.rs` | per-CPU state |
//! | `global/device_memory.rs` | reserved memory that becomes a pool |
//! | `global/devres.rs` | what is owed by calls on memory of devices |
//! | `global/dma.rs` | descriptors of mappings for devices, bytes of bounce slots |
//! | `global/io.rs` | descriptors of mappings, device registers |
//! | `global/kvmalloc.rs` | memory of one allocator copied to that of another |
//! | `global/linear.rs` | table frames through the linear map |
//! | `global/machine.rs` | the promise of a kernel's machine |
//! | `global/mempool.rs` | the promise of a source of elements |
//! | `global/mod.rs` | memblock as a source of frames |
//! | `global/page_frees.rs` | what is owed by calls that give pages back |
//! | `global/pages.rs` | the buddy as a source of frames, zeroing |
//! | `global/percpu.rs` | values of CPUs |
//! | `global/ports.rs` | ports in a mapped window |
//! | `global/set_memory.rs` | the window that the linear map is split through |
//! | `global/slab_fast.rs` | restartable sequences |
//! | `global/slab.rs` | per-CPU arrays of free objects, allocations as pointers |
//! | `global/stack.rs` | records of stacks, calls on one |
//! | `global/vmalloc.rs` | pages and objects as descriptors of areas, memory that moves |
//! | `global/static_percpu.rs` | copies of static variables, restartable sequences on them |
//! | `global/switch_mm.rs` | a process's tables |
//! | `global/tags.rs` | tags of RAM through the linear map, the memory of the ring of owners |
//! | `global/threads.rs` | switching threads |
//! | `global/user.rs` | records of areas as objects, a space that a CPU changes to |
//! | `global/user_map.rs` | what is owed by giving registers and areas to a process |
//! | `global/user_pages.rs` | the kernel's machine for user spaces |
//! | `global/valloc.rs` | areas as values, mapped pages as bytes |
//! | `boot/entry.rs` | the stub's symbols, the kernel's function |
//! | `boot/init_memory.rs` | memory that only booting needed |
//! | `boot/mod.rs` | the boot CPU's first steps |
//! | `boot/switch.rs` | the switch to the final tables |
//! | `kernel/cpus/start.rs` | the entry of CPUs, spin tables |
//! | `kernel/cpus/work.rs` | jobs as pointers |
//! | `boot/device_tree.rs` | the mapped tree as bytes |
//! | `boot/early_map.rs` | taking the stub's fixmap over |
//! | `boot/early_regions.rs` | memory of the image as regions |
//! | `kernel/dma_benchmark.rs` | buffers of its own, mapped for no device |
//! | `kernel/heap.rs` | the grant of the early heap |
//! | `kernel/init.rs` | the boot stub's fixmap, the identity map, the grant of the early heap |
//! | `kernel/interrupts.rs` | handlers as pointers |
//! | `kernel/ktest.rs` | the registry of tests |
//! | `kernel/machine.rs` | the promise of the reference kernel |
//! | `kernel/serial.rs` | opening mapped ports |
//! | `kernel/smp_call.rs` | calls as pointers |
//! | `kernel/symbol.rs` | the symbol table in the image |
//! | `kernel/tags.rs` | switching tags on; the object of their self-test |
//! | `kernel/tick.rs` | a handler as a pointer |
//! | `single.rs` | memory of one CPU, used where it is |
#![cfg_attr(not(feature = "host"), no_std)]
#![cfg_attr(all(test, target_os = "none"), no_main)]

#[cfg(all(
    any(feature = "global", feature = "boot", feature = "mem"),
    not(all(target_arch = "aarch64", target_os = "none")),
    not(feature = "host")
))]
compile_error!(
    "the features `kernel`, `global`, `boot` and `mem` are for a bare-metal target of 64-bit Arm, such as \
     aarch64-unknown-none-softfloat; without them the library builds for every target"
);
#[cfg(all(feature = "boot", target_feature = "neon"))]
compile_error!(
    "the feature `boot` is for soft-float targets, such as aarch64-unknown-none-softfloat: its vectors do not save the \
     registers of floating point, which stay switched off"
);

#[cfg(any(feature = "host", feature = "global-allocator"))]
extern crate alloc;

/// The feature `dma-minalign`: every allocation of `kmalloc` has the cache lines that it touches to itself.
const DMA_MINALIGN: bool = cfg!(feature = "dma-minalign");

/// Bytes of a thread's stack: 16 KiB, or with the feature `stack-8k` or `stack-4k` as many.
#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
const KERNEL_STACK_SIZE: usize = if cfg!(feature = "stack-8k") {
    8 << 10
} else if cfg!(feature = "stack-4k") {
    4 << 10
} else {
    16 << 10
};

pub mod addr;
pub mod arch;
pub mod ds;
pub mod fdt;
pub mod gfp;
pub mod hal;
pub mod mm;
pub mod sync;

#[cfg(all(feature = "kernel", target_os = "none"))]
pub mod board;
#[cfg(all(feature = "boot", target_arch = "aarch64", target_os = "none"))]
pub mod boot;
#[cfg(any(feature = "host", all(feature = "kernel", target_os = "none")))]
pub mod driver;
#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub mod global;
#[cfg(any(feature = "host", all(feature = "kernel", target_os = "none")))]
pub mod kernel;
pub mod prelude;
pub mod single;

#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use global::*;

/// `cargo test` builds the library as a test target of its own even though it holds no tests; on the host that needs a
/// `main`.
#[cfg(all(test, not(target_os = "none")))]
fn main() {}
