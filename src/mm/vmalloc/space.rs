//! An address space: allocating, finding and freeing areas.
#![forbid(unsafe_code)]

use super::early_areas::EarlyAreas;
use super::free_tree::FreeSpace;
use super::layout::Layout;
use super::node::VmapNode;
use super::{Area, AreaError, AreaHal, AreaInfo, AreaRef, NODES, Removed, VmFlags, VmapSetupError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use crate::ds::rbtree::fit::{Gap, Request};
use crate::ds::rbtree::{Owned, Payload};
use crate::gfp::Gfp;
use crate::sync::Once;
use crate::sync::{OrderedLock, class};
use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Arguments of a request for an area.
#[derive(Clone, Copy, Debug)]
pub struct AreaRequest {
    /// Bytes, without the guard page; rounded up to whole pages.
    pub size: u64,
    /// Alignment of the start: a power of two; less than a page counts as one.
    pub align: u64,
    /// Where the area must lie, guard page included; `None` for the whole space.
    pub within: Option<VirtRange>,
    /// Flags of the area. Without [`VmFlags::NO_GUARD`] it gets a guard page behind it. With [`VmFlags::UNINITIALIZED`] it
    /// cannot be given back before [`AreaRef::complete`].
    pub flags: VmFlags,
    /// The requester.
    pub caller: Option<&'static Location<'static>>,
}

impl AreaRequest {
    /// `size` bytes anywhere, for `flags`, requested by the caller of this function.
    #[must_use]
    #[track_caller]
    #[inline]
    pub fn new(size: u64, flags: VmFlags) -> Self {
        Self { size, align: PAGE_SIZE, within: None, flags, caller: Some(Location::caller()) }
    }
}

/// Settings of a space.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The addresses, whole pages.
    pub region: VirtRange,
    /// Pages of RAM: the pages that wait for a purge are at most a 64th of that, 32 MiB times the logarithm of the CPUs, and 2
    /// MiB a CPU.
    pub ram_pages: u64,
}

/// The flags of descriptors for callers that pass none.
pub(super) const DESCRIPTOR_GFP: Gfp = Gfp::ATOMIC.union(Gfp::NOWARN);
/// Upper limit of the pages that wait in a node, also where the other bounds are higher: from this number on, one invalidation
/// of everything is the cheapest, and waiting longer only makes more memory unusable.
const LAZY_ENOUGH: u64 = 512;

/// A region of kernel addresses, and its areas.
///
/// # Invariants
///
/// - `VMAP-1`: free, busy, waiting and pooled areas make up the region.
/// - `VMAP-2`: no two of them share an address.
///
/// And those of [`RbTree`](crate::ds::rbtree::RbTree) (`RBT`), of the nodes (`NODE-3` to `NODE-5`) and of the free tree
/// (`FREE`); [`VmapSpace::check`] tests them all.
pub struct VmapSpace<'a, H: AreaHal<'a>> {
    pub(super) hal: H,
    pub(super) layout: Once<Layout, H::Relax>,
    pub(super) free: OrderedLock<FreeSpace<'a>, class::FreeAreas, H::Relax>,
    pub(super) nodes: [OrderedLock<VmapNode<'a>, class::BusyAreas, H::Relax>; NODES],
    pub(super) early: OrderedLock<EarlyAreas, class::EarlyAreas, H::Relax>,
    /// Purges under way, whose areas are in no node.
    pub(super) purging: AtomicU32,
    /// One past the highest address below which there may be tables in free addresses.
    pub(super) touched: AtomicU64,
}

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// A space without addresses.
    #[expect(clippy::large_stack_arrays, reason = "constant, for a static")]
    pub const fn new(hal: H) -> Self {
        Self {
            hal,
            layout: Once::new(),
            free: OrderedLock::new(FreeSpace::new()),
            nodes: [const { OrderedLock::new(VmapNode::new()) }; NODES],
            early: OrderedLock::new(EarlyAreas::new()),
            purging: AtomicU32::new(0),
            touched: AtomicU64::new(0),
        }
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        &self.hal
    }

    /// The addresses of the space, once it is set up.
    #[must_use]
    pub fn region(&self) -> Option<VirtRange> {
        self.layout.get().map(|layout| layout.region)
    }

    /// Pages of RAM, or 0 before the space is set up.
    #[inline]
    pub(super) fn ram_pages(&self) -> u64 {
        self.layout.get().map_or(0, |layout| layout.ram_pages)
    }

    /// Gives the space its addresses, and takes over the areas that were placed before. Once, by one CPU.
    ///
    /// # Errors
    ///
    /// [`VmapSetupError`]; the space is not ready then.
    pub fn set_up(&self, tuning: &Tuning) -> Result<(), VmapSetupError> {
        let Tuning { region, ram_pages } = *tuning;
        if self.layout.get().is_some() {
            return Err(VmapSetupError::Twice);
        }
        if region.is_empty() || !region.start().is_aligned(PAGE_SIZE) || !region.end().is_aligned(PAGE_SIZE) {
            return Err(VmapSetupError::BadRegion(region));
        }
        let cpus = self.hal.cpus().max(1);
        let nodes = usize::try_from(cpus).unwrap_or(NODES).next_power_of_two().min(NODES);
        // Linux: `lazy_max_pages`, with `fls` for the logarithm, so that it is not zero for one CPU.
        let by_cpus = u64::from(cpus.ilog2() + 1) * ((32 << 20) >> PAGE_SHIFT);
        let lazy_share = (by_cpus.min(ram_pages / 64) / nodes as u64).clamp(1, LAZY_ENOUGH);
        self.take_over(Layout { region, nodes, lazy_share, ram_pages })
    }

    /// Runs `f` with the free tree locked and interrupts masked.
    #[inline]
    pub(super) fn with_free<R>(&self, f: impl FnOnce(&mut FreeSpace<'a>) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.free.lock());
        self.hal.restore(saved);
        result
    }

    #[inline]
    pub(super) fn node(&self, index: usize) -> &OrderedLock<VmapNode<'a>, class::BusyAreas, H::Relax> {
        // Always in range, by construction of the index and to the compiler.
        let [first, ..] = &self.nodes;
        self.nodes.get(index).unwrap_or(first)
    }

    /// Runs `f` with a node locked and interrupts masked.
    #[inline]
    pub(super) fn with_node<R>(&self, index: usize, f: impl FnOnce(&mut VmapNode<'a>) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.node(index).lock());
        self.hal.restore(saved);
        result
    }

    /// Allocates an area: one of this size that this CPU has freed, or from the lowest gap that fits. With an alignment of more
    /// than a page that is the lowest gap with room for any start (the size, plus the largest padding for alignment); a lower
    /// gap that happens to be aligned is used only if there is no such gap. Any context. Cost: O(log n) in the gaps and the
    /// areas; in the last case for each gap of at least the size.
    ///
    /// # Errors
    ///
    /// [`AreaError::Empty`], [`TooLarge`](AreaError::TooLarge), [`BadAlignment`](AreaError::BadAlignment),
    /// [`OutsideSpace`](AreaError::OutsideSpace) for requests that nothing can meet;
    /// [`Exhausted`](AreaError::Exhausted) if no gap fits after a purge of all that waited;
    /// [`NoDescriptor`](AreaError::NoDescriptor); [`NotReady`](AreaError::NotReady).
    #[inline(always)]
    pub fn alloc(&self, request: &AreaRequest) -> Result<AreaRef<'a>, AreaError> {
        self.alloc_gfp(request, DESCRIPTOR_GFP)
    }

    /// [`VmapSpace::alloc`], with flags for the descriptors: the part of `gfp` that [`Gfp::effort`] keeps. Any context that
    /// they allow.
    ///
    /// # Errors
    ///
    /// Those of [`VmapSpace::alloc`].
    #[inline(always)]
    pub fn alloc_gfp(&self, request: &AreaRequest, gfp: Gfp) -> Result<AreaRef<'a>, AreaError> {
        let layout = self.layout.get().ok_or(AreaError::NotReady)?;
        let guard = if request.flags.contains(VmFlags::NO_GUARD) { 0 } else { PAGE_SIZE };
        let size = match request.size.checked_add(guard + PAGE_SIZE - 1) {
            Some(size) => size & !(PAGE_SIZE - 1),
            None => return Err(AreaError::TooLarge(request.size)),
        };
        if request.size == 0 {
            return Err(AreaError::Empty);
        }
        if !request.align.is_power_of_two() {
            return Err(AreaError::BadAlignment(request.align));
        }
        let AreaRequest { align, flags, caller, within, .. } = *request;
        let pooled = match within {
            None => self.alloc_pooled(layout, size, align, flags, caller),
            Some(_) => Err(None),
        };
        match pooled {
            Ok(area) => Ok(area),
            Err(None) => self.alloc_split(layout, &AreaRequest { size, align, flags, caller, within }, gfp),
            Err(Some(area)) => Err(AreaError::Overlap(area.range())),
        }
    }

    /// Takes an area of exactly `size` bytes, guard page included, from this CPU's pools, and enters it in the node that its
    /// address names.
    ///
    /// # Errors
    ///
    /// `None` if the pool is empty; an area that is in use already, which is impossible.
    #[inline(never)]
    fn alloc_pooled(
        &self,
        layout: &Layout,
        size: u64,
        align: u64,
        flags: VmFlags,
        caller: Option<&'static Location<'static>>,
    ) -> Result<AreaRef<'a>, Option<Owned<'a, Area>>> {
        let own = VmapNode::of_cpu(self.hal.cpu(), layout.nodes);
        let take = || {
            let mut node = self.node(own).lock();
            let area = node.pop(size, align).ok_or(None)?;
            area.begin(flags, caller);
            let home = VmapNode::of_address(area.key(), layout.nodes);
            if home != own {
                // One lock at a time.
                drop(node);
                node = self.node(home).lock();
            }
            // INVARIANT: NODE-3. VMAP-2: no other area has the address, so the tree takes it.
            node.busy.insert(area).map_err(Some)
        };
        let saved = self.hal.save();
        let entered = take();
        self.hal.restore(saved);
        entered
    }

    /// Splits an area off a gap, and enters it; the size of `request` includes the guard page.
    #[inline(never)]
    fn alloc_split(&self, layout: &Layout, request: &AreaRequest, gfp: Gfp) -> Result<AreaRef<'a>, AreaError> {
        let area = self.alloc_from_tree(layout, request, gfp.effort())?;
        self.touched.fetch_max(area.end(), Ordering::Relaxed);
        area.begin(request.flags, request.caller);
        self.publish(layout, area)
    }

    /// Splits the area off a gap, after a purge if it must be.
    fn alloc_from_tree(&self, layout: &Layout, request: &AreaRequest, gfp: Gfp) -> Result<Owned<'a, Area>, AreaError> {
        let size = request.size;
        let within = match request.within {
            None => layout.region,
            Some(within) => within.intersection(layout.region).ok_or(AreaError::OutsideSpace)?,
        };
        let (min, max) = (within.start().get(), within.end().get());
        let fit = Request { size, align: request.align.max(PAGE_SIZE), granule: PAGE_SIZE, min, max };
        if size > within.size() {
            return Err(if request.within.is_some() { AreaError::OutsideSpace } else { AreaError::TooLarge(size) });
        }
        let mut purged = false;
        loop {
            let refused = match self.alloc_with_spare(&fit, gfp) {
                Ok(Some(area)) => return Ok(area),
                Ok(None) => AreaError::Exhausted,
                Err(error) => error,
            };
            if purged || !fit.is_possible() {
                return Err(refused);
            }
            // Areas that wait for a purge hold addresses, and descriptors.
            self.purge_all();
            purged = true;
        }
    }

    /// Splits the area off a gap, when the reserve of spare descriptors is full or cannot be filled.
    fn alloc_with_spare(&self, fit: &Request, gfp: Gfp) -> Result<Option<Owned<'a, Area>>, AreaError> {
        let mut fresh = None;
        loop {
            let found = self.with_free(|free| {
                if let Some(descriptor) = fresh.take() {
                    free.add_spare(descriptor);
                }
                if free.is_short() { None } else { Some(free.alloc(fit)) }
            });
            if let Some(Ok(area)) = found {
                return Ok(area);
            }
            fresh = self.hal.descriptor(gfp);
            if fresh.is_none() {
                return self.with_free(|free| free.alloc(fit)).map_err(|_| AreaError::NoDescriptor);
            }
        }
    }

    /// Enters an area into the busy tree that its address names.
    #[inline]
    pub(super) fn publish(&self, layout: &Layout, area: Owned<'a, Area>) -> Result<AreaRef<'a>, AreaError> {
        let home = VmapNode::of_address(area.key(), layout.nodes);
        // INVARIANT: NODE-3. VMAP-2: no other area has the address, so the tree takes it.
        let entered = self.with_node(home, |node| node.busy.insert(area));
        entered.map_err(|area| AreaError::Overlap(area.range()))
    }

    /// [`Self::remove`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_remove(&self, start: VirtAddr, kinds: VmFlags) -> Result<Removed<'a>, AreaError> {
        self.do_remove_if(start, kinds, |_, _| true)
    }

    /// [`Self::remove_if`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_remove_if(
        &self,
        start: VirtAddr,
        kinds: VmFlags,
        accept: impl Fn(VmFlags, Option<PhysAddr>) -> bool,
    ) -> Result<Removed<'a>, AreaError> {
        let layout = self.layout.get().ok_or(AreaError::NotReady)?;
        let home = VmapNode::of_address(start.get(), layout.nodes);
        let removed = self.with_node(home, |node| {
            node.busy.remove_if(start.get(), |area| {
                let flags = area.flags();
                if flags.contains(VmFlags::UNINITIALIZED) {
                    return Err(AreaError::Uninitialized(AreaInfo::of(area)));
                }
                if !kinds.is_empty() && !flags.intersects(kinds) {
                    return Err(AreaError::WrongKind(AreaInfo::of(area)));
                }
                if !accept(flags, area.phys()) {
                    return Err(AreaError::NotTheStart(start, AreaInfo::of(area)));
                }
                Ok(())
            })
        });
        removed.unwrap_or_else(|| Err(self.why_not(start))).map(Removed::new)
    }

    /// Claims a complete area of one of `kinds` that starts at `start`, so that nobody frees it: it is under construction again
    /// until [`AreaRef::complete`].
    ///
    /// # Errors
    ///
    /// As for [`VmapSpace::remove`].
    pub(super) fn claim(&self, start: VirtAddr, kinds: VmFlags) -> Result<AreaRef<'a>, AreaError> {
        let layout = self.layout.get().ok_or(AreaError::NotReady)?;
        let claimed = self.with_node(VmapNode::of_address(start.get(), layout.nodes), |node| {
            let area = node.busy.find(start.get())?;
            let flags = area.info().flags;
            if flags.contains(VmFlags::UNINITIALIZED) {
                return Some(Err(AreaError::Uninitialized(area.info())));
            }
            if !flags.intersects(kinds) {
                return Some(Err(AreaError::WrongKind(area.info())));
            }
            area.add_flags(VmFlags::UNINITIALIZED);
            Some(Ok(area))
        });
        claimed.unwrap_or_else(|| Err(self.why_not(start)))
    }

    /// Reason why no area starts at `addr`.
    #[cold]
    fn why_not(&self, addr: VirtAddr) -> AreaError {
        match self.find(addr) {
            Some(area) => AreaError::NotTheStart(addr, area),
            None => AreaError::NoArea(addr),
        }
    }

    /// Takes the area of `area` out of use, complete or not: only for its builder, which frees it.
    ///
    /// # Errors
    ///
    /// As for [`VmapSpace::remove`], if it has been given back already.
    pub fn abandon(&self, area: AreaRef<'a>) -> Result<Removed<'a>, AreaError> {
        area.do_complete();
        self.do_remove(area.start(), VmFlags::empty())
    }

    /// The area in use that `addr` lies in, guard page included (Linux: `find_vm_area`). Any context. O(log n) for an address
    /// in the first 64 KiB of an area; for others that times the number of nodes.
    #[must_use]
    pub fn find(&self, addr: VirtAddr) -> Option<AreaInfo> {
        let layout = self.layout.get().filter(|layout| layout.region.contains(addr))?;
        let home = VmapNode::of_address(addr.get(), layout.nodes);
        // Backwards from its own node: an area that starts a short distance below is found early.
        let candidates = (0..layout.nodes).map(|back| home.wrapping_sub(back) & (layout.nodes - 1));
        for index in candidates {
            let found = self.with_node(index, |node| {
                let area = node.busy.last_at_or_below(addr.get())?;
                (addr.get() < area.end()).then(|| AreaInfo::of(area))
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// [`VmapSpace::find`] for the report of a fault, which may have happened with a lock held: `None` also for an area
    /// whose node is locked.
    #[must_use]
    pub fn try_find(&self, addr: VirtAddr) -> Option<AreaInfo> {
        let layout = self.layout.get().filter(|layout| layout.region.contains(addr))?;
        self.nodes.iter().take(layout.nodes).find_map(|node| {
            let saved = self.hal.save();
            let found = node.try_lock().and_then(|node| {
                let area = node.busy.last_at_or_below(addr.get())?;
                (addr.get() < area.end()).then(|| AreaInfo::of(area))
            });
            self.hal.restore(saved);
            found
        })
    }

    /// The area in use with the lowest start that is not below `addr`: it serves to visit all in order, each in its current
    /// state. Any context. O(nodes × log n).
    #[must_use]
    pub fn next(&self, addr: VirtAddr) -> Option<AreaInfo> {
        let layout = self.layout.get()?;
        let of_node = |index| self.with_node(index, |node| node.busy.first_at_or_above(addr.get()).map(AreaInfo::of));
        (0..layout.nodes).filter_map(of_node).min_by_key(|area| area.range.start())
    }

    /// The areas in use, by address.
    pub fn iter(&self) -> impl Iterator<Item = AreaInfo> + use<'_, 'a, H> {
        let mut at = Some(VirtAddr::ZERO);
        core::iter::from_fn(move || {
            let area = self.next(at?)?;
            at = area.range.start().checked_add(1);
            Some(area)
        })
    }
}
