//! One user address space: its areas, its pages and its number in the TLB, kept in step (Linux: `mm_struct`).

use super::asid::AsidSlot;
use super::file_fault::map_file_page;
use super::map::{
    AddressMap, Advice, Limits, MapError, MapLayout, MmapRequest, MremapRequest, NoFilePage, Objects, VmFlags, Vma,
    VmaSource,
};
use super::map_lock::{Busy, MapLock, Reader};
use super::over::Over;
use super::pages::{Backing, FaultAccess, FaultError, Handled, PagesError, Usage, UserHal, UserPages, unit_in};
use super::terms::{access, share, virt, virt_range};
use crate::addr::{Order, PAGE_SIZE, PhysAddr, UserAddr, UserRange, VirtAddr, VirtRange};
use crate::gfp::Gfp;
use crate::hal::entry::Entry;
use crate::hal::mmu::Asid;
use crate::hal::prot::Access;
use crate::hal::user::USER_END;
use crate::hal::wait::{Context, Wait};
use crate::mm::page::Page;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering, fence};

/// The machine interface of an address space: tables and pages, records of areas, files, and how a caller sleeps.
pub trait SpaceHal<'a>: UserHal + VmaSource<'a> + Objects + Wait + Context {}

impl<'a, H: UserHal + VmaSource<'a> + Objects + Wait + Context> SpaceHal<'a> for H {}

/// Reason why an access of a process cannot be (Linux: `SIGSEGV`, `SIGBUS`, the OOM killer).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpaceFault {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    NotMapped(UserAddr),
    /// The area does not permit the access (`SEGV_ACCERR`).
    Denied(UserAddr),
    /// A guard page.
    Guard(UserAddr),
    /// The file or device has nothing there (`SIGBUS`).
    NothingThere(UserAddr),
    /// No memory. With flags that permit waiting, the process has to end.
    OutOfMemory,
    /// The caller may not wait, and somebody changes the areas: to be tried again where it may.
    Busy,
    /// The space is being killed.
    Killed,
}

impl fmt::Display for SpaceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped(at) => write!(f, "nothing is mapped at {at:#x}"),
            Self::Denied(at) => write!(f, "the area at {at:#x} does not permit the access"),
            Self::Guard(at) => write!(f, "guard page at {at:#x}"),
            Self::NothingThere(at) => write!(f, "the object mapped at {at:#x} has nothing there"),
            Self::OutOfMemory => f.write_str("no memory"),
            Self::Busy => f.write_str("the areas are being changed, and the caller may not wait"),
            Self::Killed => f.write_str("the address space is being killed"),
        }
    }
}

impl core::error::Error for SpaceFault {}

/// A user address space. Calls come from any CPU; those that change areas run one at a time, faults side by side.
///
/// # Invariants
///
/// - `SPC-1`: everything that the tables map lies in an area, and permits no more than the area does.
/// - `SPC-2`: a space that is being killed gets no page any more.
///
/// And those of the areas (`VMA`), the pages (`USR`) and the lock (`MAPL`).
pub struct AddressSpace<'a, H: SpaceHal<'a>> {
    map: MapLock<AddressMap<'a>>,
    pages: UserPages<H>,
    asid: AsidSlot,
    killed: AtomicBool,
    largest: Order,
}

/// Tables that a space keeps at most although nothing is in them: one of each level below the root.
const KEPT_TABLES: u64 = 3;

/// The flags with which a call of a process allocates.
const GFP: Gfp = Gfp::USER;

impl<'a, H: SpaceHal<'a>> AddressSpace<'a, H> {
    /// An empty space. May sleep if `gfp` says so.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`].
    pub fn new(hal: H, layout: MapLayout, limits: Limits, gfp: Gfp) -> Result<Self, MapError> {
        let pages = UserPages::new(hal, Asid::new(0), gfp).map_err(|_| MapError::NoMemory)?;
        Ok(Self {
            map: MapLock::new(AddressMap::new(layout, limits)),
            pages,
            asid: AsidSlot::new(),
            killed: AtomicBool::new(false),
            largest: Backing::BLOCK,
        })
    }

    /// Sets the largest unit in which anonymous memory comes by a fault: a page, [`Backing::RUN`] or, as in a new space,
    /// [`Backing::BLOCK`] (Linux: `transparent_hugepage/enabled`). A child has what its parent has.
    pub const fn set_largest_unit(&mut self, largest: Order) {
        self.largest = largest;
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        self.pages.hal()
    }

    /// The pages, to be looked at.
    pub const fn pages(&self) -> &UserPages<H> {
        &self.pages
    }

    /// The root of the tables, for TTBR0.
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        self.pages.root()
    }

    /// The number in the TLB, for the code that switches to the space.
    #[must_use]
    pub const fn asid(&self) -> &AsidSlot {
        &self.asid
    }

    /// Tells the pages the number that the space has from now on: before any CPU uses it. The caller takes it from the
    /// space's own [`AsidSlot`].
    #[cfg(all(feature = "global", target_os = "none"))]
    pub(crate) fn note_asid(&self, asid: Asid) {
        self.pages.do_set_asid(asid);
    }

    /// Memory that the space has. Any context.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.pages.usage()
    }

    /// Runs `f` with the areas, to read them. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub fn with_map<R>(&self, f: impl FnOnce(&AddressMap<'a>) -> R) -> Result<R, Busy> {
        self.hal().pages().might_sleep("with_map").map_err(|_| Busy)?;
        Ok(f(&*self.map.read(self.hal())?))
    }

    /// Changes the areas, and the translations with them. Only where sleeping is allowed.
    fn change<R>(
        &self,
        call: &'static str,
        f: impl FnOnce(&mut AddressMap<'a>, &Over<'_, H>) -> Result<R, MapError>,
    ) -> Result<R, MapError> {
        self.hal().pages().might_sleep(call).map_err(|_| MapError::Atomic)?;
        // Nobody is left who would give the lock back: memory is short for all.
        let mut map = self.map.write(self.hal()).map_err(|Busy| MapError::NoMemory)?;
        if self.killed.load(Ordering::Acquire) {
            return Err(MapError::NoMemory);
        }
        f(&mut map, &Over::new(&self.pages))
    }

    /// Maps memory or a file; see [`AddressMap::mmap`]. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::mmap`]; [`MapError::NoMemory`] too for a space that is being killed.
    pub fn mmap(&self, request: &MmapRequest) -> Result<UserAddr, MapError> {
        self.change("mmap", |map, over| map.mmap(over, request))
    }

    /// Unmaps; see [`AddressMap::munmap`]. When it returns no CPU reaches what was there. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::munmap`].
    pub fn munmap(&self, addr: UserAddr, size: u64) -> Result<(), MapError> {
        self.change("munmap", |map, over| map.munmap(over, addr, size))
    }

    /// Changes what a range permits; see [`AddressMap::mprotect`]. Only where sleeping is allowed.
    ///
    /// Memory of a range to which no access is permitted stays, for when some is again.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::mprotect`].
    pub fn mprotect(&self, addr: UserAddr, size: u64, access: VmFlags) -> Result<(), MapError> {
        self.change("mprotect", |map, over| map.mprotect(over, addr, size, access))
    }

    /// Moves or resizes; see [`AddressMap::mremap`]. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::mremap`].
    pub fn mremap(&self, request: &MremapRequest) -> Result<UserAddr, MapError> {
        self.change("mremap", |map, over| map.mremap(over, request))
    }

    /// Moves the break; see [`AddressMap::brk`]. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::brk`].
    pub fn brk(&self, to: UserAddr) -> Result<UserAddr, MapError> {
        self.change("brk", |map, over| map.brk(over, to))
    }

    /// Advice about a range; see [`AddressMap::madvise`]. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of [`AddressMap::madvise`].
    pub fn madvise(&self, addr: UserAddr, size: u64, advice: Advice) -> Result<(), MapError> {
        self.change("madvise", |map, over| map.madvise(over, addr, size, advice))
    }

    /// Changes the map itself, for calls that this type has no name for. Only where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// Those of `f`.
    pub fn with_map_mut<R>(
        &self,
        f: impl FnOnce(&mut AddressMap<'a>, &Over<'_, H>) -> Result<R, MapError>,
    ) -> Result<R, MapError> {
        self.change("with_map_mut", f)
    }

    /// Maps a page of the kernel at `at`, where nothing is, in a shared area of a file that has marked it
    /// [`MIXEDMAP`](VmFlags::MIXEDMAP), with the access of the area (Linux: `vm_insert_page`). The mapping holds the page. Only
    /// where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`MapError::NotMapped`], [`MapError::WrongKind`], [`MapError::Access`]: the area; [`MapError::Unaligned`],
    /// [`MapError::Exists`]: the address; [`MapError::File`] with `EINVAL` for a page that is not a driver's;
    /// [`MapError::NoMemory`], [`MapError::Atomic`]. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// The caller owns the page, and user space may read what it holds, and write it if the area may be written to, for as long
    /// as it is mapped.
    pub unsafe fn insert_page(&self, at: UserAddr, page: Page) -> Result<(), MapError> {
        self.hal().pages().might_sleep("insert_page").map_err(|_| MapError::Atomic)?;
        if !at.is_aligned(PAGE_SIZE) {
            return Err(MapError::Unaligned(at.get()));
        }
        let map = self.map.read(self.hal()).map_err(|Busy| MapError::NoMemory)?;
        let area = map.area_at(at).ok_or(MapError::NotMapped(at))?;
        let flags = area.flags();
        if !flags.contains(VmFlags::MIXEDMAP | VmFlags::SHARED) {
            return Err(MapError::WrongKind(area.range()));
        }
        let access = access(flags).ok_or(MapError::Access(flags))?;
        Ok(self.pages.do_insert_page(virt(at), page, access, GFP)?)
    }

    /// Resolves a fault: when it returns `Ok` the access may be tried again (Linux: `do_page_fault`). May sleep
    /// if `gfp` says so; with [`Gfp::NOWAIT`] wherever locks may be taken. Faults in one space run side by side.
    ///
    /// # Errors
    ///
    /// [`SpaceFault`]: the process gets a signal, or the copy that met it ends short.
    pub fn fault(&self, addr: UserAddr, access: FaultAccess, gfp: Gfp) -> Result<Handled, SpaceFault> {
        match self.fault_usual(addr, access, gfp) {
            Some(result) => result,
            None => self.fault_any(addr, access, gfp),
        }
    }

    /// Resolves a fault if it is a usual one: of private anonymous memory whose pages come one by one, in an area that permits the
    /// access and that nobody changes. `None` otherwise: [`Self::fault_any`] looks once more.
    #[inline(always)]
    pub(crate) fn fault_usual(
        &self,
        addr: UserAddr,
        access: FaultAccess,
        gfp: Gfp,
    ) -> Option<Result<Handled, SpaceFault>> {
        let map = self.map.try_read(self.hal()).ok()?;
        let area = map.find_vma(addr)?;
        // One comparison: the access is permitted, and the object has no name.
        let (flags, wanted) = (area.flags(), wanted(access));
        if area.start() > addr
            || flags & (wanted | VmFlags::FILE | VmFlags::SHARED) != wanted
            || self.killed.load(Ordering::Acquire)
        {
            return None;
        }
        let at = virt(addr.align_down(PAGE_SIZE));
        let handled = match access {
            FaultAccess::Write => {
                let larger = self.largest != Order::ZERO;
                if larger && unit_in(virt_range(area.range()), at, Backing::RUN).is_some() {
                    return None;
                }
                match self.pages.fault_write(at, gfp) {
                    Ok(handled) => handled?,
                    Err(_) => return Some(Err(SpaceFault::OutOfMemory)),
                }
            }
            FaultAccess::Read => self.pages.fault_read(at, flags.contains(VmFlags::EXEC))?,
            FaultAccess::Execute => return None,
        };
        Some(self.unless_killed(handled))
    }

    /// Resolves any fault.
    #[cold]
    #[inline(never)]
    pub(crate) fn fault_any(&self, addr: UserAddr, access: FaultAccess, gfp: Gfp) -> Result<Handled, SpaceFault> {
        let map = if gfp.may_wait() { self.map.read(self.hal()) } else { self.map.try_read(self.hal()) };
        let map = map.map_err(|Busy| SpaceFault::Busy)?;
        match map.find_vma(addr) {
            Some(area) if area.start() <= addr => self.fault_in(area, addr, access, gfp),
            // Below a stack.
            Some(area) if area.flags().contains(VmFlags::GROWSDOWN) => self.grow_stack(map, addr, access, gfp),
            _ => Err(SpaceFault::NotMapped(addr)),
        }
    }

    /// Brings in the anonymous pages of a range that are not there, to be written where the area permits it (Linux:
    /// `MAP_POPULATE`, `mm_populate`). Only where sleeping is allowed. Other areas have what they have.
    ///
    /// # Errors
    ///
    /// [`SpaceFault::NotMapped`], [`SpaceFault::Denied`], [`SpaceFault::Guard`] at the first address that cannot have a page;
    /// [`SpaceFault::OutOfMemory`], [`SpaceFault::Busy`], [`SpaceFault::Killed`]. Pages that were brought in until then stay.
    pub fn populate(&self, addr: UserAddr, size: u64) -> Result<(), SpaceFault> {
        self.hal().pages().might_sleep("populate").map_err(|_| SpaceFault::Busy)?;
        let map = self.map.read(self.hal()).map_err(|Busy| SpaceFault::Busy)?;
        // INVARIANT: SPC-2, as for a fault.
        if self.killed.load(Ordering::Acquire) {
            return Err(SpaceFault::Killed);
        }
        let addr = addr.align_down(PAGE_SIZE);
        let end = addr.get().checked_add(size).ok_or(SpaceFault::NotMapped(addr))?;
        let end = UserAddr::new(end.checked_next_multiple_of(PAGE_SIZE).ok_or(SpaceFault::NotMapped(addr))?);
        let mut at = addr;
        for area in map.areas_from(addr) {
            if at >= end || area.start() > at {
                break;
            }
            let stop = area.end().min(end);
            if area.is_anonymous() {
                let backing = backing(area, self.largest).ok_or(SpaceFault::Denied(at))?;
                let part = UserRange::new(at, stop).unwrap_or_default();
                self.pages.populate(virt_range(part), &backing, GFP).map_err(|error| match error {
                    PagesError::Fault(FaultError::Guard(at)) => SpaceFault::Guard(UserAddr::new(at.get())),
                    PagesError::Fault(_) => SpaceFault::Denied(at),
                    _ => SpaceFault::OutOfMemory,
                })?;
            }
            at = stop;
        }
        if at < end { Err(SpaceFault::NotMapped(at)) } else { Ok(()) }
    }

    fn fault_in(&self, area: &Vma, addr: UserAddr, access: FaultAccess, gfp: Gfp) -> Result<Handled, SpaceFault> {
        // INVARIANT: SPC-2: `kill` sets this before it unmaps.
        if self.killed.load(Ordering::Acquire) {
            return Err(SpaceFault::Killed);
        }
        let flags = area.flags();
        let Some(backing) = backing(area, self.largest).filter(|_| flags.contains(wanted(access))) else {
            return Err(SpaceFault::Denied(addr));
        };
        if !area.is_anonymous() && self.pages.tables().translate(virt(addr)).is_none() {
            let mapped = map_file_page(&self.pages, area, addr, &backing, gfp).map_err(|error| match error {
                NoFilePage::NothingThere => SpaceFault::NothingThere(addr),
                NoFilePage::NoMemory => SpaceFault::OutOfMemory,
            })?;
            if mapped && backing.permits_file_page(access) {
                return self.unless_killed(Handled::Inserted);
            }
        }
        let handled = self.pages.fault(virt(addr), access, &backing, gfp).map_err(|error| match error {
            FaultError::Guard(_) => SpaceFault::Guard(addr),
            FaultError::OutOfMemory => SpaceFault::OutOfMemory,
            FaultError::Outside(_) => SpaceFault::NotMapped(addr),
            _ => SpaceFault::Denied(addr),
        })?;
        self.unless_killed(handled)
    }

    /// The end of a fault that has changed an entry.
    #[inline(always)]
    fn unless_killed(&self, handled: Handled) -> Result<Handled, SpaceFault> {
        // INVARIANT: SPC-2: `kill` has set this since, and may have passed the page before it was there. If it is not seen
        // here, `kill` finds the page: the fault ended in a DSB, so that this load comes after the entry was written.
        if self.killed.load(Ordering::Acquire) {
            self.unmap_all();
            return Err(SpaceFault::Killed);
        }
        Ok(handled)
    }

    /// Unmaps everything, for a space that is being killed.
    #[cold]
    fn unmap_all(&self) {
        let all = VirtRange::new(VirtAddr::ZERO, VirtAddr::new(USER_END.get())).unwrap_or_default();
        // No leaf crosses the edges, so that nothing is split.
        if let Err(error) = self.pages.unmap(all, all, Gfp::ATOMIC) {
            log::error!("a killed address space keeps its memory: {error}");
        }
        self.pages.trim();
    }

    /// An access below a stack: the stack grows, if it may.
    #[cold]
    fn grow_stack(
        &self,
        map: Reader<'_, AddressMap<'a>, H>,
        addr: UserAddr,
        access: FaultAccess,
        gfp: Gfp,
    ) -> Result<Handled, SpaceFault> {
        drop(map);
        if !gfp.may_wait() {
            return Err(SpaceFault::Busy);
        }
        let mut map = self.map.write(self.hal()).map_err(|Busy| SpaceFault::Busy)?;
        let area = map.expand_stack(addr).map_err(|_| SpaceFault::NotMapped(addr))?;
        self.fault_in(area, addr, access, gfp)
    }

    /// A child with the same areas and content (Linux: `dup_mm`). Private pages are copied by the first writer. Only
    /// where sleeping is allowed.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`]: there is no child, and this space is as it was.
    pub fn fork(&self) -> Result<Self, MapError> {
        self.hal().pages().might_sleep("fork").map_err(|_| MapError::Atomic)?;
        let map = self.map.write(self.hal()).map_err(|Busy| MapError::NoMemory)?;
        if self.killed.load(Ordering::Acquire) {
            return Err(MapError::NoMemory);
        }
        let mut child = Self::new(self.hal().clone(), *map.layout(), *map.limits(), GFP)?;
        child.largest = self.largest;
        *child.map.get_mut() = map.fork(self.hal())?;
        let ranges = child.map.get_mut().areas().map(|area| (virt_range(area.range()), share(area.flags())));
        // Dropped with its areas, if this fails.
        self.pages.fork(&mut child.pages, ranges, GFP).map_err(|_| MapError::NoMemory)?;
        Ok(child)
    }

    /// Takes all memory from a space whose process is to die, tables and what drivers have mapped included, even while CPUs run
    /// it: for an OOM hook (Linux: `oom_reap_task_mm`). Each access after that faults with [`SpaceFault::Killed`], and a copy by
    /// the kernel ends there. Whether its memory is back: not while somebody changes its areas, who finds it killed at the next
    /// call. May be called inside a reclaimer; takes no memory.
    pub fn kill(&self) -> bool {
        self.killed.store(true, Ordering::SeqCst);
        // INVARIANT: SPC-2: a fault that does not see it has written its entry before what follows looks.
        fence(Ordering::SeqCst);
        let Ok(_map) = self.map.try_read(self.hal()) else { return false };
        self.unmap_all();
        true
    }

    /// Frees the page tables, at most three, that the last `munmap` of up to 2 MiB left empty for what is mapped next. Returns how
    /// many that were; none while somebody changes the areas. Any context that may free memory, inside a reclaimer too.
    pub fn trim(&self) -> u64 {
        if !self.pages.keeps_tables() {
            return 0;
        }
        self.map.try_read(self.hal()).map_or(0, |_map| self.pages.trim())
    }

    /// Page tables that [`AddressSpace::trim`] may find. Any context.
    #[must_use]
    pub fn reclaimable_tables(&self) -> u64 {
        if self.pages.keeps_tables() { KEPT_TABLES } else { 0 }
    }

    /// Whether the area at `at` is shared, if somebody changes the areas: as if it was.
    #[cfg(all(feature = "global", target_os = "none"))]
    pub(crate) fn is_shared_at(&self, at: VirtAddr) -> bool {
        self.map.try_read(self.hal()).is_ok_and(|map| {
            map.area_at(UserAddr::new(at.get())).is_none_or(|area| area.flags().contains(VmFlags::SHARED))
        })
    }

    /// Whether [`AddressSpace::kill`] was called.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Tests `SPC-1` and the invariants of the areas. Nobody may use the space meanwhile.
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), crate::ds::rbtree::Broken> {
        let outside = crate::ds::rbtree::Broken { tag: "SPC-1", what: "a translation that no area permits" };
        let map = self.map.read(self.hal()).map_err(|Busy| outside)?;
        map.check()?;
        let walked = self.pages.tables().walk_all(|visit| {
            let start = UserAddr::new(visit.start.get());
            let (wanted, parked) = match visit.entry {
                Entry::Leaf(leaf) => (wanted_by(leaf.prot.access()), false),
                Entry::Parked(_) => (VmFlags::empty(), true),
                _ => return ControlFlow::Continue(()),
            };
            let permits = |area: &Vma| {
                let flags = area.flags();
                flags.contains(wanted) && parked != flags.intersects(VmFlags::ACCESS)
            };
            match map.area_at(start) {
                Some(area) if permits(area) && visit.last().get() < area.end().get() => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        if walked.is_break() { Err(outside) } else { Ok(()) }
    }
}

impl<'a, H: SpaceHal<'a>> Drop for AddressSpace<'a, H> {
    fn drop(&mut self) {
        let Self { map, pages, .. } = self;
        // Translations first: what a file or a device gives up with its area, no CPU reaches any more.
        pages.raze();
        map.get_mut().release_areas(&Over::new(pages));
    }
}

impl<'a, H: SpaceHal<'a>> fmt::Debug for AddressSpace<'a, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// The permission that an access needs.
#[inline(always)]
const fn wanted(access: FaultAccess) -> VmFlags {
    // A shift where a table would be looked up.
    const fn flag(access: FaultAccess) -> u32 {
        1 << access as u32
    }
    const {
        assert!(flag(FaultAccess::Read) == VmFlags::READ.bits());
        assert!(flag(FaultAccess::Write) == VmFlags::WRITE.bits());
        assert!(flag(FaultAccess::Execute) == VmFlags::EXEC.bits());
    }
    VmFlags::from_bits_retain(flag(access))
}

/// The permissions that an area of a leaf with this access has.
const fn wanted_by(access: Access) -> VmFlags {
    match access {
        Access::ReadOnly => VmFlags::empty(),
        Access::ReadWrite => VmFlags::WRITE,
        Access::Execute => VmFlags::EXEC,
    }
}

/// The description of an area that a fault needs; `None` for an area that permits nothing.
fn backing(area: &Vma, largest: Order) -> Option<Backing> {
    let flags = area.flags();
    let largest = if area.is_anonymous() { largest } else { Order::ZERO };
    Some(Backing { range: virt_range(area.range()), access: access(flags)?, sharing: share(flags), largest })
}
