//! Pools of small blocks of coherent memory, all of one size (Linux: `mm/dmapool.c`).
//!
//! Memory comes in chunks of a page or more. A chunk is noted in records of at most 64 blocks each, a bit a block, so that a
//! block that is freed twice, or is none, is refused in O(log n), and nothing of the pool's own lies where the device writes.
#![forbid(unsafe_code)]

use super::{CoherentBlock, Device, Dma, DmaError, DmaHal};
use crate::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use crate::ds::Broken;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::mm::alloc::{KVec, Stateless};
use crate::sync::{OrderedLock, class};
use core::fmt;

/// Byte that free blocks are filled with, where that is asked for (Linux: `POOL_POISON_FREED`).
pub const POISON_FREED: u8 = 0xa7;

/// Reason why a pool was not made, a block not allocated or not freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// No bytes, more than a chunk can have, an alignment that is no power of two, a boundary that no block fits in.
    BadShape,
    /// The memory.
    Memory(DmaError),
    /// The block is free already.
    DoubleFree(CoherentBlock),
    /// The block is not of this pool, or not where one begins.
    NotOfPool(CoherentBlock),
    /// The pool has so many blocks in use, and goes on.
    InUse(u64),
}

impl From<DmaError> for PoolError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadShape => f.write_str("blocks of this size, alignment and boundary cannot be had"),
            Self::Memory(error) => error.fmt(f),
            Self::DoubleFree(block) => write!(f, "the block at {} ({}) is already free", block.addr, block.bus),
            Self::NotOfPool(block) => write!(f, "{} ({}) is no block of the pool", block.addr, block.bus),
            Self::InUse(count) => write!(f, "{count} blocks are busy"),
        }
    }
}

impl core::error::Error for PoolError {}

/// Size and placement of a pool's blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolShape {
    /// Bytes of a block.
    pub size: u64,
    /// Alignment of the blocks' addresses: a power of two.
    pub align: u64,
    /// No block crosses a multiple of this power of two; zero for no such boundary.
    pub boundary: u64,
    /// Whether free blocks are filled, and looked at when they are allocated.
    pub poison: bool,
}

/// At most 64 blocks, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Record {
    addr: VirtAddr,
    bus: DmaAddr,
    /// A bit for each block that is free.
    free: u64,
    /// A bit for each block.
    all: u64,
    /// Whether it is the first of its chunk.
    leads: bool,
}

impl Record {
    /// The bit of a block, if one begins there.
    #[inline(always)]
    fn bit_of(&self, stride: u64, block: CoherentBlock) -> Option<u64> {
        let offset = block.addr.get().wrapping_sub(self.addr.get());
        let number = offset.checked_div(stride).filter(|number| *number < BITS)?;
        let exact = number.wrapping_mul(stride) == offset && block.bus.get().wrapping_sub(self.bus.get()) == offset;
        let bit = 1 << number;
        (exact && self.all & bit != 0).then_some(bit)
    }

    /// The same, if the block is in use.
    #[inline(always)]
    fn busy_bit_of(&self, stride: u64, block: CoherentBlock) -> Option<u64> {
        self.bit_of(stride, block).filter(|bit| self.free & bit == 0)
    }

    /// Takes a free block.
    #[inline(always)]
    fn take(&mut self, stride: u64) -> Option<CoherentBlock> {
        if self.free == 0 {
            return None;
        }
        // A record lies in a chunk, so nothing wraps.
        let offset = u64::from(self.free.trailing_zeros()).wrapping_mul(stride);
        self.free &= self.free.wrapping_sub(1);
        Some(CoherentBlock {
            addr: VirtAddr::new(self.addr.get().wrapping_add(offset)),
            bus: DmaAddr::new(self.bus.get().wrapping_add(offset)),
        })
    }
}

/// The records.
///
/// # Invariants
///
/// - `POOL-1`: records are in the order of their addresses and do not meet; of each, the free blocks are some of all.
/// - `POOL-2`: `used` blocks are in use.
struct State<A: Stateless> {
    records: KVec<Record, A>,
    used: u64,
    /// A record that may have a free block.
    hint: usize,
}

/// A pool. Blocks that are left when it is dropped are reported, and their memory is lost.
pub struct DmaPool<'d, 'a, H: DmaHal<'a>, A: Stateless> {
    dma: &'d Dma<'a, H>,
    device: &'d Device,
    name: &'static str,
    shape: PoolShape,
    /// From one block to the next.
    stride: u64,
    /// Bytes of a chunk.
    chunk: u64,
    state: OrderedLock<State<A>, class::DmaPoolBlocks, H::Relax>,
}

/// Blocks of a record.
const BITS: u64 = 64;

impl<'d, 'a, H: DmaHal<'a>, A: Stateless> DmaPool<'d, 'a, H, A> {
    /// A pool without memory (Linux: `dma_pool_create`).
    ///
    /// # Errors
    ///
    /// [`PoolError::BadShape`].
    pub fn new(
        dma: &'d Dma<'a, H>,
        device: &'d Device,
        name: &'static str,
        shape: PoolShape,
    ) -> Result<Self, PoolError> {
        let PoolShape { size, align, boundary, .. } = shape;
        let good = size != 0 && size <= 1 << 20 && align.is_power_of_two() && align <= PAGE_SIZE;
        let bounded = boundary == 0 || (boundary.is_power_of_two() && boundary >= size);
        if !good || !bounded {
            return Err(PoolError::BadShape);
        }
        let stride = size.next_multiple_of(align);
        // A power of two, since memory is aligned to that.
        let chunk = stride.next_power_of_two().max(PAGE_SIZE);
        let state = OrderedLock::new(State { records: KVec::new(), used: 0, hint: 0 });
        Ok(Self { dma, device, name, shape, stride, chunk, state })
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.shape.size
    }

    #[inline(always)]
    fn with_state<R>(&self, f: impl FnOnce(&mut State<A>) -> R) -> R {
        let saved = self.dma.hal().save();
        let result = f(&mut self.state.lock());
        self.dma.hal().restore(saved);
        result
    }

    /// A block, zeroed only with [`Gfp::ZERO`] (Linux: `dma_pool_alloc`). Context as `gfp` says; from a chunk that is there, any.
    ///
    /// # Errors
    ///
    /// [`PoolError::Memory`].
    #[inline]
    pub fn alloc(&self, gfp: Gfp) -> Result<CoherentBlock, PoolError> {
        let block = loop {
            match self.with_state(|state| state.take(self.stride)) {
                Some(block) => break block,
                None => self.grow(gfp)?,
            }
        };
        if self.shape.poison {
            self.look_at(block);
        }
        if gfp.contains(Gfp::ZERO) {
            self.dma.hal().zero(Internal::CALL, block.addr, self.shape.size);
        }
        Ok(block)
    }

    /// Looks whether a free block was written to.
    #[cold]
    fn look_at(&self, block: CoherentBlock) {
        if let Some((offset, found)) =
            self.dma.hal().find_other(Internal::CALL, block.addr, self.shape.size, POISON_FREED)
        {
            let CoherentBlock { addr, bus } = block;
            log::error!(
                "dma_pool_alloc {}: block at {addr} ({bus}) was written to while it was free: {found:#04x} at offset {offset}",
                self.name
            );
        }
    }

    /// Records of a chunk: its boundaries kept, 64 blocks at most each.
    fn records_of(&self, chunk: CoherentBlock) -> impl Iterator<Item = Record> {
        let unit = match self.shape.boundary {
            0 => self.chunk,
            boundary => boundary.min(self.chunk),
        };
        let (stride, of_chunk) = (self.stride, self.chunk / unit);
        let of_unit = unit / stride;
        (0..of_chunk).flat_map(move |part| {
            (0..of_unit).step_by(64).map(move |first| {
                let offset = part * unit + first * stride;
                let blocks = (of_unit - first).min(BITS);
                let all = u64::MAX >> (BITS - blocks);
                Record {
                    addr: VirtAddr::new(chunk.addr.get() + offset),
                    bus: DmaAddr::new(chunk.bus.get() + offset),
                    free: all,
                    all,
                    leads: offset == 0,
                }
            })
        })
    }

    /// One more chunk.
    #[cold]
    #[inline(never)]
    fn grow(&self, gfp: Gfp) -> Result<(), PoolError> {
        let chunk = self.dma.alloc_coherent(self.device, self.chunk, gfp.difference(Gfp::ZERO))?;
        if self.shape.poison {
            self.dma.hal().fill(Internal::CALL, chunk.addr, self.chunk, POISON_FREED);
        }
        let added = self.records_of(chunk).count();
        let mut room = KVec::<Record, A>::new();
        loop {
            let (have, wanted) = self.with_state(|state| (room.capacity(), state.records.len() + added));
            if have < wanted && room.reserve(wanted.saturating_mul(2), gfp.difference(Gfp::ZERO)).is_err() {
                self.dma.do_free_coherent(self.device, self.chunk, chunk)?;
                return Err(PoolError::Memory(DmaError::NoRecords));
            }
            // In order, into the room that was made outside of the lock.
            let done = self.with_state(|state| {
                if room.capacity() < state.records.len() + added {
                    return false;
                }
                let at = state.records.partition_point(|record| record.addr < chunk.addr);
                let (before, behind) = state.records.split_at_checked(at).unwrap_or_default();
                let all = before.iter().copied().chain(self.records_of(chunk)).chain(behind.iter().copied());
                // There is room for all of them.
                let pushed = all.map(|record| room.push_within_capacity(record)).all(|pushed| pushed.is_ok());
                core::mem::swap(&mut state.records, &mut room);
                state.hint = at;
                pushed
            });
            if done {
                return Ok(());
            }
        }
    }

    /// [`Self::free`] for callers inside this crate, which own what they name or pass on their caller's promise.
    #[inline]
    pub(crate) fn do_free(&self, block: CoherentBlock) -> Result<(), PoolError> {
        if self.shape.poison {
            // Before anybody else may have it. For a wrong block nothing is filled.
            self.with_state(|state| state.find(self.stride, block).map(|_| ()))?;
            self.dma.hal().fill(Internal::CALL, block.addr, self.shape.size, POISON_FREED);
        }
        self.with_state(|state| state.give(self.stride, block))
    }

    /// Blocks in use, and blocks.
    #[must_use]
    pub fn blocks(&self) -> (u64, u64) {
        self.with_state(|state| {
            (state.used, state.records.iter().map(|record| u64::from(record.all.count_ones())).sum())
        })
    }

    /// Ends the pool (Linux: `dma_pool_destroy`).
    ///
    /// # Errors
    ///
    /// [`PoolError::InUse`] with the number of blocks that are in use: it is reported, and their chunks are lost.
    pub fn destroy(self) -> Result<(), PoolError> {
        let used = self.blocks().0;
        drop(self);
        if used == 0 { Ok(()) } else { Err(PoolError::InUse(used)) }
    }

    /// Tests `POOL-1` and `POOL-2`.
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        self.with_state(|state| {
            let mut used = 0;
            let mut last = VirtAddr::ZERO;
            for record in state.records.iter() {
                let end = record.addr.get() + u64::from(record.all.count_ones()) * self.stride;
                if record.addr < last || record.free & !record.all != 0 {
                    return Err(Broken {
                        tag: "POOL-1",
                        what: "a record of a pool overlaps, or has blocks that are none",
                    });
                }
                last = VirtAddr::new(end);
                used += u64::from((record.all & !record.free).count_ones());
            }
            if used != state.used {
                return Err(Broken { tag: "POOL-2", what: "the blocks of a pool are miscounted" });
            }
            Ok(())
        })
    }
}

impl<A: Stateless> State<A> {
    #[inline(always)]
    fn take(&mut self, stride: u64) -> Option<CoherentBlock> {
        if let Some(block) = self.records.get_mut(self.hint).and_then(|record| record.take(stride)) {
            // INVARIANT: POOL-2.
            self.used = self.used.wrapping_add(1);
            return Some(block);
        }
        self.take_elsewhere(stride)
    }

    #[cold]
    #[inline(never)]
    fn take_elsewhere(&mut self, stride: u64) -> Option<CoherentBlock> {
        self.hint = self.records.iter().position(|record| record.free != 0)?;
        let block = self.records.get_mut(self.hint)?.take(stride)?;
        // INVARIANT: POOL-2.
        self.used = self.used.wrapping_add(1);
        Some(block)
    }

    /// The record of a block in use, and its bit there.
    fn find(&self, stride: u64, block: CoherentBlock) -> Result<(usize, u64), PoolError> {
        let wrong = PoolError::NotOfPool(block);
        let index = self.records.partition_point(|record| record.addr <= block.addr).checked_sub(1).ok_or(wrong)?;
        let record = self.records.get(index).ok_or(wrong)?;
        match record.bit_of(stride, block) {
            None => Err(wrong),
            Some(bit) if record.free & bit == 0 => Ok((index, bit)),
            Some(_) => Err(PoolError::DoubleFree(block)),
        }
    }

    #[inline(always)]
    fn give(&mut self, stride: u64, block: CoherentBlock) -> Result<(), PoolError> {
        // Mostly it is of the record that was used last.
        if let Some(record) = self.records.get_mut(self.hint)
            && let Some(bit) = record.busy_bit_of(stride, block)
        {
            record.free |= bit;
            // INVARIANT: POOL-2.
            self.used = self.used.wrapping_sub(1);
            return Ok(());
        }
        self.give_elsewhere(stride, block)
    }

    #[cold]
    #[inline(never)]
    fn give_elsewhere(&mut self, stride: u64, block: CoherentBlock) -> Result<(), PoolError> {
        let (index, bit) = self.find(stride, block)?;
        if let Some(record) = self.records.get_mut(index) {
            record.free |= bit;
            // INVARIANT: POOL-2.
            self.used = self.used.wrapping_sub(1);
            // It is in the caches.
            self.hint = index;
        }
        Ok(())
    }
}

impl<'a, H: DmaHal<'a>, A: Stateless> Drop for DmaPool<'_, 'a, H, A> {
    fn drop(&mut self) {
        let records = self.with_state(|state| core::mem::take(&mut state.records));
        let mut lost = 0;
        for chunk in records.chunk_by(|_, next| !next.leads) {
            let busy: u32 = chunk.iter().map(|record| (record.all & !record.free).count_ones()).sum();
            let Some(first) = chunk.first() else { continue };
            if busy != 0 {
                lost += busy;
                continue;
            }
            let block = CoherentBlock { addr: first.addr, bus: first.bus };
            if let Err(error) = self.dma.do_free_coherent(self.device, self.chunk, block) {
                log::error!("dma_pool_destroy {}: {error}", self.name);
            }
        }
        if lost != 0 {
            log::error!("dma_pool_destroy {}: {lost} blocks are busy", self.name);
        }
    }
}

impl<'a, H: DmaHal<'a>, A: Stateless> fmt::Debug for DmaPool<'_, 'a, H, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaPool").field("name", &self.name).field("shape", &self.shape).finish_non_exhaustive()
    }
}
