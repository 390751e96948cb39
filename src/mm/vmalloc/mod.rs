//! Kernel address ranges and their mappings: vmalloc, vmap, ioremap (Linux: `mm/vmalloc.c`).
//!
//! A [`VmapSpace`] divides a region of kernel addresses into **areas**. An area is at any time in one of four places:
//!
//! ```text
//!              alloc                 remove              retire                purge
//!   free tree ───────▶ busy tree of ───────▶ Removed ───────────▶ lazy list ───────────▶ pool of a CPU, or
//!   or pool            its node               │   recycle                                free tree, merged
//!                                             └──────────────────────────────────────▶
//! ```
//!
//! - The **free tree** has every gap once, merged, with the largest gap below each node ([`MaxSize`]), so that the
//!   lowest that fits is found in O(log n). One lock.
//! - **Busy trees** find an area by address. There is one for each CPU, up to [`NODES`], each with a lock; the address says
//!   which one an area is in. The latest few are in slots in front of the tree, and most are freed from there.
//! - A **lazy list** has areas that nobody uses but that CPUs may still translate. Only areas with pages of their own go there.
//!   A **purge** unmaps and invalidates them all at once and only then frees their pages: promise 3 is kept because the pages
//!   are in the area ([`Pages`]), and nothing but a purge takes them out.
//! - **Pools** keep small areas by size, for the CPU that freed them. Areas that a CPU allocates and frees repeatedly cost no
//!   search, and no lock that another CPU wants.
//!
//! An area's descriptor goes with its address range through all of these. So freeing needs no memory: only an allocation that
//! splits a gap does, and it reserves its descriptors before it begins.
//!
//! # Words
//!
//! | verb | what moves |
//! |---|---|
//! | alloc, free | addresses, out of the free tree or back into it; an area, for a caller; pages of a `vm_map_ram` block |
//! | pop, push | an area without pages, out of a pool or into one |
//! | publish, remove | an area, into the busy tree of its node or out of it |
//! | retire | a removed area that may still be translated, onto a lazy list |
//! | purge | the areas of lazy lists: unmapped, invalidated, their pages freed, their addresses into pools or the free tree |
//! | recycle | a removed area that no CPU translates, into a pool or the free tree |
//! | cancel | an area under construction that a failed call has made: removed and recycled |
//! | claim | nothing: a complete area is under construction again, or a mapping of a block is its unmapper's alone |
//! | adopt, disown | pages of a caller, into an area that frees them, or back |
//! | release | the pages of an area that no CPU translates, to the page allocator ([`AreaHal::release`]) |
//!
//! # Locks and contexts
//!
//! The lock of the free tree and those of the nodes, with interrupts masked, one at a time (except in the check of the
//! invariants, during which nothing else happens); none is held while a method of [`AreaHal`] runs. All functions may be called
//! in any context, but see [`VmapSpace::retire`].

mod area;
mod area_info;
mod block;
mod busy;
mod caller;
mod check;
mod early;
mod early_areas;
mod error;
mod flags;
mod free_tree;
mod hal;
mod info;
mod layout;
mod lazy;
mod node;
mod pages;
mod permission;
mod raw_calls;
mod resize;
mod set_memory;
mod space;
mod trim;
mod uncached;
#[expect(clippy::module_inception, reason = "the call itself, in the folder of all that areas need")]
mod vmalloc;
mod vmap_pages;

pub use area::{Area, AreaRef, Pages, Removed};
pub use area_info::AreaInfo;
pub use block::{BLOCKS, MAX_PAGES, RamBlocks};
pub use error::{AreaError, VmallocError, VmapSetupError};
pub use flags::VmFlags;
pub(in crate::mm) use hal::TABLE_GFP;
pub use hal::{AreaHal, SetMemoryHal, VmallocHal};
pub use info::VmallocInfo;
pub use permission::{Permission, SetMemoryError};
pub use resize::Resized;
pub use space::{AreaRequest, Tuning, VmapSpace};
pub use uncached::Uncached;
pub use vmalloc::VmallocRequest;

#[cfg(doc)]
use crate::ds::rbtree::fit::MaxSize;

/// Maximum number of busy trees, lazy lists and sets of pools.
pub const NODES: usize = 16;
