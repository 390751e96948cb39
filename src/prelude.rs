//! Everything that a file of a kernel needs: `use quarry::prelude::*`.
//!
//! The vocabulary always; and with the feature `global` every family of calls, under Linux's names.
#![forbid(unsafe_code)]

pub use crate::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
pub use crate::gfp::{Gfp, ZoneType};
pub use crate::hal::prot::{Access, MemoryType, Prot};
pub use crate::mm::mempool::PoolSpec;
pub use crate::mm::page::Page;
pub use crate::mm::slab::{CacheSpec, SlabFlags};
pub use crate::mm::vmalloc::VmFlags;

#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::define_per_cpu;
#[cfg(all(feature = "global", target_arch = "aarch64", target_os = "none"))]
pub use crate::global::{
    Cache, CacheBox, ConstructedCache, Deferred, Devres, IoMem, KBox, KVec, KernelStack, KmemCache, MemRegion, Mempool,
    MempoolBox, Pages, PerCpu, PerCpuCounter, PortRegion, ReservedRegion, SpinLock, StaticPerCpu, VBox, VVec, Vmap,
    alloc_contig_pages, alloc_page, alloc_pages, alloc_pages_bulk, alloc_percpu, devm_add_action_or_reset,
    devm_ioremap, devm_ioremap_resource, devm_kfree, devm_kmalloc, devm_kzalloc, devm_request_mem_region, free_page,
    free_pages, free_pages_bulk, free_percpu, get_cpu, get_cpu_var, get_free_pages, get_page, get_zeroed_page, ioremap,
    ioremap_np, ioremap_wc, ioremap_wt, iounmap, kcalloc, kfree, kfree_sensitive, kmalloc, kmalloc_array, krealloc,
    ksize, kvfree, kvmalloc, kvzalloc, kzalloc, mempool_alloc, mempool_alloc_preallocated, mempool_create,
    mempool_create_kmalloc_pool, mempool_create_page_pool, mempool_create_slab_pool, mempool_destroy, mempool_free,
    mempool_resize, memremap, memunmap, page_address, page_to_pfn, page_to_phys, per_cpu_ptr, pfn_to_page,
    phys_to_virt, put_page, readb, readl, readq, readw, spin_lock, this_cpu_add, this_cpu_cmpxchg, this_cpu_inc,
    this_cpu_ptr, this_cpu_read, this_cpu_write, this_cpu_xchg, vfree, virt_to_page, virt_to_phys, vm_map_ram,
    vm_unmap_ram, vmalloc, vmap, vrealloc, vunmap, vzalloc, writeb, writel, writeq, writew,
};
