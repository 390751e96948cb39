//! Quarry: the memory subsystem of a kernel for 64-bit Arm, as a library.
//!
//! It has the allocators that a kernel lives on, under Linux's names and with Linux's rules: pages, slab caches and `kmalloc`,
//! `vmalloc`, `ioremap`, DMA, pools, per-CPU memory, address spaces of processes, and the page tables, boot memory and device
//! tree beneath them. `no_std`, stable Rust, no allocator of its own needed.
//!
//! # An example
//!
//! A range of memory, one CPU, any architecture. [`single`] needs no feature:
//!
//! ```
//! use quarry::addr::Order;
//! use quarry::gfp::Gfp;
//! use quarry::single::{Heap, OneCpu, Pages};
//!
//! static PAGES: Pages = Pages::new(OneCpu::new());
//! static HEAP: Heap = Heap::new(&PAGES);
//!
//! # let memory = Box::leak(vec![0_u64; 1 << 20].into_boxed_slice());
//! # let (memory, size) = (memory.as_mut_ptr().cast::<u8>(), memory.len() * 8);
//! // SAFETY: `size` bytes that nobody else uses, and one thread.
//! unsafe { HEAP.start(memory, size) }.unwrap();
//!
//! let four_pages = PAGES.alloc_pages(Gfp::KERNEL, Order::new(2).unwrap()).unwrap();
//! let object = HEAP.slabs().kmalloc(100, Gfp::KERNEL).unwrap();
//!
//! // SAFETY: both were allocated above, and neither is used again.
//! unsafe { HEAP.slabs().kfree(object) }.unwrap();
//! // SAFETY: as for the object, with the order of the allocation.
//! unsafe { PAGES.free_pages(four_pages, Order::new(2).unwrap()) }.unwrap();
//! ```
//!
//! A kernel on several CPUs names its machine (`machine!`), makes one call (`bring_up`), and then uses free functions:
//! `kmalloc(100, Gfp::KERNEL)`. That is the feature `global`, for bare-metal targets of 64-bit Arm.
//!
//! # Where to go next
//!
//! The pages are files of this package.
//!
//! | you want | read |
//! |---|---|
//! | Quarry under your kernel | `docs/embedding.md`, then the [`prelude`] |
//! | the code's structure, and four calls followed through it | `docs/architecture.md` |
//! | the rule that makes a call `unsafe` | `docs/safety.md` |
//! | the files that contain `unsafe` | `docs/unsafe.md` |
//! | one subsystem | `docs/README.md` lists a page for each |
//! | to change something | `CONTRIBUTING.md` |
//!
//! # Layers
//!
//! Modules import only from layers below their own; a host test reads every `use` and fails on an upward edge.
//!
//! | layer | modules | contents |
//! |---|---|---|
//! | L7 | `kernel` | the reference kernel's policy: order of boot, prompt, panic, tests |
//! | L6 | `boot`, [`prelude`] | from the boot stub to memory; the names that a kernel's file imports |
//! | L5 | `global`, [`single`] | the statics, and free functions over them; one CPU's heap |
//! | L4 | [`arch`], `board`, `driver` | the machine: implementations of the L1 traits |
//! | L3 | [`mm`] | algorithms and policy, generic over L1 |
//! | L2 | [`sync`], [`ds`], [`fdt`] | locks and what a context may do; trees of nodes with links; device-tree reading |
//! | L1 | [`hal`] | traits: everything that `mm` asks of a machine |
//! | L0 | [`addr`], [`gfp`] | vocabulary |
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
