//! User address spaces of this kernel: where their tables, pages and records come from, and how a CPU changes to one.

use super::cpu::KernelPages;
use super::linear::{KernelMmu, linear_mmu};
use super::pages::{BuddyFrames, PAGES};
use super::switch_mm::asids;
use super::{KmemCache, phys_to_virt};
use crate::addr::{Address as _, Pfn, PhysAddr, UserAddr, UserRange, VirtAddr, VirtRange};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::{icache, irq, mem, ttbr0};
use crate::ds::rbtree::{Node, Owned};
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use crate::mm::slab::{CacheSpec, SlabFlags};
use crate::mm::user::AddressSpace as Space;
use crate::mm::user::asid::AsidError;
use crate::mm::user::map::{MapError, NewArea, ObjectId, Objects, Vma, VmaSource};
use crate::mm::user::pages::UserHal;
use crate::mm::zone::PageAllocator;
use crate::sync::Once;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A user address space of this kernel.
pub type AddressSpace = Space<'static, KernelUser>;

/// This kernel, as its user address spaces see it.
#[derive(Clone, Copy, Debug)]
pub struct KernelUser(());

/// Why this machine has no user address spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserError {
    /// No cache for records of areas, or no page of zeros.
    NoMemory,
    /// The lower half of addresses cannot be used.
    Asids(AsidError),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory for user address spaces"),
            Self::Asids(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for UserError {}

/// What all spaces share.
struct Shared {
    /// Records of areas.
    areas: KmemCache,
    /// A page of zeros.
    zero_page: Pfn,
    objects: &'static (dyn Objects + Sync),
}

static SHARED: Once<Result<Shared, UserError>, Relax> = Once::new();

/// A kernel without files: nothing can be mapped but anonymous memory.
struct NoObjects;

impl Objects for NoObjects {
    fn mmap(&self, _: ObjectId, _: &mut NewArea) -> Result<(), MapError> {
        // ENODEV
        Err(MapError::File(19))
    }

    fn get(&self, _: ObjectId) {}

    fn put(&self, _: ObjectId) {}
}

fn set_up(objects: &'static (dyn Objects + Sync)) -> Result<Shared, UserError> {
    asids().map_err(UserError::Asids)?;
    #[expect(clippy::cast_possible_truncation, reason = "two cache lines")]
    let spec = CacheSpec {
        name: "vm_area_struct",
        size: size_of::<Node<'static, Vma>>() as u32,
        align: align_of::<Node<'static, Vma>>() as u32,
        flags: SlabFlags::NO_MERGE,
        constructor: None,
    };
    let areas = KmemCache::create(&spec).map_err(|_| UserError::NoMemory)?;
    let zero = super::get_zeroed_page(Gfp::KERNEL).map_err(|_| UserError::NoMemory)?;
    let zero_page = super::virt_to_phys(zero).map(Pfn::containing).ok_or(UserError::NoMemory)?;
    Ok(Shared { areas, zero_page, objects })
}

fn shared() -> &'static Result<Shared, UserError> {
    SHARED.call_once(|| set_up(&NoObjects))
}

/// Names the files and devices that processes can map. Only where sleeping is allowed; the first call counts, or the first space,
/// after which there are none.
///
/// # Errors
///
/// [`UserError`]: this machine has no user address spaces.
pub fn user_init(objects: &'static (dyn Objects + Sync)) -> Result<(), UserError> {
    SHARED.call_once(|| set_up(objects)).as_ref().map(|_| ()).map_err(|error| *error)
}

impl KernelUser {
    /// The machine, for a new space. Only where sleeping is allowed, the first time.
    ///
    /// # Errors
    ///
    /// [`UserError`].
    pub fn new() -> Result<Self, UserError> {
        // INVARIANT: a value exists only when what is shared does.
        shared().as_ref().map(|_| Self(())).map_err(|error| *error)
    }

    #[expect(clippy::expect_used, reason = "a value exists only when what is shared does")]
    fn shared(self) -> &'static Shared {
        shared().as_ref().expect("there is a value")
    }
}

// SAFETY: HAL-14: the linear map reaches all tables; the kernel's page allocator; a root is in a TTBR by `activate` alone, whose
// caller answers for its space. HAL-15: the page was zeroed, is nobody else's and is never freed; whole pages are copied.
unsafe impl UserHal for KernelUser {
    type Mmu = KernelMmu;
    type Frames = BuddyFrames;
    type Pages = KernelPages;
    type Relax = Relax;

    fn mmu(&self) -> KernelMmu {
        // SAFETY: MACH-1 has held since the allocators came up.
        unsafe { linear_mmu() }
    }

    #[inline]
    fn frames(&self, gfp: Gfp) -> BuddyFrames {
        BuddyFrames::new(gfp)
    }

    #[inline]
    fn pages(&self) -> &PageAllocator<KernelPages> {
        &PAGES
    }

    #[inline]
    fn zero_page(&self) -> Pfn {
        self.shared().zero_page
    }

    #[inline]
    fn copy_page(&self, _: Internal, from: PhysAddr, to: PhysAddr) {
        let page = |phys| phys_to_virt(phys).and_then(|at| NonNull::new(at.as_ptr::<mem::Page>()));
        if let (Some(from), Some(to)) = (page(from), page(to)) {
            // SAFETY: pages of RAM; the second is nobody else's yet. A process may write to the first meanwhile, whose copy
            // has the old bytes or the new ones then.
            unsafe { mem::copy_page(to, from) };
        }
    }

    fn sync_instructions(&self, start: PhysAddr, pages: u64) {
        let at = phys_to_virt(start).and_then(|at| VirtRange::from_size(at, pages * crate::addr::PAGE_SIZE));
        at.into_iter().for_each(icache::sync);
    }
}

impl VmaSource<'static> for KernelUser {
    #[inline]
    fn take(&self, gfp: Gfp) -> Option<Owned<'static, Vma>> {
        let object = self.shared().areas.alloc(gfp).ok()?;
        let place =
            VirtAddr::new(object.as_ptr().expose_provenance() as u64).as_ptr::<MaybeUninit<Node<'static, Vma>>>();
        // SAFETY: an object of the cache, as large and as aligned as a node, that is ours until `give`.
        let place = unsafe { &mut *place };
        Some(Owned::new(place.write(Node::new(Vma::new()))))
    }

    #[inline]
    fn give(&self, record: Owned<'static, Vma>) {
        if let Some(object) = NonNull::new(record.into_ptr().cast_mut().cast::<u8>()) {
            // SAFETY: allocated by `take`; it is in no tree, and `VmaSource` says that no reference to it is left.
            unsafe { self.shared().areas.free(object) };
        }
    }
}

impl Objects for KernelUser {
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        self.shared().objects.mmap(object, area)
    }

    fn get(&self, object: ObjectId) {
        self.shared().objects.get(object);
    }

    fn put(&self, object: ObjectId) {
        self.shared().objects.put(object);
    }

    fn opened(&self, object: ObjectId, range: UserRange) {
        self.shared().objects.opened(object, range);
    }

    fn closed(&self, object: ObjectId, range: UserRange) {
        self.shared().objects.closed(object, range);
    }

    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        self.shared().objects.identity(object)
    }

    fn name(&self, object: ObjectId, to: &mut dyn fmt::Write) -> fmt::Result {
        self.shared().objects.name(object, to)
    }
}

impl Wait for KernelUser {
    fn wait(&self, queue: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        super::context().wait(queue, condition)
    }

    #[inline]
    fn wake(&self, queue: &WaitQueue) {
        super::context().wake(queue);
    }
}

impl Context for KernelUser {
    fn enter(&self, scope: Scope) {
        super::context().enter(scope);
    }

    fn leave(&self, scope: Scope) {
        super::context().leave(scope);
    }

    fn is_inside(&self, scope: Scope) -> bool {
        super::context().is_inside(scope)
    }

    #[inline]
    fn atomic(&self) -> Option<Atomic> {
        super::context().atomic()
    }
}

/// From now on this CPU sees the memory of `space` (Linux: `activate_mm`). Any context.
///
/// # Errors
///
/// [`AsidError`], upon which nothing changes.
///
/// # Safety
///
/// The space is dropped only when every CPU that sees it has changed to another one, or to none ([`leave_mm`](super::leave_mm)).
pub unsafe fn activate(space: &AddressSpace) -> Result<(), AsidError> {
    let asids = asids()?;
    let saved = irq::local_irq_save_flags();
    let asid = asids.activate(space.asid());
    if let Some(asid) = asid {
        if space.pages().asid() != asid {
            // Before any walk under the new number: who changes entries reads the number after a barrier, so either this number
            // is invalidated too, or the walks below see the change.
            space.pages().set_asid(asid);
            ttbr0::order_before_walks();
        }
        // SAFETY: the caller vouches for the space; the number is its own, and interrupts are masked.
        unsafe { ttbr0::set(space.root(), asid) };
    }
    irq::local_irq_restore_flags(saved);
    if asid.is_some() { Ok(()) } else { Err(AsidError::NoCpuData) }
}

/// Where processes of this kernel have their memory: Linux's places for 48 bits.
#[must_use]
pub const fn user_layout() -> crate::mm::user::map::MapLayout {
    const TASK_SIZE: u64 = 0x0001_0000_0000_0000;
    crate::mm::user::map::MapLayout {
        mmap_min: UserAddr::new(0x1_0000),
        task_size: UserAddr::new(TASK_SIZE),
        mmap_base: UserAddr::new(TASK_SIZE - (1 << 30)),
        placement: crate::mm::user::map::Placement::TopDown,
    }
}
