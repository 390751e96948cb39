//! L5: the one module with the statics of the memory subsystem, and free functions over them. The generics of the layers below
//! stop here.

mod alloc;
mod bring_up;
mod check;
mod cma;
mod cpu;
mod device_memory;
mod devres;
mod dma;
mod dma_barrier;
mod drain;
mod error;
mod exceptions;
mod fault_injection;
mod io;
mod kvmalloc;
mod linear;
mod machine;
mod mempool;
mod misuse;
mod page_frees;
mod pages;
mod percpu;
mod percpu_counter;
mod ports;
mod reclaim;
mod reserved;
mod resource;
mod set_memory;
mod shared;
mod slab;
mod slab_fast;
mod spaces;
mod stack;
mod static_percpu;
mod switch_mm;
mod tags;
mod threads;
mod uaccess;
mod user;
mod user_map;
mod user_pages;
#[cfg(feature = "boot")]
mod user_run;
mod valloc;
mod vmalloc;

pub use crate::sync::{SwitchError, ThreadContext};
pub use alloc::{Cache, CacheBox, ConstructedCache, KBox, KVec, Kmalloc, KmallocApi};
pub use bring_up::{BringUpError, CpuRefused, Memory, Options, Setup, Tables, Up, bring_up, join_cpu};
#[cfg(feature = "boot")]
pub(crate) use bring_up::{bring_allocators_up, bring_areas_up};
pub use check::{Tell, check_all, part as check_part};
pub use cma::{KernelCmaArea, MAX_CMA_AREAS, cma_area_of, cma_areas, cma_default, movers};
pub(crate) use cma::{add_cma_area, cma_areas_of};
pub(crate) use cpu::give_cpu;
use cpu::start_boot_cpu;
pub use cpu::{
    CpuLocal, KEPT_STACKS, KernelPages, asleep, bring_cpu_online, cpu_local_size, cpu_local_used, cpu_locals,
    forbid_waiting_in_atomic, is_online, online_cpus, possible_cpus, start_cpu, take_cpu_offline, this_cpu,
};
#[cfg(feature = "boot")]
#[cfg(feature = "boot")]
pub(crate) use device_memory::default_pool_of;
pub use device_memory::{
    DeviceMemoryError, of_reserved_mem_device_init, of_reserved_mem_device_init_by_idx,
    of_reserved_mem_device_init_by_name, of_reserved_mem_device_release,
};
pub use devres::{
    Devres, devm_add_action, devm_add_action_or_reset, devm_ioremap, devm_ioremap_resource, devm_ioremap_wc,
    devm_iounmap, devm_kcalloc, devm_kfree, devm_kmalloc, devm_kzalloc, devm_release_mem_region,
    devm_request_mem_region, devres_close_group, devres_open_group, devres_release_group, dmam_alloc_coherent,
};
pub use dma::{
    CoherentBox, CoherentVec, DmaMapping, DmaPool, bounce_stats, check_dma, dma, dma_alloc_coherent,
    dma_alloc_noncoherent, dma_alloc_wc, dma_bit_mask, dma_coherent_pool, dma_debug, dma_device, dma_device_gone,
    dma_device_of, dma_free_coherent, dma_init, dma_map_page, dma_map_resource, dma_map_sg, dma_map_single,
    dma_pool_create, dma_set_coherent_mask, dma_set_mask, dma_set_mask_and_coherent, dma_sync_single_for_cpu,
    dma_sync_single_for_device, dma_unmap_page, dma_unmap_resource, dma_unmap_sg, dma_unmap_single,
};
pub use dma_barrier::{dma_mb, dma_rmb, dma_wmb};
pub use drain::{answer_request, answer_requests, drain_offline_cpu};
pub use error::Error;
pub use exceptions::{repair, resume_at};
pub use fault_injection::{KernelCounts, ThisKernel, configure_faults, fault_injector, refuse_allocations};
#[cfg(feature = "boot")]
pub(crate) use io::io_init;
pub use io::{
    IoMem, IoMemError, io_space, ioremap, ioremap_gre, ioremap_ngre, ioremap_np, ioremap_prot, ioremap_wc, ioremap_wt,
    iounmap, memremap, memunmap, readb, readb_relaxed, readl, readl_relaxed, readq, readq_relaxed, readw,
    readw_relaxed, try_iounmap, try_memunmap, writeb, writeb_relaxed, writel, writel_relaxed, writeq, writeq_relaxed,
    writew, writew_relaxed,
};
pub use kvmalloc::{KvError, KvFreeError, kvcalloc, kvfree, kvmalloc, kvrealloc, kvzalloc, try_kvfree};
pub(crate) use linear::linear_mmu;
pub use linear::{KernelMmu, LinearWindow, phys_to_virt};
pub use machine::Machine;
#[cfg(all(feature = "boot", not(feature = "kernel")))]
pub(crate) use machine::machine;
pub use mempool::{
    FunctionPool, KmallocElements, KmallocPool, Mempool, MempoolBox, MempoolOf, PagePool, SlabPool, mempool_alloc,
    mempool_alloc_preallocated, mempool_create, mempool_create_kmalloc_pool, mempool_create_page_pool,
    mempool_create_slab_pool, mempool_destroy, mempool_free, mempool_resize, try_mempool_free,
};
pub use page_frees::{
    BlockName, free_contig_range, free_page, free_pages, free_pages_bulk, free_pages_exact, put_page,
    try_free_contig_range, try_free_page, try_free_pages, try_free_pages_bulk, try_free_pages_exact, try_put_page,
};
use pages::PAGES;
pub use pages::{
    BuddyFrames, Pages, alloc_contig_pages, alloc_contig_range, alloc_page, alloc_pages, alloc_pages_bulk,
    alloc_pages_exact, drain_all_pages, get_dma_pages, get_free_pages, get_page, get_zeroed_page, kmap, kmap_atomic,
    kunmap, nr_free_pages, page_address, page_allocator, page_count, page_to_pfn, page_to_phys, page_zone, pfn_to_page,
    split_page, totalram_pages, virt_to_page, virt_to_phys,
};
pub(crate) use percpu::percpu_init;
pub use percpu::{
    PerCpu, alloc_percpu, alloc_percpu_gfp, check_percpu, free_percpu, per_cpu_ptr, percpu_stats, percpu_trim,
    this_cpu_ptr, try_free_percpu,
};
pub use percpu_counter::PerCpuCounter;
pub use ports::{
    PortError, PortRegion, inb, inl, inw, ioport_resource, ioports_init, outb, outl, outw, release_region,
    request_region,
};
pub use reclaim::{
    Deferred, KernelReclaim, SpinLock, context, defer_no_more, defer_to, idle, might_sleep, reclaim, spin_lock,
};
pub use reserved::{ReservedRegion, memory_region};
pub use resource::{MemRegion, iomem_resource, release_mem_region, request_mem_region};
pub(crate) use set_memory::set_memory_init;
pub use set_memory::{set_memory_nx, set_memory_ro, set_memory_rw, set_memory_x};
pub use shared::SharedMemory;
pub use slab::{
    KmemCache, add_entropy, kcalloc, kfree, kfree_sensitive, kmalloc, kmalloc_array, krealloc, ksize, kzalloc,
    slab_allocator, try_kfree, try_kfree_sensitive,
};
pub use spaces::{
    KILL_LARGEST, KillLargest, Spaces, Victim, each_space, kill_largest_space, largest_space, register_spaces,
    unregister_spaces,
};
pub use stack::{KernelStack, StackAllocError, alloc_stack, drain_kernel_stacks, stack_count};
pub use static_percpu::{
    CPU_NUMBER, CpuVar, PerCpuWord, PinnedCpu, STATIC_PER_CPU_ALIGN, StaticPerCpu, finds_its_own_copy, get_cpu,
    get_cpu_var, per_cpu_sum, this_cpu_add, this_cpu_cmpxchg, this_cpu_inc, this_cpu_read, this_cpu_write,
    this_cpu_xchg,
};
pub use switch_mm::{KernelAsids, asids, current_mm, leave_mm, switch_mm, switch_mm_noting};
pub use tags::{
    TagError, TagReport, enable_tags, keeps_tags, remember_owners, start_tags_on_cpu, tag_report, tags_are_on, untag,
};
pub use threads::switch_thread;
pub use uaccess::{
    Resolution, UserFault, UserReader, UserWriter, check_zeroed_user, clear_user, cmpxchg_user_u32, cmpxchg_user_u64,
    copy_from_user, copy_struct_from_user, copy_to_user, get_user, put_user, read_user, set_user_fault_handler,
    strncpy_from_user, user_reader, user_writer, write_user,
};
pub use user::{AddressSpace, UserError, activate, new_address_space, resolve_user_fault, user_init, user_layout};
pub use user_map::{remap_vmalloc_range, vm_iomap_memory};
pub use user_pages::{UserSpacePages, new_user_space};
#[cfg(feature = "boot")]
pub use user_run::run_user;
pub use valloc::{VBox, VVec, Vmalloc, Vmap, vmalloc_huge};
pub(crate) use vmalloc::vmalloc_init;
pub use vmalloc::{
    check_vmalloc, execmem_space, is_vmalloc_addr, try_vfree, try_vfree_atomic, try_vm_unmap_ram, try_vunmap, vfree,
    vfree_atomic, vm_map_ram, vm_unmap_ram, vmalloc, vmalloc_exec, vmalloc_gfp, vmalloc_to_page, vmalloc_user, vmap,
    vmap_space, vrealloc, vunmap, vzalloc,
};

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::linear::LinearMemory;
use crate::hal::frame::{FrameSource, NoFrame};
use crate::mm::memblock::{Memblock, MemblockError, Window};
use crate::mm::pgtable::PageTable;
use crate::sync::Once;
use crate::sync::{OrderedGuard, OrderedLock, class};

/// The kernel's memblock: it reaches no memory until the linear map is up.
pub type BootMemblock = Memblock<'static, Option<LinearMemory>>;

static MEMBLOCK: OrderedLock<BootMemblock, class::MemblockLists, Relax> = OrderedLock::new(Memblock::new(None));
static KERNEL_TABLES: Once<PageTable<KernelMmu>, Relax> = Once::new();

/// The boot-time memory manager. Boot CPU only, never from an interrupt.
#[track_caller]
pub fn memblock() -> OrderedGuard<'static, BootMemblock, class::MemblockLists, Relax> {
    MEMBLOCK.lock()
}

/// The final tables of TTBR1, once they are in use. Any context.
#[must_use]
pub fn kernel_tables() -> Option<&'static PageTable<KernelMmu>> {
    KERNEL_TABLES.get()
}

/// Registers `tables` as the kernel's. The first call counts.
pub(crate) fn set_kernel_tables(tables: PageTable<KernelMmu>) {
    KERNEL_TABLES.call_once(|| tables);
}

/// Frames for page tables while memblock is the allocator. Boot CPU only, with the memblock's lock free.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemblockFrames;

// SAFETY: memblock gives whole pages of RAM that nothing else uses, and takes back only what it gave. Before the linear
// map is up its caller reaches them through the fixmap, afterwards all of them through the linear map.
unsafe impl FrameSource for MemblockFrames {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        let page = memblock().alloc_raw(PAGE_SIZE, PAGE_SIZE, Window::ANYWHERE);
        page.map(PhysRange::start).map_err(|_: MemblockError| NoFrame)
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        if let Some(page) = PhysRange::from_size(table, PAGE_SIZE) {
            // A page that memblock does not take back is lost; that does no other harm.
            let _ = memblock().free(page);
        }
    }
}
