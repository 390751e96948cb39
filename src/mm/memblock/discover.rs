//! Memory discovery: all memory of the device tree, entered into a memblock in the one order that is safe: all RAM, then all
//! reservations, and only then the first allocation (the dynamic reserved regions).
#![forbid(unsafe_code)]

use super::contiguous::CONTIGUOUS_ALIGN;
use super::region::span;
use super::repaint::Paint;
use super::{BOOT_ONLY, Memblock, MemblockError, RegionOwner, Which, Window};
use crate::addr::{PAGE_SIZE, PHYS_SIZE_MAX, PhysAddr, PhysRange};
use crate::fdt::{Chosen, Cpu, FdtError, ReservedMemory, Tree};
use crate::hal::BootMemory;
use core::fmt;

/// Facts that the device tree does not contain.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The kernel image, BSS and boot stacks included.
    pub image: PhysRange,
    /// The part of the image that only booting needs. Bytes of it that the tree does not reserve are reserved for
    /// [`BOOT_ONLY`].
    pub boot_only: PhysRange,
    /// The device tree's own bytes.
    pub device_tree: PhysRange,
    /// One past the highest address that the machine and the linear map can reach; RAM above is left out.
    pub end: PhysAddr,
    /// Bytes from the lowest RAM on, holes included, that page numbers can reach; RAM above is left out.
    pub span: u64,
    /// Bytes from the lowest RAM on, holes included, beyond which RAM is left out (`mem=`): the machine then looks like
    /// one that has only so much.
    pub limit: Option<u64>,
    /// The default contiguous area is not the tree's, since the boot argument `cma=` says what it is: the tree's is memory as
    /// any other.
    pub other_cma: bool,
}

/// Results of discovery beside the lists in the memblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Bytes of RAM that the tree states, merged.
    pub stated: u64,
    /// Bytes of it that are left out because they lie beyond the reach of the machine, the linear map or page numbers.
    pub beyond: u64,
    /// Bytes that are left out because the boot loader does not give them to this kernel.
    pub withheld: u64,
    /// Bytes that are left out because of `mem=`.
    pub limited: u64,
    /// The initial RAM disk.
    pub initrd: Option<PhysRange>,
    /// Reason why there is none although the tree names one; its memory is then free, like any other.
    pub initrd_error: Option<InitrdError>,
    /// Ranges of `no-map` regions that stay mapped and are only reserved, since the kernel, the tree or the initial RAM
    /// disk lies there: earlier reservations stay, as in Linux.
    pub still_mapped: usize,
    /// Children of `/reserved-memory` that are enabled, wherever they lie.
    pub reserved_regions: usize,
    /// Dynamic reserved regions that found a place. Where it is, the list of reservations knows
    /// ([`RegionList::reserved_for`](super::RegionList::reserved_for)).
    pub placed: usize,
    /// Dynamic reserved regions for which there was no room; their devices have to do without.
    pub unplaced: usize,
    /// Default contiguous areas of the tree that are memory as any other ([`Surroundings::other_cma`]).
    pub passed_over: usize,
}

/// Reason why the tree's memory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscoverError {
    /// The tree states no usable memory: no memory node, or only empty ones. Loaders are expected to fill it in.
    NoMemoryStated,
    /// The kernel runs from memory that the tree does not state: it is not the tree of this machine.
    ImageOutsideMemory {
        /// Place of the image.
        image: PhysRange,
    },
    /// The limit on RAM excludes all or a part of the kernel image.
    ImageLeftOut {
        /// Reason why RAM is left out.
        by: Cut,
        /// Place of the image.
        image: PhysRange,
    },
    /// The limit on RAM excludes all RAM.
    NothingLeft(Cut),
    /// A property about memory cannot be read.
    Tree(FdtError),
    /// The tree reserves all memory.
    AllReserved,
    /// The memblock refused.
    Memblock(MemblockError),
}

/// Reason why RAM is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The machine, the linear map or page numbers reach no further.
    Reach,
    /// `linux,usable-memory-range` of `/chosen`.
    Withheld,
    /// The boot argument `mem=`, in bytes.
    Limit(u64),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach => f.write_str("the reach of this machine and kernel"),
            Self::Withheld => f.write_str("linux,usable-memory-range of /chosen"),
            Self::Limit(bytes) => write!(f, "the boot argument mem= ({bytes:#x} bytes from the lowest RAM on)"),
        }
    }
}

/// Reason why the tree's initial RAM disk is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitrdError {
    /// The properties that say where it lies cannot be read.
    Tree(FdtError),
    /// It lies over the kernel image: neither can be whole.
    OverImage(PhysRange),
    /// It lies over the device tree.
    OverTree(PhysRange),
    /// Not all of it lies in RAM, or in the rest of it.
    OutsideMemory(PhysRange),
}

impl fmt::Display for InitrdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::OverImage(initrd) => write!(f, "{initrd} lies over the kernel image"),
            Self::OverTree(initrd) => write!(f, "{initrd} lies over the device tree"),
            Self::OutsideMemory(initrd) => write!(f, "{initrd} lies outside the memory that is used"),
        }
    }
}

impl core::error::Error for InitrdError {}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemoryStated => f.write_str("the device tree states no usable memory (no /memory node, or size 0)"),
            Self::ImageOutsideMemory { image } => {
                write!(
                    f,
                    "the kernel image {image} lies in no memory that the device tree states: is it this machine's?"
                )
            }
            Self::ImageLeftOut { by, image } => {
                write!(f, "{by} leaves no RAM, or not enough, where the kernel image {image} lies")
            }
            Self::NothingLeft(by) => write!(f, "{by} leaves no RAM"),
            Self::Tree(error) => error.fmt(f),
            Self::AllReserved => f.write_str("the device tree reserves all memory (/memreserve/, /reserved-memory)"),
            Self::Memblock(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DiscoverError {}

impl From<FdtError> for DiscoverError {
    fn from(error: FdtError) -> Self {
        Self::Tree(error)
    }
}

impl From<MemblockError> for DiscoverError {
    fn from(error: MemblockError) -> Self {
        Self::Memblock(error)
    }
}

impl<'m, M: BootMemory<'m>, const INIT: usize> Memblock<'m, M, INIT> {
    /// Enters all memory of `tree`. The memblock must be empty.
    ///
    /// Reservations count to the byte here; whole pages are kept out at the hand-over. Regions with `no-map` leave the
    /// linear map by whole pages. Regions that are only a size are placed at the end, within their `alloc-ranges`.
    ///
    /// # Errors
    ///
    /// [`DiscoverError`]; the memblock is then not fit for use.
    pub fn discover(&mut self, tree: &Tree<'_>, around: &Surroundings) -> Result<Discovery, DiscoverError> {
        let mut found = Discovery::default();
        let survey = tree.survey(|range| {
            let range = range?;
            // A bank that lies entirely outside the physical address space is left out like one in the linear map's.
            let inside = PHYS_SIZE_MAX.saturating_sub(range.start().get()).min(range.size());
            found.beyond = found.beyond.saturating_add(range.size() - inside);
            if inside == 0 {
                return Ok(());
            }
            Ok::<(), DiscoverError>(self.add(range.start(), inside)?)
        })?;
        // A partial page cannot be mapped.
        self.trim_memory(PAGE_SIZE)?;
        let inside = self.usable_size().unwrap_or(0);
        found.stated = inside.saturating_add(found.beyond);
        if found.stated == 0 {
            return Err(DiscoverError::NoMemoryStated);
        }
        if inside != 0 && !self.holds(around.image) {
            return Err(DiscoverError::ImageOutsideMemory { image: around.image });
        }
        let reach = self.start_of_dram().and_then(|start| start.checked_add(around.span)).unwrap_or(PhysAddr::MAX);
        let beyond = self.cut(Cut::Reach, around.image, |memblock| memblock.cap_memory_end(around.end.min(reach)))?;
        found.beyond = found.beyond.saturating_add(beyond);
        if let Some(chosen) = survey.chosen {
            found.withheld = self.withhold(chosen, around.image)?;
        }
        if let Some((start, limit)) = self.start_of_dram().zip(around.limit) {
            let end = start.checked_add(limit).unwrap_or(PhysAddr::MAX);
            found.limited = self.cut(Cut::Limit(limit), around.image, |memblock| memblock.cap_memory_end(end))?;
        }

        let image = around.image;
        let [below, above] = match around.boot_only.is_empty() {
            true => [Some(image), None],
            false => [span(image.start(), around.boot_only.start()), span(around.boot_only.end(), image.end())],
        };
        for range in [below, above, Some(around.device_tree)].into_iter().flatten() {
            self.reserve(range.start(), range.size())?;
        }
        for range in tree.reservations() {
            self.reserve_stated(range?)?;
        }
        match survey.chosen.map_or(Ok(None), |chosen| self.initrd(chosen, around)) {
            Ok(initrd) => found.initrd = initrd,
            Err(error) => found.initrd_error = Some(error),
        }
        if let Some(initrd) = found.initrd {
            self.reserve_stated(initrd)?;
        }
        // The loader's CPUs wait there, whether or not it says that the memory is its own.
        for word in survey.cpus.into_iter().flat_map(Cpu::children_of).filter_map(Cpu::release_word) {
            if self.memory.overlaps(word) && !image.overlaps(word) {
                self.reserve_stated(word)?;
            }
        }
        let kept = [image, around.device_tree, found.initrd.unwrap_or(PhysRange::EMPTY)];
        let children = || survey.reserved_memory.into_iter().flat_map(ReservedMemory::children_of);
        found.passed_over = children().filter(|region| around.passes_over(region)).count();
        let regions = || children().filter(|region| region.is_enabled() && !around.passes_over(region));
        found.reserved_regions = regions().count();
        for region in regions().filter(|region| !region.is_contiguous_area()) {
            for range in region.ranges() {
                let range = range?;
                self.reserve_stated(range)?;
                let pages = range.align_outwards(PAGE_SIZE).unwrap_or(range);
                if kept.iter().any(|kept| kept.overlaps(pages)) {
                    found.still_mapped += usize::from(region.is_no_map());
                } else if region.is_no_map() && range.start().get() < PHYS_SIZE_MAX {
                    self.mark_nomap(range.start(), range.size())?;
                }
            }
        }
        // Last of what is stated: of an area that somebody else has some of, nothing is lent.
        for region in regions().filter(|region| region.is_contiguous_area()) {
            region.ranges().try_for_each(|range| Ok::<(), DiscoverError>(self.reserve_area(region, range?)?))?;
        }
        if !around.boot_only.is_empty() {
            self.change(Which::Reserved, around.boot_only, Paint::CoverFor(BOOT_ONLY))?;
        }
        if self.free_ranges().next().is_none() {
            return Err(DiscoverError::AllReserved);
        }
        for region in regions().filter(|region| region.is_dynamic()) {
            match self.place_region(region)? {
                Placement::Placed => found.placed += 1,
                Placement::NoRoom => found.unplaced += 1,
                Placement::Empty => {}
            }
        }
        Ok(found)
    }

    /// Whether all of the image lies in one bank.
    fn holds(&self, image: PhysRange) -> bool {
        image.is_empty() || self.memory.find(image.start()).is_some_and(|bank| bank.range.contains_range(image))
    }

    /// Removes the memory that `f` leaves out, which may not be the image or all memory. Returns the bytes left out.
    fn cut(
        &mut self,
        by: Cut,
        image: PhysRange,
        f: impl FnOnce(&mut Self) -> Result<(), MemblockError>,
    ) -> Result<u64, DiscoverError> {
        let nothing = DiscoverError::NothingLeft(by);
        let before = self.usable_size().map_err(|_| nothing)?;
        match f(self) {
            Err(MemblockError::NoMemory) => return Err(nothing),
            other => other?,
        }
        let left = self.usable_size().map_err(|_| nothing)?;
        if self.holds(image) { Ok(before - left) } else { Err(DiscoverError::ImageLeftOut { by, image }) }
    }

    /// Removes the memory that `/chosen` does not give to this kernel. Returns the bytes left out.
    fn withhold(&mut self, chosen: Chosen<'_, '_>, image: PhysRange) -> Result<u64, DiscoverError> {
        let usable = chosen.usable_memory();
        if let Some(error) = usable.clone().find_map(Result::err) {
            return Err(error.into());
        }
        let usable = usable.flatten();
        if usable.clone().next().is_none() {
            return Ok(0);
        }
        self.cut(Cut::Withheld, image, |memblock| {
            memblock.keep_memory(usable)?;
            memblock.trim_memory(PAGE_SIZE)
        })
    }

    /// The initial RAM disk of `chosen`, if it can be one.
    fn initrd(&self, chosen: Chosen<'_, '_>, around: &Surroundings) -> Result<Option<PhysRange>, InitrdError> {
        let Some(initrd) = chosen.initrd().map_err(InitrdError::Tree)? else { return Ok(None) };
        if initrd.overlaps(around.image) {
            return Err(InitrdError::OverImage(initrd));
        }
        if initrd.overlaps(around.device_tree) {
            return Err(InitrdError::OverTree(initrd));
        }
        let bank = self.memory.find(initrd.start());
        let inside = bank.is_some_and(|bank| bank.range.contains_range(initrd));
        inside.then_some(Some(initrd)).ok_or(InitrdError::OutsideMemory(initrd))
    }

    /// Finds and reserves a place for a region that is only a size. A region whose properties cannot be read has no
    /// place; that is its device's loss, not the machine's.
    fn place_region(&mut self, region: ReservedMemory<'_, '_>) -> Result<Placement, DiscoverError> {
        let (Ok(size), Ok(align)) = (region.size(), region.alignment()) else { return Ok(Placement::NoRoom) };
        let Some(size) = size.filter(|&size| size != 0) else { return Ok(Placement::Empty) };
        let owner = u32::try_from(region.node().offset()).ok().and_then(RegionOwner::new);
        let Some(owner) = owner else { return Ok(Placement::NoRoom) };
        let least = if region.is_contiguous_area() { CONTIGUOUS_ALIGN } else { PAGE_SIZE };
        let align = align.unwrap_or(least).max(least);
        let align = align.checked_next_power_of_two().unwrap_or(align);
        let mut windows = region.alloc_ranges().peekable();
        let mut place = None;
        if windows.peek().is_none() {
            place = self.alloc_if_room(owner, size, align, Window::ANYWHERE)?;
        }
        for window in windows.flatten() {
            if place.is_none() {
                place = self.alloc_if_room(owner, size, align, Window::exactly(window))?;
            }
        }
        let Some(place) = place else { return Ok(Placement::NoRoom) };
        if region.is_no_map() {
            self.mark_nomap(place.start(), place.size())?;
        }
        Ok(Placement::Placed)
    }

    /// Reserves what the tree states. Where there can be no memory there is nothing to reserve.
    pub(super) fn reserve_stated(&mut self, range: PhysRange) -> Result<(), MemblockError> {
        if range.start().get() >= PHYS_SIZE_MAX { Ok(()) } else { self.reserve(range.start(), range.size()) }
    }

    /// Allocates; lack of room, and an alignment that no room has, is `None`, any other refusal an error.
    fn alloc_if_room(
        &mut self,
        owner: RegionOwner,
        size: u64,
        align: u64,
        window: Window,
    ) -> Result<Option<PhysRange>, MemblockError> {
        match self.alloc_raw_for(owner, size, align, window) {
            Ok(place) => Ok(Some(place)),
            Err(MemblockError::OutOfMemory { .. } | MemblockError::BadAlignment { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Result of placing a region that is only a size.
enum Placement {
    Placed,
    NoRoom,
    /// It asks for no bytes.
    Empty,
}

impl Surroundings {
    /// Nothing but the tree's own statements, for tools and tests.
    pub const NONE: Self = Self {
        image: PhysRange::EMPTY,
        boot_only: PhysRange::EMPTY,
        device_tree: PhysRange::EMPTY,
        end: PhysAddr::new(PHYS_SIZE_MAX),
        span: PHYS_SIZE_MAX,
        limit: None,
        other_cma: false,
    };

    /// Whether a region of the tree is passed over.
    #[must_use]
    pub fn passes_over(&self, region: &ReservedMemory<'_, '_>) -> bool {
        self.other_cma && region.is_enabled() && region.is_cma_default() && region.is_contiguous_area()
    }
}
