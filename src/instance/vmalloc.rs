//! The kernel's vmalloc region, and Linux's names for it as free functions.

use super::{BuddyFrames, KernelMmu, KernelPages, kernel_tables, page_allocator};
use crate::addr::{Order, PAGE_SIZE, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::ds::rbtree::{Chain, Node, Owned};
use crate::gfp::Gfp;
use crate::hal::cpu::Interrupts;
use crate::hal::prot::Prot;
use crate::hal::wait::{Context, Scope};
use crate::mm::layout::{VMALLOC_END, VMALLOC_START};
use crate::mm::page::{Kind, Page};
use crate::mm::pgtable::PageTable;
use crate::mm::vmalloc::{
    Area, MapError, RamBlocks, SetupError, Tuning, VmFlags, VmallocHal, VmallocRequest, VmapSpace,
};
use crate::mm::zone::PageAllocator;
use core::mem::MaybeUninit;
use spin::mutex::SpinMutex;

/// The space of vmalloc, vmap and ioremap.
pub(super) static VMALLOC: VmapSpace<'static, KernelPages> = VmapSpace::new(KernelPages(()));
/// The blocks of `vm_map_ram`.
static RAM_BLOCKS: RamBlocks<'static, 'static, KernelPages> = RamBlocks::new(&VMALLOC);
/// Descriptors that were never used.
static DESCRIPTORS: SpinMutex<Chain<'static, Area>, Relax> = SpinMutex::new(Chain::new());

/// Descriptors in a page.
const DESCRIPTORS_PER_PAGE: usize = to_usize(PAGE_SIZE) / size_of::<Node<'static, Area>>();

const _: () = assert!(DESCRIPTORS_PER_PAGE >= 32, "a descriptor takes 128 bytes at most");

/// A page of new descriptors, which stay descriptors for good.
fn descriptor_page() -> Option<Chain<'static, Area>> {
    let page = page_allocator().alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, Order::ZERO).ok()?;
    // A fresh page is unclaimed.
    let _ = page_allocator().claim(page, Kind::Vmalloc, 0);
    let place = super::page_address(page).as_ptr::<[MaybeUninit<Node<'static, Area>>; DESCRIPTORS_PER_PAGE]>();
    // SAFETY: the page has just been allocated and is never freed, so it is ours for good; it is aligned and large
    // enough, by the division above, and what may be uninitialised needs no initialisation.
    let descriptors = unsafe { &mut *place };
    let mut chain = Chain::new();
    for descriptor in descriptors {
        chain.push_back(Owned::new(descriptor.write(Node::new(Area::new()))));
    }
    Some(chain)
}

impl VmallocHal<'static> for KernelPages {
    type Mmu = KernelMmu;
    type Frames = BuddyFrames;
    type Pages = KernelPages;
    type Relax = Relax;

    fn descriptor(&self) -> Option<Owned<'static, Area>> {
        let saved = self.save();
        let first = DESCRIPTORS.lock().pop_front();
        self.restore(saved);
        if first.is_some() {
            return first;
        }
        let mut fresh = descriptor_page()?;
        let first = fresh.pop_front();
        let saved = self.save();
        DESCRIPTORS.lock().append(&mut fresh);
        self.restore(saved);
        first
    }

    fn in_interrupt(&self) -> bool {
        self.is_inside(Scope::Interrupt)
    }

    #[inline]
    #[expect(clippy::expect_used, reason = "the space is set up after the tables are")]
    fn tables(&self) -> &PageTable<KernelMmu> {
        kernel_tables().expect("the kernel is on its final tables")
    }

    #[inline]
    fn frames(&self) -> &BuddyFrames {
        &BuddyFrames
    }

    #[inline]
    fn pages(&self) -> &PageAllocator<KernelPages> {
        page_allocator()
    }
}

/// The space, for reports, checks and whoever needs addresses alone.
#[must_use]
pub fn vmap_space() -> &'static VmapSpace<'static, KernelPages> {
    &VMALLOC
}

/// Sets the vmalloc region up: all of it, or its first `limit` bytes (Linux: `vmalloc_init`, `vmalloc=`). Once, by the
/// boot CPU, when pages can be allocated.
///
/// # Errors
///
/// [`SetupError`].
pub fn vmalloc_init(limit: Option<u64>) -> Result<VirtRange, SetupError> {
    let start = VirtAddr::new(VMALLOC_START);
    let whole = VMALLOC_END - VMALLOC_START;
    let size = limit.map_or(whole, |limit| limit.clamp(PAGE_SIZE, whole) & !(PAGE_SIZE - 1));
    let region = VirtRange::from_size(start, size).unwrap_or_default();
    VMALLOC.set_up(&Tuning { region, ram_pages: page_allocator().total_pages() })?;
    Ok(region)
}

/// `size` bytes, contiguous in addresses; see [`VmapSpace::vmalloc`]. May wait.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vmalloc(size: u64) -> Result<VirtAddr, MapError> {
    VMALLOC.vmalloc(&VmallocRequest::new(size, Gfp::KERNEL))
}

/// [`vmalloc`], zeroed.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vzalloc(size: u64) -> Result<VirtAddr, MapError> {
    VMALLOC.vmalloc(&VmallocRequest::new(size, Gfp::KERNEL | Gfp::ZERO))
}

/// [`vzalloc`] for memory that user space may map: in single pages.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vmalloc_user(size: u64) -> Result<VirtAddr, MapError> {
    let flags = VmFlags::USERMAP | VmFlags::NO_HUGE_VMAP;
    VMALLOC.vmalloc(&VmallocRequest { flags, ..VmallocRequest::new(size, Gfp::KERNEL | Gfp::ZERO) })
}

/// [`vmalloc`] with flags: what may be waited for, which zone the pages are of, whether they are zeroed. With
/// [`Gfp::ATOMIC`] in any context.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vmalloc_gfp(size: u64, gfp: Gfp) -> Result<VirtAddr, MapError> {
    VMALLOC.vmalloc(&VmallocRequest::new(size, gfp))
}

/// Frees what vmalloc gave; see [`VmapSpace::vfree`]. Any context.
///
/// # Errors
///
/// [`MapError::Area`], also logged: nothing has changed then.
#[inline]
pub fn vfree(addr: VirtAddr) -> Result<(), MapError> {
    VMALLOC.vfree(addr).inspect_err(|error| log::error!("vfree({addr}): {error}"))
}

/// Maps pages in their order; see [`VmapSpace::vmap`]. Any context.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vmap(pages: &[Page], flags: VmFlags, prot: Prot) -> Result<VirtAddr, MapError> {
    VMALLOC.vmap(pages, flags, prot)
}

/// Unmaps what [`vmap`] mapped; see [`VmapSpace::vunmap`]. Any context.
///
/// # Errors
///
/// [`MapError::Area`], also logged: nothing has changed then.
#[inline]
pub fn vunmap(addr: VirtAddr) -> Result<(), MapError> {
    VMALLOC.vunmap(addr).inspect_err(|error| log::error!("vunmap({addr}): {error}"))
}

/// Maps pages for a short while; see [`RamBlocks::vm_map_ram`]. Any context.
///
/// # Errors
///
/// [`MapError`].
#[track_caller]
#[inline]
pub fn vm_map_ram(pages: &[Page], prot: Prot) -> Result<VirtAddr, MapError> {
    RAM_BLOCKS.vm_map_ram(pages, prot)
}

/// Unmaps what [`vm_map_ram`] mapped; see [`RamBlocks::vm_unmap_ram`]. Any context.
///
/// # Errors
///
/// [`MapError`], also logged: nothing has changed then.
#[inline]
pub fn vm_unmap_ram(addr: VirtAddr, pages: usize) -> Result<(), MapError> {
    RAM_BLOCKS.vm_unmap_ram(addr, pages).inspect_err(|error| log::error!("vm_unmap_ram({addr}, {pages}): {error}"))
}

/// Whether an address lies in the vmalloc region.
#[must_use]
pub fn is_vmalloc_addr(addr: VirtAddr) -> bool {
    (VMALLOC_START..VMALLOC_END).contains(&addr.get())
}

/// The page behind an address of an area; see [`VmapSpace::vmalloc_to_page`].
#[must_use]
pub fn vmalloc_to_page(addr: VirtAddr) -> Option<Page> {
    VMALLOC.vmalloc_to_page(addr)
}
