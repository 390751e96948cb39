//! Everything that a file of a kernel needs: `use quarry::prelude::*`.
//!
//! The vocabulary always; and with the feature `global` every family of calls, under Linux's names.
#![forbid(unsafe_code)]

pub use crate::addr::{
    Address, CpuId, Order, PAGE_BYTES, PAGE_SIZE, Pfn, PhysAddr, PhysRange, Pointer, VirtAddr, VirtRange,
};
pub use crate::gfp::{Gfp, ZoneType};
pub use crate::hal::prot::{Access, MemoryType, Prot};
pub use crate::mm::page::Page;
pub use crate::mm::slab::{CacheSpec, SlabFlags};
pub use crate::mm::vmalloc::VmFlags;

#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::global::{
    Cache, CacheBox, ConstructedCache, Deferred, Devres, Error, IoMem, KBox, KVec, KernelStack, KmemCache, MemRegion,
    Pages, PerCpu, ReservedRegion, SpinLock, VBox, VVec, Vmap, alloc_contig_pages, alloc_page, alloc_pages,
    alloc_pages_bulk, alloc_percpu, free_page, free_pages, free_pages_bulk, free_percpu, get_free_pages, get_page,
    get_zeroed_page, ioremap, ioremap_np, ioremap_wc, ioremap_wt, iounmap, kcalloc, kfree, kfree_sensitive, kmalloc,
    kmalloc_array, krealloc, ksize, kvfree, kvmalloc, kvzalloc, kzalloc, memremap, memunmap, page_address, page_to_pfn,
    page_to_phys, per_cpu_ptr, pfn_to_page, phys_to_virt, put_page, readb, readl, readq, readw, spin_lock,
    this_cpu_ptr, vfree, virt_to_page, virt_to_phys, vm_map_ram, vm_unmap_ram, vmalloc, vmap, vrealloc, vunmap,
    vzalloc, writeb, writel, writeq, writew,
};
