//! Everything that a file of a kernel needs: `use quarry::prelude::*`.
//!
//! The vocabulary always; and with the feature `global` every family of calls, under Linux's names.
#![forbid(unsafe_code)]

pub use crate::addr::{CpuId, DmaAddr, Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
pub use crate::gfp::{Gfp, ZoneType};
pub use crate::hal::prot::{Access, MemoryType, Prot};
pub use crate::mm::dma::{
    AnyBits, Bidirectional, CoherentBlock, Device, DeviceSpec, DmaError, DmaWindow, FromDevice, PoolShape, SgEntry,
    ToDevice,
};
pub use crate::mm::page::Page;
pub use crate::mm::slab::{CacheSpec, SlabFlags};
pub use crate::mm::vmalloc::VmFlags;

#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::global::{
    Cache, CacheBox, CoherentBox, CoherentVec, ConstructedCache, Deferred, Devres, DmaMapping, DmaPool, IoMem, KBox,
    KVec, KernelStack, KmemCache, MemRegion, Pages, PerCpu, ReservedRegion, SpinLock, VBox, VVec, Vmap,
    alloc_contig_pages, alloc_page, alloc_pages, alloc_pages_bulk, alloc_percpu, dma_alloc_coherent,
    dma_alloc_noncoherent, dma_alloc_wc, dma_bit_mask, dma_device, dma_device_of, dma_free_coherent, dma_map_page,
    dma_map_resource, dma_map_sg, dma_map_single, dma_pool_create, dma_set_coherent_mask, dma_set_mask,
    dma_set_mask_and_coherent, dma_sync_single_for_cpu, dma_sync_single_for_device, dma_unmap_page, dma_unmap_resource,
    dma_unmap_sg, dma_unmap_single, free_page, free_pages, free_pages_bulk, free_percpu, get_free_pages, get_page,
    get_zeroed_page, ioremap, ioremap_np, ioremap_wc, ioremap_wt, iounmap, kcalloc, kfree, kfree_sensitive, kmalloc,
    kmalloc_array, krealloc, ksize, kvfree, kvmalloc, kvzalloc, kzalloc, memremap, memunmap, page_address, page_to_pfn,
    page_to_phys, per_cpu_ptr, pfn_to_page, phys_to_virt, put_page, readb, readl, readq, readw, spin_lock,
    this_cpu_ptr, vfree, virt_to_page, virt_to_phys, vm_map_ram, vm_unmap_ram, vmalloc, vmap, vrealloc, vunmap,
    vzalloc, writeb, writel, writeq, writew,
};
