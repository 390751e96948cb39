//! L5: the one file with the statics of the memory subsystem, and free functions over them. The generics of the layers
//! below stop here.

mod alloc;
mod bring_up;
mod check;
mod cpu;
mod drain;
mod exceptions;
mod faults;
mod io;
mod kvmalloc;
mod linear;
mod machine;
mod pages;
mod percpu;
mod reclaim;
mod reserved;
mod resource;
mod set_memory;
mod slab;
mod slab_fast;
mod stack;
mod tags;
mod threads;
mod valloc;
mod vmalloc;

pub use crate::sync::{SwitchError, ThreadContext};
pub use alloc::{Cache, CacheBox, ConstructedCache, KBox, KVec, Kmalloc, KmallocApi};
pub use bring_up::{BringUpError, CpuRefused, Memory, Options, Setup, Tables, Up, bring_up, join_cpu};
#[cfg(feature = "boot")]
pub(crate) use bring_up::{bring_allocators_up, bring_areas_up};
pub use check::{Tell, check_all, part as check_part};
use cpu::start_boot_cpu;
pub use cpu::{
    CPU_LOCAL_SIZE, CPU_LOCAL_USED, CpuLocal, KEPT_STACKS, KernelPages, asleep, bring_cpu_online, cpu_locals,
    forbid_waiting_in_atomic, give_cpu, is_online, online_cpus, possible_cpus, start_cpu, take_cpu_offline, this_cpu,
};
pub use drain::{answer_request, answer_requests, drain_offline_cpu};
pub use exceptions::{repair, resume_at};
pub use faults::{KernelCounts, ThisKernel, configure_faults, fault_injector, refuse_allocations};
pub use io::{
    Devres, IoMem, IoMemError, io_init, io_space, ioremap, ioremap_gre, ioremap_ngre, ioremap_np, ioremap_prot,
    ioremap_wc, ioremap_wt, iounmap, memremap, memunmap, readb, readb_relaxed, readl, readl_relaxed, readq,
    readq_relaxed, readw, readw_relaxed, writeb, writeb_relaxed, writel, writel_relaxed, writeq, writeq_relaxed,
    writew, writew_relaxed,
};
pub use kvmalloc::{KvError, kvcalloc, kvfree, kvmalloc, kvrealloc, kvzalloc};
pub use linear::{KernelMmu, LinearWindow, linear_mmu, phys_to_virt};
pub use machine::Machine;
#[cfg(all(feature = "boot", not(feature = "kernel")))]
pub(crate) use machine::machine;
pub use pages::{
    BlockName, BuddyFrames, Pages, alloc_contig_pages, alloc_contig_range, alloc_page, alloc_pages, alloc_pages_bulk,
    alloc_pages_exact, drain_all_pages, free_contig_range, free_page, free_pages, free_pages_bulk, free_pages_exact,
    get_dma_pages, get_free_pages, get_page, get_zeroed_page, kmap, kmap_atomic, kunmap, nr_free_pages, page_address,
    page_allocator, page_count, page_to_pfn, page_to_phys, page_zone, pfn_to_page, put_page, split_page,
    totalram_pages, virt_to_page, virt_to_phys,
};
pub use percpu::{
    PerCpu, alloc_percpu, alloc_percpu_gfp, check_percpu, free_percpu, per_cpu_ptr, percpu_init, percpu_stats,
    percpu_trim, this_cpu_ptr,
};
pub use reclaim::{
    Deferred, KernelReclaim, SpinLock, context, defer_no_more, defer_to, idle, might_sleep, reclaim, spin_lock,
};
pub use reserved::{ReservedRegion, memory_region};
pub use resource::{MemRegion, iomem_resource, release_mem_region, request_mem_region};
pub use set_memory::{set_memory_init, set_memory_nx, set_memory_ro, set_memory_rw, set_memory_x};
pub use slab::{
    KmemCache, add_entropy, kcalloc, kfree, kfree_sensitive, kmalloc, kmalloc_array, krealloc, ksize, kzalloc,
    slab_allocator, start_slabs, try_kfree,
};
pub use stack::{KernelStack, StackAllocError, alloc_stack, drain_kernel_stacks, stack_count};
pub use tags::{
    TagError, TagReport, enable_tags, keeps_tags, remember_owners, start_tags_on_cpu, tag_report, tags_are_on, untag,
};
pub use threads::switch_thread;
pub use valloc::{VBox, VVec, Vmalloc, Vmap, vmalloc_huge};
pub use vmalloc::{
    check_vmalloc, execmem_space, is_vmalloc_addr, vfree, vfree_atomic, vm_map_ram, vm_unmap_ram, vmalloc,
    vmalloc_exec, vmalloc_gfp, vmalloc_init, vmalloc_to_page, vmalloc_user, vmap, vmap_space, vrealloc, vunmap,
    vzalloc,
};

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::linear::LinearMemory;
use crate::hal::frame::{FrameSource, NoFrame};
use crate::mm::memblock::{Memblock, MemblockError, Window};
use crate::mm::pgtable::PageTable;
use crate::sync::{OrderedGuard, OrderedLock, class};
use spin::once::Once;

/// The kernel's memblock: it reaches no memory until the linear map is up.
pub type BootMemblock = Memblock<'static, Option<LinearMemory>>;

static MEMBLOCK: OrderedLock<BootMemblock, class::MemblockLists, Relax> = OrderedLock::new(Memblock::new(None));
static KERNEL_TABLES: Once<PageTable<KernelMmu>, Relax> = Once::new();

/// The boot-time memory manager. Boot CPU only, never from an interrupt.
#[track_caller]
pub fn memblock() -> OrderedGuard<'static, BootMemblock, class::MemblockLists, Relax> {
    MEMBLOCK.lock()
}

/// The tables that TTBR1 holds, once they are the final ones. Any context.
#[must_use]
pub fn kernel_tables() -> Option<&'static PageTable<KernelMmu>> {
    KERNEL_TABLES.get()
}

/// Makes `tables` the kernel's. The first call counts.
pub fn set_kernel_tables(tables: PageTable<KernelMmu>) {
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
            // A page that memblock does not take back is lost, and nothing worse.
            let _ = memblock().free(page);
        }
    }
}
