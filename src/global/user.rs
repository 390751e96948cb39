//! User address spaces of this kernel: where their tables, pages and records come from, and how a CPU changes to one.

use super::cpu::KernelPages;
use super::switch_mm::{asids, switch_mm_noting};
use super::{KmemCache, UserFault, user_pages};
use crate::addr::{UserAddr, UserRange, VirtAddr};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::esr::Access;
use crate::ds::rbtree::{Node, Owned};
use crate::gfp::Gfp;
use crate::mm::slab::{CacheSpec, SlabFlags};
use crate::mm::user::asid::AsidError;
use crate::mm::user::map::{
    FilePage, Limits, MapError, MapLayout, NewArea, NoFilePage, ObjectId, Objects, Placement, Vma, VmaSource,
};
use crate::mm::user::pages::{FaultAccess, Handled};
use crate::mm::user::{AddressSpace as Space, SpaceFault};
use crate::sync::Once;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A user address space of this kernel.
pub type AddressSpace = Space<'static, KernelPages>;

/// Reason why this machine has no user address spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserError {
    /// No cache for records of areas, or no page of zeros.
    NoMemory,
    /// The lower half of addresses cannot be used.
    Asids(AsidError),
    /// Somebody has named files and devices, or mapped something by name while there were none.
    ObjectsSettled,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory for user address spaces"),
            Self::Asids(error) => error.fmt(f),
            Self::ObjectsSettled => f.write_str("the files and devices that processes can map are settled already"),
        }
    }
}

impl core::error::Error for UserError {}

/// State that all spaces share.
struct Shared {
    /// Records of areas.
    areas: KmemCache,
}

static SHARED: Once<Result<Shared, UserError>, Relax> = Once::new();

/// Files and devices. The first caller that needs them settles that there are none, if nobody has named them: an area that holds
/// an object of one owner is never given up to another.
static OBJECTS: Once<&'static (dyn Objects + Sync), Relax> = Once::new();

#[inline]
fn objects() -> &'static dyn Objects {
    *OBJECTS.call_once(|| &NoObjects)
}

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

fn set_up() -> Result<Shared, UserError> {
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
    user_pages::prepare(Gfp::KERNEL).map_err(|_| UserError::NoMemory)?;
    Ok(Shared { areas })
}

fn shared() -> &'static Result<Shared, UserError> {
    SHARED.call_once(set_up)
}

/// Names the files and devices that processes can map. May sleep. Once, and before anything is mapped by name.
///
/// # Errors
///
/// [`UserError::ObjectsSettled`]: those of an earlier call stay, or there are none. Otherwise this machine has no user address
/// spaces.
pub fn user_init(objects: &'static (dyn Objects + Sync)) -> Result<(), UserError> {
    let mut named = false;
    OBJECTS.call_once(|| {
        named = true;
        objects
    });
    if !named {
        return Err(UserError::ObjectsSettled);
    }
    shared().as_ref().map(|_| ()).map_err(|error| *error)
}

/// A new, empty address space with these limits. May sleep: the first time, and if `gfp` says so.
///
/// # Errors
///
/// [`MapError::NoMemory`]; also on a machine without processes, which [`user_init`] tells apart.
pub fn new_address_space(layout: MapLayout, limits: Limits, gfp: Gfp) -> Result<AddressSpace, MapError> {
    if shared().is_err() {
        return Err(MapError::NoMemory);
    }
    Space::new(KernelPages(()), layout, limits, gfp)
}

/// The state that spaces share; it exists before the first space does.
fn common() -> Option<&'static Shared> {
    SHARED.get()?.as_ref().ok()
}

impl VmaSource<'static> for KernelPages {
    #[inline]
    fn take(&self, gfp: Gfp) -> Option<Owned<'static, Vma>> {
        let object = common()?.areas.alloc(gfp).ok()?;
        let place =
            VirtAddr::new(object.as_ptr().expose_provenance() as u64).as_ptr::<MaybeUninit<Node<'static, Vma>>>();
        // SAFETY: an object of the cache, as large and as aligned as a node, that is ours until `give`.
        let place = unsafe { &mut *place };
        Some(Owned::new(place.write(Node::new(Vma::new()))))
    }

    #[inline]
    fn give(&self, record: Owned<'static, Vma>) {
        let object = NonNull::new(record.into_ptr().cast_mut().cast::<u8>());
        if let (Some(object), Some(shared)) = (object, common()) {
            // SAFETY: allocated by `take`; it is in no tree, and `VmaSource` says that no reference to it is left.
            unsafe { shared.areas.free(object) };
        }
    }
}

impl Objects for KernelPages {
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        objects().mmap(object, area)
    }

    fn get(&self, object: ObjectId) {
        objects().get(object);
    }

    fn put(&self, object: ObjectId) {
        objects().put(object);
    }

    fn opened(&self, object: ObjectId, range: UserRange) {
        objects().opened(object, range);
    }

    fn closed(&self, object: ObjectId, range: UserRange) {
        objects().closed(object, range);
    }

    fn fault(&self, object: ObjectId, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        objects().fault(object, index, gfp)
    }

    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        objects().identity(object)
    }

    fn name(&self, object: ObjectId, to: &mut dyn fmt::Write) -> fmt::Result {
        objects().name(object, to)
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
    // SAFETY: by `# Safety` the space outlives its use; its number is its own, and told to its pages before any CPU uses it.
    unsafe { switch_mm_noting(space.root(), space.asid(), &mut |asid| space.note_asid(asid)) }
}

/// Resolves a fault of the process that has `space`: one of its own, or one of the kernel's copies on its behalf. When it returns
/// `Ok` the access may be tried again. May sleep if `gfp` says so; see [`AddressSpace::fault`](Space::fault).
///
/// # Errors
///
/// [`SpaceFault`]: the process may not make the access, or there is no memory for it.
pub fn resolve_user_fault(space: &AddressSpace, fault: &UserFault, gfp: Gfp) -> Result<Handled, SpaceFault> {
    space.fault(fault.addr, fault_access(fault.access), gfp)
}

#[inline(always)]
pub(super) const fn fault_access(access: Access) -> FaultAccess {
    match access {
        Access::Read => FaultAccess::Read,
        // Cache maintenance too, which needs the right to write or does so (`DC ZVA`).
        Access::Write | Access::CacheMaintenance => FaultAccess::Write,
        Access::Execute => FaultAccess::Execute,
    }
}

/// Where processes of this kernel have their memory: Linux's places for 48 bits.
#[must_use]
pub const fn user_layout() -> MapLayout {
    const TASK_SIZE: u64 = 0x0001_0000_0000_0000;
    MapLayout {
        mmap_min: UserAddr::new(0x1_0000),
        task_size: UserAddr::new(TASK_SIZE),
        mmap_base: UserAddr::new(TASK_SIZE - (1 << 30)),
        placement: Placement::TopDown,
    }
}
