//! Mapping device memory: `ioremap`, `iounmap`, `memremap`, step by step.
//!
//! `ioremap`, and what undoes a step when a later one fails:
//!
//! | step | function | lock | interrupts | if it fails | undone by |
//! |---|---|---|---|---|---|
//! | 1. the whole pages of the request; the protection | `pages_of` | none | as the caller has them | an error | - |
//! | 2. no RAM, no memory with an owner | `refuse_kept` | none | as the caller has them | an error | - |
//! | 3. an area, placed for the largest leaves | `area_for` | those of `vmalloc` | masked under them | smaller leaves, down to pages; an error | `cancel` |
//! | 4. the record, unless a live mapping has another memory type | `enter` | that of the claims | masked | one more descriptor, and again; an error | `forget` |
//! | 5. entries, and the tables for them | `map` | none | as the caller has them | an error | itself |
//! | 6. the area is complete: `iounmap` finds it | `do_complete` | none | as the caller has them | - | - |
//!
//! `iounmap`:
//!
//! | step | function | lock | interrupts | if it fails |
//! |---|---|---|---|---|
//! | 1. the area out of use, if the address is the one that `ioremap` returned | `do_remove_if` | the node's of `vmalloc` | masked | 2, or an error |
//! | 2. the same for an area that begins with addresses for alignment | `remove_inside` | that of the claims, then the node's | masked | an error |
//! | 3. entries cleared, and every CPU's translations of them gone | `unmap` | none | as the caller has them | - |
//! | 4. the record removed: from now on another memory type may be mapped | `forget` | that of the claims | masked | - |
//! | 5. the addresses free | `do_recycle` | those of `vmalloc` | masked under them | - |
#![forbid(unsafe_code)]

use super::claim::{Claims, Refused};
use super::ram::{Ram, ram_in};
use super::{Claim, IoError, Mapping, RegionError, ReservedMap, ReservedRegion};
use crate::addr::{PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::ds::Broken;
use crate::ds::rbtree::Owned;
use crate::fdt::Node;
use crate::hal::entry::Entry;
use crate::hal::level::LeafLevel;
use crate::hal::prot::{Access, MemoryType, Privilege, Prot};
use crate::mm::page::{Kind, Page, PageMap, Section, find_head};
use crate::mm::pgtable::{MapFlags, PgtableError, UnmapFlags};
use crate::mm::vmalloc::{
    AreaError, AreaInfo, AreaRef, AreaRequest, Removed, TABLE_GFP, VmFlags, VmallocHal, VmapSpace,
};
use crate::mm::zone::PageHal;
use crate::sync::Once;
use crate::sync::{OrderedLock, class};
use core::ops::ControlFlow;
use core::panic::Location;

/// Interface for mapping device memory, beside that of vmalloc.
pub trait IoHal<'a>: VmallocHal<'a> {
    /// A new descriptor of a live mapping, or `None` if there is no memory for one.
    fn claim(&self) -> Option<Owned<'a, Claim>>;

    /// Takes back a descriptor that nothing refers to any more.
    fn free_claim(&self, claim: Owned<'a, Claim>);
}

/// Leaves and groups of leaves that a mapping may be made of, the largest first. A group of 1 GiB blocks is never made.
const UNITS: [u64; 4] = [PUD_SIZE, LeafLevel::Pmd.contiguous_size(), PMD_SIZE, LeafLevel::Pte.contiguous_size()];

/// The largest of them, smaller than `below`, of which a whole one lies in `range` at a multiple of its size; otherwise a page.
const fn unit_for(range: PhysRange, below: u64) -> u64 {
    if range.size() < LeafLevel::Pte.contiguous_size() {
        return PAGE_SIZE;
    }
    let mut units: &[u64] = &UNITS;
    while let [unit, rest @ ..] = units {
        if *unit < below
            && range.size() >= *unit
            && let Some(first) = range.start().align_up(*unit)
            && first.get() <= range.end().get()
            && range.end().get() - first.get() >= *unit
        {
            return *unit;
        }
        units = rest;
    }
    PAGE_SIZE
}

/// Architecture-private flag: the area starts below its first mapped page.
const LED: VmFlags = VmFlags::from_bits_retain(1 << 20);

/// Limits of physical memory.
#[derive(Clone, Copy, Debug)]
struct Limits<'a> {
    /// End of physical addresses.
    end: PhysAddr,
    /// From the first to the last byte that has a page descriptor or is `no-map`: elsewhere every caller may map.
    kept: PhysRange,
    /// The ranges that the device tree reserves.
    reserved: ReservedMap<'a>,
}

impl Limits<'_> {
    /// The whole pages of a request, if the CPU can reach them.
    #[inline]
    fn pages_of(&self, phys: PhysAddr, size: u64) -> Result<PhysRange, IoError> {
        if size == 0 {
            return Err(IoError::Empty);
        }
        let range = PhysRange::from_size(phys, size).ok_or(IoError::Wraps(phys, size))?;
        if range.end() > self.end {
            return Err(IoError::BeyondPhysical(range, self.end));
        }
        range.align_outwards(PAGE_SIZE).ok_or(IoError::Wraps(phys, size))
    }
}

/// Requester of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Anybody,
    /// The owner of a region in which all of it lies.
    Owner,
}

/// The smallest range that has both.
fn hull(one: PhysRange, other: PhysRange) -> PhysRange {
    PhysRange::new(one.start().min(other.start()), one.end().max(other.end())).unwrap_or(one)
}

/// The device memory that is mapped in an address space.
///
/// # Invariants
///
/// - `IO-1`: live mappings of one frame agree in their memory type; they may differ in everything else.
/// - `IO-2`: the tables agree with the record of every live mapping.
///
/// [`IoSpace::check`] tests them, and `IO-3` of the records.
pub struct IoSpace<'s, 'a, H: IoHal<'a>> {
    space: &'s VmapSpace<'a, H>,
    limits: Once<Limits<'a>, <H as VmallocHal<'a>>::Relax>,
    claims: OrderedLock<Claims<'a>, class::IoClaims, <H as VmallocHal<'a>>::Relax>,
}

impl<'s, 'a, H: IoHal<'a>> IoSpace<'s, 'a, H> {
    /// Device memory in areas of `space`.
    #[must_use]
    pub const fn new(space: &'s VmapSpace<'a, H>) -> Self {
        Self { space, limits: Once::new(), claims: OrderedLock::new(Claims::new()) }
    }

    /// Makes the space ready: from now on physical addresses below `phys_end` can be mapped; the `no-map` ranges in `reserved`
    /// only by their owners. The first call counts; page descriptors exist by then.
    pub fn set_up(&self, phys_end: PhysAddr, reserved: ReservedMap<'a>) {
        let map = self.space.hal().pages().hal().map();
        let section = |section: &Section| (map.phys(Page::new(section.first)), map.phys(Page::new(section.end)));
        let (first, last) = (map.sections().first().map(section), map.sections().last().map(section));
        let ram = first.zip(last).and_then(|((start, _), (_, end))| PhysRange::new(start, end));
        // Beyond the end nothing is mapped anyway.
        let no_map = reserved.no_maps().map(|reserved| reserved.range).filter(|range| range.start() < phys_end);
        let kept = ram.into_iter().chain(no_map).reduce(hull).unwrap_or_default();
        self.limits.call_once(|| Limits { end: phys_end, kept, reserved });
    }

    /// The ranges that the device tree reserves; none before [`IoSpace::set_up`]. Any context.
    #[must_use]
    pub fn reserved(&self) -> ReservedMap<'a> {
        self.limits.get().map_or(ReservedMap::NONE, |limits| limits.reserved)
    }

    /// The region that the `index`-th reference in the `memory-region` of `device` names, counted from 0, to be mapped by
    /// [`IoSpace::ioremap_region`] (Linux: `of_reserved_mem_region_to_resource`). It does not check whether the device itself
    /// is enabled: the caller has its node, so it drives the device. Any context. Cost: linear in the size of the tree.
    ///
    /// # Errors
    ///
    /// [`RegionError`].
    pub fn memory_region(&self, device: Node<'_, 'static>, index: usize) -> Result<ReservedRegion<'a>, RegionError> {
        let region = self.limits.get().ok_or(RegionError::NotReady)?.reserved.region(device, index)?;
        match self.is_managed(region.range().start()) {
            true => Err(RegionError::Lent { region: region.first().name }),
            false => Ok(region),
        }
    }

    /// The region of a node of this machine's tree, by [`Node::offset`], for the kernel itself, which has it for all devices
    /// whose it is. Any context.
    #[cfg(feature = "global")]
    pub(crate) fn own_region(&self, node: usize) -> Option<ReservedRegion<'a>> {
        self.reserved().region_of(node, "the kernel")
    }

    /// Whether memory of a region is the page allocator's, which has it to lend, or for a pool.
    pub(crate) fn is_managed(&self, start: PhysAddr) -> bool {
        let map = self.space.hal().pages().hal().map();
        let found = map.find(Pfn::containing(start)).and_then(|page| find_head(&map, page));
        found.is_some_and(|(_, state)| !matches!(state.kind(), Kind::Reserved | Kind::Hole))
    }

    #[inline(always)]
    fn with_claims<R>(&self, f: impl FnOnce(&mut Claims<'a>) -> R) -> R {
        let hal = self.space.hal();
        let saved = hal.save();
        let result = f(&mut self.claims.lock());
        hal.restore(saved);
        result
    }

    #[inline]
    fn limits(&self) -> Result<&Limits<'a>, IoError> {
        self.limits.get().ok_or(IoError::NotReady)
    }

    /// Share of these pages that is RAM.
    #[inline]
    fn ram_in(&self, limits: &Limits<'a>, pages: PhysRange) -> Ram {
        if !limits.kept.overlaps(pages) {
            return Ram::Nowhere;
        }
        ram_in(&self.space.hal().pages().hal().map(), pages)
    }

    /// Refuses pages that are RAM, or `no-map` and not the asker's.
    #[inline]
    fn refuse_kept(&self, limits: &Limits<'a>, pages: PhysRange, asker: Asker) -> Result<(), IoError> {
        if limits.kept.overlaps(pages) { self.refuse_near(limits, pages, asker) } else { Ok(()) }
    }

    #[cold]
    fn refuse_near(&self, limits: &Limits<'a>, pages: PhysRange, asker: Asker) -> Result<(), IoError> {
        if self.ram_in(limits, pages) != Ram::Nowhere {
            return Err(IoError::Ram(pages));
        }
        match limits.reserved.no_map_in(pages) {
            Some(region) if asker == Asker::Anybody => Err(IoError::NoMap(pages, region)),
            _ => Ok(()),
        }
    }

    /// Maps `size` bytes of device memory from `phys` on, anywhere in a page and of any length, with the memory type `memory`,
    /// readable and writable (Linux: `ioremap` and its sisters). The address points to the byte at `phys`. Any context; needs
    /// memory for tables. Cost: O(log n) in the areas and the live mappings, and a few instructions a leaf.
    ///
    /// # Errors
    ///
    /// The errors of [`IoSpace::ioremap_prot`].
    #[track_caller]
    #[inline]
    pub fn ioremap(&self, phys: PhysAddr, size: u64, memory: MemoryType) -> Result<VirtAddr, IoError> {
        let prot = Prot::kernel(Access::ReadWrite).with_memory(memory).map_err(|_| IoError::BadProt)?;
        self.ioremap_for(phys, size, prot, Asker::Anybody, Location::caller())
    }

    /// [`IoSpace::ioremap`] with any protection that a device can have, such as read-only.
    ///
    /// The area is placed so that virtual and physical address agree below the largest leaf of which a whole one fits:
    /// any range is mapped by the fewest entries possible.
    ///
    /// # Errors
    ///
    /// [`IoError::Empty`], [`Wraps`](IoError::Wraps), [`BeyondPhysical`](IoError::BeyondPhysical); [`Ram`](IoError::Ram);
    /// [`NoMap`](IoError::NoMap) for memory with an owner, which calls [`IoSpace::ioremap_region`];
    /// [`Conflict`](IoError::Conflict) with the live mapping of another memory type; [`BadProt`](IoError::BadProt);
    /// [`Area`](IoError::Area), [`Tables`](IoError::Tables), [`NoClaim`](IoError::NoClaim) when something has run out. Nothing
    /// has changed then.
    #[track_caller]
    #[inline]
    pub fn ioremap_prot(&self, phys: PhysAddr, size: u64, prot: Prot) -> Result<VirtAddr, IoError> {
        self.ioremap_any(phys, size, prot, Asker::Anybody, Location::caller())
    }

    /// [`IoSpace::ioremap_for`] for a protection that is not a constant.
    #[inline(never)]
    fn ioremap_any(
        &self,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        asker: Asker,
        caller: &'static Location<'static>,
    ) -> Result<VirtAddr, IoError> {
        self.ioremap_for(phys, size, prot, asker, caller)
    }

    #[inline(always)]
    fn ioremap_for(
        &self,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        asker: Asker,
        caller: &'static Location<'static>,
    ) -> Result<VirtAddr, IoError> {
        let limits = self.limits()?;
        let pages = limits.pages_of(phys, size)?;
        if prot.is_executable() || prot.privilege() != Privilege::Kernel {
            return Err(IoError::BadProt);
        }
        self.refuse_kept(limits, pages, asker)?;
        let (area, lead) = self.area_for(pages, caller)?;
        // The area is larger than the lead.
        let first = VirtAddr::new(area.start().get() + lead);
        let addr = VirtAddr::new(first.get() | phys.offset_in(PAGE_SIZE));
        let mapping = Mapping { phys: pages, virt: addr, memory: prot.memory() };
        if let Err(error) = self.enter(mapping) {
            self.space.cancel(area);
            return Err(error);
        }
        if let Err(error) = self.map(pages, first, prot) {
            self.undo(mapping, area);
            return Err(error);
        }
        area.set_phys(phys);
        area.do_complete();
        Ok(addr)
    }

    /// An area under construction for `pages`, and their offset in it.
    #[inline]
    fn area_for(&self, pages: PhysRange, caller: &'static Location<'static>) -> Result<(AreaRef<'a>, u64), IoError> {
        let mut unit = unit_for(pages, u64::MAX);
        loop {
            let lead = pages.start().offset_in(unit);
            let request = AreaRequest {
                size: lead.saturating_add(pages.size()),
                align: unit,
                within: None,
                flags: VmFlags::IOREMAP | VmFlags::UNINITIALIZED | if lead == 0 { VmFlags::empty() } else { LED },
                caller: Some(caller),
            };
            match self.space.alloc(&request) {
                Ok(area) => return Ok((area, lead)),
                // Without room for that, smaller leaves serve.
                Err(AreaError::Exhausted | AreaError::TooLarge(_)) if unit > PAGE_SIZE => unit = unit_for(pages, unit),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Records a mapping.
    #[inline(always)]
    fn enter(&self, mapping: Mapping) -> Result<(), IoError> {
        // A refused mapping has changed nothing, and may be tried again.
        let entered = self.with_claims(|claims| claims.enter(mapping));
        entered.or_else(|_| self.with_spare(|claims| claims.enter(mapping)))
    }

    /// Changes the records, with one more descriptor if need be.
    #[cold]
    fn with_spare(&self, f: impl Fn(&mut Claims<'a>) -> Result<(), Refused>) -> Result<(), IoError> {
        loop {
            match self.with_claims(&f) {
                Ok(()) => return Ok(()),
                Err(Refused::Conflict(wanted, other)) => return Err(IoError::Conflict(wanted, other)),
                Err(Refused::NoSpare) => {
                    let fresh = self.space.hal().claim().ok_or(IoError::NoClaim)?;
                    self.with_claims(|claims| claims.add_spare(fresh));
                }
            }
        }
    }

    #[inline(always)]
    fn map(&self, pages: PhysRange, first: VirtAddr, prot: Prot) -> Result<(), IoError> {
        let hal = self.space.hal();
        let range = VirtRange::from_size(first, pages.size()).ok_or(IoError::Tables(PgtableError::OutsideSpace))?;
        // Nothing is mapped in a new area, and tables that lie entirely in it belong to it alone.
        let flags = MapFlags::REPLACE_TABLES;
        hal.tables().do_map(&hal.frames(TABLE_GFP), range, pages.start(), prot, flags).map_err(IoError::Tables)
    }

    /// Steps 4 and 3 undone.
    #[cold]
    fn undo(&self, mapping: Mapping, area: AreaRef<'a>) {
        self.forget(mapping.phys.start(), mapping.virt);
        self.space.cancel(area);
    }

    /// [`Self::iounmap`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_iounmap(&self, addr: VirtAddr) -> Result<(), IoError> {
        if addr == VirtAddr::ZERO {
            return Ok(());
        }
        let offset = addr.offset_in(PAGE_SIZE);
        let exact = |flags: VmFlags, phys: Option<PhysAddr>| {
            !flags.contains(LED) && phys.is_some_and(|phys| phys.offset_in(PAGE_SIZE) == offset)
        };
        let page = addr.align_down(PAGE_SIZE);
        let removed = match self.space.do_remove_if(page, VmFlags::IOREMAP, exact) {
            Err(AreaError::NotTheStart(_, area)) => self.remove_inside(addr, area)?,
            answer => answer?,
        };
        if let Some(range) = VirtRange::new(page, removed.mapped().end()) {
            self.unmap(range);
        }
        // Not before: until now a CPU could still reach the frames with this type.
        if let Some(phys) = removed.phys() {
            self.forget(phys.align_down(PAGE_SIZE), addr);
        }
        self.space.do_recycle(removed);
        Ok(())
    }

    /// Takes an area out of use whose mapping begins at `addr`, behind addresses that only serve alignment.
    #[cold]
    fn remove_inside(&self, addr: VirtAddr, area: AreaInfo) -> Result<Removed<'a>, IoError> {
        if !area.flags.contains(VmFlags::IOREMAP) {
            return Err(AreaError::NotTheStart(addr, area).into());
        }
        let start = area.phys.map(|phys| phys.align_down(PAGE_SIZE));
        let known = start.and_then(|start| self.with_claims(|claims| claims.find(start, addr)));
        known.ok_or(IoError::NotThePointer(addr, area))?;
        // Another caller may be first; then the area is gone, or belongs to another.
        Ok(self.space.do_remove_if(area.range.start(), VmFlags::IOREMAP, |_, phys| phys == area.phys)?)
    }

    /// Unmaps a range that was mapped as one, or nothing, and waits until no CPU translates it.
    #[inline]
    fn unmap(&self, range: VirtRange) {
        let hal = self.space.hal();
        let unmapped = hal.tables().do_unmap_and_flush(&hal.frames(TABLE_GFP), range, UnmapFlags::empty());
        debug_assert!(unmapped.is_ok(), "a mapping can be unmapped: {unmapped:?}");
    }

    /// Removes the record of a mapping, and frees a descriptor that is not needed.
    #[inline]
    fn forget(&self, start: PhysAddr, virt: VirtAddr) {
        if let Some(claim) = self.with_claims(|claims| claims.forget(start, virt)) {
            self.space.hal().free_claim(claim);
        }
    }

    /// Maps memory that is not a device's registers: write-back, write-through or write-combining (Linux: `memremap`).
    /// RAM of the kernel is mapped already: as write-back, the result is its address in the linear map.
    ///
    /// # Errors
    ///
    /// [`IoError::NotMemory`] for a Device type; [`Ram`](IoError::Ram) for RAM with another type, and for a range of which
    /// some is RAM; those of [`IoSpace::ioremap_prot`].
    #[track_caller]
    pub fn memremap(&self, phys: PhysAddr, size: u64, memory: MemoryType) -> Result<VirtAddr, IoError> {
        let caller = Location::caller();
        if memory.is_device() {
            return Err(IoError::NotMemory(memory));
        }
        let prot = Prot::kernel(Access::ReadWrite).with_memory(memory).map_err(|_| IoError::BadProt)?;
        self.remap_memory(phys, size, prot, Asker::Anybody, caller)
    }

    /// [`IoSpace::memremap`] of memory that may be RAM, or may have an owner.
    fn remap_memory(
        &self,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        asker: Asker,
        caller: &'static Location<'static>,
    ) -> Result<VirtAddr, IoError> {
        let limits = self.limits()?;
        let pages = limits.pages_of(phys, size)?;
        let as_ram = prot.access() == Access::ReadWrite
            && prot.privilege() == Privilege::Kernel
            && prot.memory().agrees_with(MemoryType::WriteBack);
        if as_ram && self.ram_in(limits, pages) == Ram::Everywhere {
            return Ok(self.space.hal().pages().hal().to_virt(phys));
        }
        self.ioremap_any(phys, size, prot, asker, caller)
    }

    /// Maps `size` bytes from `phys` on, which lie in `region`, in the name of the device that owns it: with any memory
    /// type, and in as few entries, as [`IoSpace::ioremap_prot`] would. Devices that share the region may each map it,
    /// with one type. Of a region that the kernel has in its linear map, the answer as write-back is its address there,
    /// as for [`IoSpace::memremap`]. Given back by [`IoSpace::memunmap`]. Any context.
    ///
    /// The region counts to the byte, and pages are mapped: with part of a page comes the rest, whosever it is.
    ///
    /// # Errors
    ///
    /// [`IoError::OutsideRegion`] for a range that is not inside one range of the region; those of
    /// [`IoSpace::ioremap_prot`] but [`NoMap`](IoError::NoMap).
    #[track_caller]
    pub fn ioremap_region(
        &self,
        region: &ReservedRegion<'a>,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
    ) -> Result<VirtAddr, IoError> {
        let caller = Location::caller();
        let range = PhysRange::from_size(phys, size).ok_or(IoError::Wraps(phys, size))?;
        if !region.contains_range(range) {
            return Err(IoError::OutsideRegion(range, region.first()));
        }
        self.remap_memory(phys, size, prot, Asker::Owner, caller)
    }

    /// [`Self::memunmap`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_memunmap(&self, addr: VirtAddr) -> Result<(), IoError> {
        match self.space.hal().pages().hal().to_phys(addr) {
            Some(_) => Ok(()),
            None => self.do_iounmap(addr),
        }
    }

    /// Records mappings of devices that exist in `range` already, so that nobody maps them with another type: those that
    /// drivers got before there were areas. Boot CPU, once for a range.
    ///
    /// # Errors
    ///
    /// [`IoError::NoClaim`], [`IoError::Conflict`]; earlier records stay.
    pub fn adopt(&self, range: VirtRange) -> Result<(), IoError> {
        let walked = self.space.hal().tables().walk(range, |visit| match visit.entry {
            Entry::Leaf(leaf) if leaf.prot.memory().is_device() => {
                let frames = PhysRange::from_size(leaf.phys, leaf.level.size()).unwrap_or_default();
                let mapping = Mapping { phys: frames, virt: visit.start, memory: leaf.prot.memory() };
                let noted = self.with_spare(|claims| claims.enter(mapping));
                noted.map_or_else(ControlFlow::Break, ControlFlow::Continue)
            }
            _ => ControlFlow::Continue(()),
        });
        walked.break_value().map_or(Ok(()), Err)?;
        self.with_spare(Claims::settle_all)
    }

    /// The live mappings by physical address, each in its current state.
    pub fn iter(&self) -> impl Iterator<Item = Mapping> + use<'_, 's, 'a, H> {
        let mut from = Some((PhysAddr::ZERO, VirtAddr::ZERO));
        core::iter::from_fn(move || {
            let (start, virt) = from?;
            let mapping = self.with_claims(|claims| claims.next(start, virt))?;
            from = mapping.virt.checked_add(1).map(|virt| (mapping.phys.start(), virt));
            Some(mapping)
        })
    }

    /// Tests every invariant. Nothing may be mapped or unmapped meanwhile. O(n log n).
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        self.with_claims(|claims| claims.check())?;
        let tables = self.space.hal().tables();
        let (mut seen, mut lies) = (0, false);
        for mapping in self.iter() {
            seen += 1;
            let mut at = mapping.virt.align_down(PAGE_SIZE);
            let last = at.checked_add(mapping.phys.size()).unwrap_or(VirtAddr::MAX);
            while at < last && !lies {
                let found = tables.translate(at);
                let offset = at.offset_from(mapping.virt.align_down(PAGE_SIZE)).unwrap_or(0);
                lies = found.is_none_or(|found| {
                    found.phys.offset_from(mapping.phys.start()) != Some(offset)
                        || !found.leaf.prot.memory().agrees_with(mapping.memory)
                });
                at = found.map_or(last, |found| {
                    VirtAddr::new(at.align_down(found.leaf.level.size()).get() + found.leaf.level.size())
                });
            }
        }
        if lies || seen != self.with_claims(|claims| claims.len()) {
            return Err(Broken { tag: "IO-2", what: "a live mapping that the tables know nothing of" });
        }
        Ok(())
    }
}
