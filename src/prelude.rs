//! Everything that a file of a kernel needs: `use quarry::prelude::*`.
//!
//! The vocabulary always; and with the feature `global` every family of calls, under Linux's names.
#![forbid(unsafe_code)]

pub use crate::addr::{
    Address, CpuId, DmaAddr, Order, PAGE_BYTES, PAGE_SIZE, Pfn, PhysAddr, PhysRange, Pointer, VirtAddr, VirtRange,
};
pub use crate::gfp::{Gfp, ZoneType};
pub use crate::hal::prot::{Access, MemoryType, Prot};
pub use crate::mm::dma::{
    AnyBits, Bidirectional, CoherentBlock, Device, DeviceSpec, DmaError, DmaWindow, FromDevice, PoolShape, SgEntry,
    ToDevice,
};
pub use crate::mm::mempool::PoolSpec;
pub use crate::mm::page::Page;
pub use crate::mm::slab::{CacheSpec, SlabFlags};
pub use crate::mm::vmalloc::VmFlags;

#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::define_per_cpu;
#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::global::{
    Cache, CacheBox, CoherentBox, CoherentVec, ConstructedCache, Deferred, Devres, DmaMapping, DmaPool, Error, IoMem,
    KBox, KVec, KernelStack, KmemCache, MemRegion, Mempool, MempoolBox, Pages, PerCpu, PerCpuCounter, PortRegion,
    ReservedRegion, SpinLock, StaticPerCpu, VBox, VVec, Vmap, alloc_contig_pages, alloc_contig_range, alloc_page,
    alloc_pages, alloc_pages_bulk, alloc_pages_exact, alloc_percpu, alloc_percpu_gfp, devm_add_action_or_reset,
    devm_ioremap, devm_ioremap_resource, devm_kfree, devm_kmalloc, devm_kzalloc, devm_request_mem_region,
    dma_alloc_coherent, dma_alloc_noncoherent, dma_alloc_wc, dma_bit_mask, dma_device, dma_device_of,
    dma_free_coherent, dma_map_page, dma_map_resource, dma_map_sg, dma_map_single, dma_mb, dma_pool_create, dma_rmb,
    dma_set_coherent_mask, dma_set_mask, dma_set_mask_and_coherent, dma_sync_single_for_cpu,
    dma_sync_single_for_device, dma_unmap_page, dma_unmap_resource, dma_unmap_sg, dma_unmap_single, dma_wmb,
    dmam_alloc_coherent, free_contig_range, free_page, free_pages, free_pages_bulk, free_pages_exact, free_percpu,
    get_cpu, get_cpu_var, get_dma_pages, get_free_pages, get_page, get_zeroed_page, ioremap, ioremap_gre, ioremap_ngre,
    ioremap_np, ioremap_prot, ioremap_wc, ioremap_wt, iounmap, is_vmalloc_addr, kcalloc, kfree, kfree_sensitive,
    kmalloc, kmalloc_array, krealloc, ksize, kvcalloc, kvfree, kvmalloc, kvrealloc, kvzalloc, kzalloc, mempool_alloc,
    mempool_alloc_preallocated, mempool_create, mempool_create_kmalloc_pool, mempool_create_page_pool,
    mempool_create_slab_pool, mempool_destroy, mempool_free, mempool_resize, memremap, memunmap, page_address,
    page_count, page_to_pfn, page_to_phys, per_cpu_ptr, pfn_to_page, phys_to_virt, put_page, readb, readb_relaxed,
    readl, readl_relaxed, readq, readq_relaxed, readw, readw_relaxed, release_mem_region, request_mem_region,
    set_memory_nx, set_memory_ro, set_memory_rw, set_memory_x, spin_lock, split_page, this_cpu_add, this_cpu_cmpxchg,
    this_cpu_inc, this_cpu_ptr, this_cpu_read, this_cpu_write, this_cpu_xchg, try_free_contig_range, try_free_page,
    try_free_pages, try_free_pages_bulk, try_free_pages_exact, try_free_percpu, try_iounmap, try_kfree,
    try_kfree_sensitive, try_kvfree, try_memunmap, try_put_page, try_vfree, try_vfree_atomic, try_vm_unmap_ram,
    try_vunmap, vfree, vfree_atomic, virt_to_page, virt_to_phys, vm_map_ram, vm_unmap_ram, vmalloc, vmalloc_exec,
    vmalloc_gfp, vmalloc_huge, vmalloc_to_page, vmalloc_user, vmap, vrealloc, vunmap, vzalloc, writeb, writeb_relaxed,
    writel, writel_relaxed, writeq, writeq_relaxed, writew, writew_relaxed,
};
