//! The kernel's vmalloc region, and Linux's names for it as free functions.

use super::linear::pointer;
use super::misuse::refused;
use super::pages::set_brief_mappings;
use super::slab::KmemCache;
use super::tags::{self, untag};
use super::{BuddyFrames, Deferred, KernelMmu, KernelPages, context, defer_to, kernel_tables, page_allocator, reclaim};
use crate::addr::{Address, PAGE_SIZE, Pointer, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::ds::Broken;
use crate::ds::rbtree::{Node, Owned};
use crate::gfp::Gfp;
use crate::hal::prot::Prot;
use crate::hal::wait::{Context, Scope};
use crate::mm::layout::{MODULES_END, MODULES_VADDR, VMALLOC_END, VMALLOC_START};
use crate::mm::page::Page;
use crate::mm::pgtable::PageTable;
use crate::mm::slab::{CacheSpec, SlabFlags};
use crate::mm::vmalloc::{
    Area, RamBlocks, Resized, Tuning, VmFlags, VmallocError, VmallocHal, VmallocRequest, VmapSetupError, VmapSpace,
};
use crate::mm::zone::{PageAllocator, Purge};
use crate::sync::Once;
use core::mem::MaybeUninit;
use core::panic::Location;
use core::ptr::NonNull;

/// The space of vmalloc, vmap and ioremap.
pub(super) static VMALLOC: VmapSpace<'static, KernelPages> = VmapSpace::new(KernelPages(()));
/// The space of code, near enough to the image for a branch.
static EXECMEM: VmapSpace<'static, KernelPages> = VmapSpace::new(KernelPages(()));
/// The blocks of `vm_map_ram`.
static RAM_BLOCKS: RamBlocks<'static, 'static, KernelPages> = RamBlocks::new(&VMALLOC);
/// Source of descriptors. They stay descriptors for good, as areas come and go.
static DESCRIPTORS: Once<KmemCache, Relax> = Once::new();

// SAFETY: HAL-9: the tables of TTBR1 on all CPUs, of which this crate has the regions of the address map to itself;
// descriptors come from a cache and are never freed to it.
unsafe impl VmallocHal<'static> for KernelPages {
    type Mmu = KernelMmu;
    type Frames = BuddyFrames;
    type Pages = KernelPages;
    type Relax = Relax;

    fn descriptor(&self, gfp: Gfp) -> Option<Owned<'static, Area>> {
        let object = DESCRIPTORS.get()?.alloc(gfp).ok()?;
        let place =
            VirtAddr::new(object.as_ptr().expose_provenance() as u64).as_ptr::<MaybeUninit<Node<'static, Area>>>();
        // SAFETY: an object of the cache, as large and as aligned as a node, that is never freed, so it is ours for good.
        let place = unsafe { &mut *place };
        Some(Owned::new(place.write(Node::new(Area::new()))))
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
    fn frames(&self, gfp: Gfp) -> BuddyFrames {
        BuddyFrames::new(gfp)
    }

    #[inline]
    fn pages(&self) -> &PageAllocator<KernelPages> {
        page_allocator()
    }
}

/// The space, for reports, checks and callers that need addresses alone.
#[must_use]
pub fn vmap_space() -> &'static VmapSpace<'static, KernelPages> {
    &VMALLOC
}

/// Areas that wait for their purge, for allocations that run short of memory.
struct Lazy;

impl Purge for Lazy {
    fn name(&self) -> &'static str {
        "vmalloc"
    }

    fn lazy_pages(&self) -> u64 {
        VMALLOC.lazy_pages() + EXECMEM.lazy_pages()
    }

    fn purge(&self, _: Gfp) {
        VMALLOC.purge_all();
        EXECMEM.purge_all();
    }
}

impl Deferred for Lazy {
    fn run(&self) -> bool {
        let (data, code) = (VMALLOC.purge_due(), EXECMEM.purge_due());
        data || code
    }
}

/// Tests every invariant of the space and of the blocks of [`vm_map_ram`]; nothing may be mapped or unmapped meanwhile, on
/// any CPU.
///
/// # Errors
///
/// The first invariant that does not hold.
pub fn check_vmalloc() -> Result<(), Broken> {
    VMALLOC.check().and_then(|()| EXECMEM.check()).and_then(|()| RAM_BLOCKS.check())
}

/// Sets the vmalloc region up: all of it, or its first `limit` bytes (Linux: `vmalloc_init`, `vmalloc=`). Once, by the
/// boot CPU, when objects can be allocated.
///
/// # Errors
///
/// [`VmapSetupError`].
pub(crate) fn vmalloc_init(limit: Option<u64>) -> Result<VirtRange, VmapSetupError> {
    #[expect(clippy::cast_possible_truncation, reason = "two cache lines")]
    let spec = CacheSpec {
        name: "vmap_area",
        size: size_of::<Node<'static, Area>>() as u32,
        align: align_of::<Node<'static, Area>>() as u32,
        // Reclaimable memory: there may be many after a peak, and they lie close together then.
        flags: SlabFlags::NO_MERGE.union(SlabFlags::RECLAIM_ACCOUNT),
        constructor: None,
    };
    let cache = KmemCache::create(&spec).map_err(|_| VmapSetupError::NoDescriptor)?;
    DESCRIPTORS.call_once(|| cache);
    let start = VirtAddr::new(VMALLOC_START);
    let whole = VMALLOC_END - VMALLOC_START;
    let size = limit.map_or(whole, |limit| limit.clamp(PAGE_SIZE, whole) & !(PAGE_SIZE - 1));
    let region = VirtRange::from_size(start, size).unwrap_or_default();
    let ram_pages = page_allocator().total_pages();
    VMALLOC.set_up(&Tuning { region, ram_pages })?;
    let code = VirtRange::new(VirtAddr::new(MODULES_VADDR), VirtAddr::new(MODULES_END)).unwrap_or_default();
    EXECMEM.set_up(&Tuning { region: code, ram_pages })?;
    set_brief_mappings(|first, pages| RAM_BLOCKS.maps(first, pages));
    let registered = reclaim().purges().register(context(), &Lazy).and(defer_to(&Lazy));
    // Registered for good.
    let _ = registered.map_err(|_| VmapSetupError::Unregistered)?;
    Ok(region)
}

/// The space that an address belongs to: that of code, or that of everything else.
#[inline]
pub(super) fn space_of(addr: VirtAddr) -> &'static VmapSpace<'static, KernelPages> {
    if (MODULES_VADDR..MODULES_END).contains(&addr.get()) { &EXECMEM } else { &VMALLOC }
}

/// The space of code, for reports and checks.
#[must_use]
pub fn execmem_space() -> &'static VmapSpace<'static, KernelPages> {
    &EXECMEM
}

/// Allocates `size` bytes for code, within reach of a branch from the kernel's own text (Linux: `execmem_alloc`): writable and
/// not executable. When the code is there, [`set_memory_ro`](super::set_memory_ro) and then
/// [`set_memory_x`](super::set_memory_x) make it executable, and the linear map of its pages read-only; no mapping is ever
/// both. [`vfree`] frees it, executable or not. May wait.
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
pub fn vmalloc_exec(size: usize) -> Result<NonNull<u8>, VmallocError> {
    let request = VmallocRequest::new(size as u64, Gfp::KERNEL);
    EXECMEM.vmalloc(&VmallocRequest { flags: VmFlags::NO_HUGE_VMAP, ..request }).map(pointer)
}

/// Memory in the vmalloc region, with a tag where memory is tagged.
#[inline]
pub(super) fn allocate(request: &VmallocRequest) -> Result<VirtAddr, VmallocError> {
    if tags::tags_are_on() { tags::tagged_vmalloc(request) } else { VMALLOC.vmalloc(request) }
}

/// Allocates `size` bytes, contiguous in addresses; see [`VmapSpace::vmalloc`]. May wait.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vmalloc(size: usize) -> Result<NonNull<u8>, VmallocError> {
    vmalloc_gfp(size, Gfp::KERNEL)
}

/// [`vmalloc`], zeroed.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vzalloc(size: usize) -> Result<NonNull<u8>, VmallocError> {
    vmalloc_gfp(size, Gfp::KERNEL | Gfp::ZERO)
}

/// [`vzalloc`] for memory that user space may map: it consists of single pages.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vmalloc_user(size: usize) -> Result<NonNull<u8>, VmallocError> {
    let flags = VmFlags::USERMAP | VmFlags::NO_HUGE_VMAP;
    let request = VmallocRequest::new(size as u64, Gfp::KERNEL | Gfp::ZERO);
    VMALLOC.vmalloc(&VmallocRequest { flags, ..request }).map(pointer)
}

/// [`vmalloc`] with flags: whether it may wait, the zone of the pages, whether they are zeroed. With [`Gfp::ATOMIC`] in any
/// context.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vmalloc_gfp(size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
    allocate(&VmallocRequest::new(size as u64, gfp)).map(pointer)
}

/// Frees an area of vmalloc; see [`VmapSpace::vfree`]. Null is a no-op. A wrong address is reported, and nothing changes. Any
/// context.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Safety
///
/// The caller owns the area, alone: no owning type (`VBox`, `VVec`, …) holds it, and after the call nobody uses its
/// addresses, or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn vfree(addr: impl Pointer) {
    if let Err(error) = space_of(untag(addr.at())).do_vfree(untag(addr.at())) {
        refused("vfree", addr.at(), &error, Location::caller());
    }
}

/// As [`vfree`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`VmallocError::Area`]; nothing has changed then.
///
/// # Safety
///
/// As for [`vfree`].
#[inline(always)]
pub unsafe fn try_vfree(addr: impl Pointer) -> Result<(), VmallocError> {
    space_of(untag(addr.at())).do_vfree(untag(addr.at()))
}

/// [`vfree`] that leaves the purge to other contexts; see [`VmapSpace::vfree_atomic`]. A wrong address is reported, and nothing
/// changes. Any context.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Safety
///
/// The caller owns the area, alone: no owning type (`VBox`, `VVec`, …) holds it, and after the call nobody uses its
/// addresses, or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn vfree_atomic(addr: impl Pointer) {
    if let Err(error) = space_of(untag(addr.at())).do_vfree_atomic(untag(addr.at())) {
        refused("vfree_atomic", addr.at(), &error, Location::caller());
    }
}

/// As [`vfree_atomic`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`VmallocError::Area`]; nothing has changed then.
///
/// # Safety
///
/// As for [`vfree_atomic`].
#[inline(always)]
pub unsafe fn try_vfree_atomic(addr: impl Pointer) -> Result<(), VmallocError> {
    space_of(untag(addr.at())).do_vfree_atomic(untag(addr.at()))
}

/// Resizes an area of vmalloc to `size` bytes, in place or by moving it (Linux: `vrealloc`). The contents up to the smaller
/// size are kept. With [`Gfp::ZERO`], on this call and all before, all other bytes are zero. Null allocates. Context as `gfp`
/// says.
///
/// As a value: [`VBox`](super::VBox), [`VVec`](super::VVec).
///
/// # Errors
///
/// [`VmallocError`], [`VmallocError::Empty`] among them for a size of 0 (Linux frees); the memory is unchanged then.
///
/// # Safety
///
/// Nobody uses the memory meanwhile, nor the freed part afterwards: all of it, if the address changes.
#[track_caller]
pub unsafe fn vrealloc(old: impl Pointer, size: usize, gfp: Gfp) -> Result<NonNull<u8>, VmallocError> {
    if old.at() == VirtAddr::ZERO {
        return vmalloc_gfp(size, gfp);
    }
    // SAFETY: this function's `# Safety` is that of `resize`: nobody uses the memory meanwhile, nor the freed part afterwards.
    unsafe { resize(old.at(), size as u64, gfp) }.map(pointer)
}

/// [`vrealloc`] of an existing area.
///
/// # Safety
///
/// As for [`vrealloc`].
#[track_caller]
unsafe fn resize(tagged: VirtAddr, size: u64, gfp: Gfp) -> Result<VirtAddr, VmallocError> {
    if size == 0 {
        return Err(VmallocError::Empty);
    }
    let addr = untag(tagged);
    let space = space_of(addr);
    let old = match space.resize(addr, size, gfp)? {
        Resized::InPlace(bytes) => {
            if gfp.contains(Gfp::ZERO) && bytes > size {
                let tail = VirtAddr::new(addr.get() + size).as_ptr::<u8>();
                // SAFETY: mapped, as the area has that many bytes; `# Safety` of `vrealloc`: nobody uses the memory meanwhile.
                unsafe { tail.write_bytes(0, to_usize(bytes - size)) };
            }
            tags::retag_vmalloc(tagged, size, bytes);
            return Ok(tagged);
        }
        Resized::MustMove(old) => old,
    };
    let flags = space.find(addr).map_or(VmFlags::empty(), |area| area.flags);
    let flags = flags & (VmFlags::USERMAP | VmFlags::NO_HUGE_VMAP | VmFlags::KASAN);
    let request = VmallocRequest { flags, ..VmallocRequest::new(size, gfp) };
    // Code stays within reach of a branch, and carries no tags.
    let new = if core::ptr::eq(space, &EXECMEM) { EXECMEM.vmalloc(&request)? } else { allocate(&request)? };
    // SAFETY: both areas are mapped for that many bytes: it moves because it is too short. The new one has no other owner.
    unsafe { untag(new).as_ptr::<u8>().copy_from_nonoverlapping(addr.as_ptr::<u8>(), to_usize(old)) };
    // SAFETY: `# Safety` of `vrealloc`: the address changes, so nobody uses the old memory afterwards.
    unsafe { try_vfree(addr) }?;
    Ok(new)
}

/// Maps pages in their order; see [`VmapSpace::vmap`]. Any context.
///
/// As a value: [`Vmap`](super::Vmap).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vmap(pages: &[Page], flags: VmFlags, prot: Prot) -> Result<NonNull<u8>, VmallocError> {
    VMALLOC.vmap(pages, flags, prot).map(pointer)
}

/// Unmaps an area of [`vmap`]; see [`VmapSpace::vunmap`]. Null is a no-op. A wrong address is reported, and nothing changes.
/// Any context.
///
/// As a value: [`Vmap`](super::Vmap).
///
/// # Safety
///
/// The caller owns the area, alone: no owning type ([`Vmap`](super::Vmap)) holds it, and after the call nobody uses its
/// addresses, or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn vunmap(addr: impl Pointer) {
    if let Err(error) = VMALLOC.do_vunmap(untag(addr.at())) {
        refused("vunmap", addr.at(), &error, Location::caller());
    }
}

/// As [`vunmap`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`VmallocError::Area`]; nothing has changed then.
///
/// # Safety
///
/// As for [`vunmap`].
#[inline(always)]
pub unsafe fn try_vunmap(addr: impl Pointer) -> Result<(), VmallocError> {
    VMALLOC.do_vunmap(untag(addr.at()))
}

/// Maps pages for a short while; see [`RamBlocks::vm_map_ram`]. Any context.
///
/// As a value: [`Vmap`](super::Vmap).
///
/// # Errors
///
/// [`VmallocError`].
#[track_caller]
#[inline]
pub fn vm_map_ram(pages: &[Page], prot: Prot) -> Result<NonNull<u8>, VmallocError> {
    RAM_BLOCKS.vm_map_ram(pages, prot).map(pointer)
}

/// Unmaps a mapping of [`vm_map_ram`]; see [`RamBlocks::vm_unmap_ram`]. A wrong address is reported, and nothing changes. Any
/// context.
///
/// As a value: [`Vmap`](super::Vmap).
///
/// # Safety
///
/// The caller owns the area, alone: no owning type ([`Vmap`](super::Vmap)) holds it, and after the call nobody uses its
/// addresses, or the memory of its pages if they are its own. A name that is wrong in itself is found and refused.
#[inline(always)]
#[track_caller]
pub unsafe fn vm_unmap_ram(addr: impl Pointer, pages: usize) {
    if let Err(error) = RAM_BLOCKS.do_vm_unmap_ram(addr.at(), pages) {
        refused("vm_unmap_ram", addr.at(), &error, Location::caller());
    }
}

/// As [`vm_unmap_ram`], but returns an error for a bad address instead of reporting it.
///
/// # Errors
///
/// [`VmallocError`]; nothing has changed then.
///
/// # Safety
///
/// As for [`vm_unmap_ram`].
#[inline(always)]
pub unsafe fn try_vm_unmap_ram(addr: impl Pointer, pages: usize) -> Result<(), VmallocError> {
    RAM_BLOCKS.do_vm_unmap_ram(addr.at(), pages)
}

/// Whether an address lies in the vmalloc region.
#[must_use]
pub fn is_vmalloc_addr(addr: impl Address) -> bool {
    (VMALLOC_START..VMALLOC_END).contains(&untag(addr.at()).get())
}

/// The page behind an address of an area; see [`VmapSpace::vmalloc_to_page`].
#[must_use]
pub fn vmalloc_to_page(addr: impl Address) -> Option<Page> {
    let addr = untag(addr.at());
    space_of(addr).vmalloc_to_page(addr)
}
