//! Coherent memory: what CPU and device both access at any time, each seeing what the other wrote (Linux:
//! `dma_alloc_coherent`).
//!
//! Of a coherent device it is ordinary memory. Of any other it is uncached: pages of a **reserve**, a block of 2 MiB that was
//! taken out of the linear map whole and mapped uncached instead, so that no block of live mappings is split for each
//! allocation, and no cacheable mapping leads there meanwhile (promise 9).
#![forbid(unsafe_code)]

use super::contiguous::LARGE;
use super::reserve::{Origin, Reserve, Reserves};
use super::{Bidirectional, Device, Dma, DmaError, DmaHal, MappingKind};
use crate::addr::{DmaAddr, Order, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange, to_usize};
use crate::ds::Broken;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::cache::DataCache as _;
use crate::hal::prot::MemoryType;
use crate::mm::page::{Kind, Page, PageMap as _, PageState};
use crate::mm::zone::{CmaArea, ContigError, PageHal as _};

/// Memory that CPU and device both access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoherentBlock {
    /// Where the CPU finds it, page aligned.
    pub addr: VirtAddr,
    /// Where the device finds it.
    pub bus: DmaAddr,
}

/// Owner's word of a block of the page allocator: a whole block that is cached, or a reserve.
const CACHED: u64 = 1;
const RESERVE: u64 = 2;
/// The order of an ordinary reserve, 2 MiB.
pub(super) const RESERVE_ORDER: Order = match Order::new(9) {
    Some(order) => order,
    None => Order::ZERO,
};

impl<'a, H: DmaHal<'a>> Dma<'a, H> {
    pub(super) fn with_reserves<R>(&self, f: impl FnOnce(&mut Reserves) -> R) -> R {
        let saved = self.hal.save();
        let result = f(&mut self.reserves.lock());
        self.hal.restore(saved);
        result
    }

    /// `size` bytes, rounded up to whole pages and aligned to the power of two above, zeroed, that the device and the CPU see
    /// alike without further calls (Linux: `dma_alloc_coherent`). Cached for a coherent device, uncached otherwise. Of a device with
    /// a pool ([`Device::pool`]) it is memory of the pool and no other. More than 64 KiB comes from a contiguous area, if there is one
    /// and `gfp` permits waiting; more than 4 MiB comes from nowhere else, and is aligned to 2 MiB. Context as `gfp` says, but where a new reserve is needed not in an interrupt handler, nor where other CPUs cannot
    /// be held: `coherent_pool=` makes reserves beforehand.
    ///
    /// # Errors
    ///
    /// [`DmaError::Empty`], [`DmaError::TooLarge`], [`DmaError::Alloc`], [`DmaError::Unreachable`], [`DmaError::NoReserve`],
    /// [`DmaError::Alias`], [`DmaError::PoolFull`]. Nothing has changed then.
    #[inline]
    #[track_caller]
    pub fn alloc_coherent(&self, device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
        let cached = device.is_coherent() && device.pool().is_none();
        let block = if cached { self.alloc_cached(device, size, gfp) } else { self.alloc_uncached(device, size, gfp) }?;
        self.watch_block(device, block, size);
        Ok(block)
    }

    #[inline(always)]
    #[track_caller]
    fn watch_block(&self, device: &Device, block: CoherentBlock, size: u64) {
        self.watch_map::<Bidirectional>(device, MappingKind::Coherent, (block.bus, PhysAddr::ZERO, size), 1);
    }

    /// [`Self::alloc_coherent`], uncached for any device, so that writes are combined (Linux: `dma_alloc_wc`).
    ///
    /// # Errors
    ///
    /// Those of [`Self::alloc_coherent`].
    #[track_caller]
    pub fn alloc_wc(&self, device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
        let block = self.alloc_uncached(device, size, gfp)?;
        self.watch_block(device, block, size);
        Ok(block)
    }

    /// [`Self::alloc_coherent`], cached for any device: it is synced as a streaming mapping is (Linux: `dma_alloc_noncoherent`).
    /// The zeroed memory is clean in the cache.
    ///
    /// # Errors
    ///
    /// Those of [`Self::alloc_coherent`]; [`DmaError::Restricted`] of a device with a restricted pool, whose memory is uncached.
    #[track_caller]
    pub fn alloc_noncoherent(&self, device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
        if device.is_restricted() {
            return Err(DmaError::Restricted);
        }
        let block = self.alloc_cached(device, size, gfp)?;
        if !device.is_coherent() {
            let range = VirtRange::from_size(block.addr, size).unwrap_or_default();
            self.hal.cache().clean(Internal::CALL, range);
            self.hal.cache().complete();
        }
        self.watch_block(device, block, size);
        Ok(block)
    }

    /// A block that the device reaches with its coherent mask, from the highest zone whose memory it does.
    #[inline]
    fn alloc_block(&self, device: &Device, order: Order, gfp: Gfp) -> Result<(Page, PhysRange, DmaAddr), DmaError> {
        let pages = self.hal.pages();
        let gfp = gfp.difference(Gfp::ZERO | Gfp::COMP | Gfp::HIGHMEM);
        let plain = gfp.difference(Gfp::DMA | Gfp::DMA32);
        let zones: &[Gfp] = match gfp.intersection(Gfp::DMA | Gfp::DMA32) {
            Gfp::DMA => &[Gfp::DMA],
            Gfp::DMA32 => &[Gfp::DMA32, Gfp::DMA],
            _ => &[Gfp::empty(), Gfp::DMA32, Gfp::DMA],
        };
        let mut last = PhysRange::EMPTY;
        for zone in zones {
            // Zonelists fall back downwards: where this one has nothing, those below it have nothing either.
            let page = pages.alloc_pages(plain | *zone, order)?;
            let range = PhysRange::from_size(pages.hal().map().phys(page), order.bytes()).unwrap_or_default();
            if let Some(bus) = device.translate_coherent(range) {
                return Ok((page, range, bus));
            }
            // Fresh, so that it goes back.
            let _ = pages.do_free_pages(page, order);
            last = range;
        }
        Err(DmaError::Unreachable(last))
    }

    #[inline]
    fn alloc_cached(&self, device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
        if (size > LARGE || device.area().is_some())
            && let Some(block) = self.alloc_contiguous(device, size, gfp)
        {
            return Ok(block);
        }
        let order = order_of(size)?;
        let (page, range, bus) = self.alloc_block(device, order, gfp)?;
        let map = self.hal.pages().hal().map();
        let descriptor = map.get(page);
        descriptor.claim_fresh(Kind::Dma);
        descriptor.set_owner(CACHED);
        let addr = self.hal.to_virt(range.start());
        self.hal.zero(Internal::CALL, addr, range.size());
        Ok(CoherentBlock { addr, bus })
    }

    #[inline]
    fn alloc_uncached(&self, device: &Device, size: u64, gfp: Gfp) -> Result<CoherentBlock, DmaError> {
        let pages = size.div_ceil(PAGE_SIZE);
        if let Some(found) = self.take_from_pool(device, pages) {
            return found;
        }
        if pages > RESERVE_ORDER.pages()
            && let Some(block) = self.alloc_whole(device, pages, gfp)
        {
            return Ok(block);
        }
        let order = order_of(size)?.max(RESERVE_ORDER);
        // Of its own area first, as long as that has some.
        let mut of = device.area();
        loop {
            let taken = self.with_reserves(|reserves| reserves.take(device, pages, of));
            if let Some((addr, bus)) = taken {
                self.hal.zero(Internal::CALL, addr, pages * PAGE_SIZE);
                return Ok(CoherentBlock { addr, bus });
            }
            match of {
                Some(area) if self.add_reserve_of(device, area, order, gfp).is_err() => of = None,
                Some(_) => {}
                None => self.add_reserve(device, order, gfp)?,
            }
        }
    }

    /// Makes one more reserve that the device reaches: of a block of pages, else of the contiguous area for everybody.
    #[cold]
    fn add_reserve(&self, device: &Device, order: Order, gfp: Gfp) -> Result<(), DmaError> {
        if self.with_reserves(|reserves| reserves.is_full()) {
            return Err(DmaError::NoReserve);
        }
        let memory = match self.alloc_block(device, order, gfp) {
            Ok((page, range, _)) => (page, range, Origin::default()),
            Err(error) => {
                let area = self.hal.contiguous_area().ok_or(error)?;
                self.contiguous_block(device, (area, None), order, gfp).ok_or(error)?
            }
        };
        self.add_reserve_made_of(memory)
    }

    /// The same of the device's own contiguous area, for devices that have it.
    #[cold]
    fn add_reserve_of(&self, device: &Device, area: CmaArea, order: Order, gfp: Gfp) -> Result<(), DmaError> {
        if self.with_reserves(|reserves| reserves.is_full()) {
            return Err(DmaError::NoReserve);
        }
        let memory = self.contiguous_block(device, (area, Some(area)), order, gfp);
        self.add_reserve_made_of(memory.ok_or(DmaError::Contiguous(ContigError::NoRange))?)
    }

    fn contiguous_block(
        &self,
        device: &Device,
        (area, of): (CmaArea, Option<CmaArea>),
        order: Order,
        gfp: Gfp,
    ) -> Option<(Page, PhysRange, Origin)> {
        let (first, range, _) = self.take_contiguous(device, area, (order.pages(), order.pages()), gfp)?;
        Some((first, range, Origin { contiguous: true, of, whole: false }))
    }

    fn add_reserve_made_of(&self, memory: (Page, PhysRange, Origin)) -> Result<(), DmaError> {
        let reserve = self.make_reserve(memory)?;
        if self.with_reserves(|reserves| reserves.add(reserve)) {
            return Ok(());
        }
        self.give_reserve_back(reserve)?;
        Err(DmaError::NoReserve)
    }

    /// Makes a reserve of pages that are the caller's; they have gone back if it fails.
    pub(super) fn make_reserve(&self, (page, range, origin): (Page, PhysRange, Origin)) -> Result<Reserve, DmaError> {
        let pages = self.hal.pages();
        let claim = || if origin.contiguous { Ok(()) } else { pages.do_claim(page, Kind::Dma, RESERVE) };
        // Claimed before, so that nobody maps it in between.
        let uncached = claim().map_err(DmaError::from).and_then(|()| Ok(self.hal.uncache(Internal::CALL, range)?));
        let uncached = match uncached {
            Ok(uncached) => uncached,
            Err(error) => {
                // Fresh pages, which nobody has.
                let _ = self.free_pages_of(page, range, origin);
                return Err(error);
            }
        };
        // Nothing can be fetched any more; a dirty line would be written back over what is written from now on.
        let bytes = VirtRange::from_size(uncached.at, range.size()).unwrap_or_default();
        self.hal.cache().clean_and_invalidate(Internal::CALL, bytes);
        self.hal.cache().complete();
        self.set_type_of(page, range, origin, MemoryType::NonCacheable)?;
        Ok(Reserve::new(range, uncached, origin))
    }

    /// Notes the type of memory that is mapped in one way only.
    fn set_type_of(&self, first: Page, range: PhysRange, origin: Origin, memory: MemoryType) -> Result<(), DmaError> {
        let blocks = if origin.contiguous { range.size() / PAGE_SIZE } else { 1 };
        for page in (first.index()..).take(to_usize(blocks)).map(Page::new) {
            self.hal.pages().do_set_memory_type(page, memory)?;
        }
        Ok(())
    }

    /// Gives pages back that are mapped as any other.
    fn free_pages_of(&self, page: Page, range: PhysRange, origin: Origin) -> Result<(), DmaError> {
        let pages = self.hal.pages();
        if origin.contiguous {
            return Ok(pages.do_cma_release(page, u32::try_from(range.size() / PAGE_SIZE).unwrap_or(u32::MAX))?);
        }
        let Some(order) = Order::for_bytes(range.size()) else { return Ok(()) };
        let _ = pages.do_disown(page, Kind::Dma);
        Ok(pages.do_free_pages(page, order)?)
    }

    /// Gives the memory of a reserve back, of which nothing is in use and which is on no list.
    #[cold]
    pub(super) fn give_reserve_back(&self, reserve: Reserve) -> Result<(), DmaError> {
        let (range, origin) = (reserve.range(), reserve.origin());
        let page = self.hal.pages().hal().map().find(Pfn::containing(range.start()));
        let Some(page) = page else { return Ok(()) };
        self.hal.recache(Internal::CALL, range, reserve.uncached())?;
        self.set_type_of(page, range, origin, MemoryType::WriteBack)?;
        self.free_pages_of(page, range, origin)
    }

    /// Makes reserves of uncached memory beforehand, of `bytes` together, rounded up to 2 MiB, that every device reaches
    /// (`coherent_pool=`): allocations that cannot make one find them. May wait.
    ///
    /// # Errors
    ///
    /// Those of [`Self::alloc_coherent`]; what was made stays.
    pub fn set_up_reserves(&self, device: &Device, bytes: u64) -> Result<(), DmaError> {
        let wanted = bytes.div_ceil(RESERVE_ORDER.bytes());
        while self.with_reserves(|reserves| reserves.count()) < wanted {
            self.add_reserve(device, RESERVE_ORDER, Gfp::KERNEL | Gfp::DMA)?;
        }
        self.with_reserves(|reserves| reserves.keep(wanted));
        Ok(())
    }

    /// Gives back reserves of which nothing is in use, but for those made beforehand: pages that are free now. For callers
    /// that are short of memory.
    pub fn trim_reserves(&self) -> u64 {
        self.trim(false)
    }

    /// The same, or of those alone that were one allocation each.
    pub(super) fn trim(&self, only_whole: bool) -> u64 {
        let mut freed = 0;
        while let Some(reserve) = self.with_reserves(|reserves| reserves.take_empty(only_whole)) {
            let pages = reserve.range().size() / PAGE_SIZE;
            match self.give_reserve_back(reserve) {
                Ok(()) => freed += pages,
                Err(error) => log::error!("a reserve at {} is lost: {error}", reserve.range()),
            }
        }
        freed
    }

    /// Pages that [`Self::trim_reserves`] would give back.
    #[must_use]
    pub fn idle_pages(&self) -> u64 {
        self.with_reserves(|reserves| reserves.idle_pages())
    }

    /// Pages of reserves, and how many of them are in use.
    #[must_use]
    pub fn reserved_pages(&self) -> (u64, u64) {
        self.with_reserves(|reserves| reserves.pages())
    }

    /// [`Self::free_coherent`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    #[track_caller]
    pub(crate) fn do_free_coherent(&self, device: &Device, size: u64, block: CoherentBlock) -> Result<(), DmaError> {
        let CoherentBlock { addr, bus } = block;
        let wrong = || DmaError::NotAllocated(addr, bus, size);
        if size == 0 {
            return Err(wrong());
        }
        self.watch_unmap::<Bidirectional>(device, MappingKind::Coherent, (bus, size), 1)?;
        // Memory that the linear map translates is in no reserve and in no pool.
        if let Some(phys) = self.hal.to_phys(addr) {
            if (size > LARGE || device.area().is_some())
                && let Some(freed) = self.free_contiguous(device, phys, (bus, size))
            {
                return if freed { Ok(()) } else { Err(wrong()) };
            }
            return self.free_cached(device, size, (phys, bus)).unwrap_or_else(|| Err(wrong()));
        }
        let pages = size.div_ceil(PAGE_SIZE);
        let freed = self.with_reserves(|reserves| reserves.free(device, addr, bus, pages));
        match freed.or_else(|| self.free_to_pool(device, addr, bus, pages)) {
            Some(true) => {
                if pages > RESERVE_ORDER.pages() && self.hal.pages().may_wait() {
                    self.trim(true);
                }
                Ok(())
            }
            Some(false) | None => Err(wrong()),
        }
    }

    fn free_cached(
        &self,
        device: &Device,
        size: u64,
        (phys, bus): (PhysAddr, DmaAddr),
    ) -> Option<Result<(), DmaError>> {
        if !phys.is_aligned(PAGE_SIZE) {
            return None;
        }
        let pages = self.hal.pages();
        let map = pages.hal().map();
        let page = map.find(Pfn::containing(phys))?;
        let descriptor = map.get(page);
        // Of a page inside a block the descriptor has another kind.
        let state = descriptor.state();
        let order = order_of(size).ok()?;
        let cached = state.kind() == Kind::Dma && state.memory_type() == MemoryType::WriteBack;
        if !cached || descriptor.owner() != CACHED || state.order() != order {
            return None;
        }
        let range = PhysRange::from_size(phys, order.bytes())?;
        device.translate_coherent(range).filter(|found| *found == bus)?;
        // Of two that free it at once, one finds it free already.
        descriptor.become_kind(Kind::Block, 0).ok()?;
        Some(pages.do_free_pages(page, order).map_err(DmaError::Free))
    }

    /// Tests the reserves, and that each is what its descriptor says.
    pub(super) fn check_reserves(&self) -> Result<(), Broken> {
        let map = self.hal.pages().hal().map();
        self.with_reserves(|reserves| {
            reserves.check()?;
            for reserve in reserves.iter() {
                let (range, contiguous) = (reserve.range(), reserve.origin().contiguous);
                let block = if contiguous { PAGE_SIZE } else { range.size() };
                let right = |state: PageState| {
                    state.kind() == Kind::Dma
                        && state.memory_type() == MemoryType::NonCacheable
                        && state.order().bytes() == block
                };
                let first = map.find(Pfn::containing(range.start()));
                let blocks = first.map(|first| (first.index()..).take(to_usize(range.size() / block)));
                if !blocks.is_some_and(|mut blocks| blocks.all(|page| right(map.get(Page::new(page)).state()))) {
                    return Err(Broken { tag: "RSV-3", what: "a reserve is not what its descriptor says" });
                }
            }
            Ok(())
        })
    }
}

/// The order of a block of so many bytes.
fn order_of(size: u64) -> Result<Order, DmaError> {
    match Order::for_bytes(size) {
        Some(order) => Ok(order),
        None if size == 0 => Err(DmaError::Empty),
        None => Err(DmaError::TooLarge(size)),
    }
}
