//! Allocated blocks, and their contents.

use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{DmaAddr, Order, VirtAddr, to_usize};
use quarry::mm::dma::CoherentBlock;
use quarry::mm::percpu::PerCpuPtr;
use quarry::mm::zone::PageBatch;

/// Pages of a batch, and of a mapping.
pub(super) const PAGES: usize = 16;
/// Single pages.
pub(super) type Row = PageBatch<PAGES>;

/// How a block was had, and so how it is given back.
pub(super) enum How {
    Pages(Order),
    Bulk(Row),
    Kmalloc,
    /// The cache's number.
    Cache(usize),
    Vmalloc,
    /// The pages that it maps.
    Vmap(Row),
    MapRam(Row),
    /// Its physical address.
    Ioremap(u64),
    PerCpu(PerCpuPtr),
    Mempool,
    Kvmalloc,
    /// The device's number, and where both find it.
    Coherent(usize, CoherentBlock),
    /// Pages of this order that the device with this number has, in part.
    Streaming(usize, Order, DmaAddr, u64),
}

/// A block that somebody has.
pub(super) struct Block {
    pub(super) how: How,
    pub(super) at: VirtAddr,
    pub(super) bytes: u64,
    /// Seed of its pattern: no two blocks have the same.
    pub(super) key: u64,
}

/// The key of the next block.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Block {
    pub(super) fn new(how: How, at: VirtAddr, bytes: u64) -> Self {
        let key = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { how, at, bytes, key }
    }

    pub(super) const fn kind(&self) -> usize {
        match self.how {
            How::Pages(_) => 0,
            How::Bulk(_) => 1,
            How::Kmalloc => 2,
            How::Cache(_) => 3,
            How::Vmalloc => 4,
            How::Vmap(_) => 5,
            How::MapRam(_) => 6,
            How::Ioremap(_) => 7,
            How::PerCpu(_) => 8,
            How::Mempool => 9,
            How::Kvmalloc => 10,
            How::Coherent(..) => 11,
            How::Streaming(..) => 12,
        }
    }

    /// Writes the pattern of this block to `bytes` bytes at `at`, which are its own.
    pub(super) fn fill(&self, at: VirtAddr, bytes: u64) {
        // SAFETY: the block's own bytes, mapped read-write, and nobody else's.
        let memory = unsafe { core::slice::from_raw_parts_mut(at.as_ptr::<u8>(), to_usize(bytes)) };
        let (words, tail) = memory.as_chunks_mut();
        for (word, index) in words.iter_mut().zip(0_u64..) {
            *word = (self.key ^ index.wrapping_mul(0x0101_0101_0101_0101)).to_le_bytes();
        }
        tail.fill(self.key.to_le_bytes()[7]);
    }

    /// Reads the pattern back.
    pub(super) fn verify(&self, at: VirtAddr, bytes: u64) {
        // SAFETY: as in `fill`.
        let memory = unsafe { core::slice::from_raw_parts(at.as_ptr::<u8>(), to_usize(bytes)) };
        let (words, tail) = memory.as_chunks();
        for (word, index) in words.iter().zip(0_u64..) {
            let (found, wanted) = (u64::from_le_bytes(*word), self.key ^ index.wrapping_mul(0x0101_0101_0101_0101));
            assert_eq!(found, wanted, "word {index} of {bytes} bytes at {at}, kind {}: somebody else's", self.kind());
        }
        let last = self.key.to_le_bytes()[7];
        assert!(tail.iter().all(|byte| *byte == last), "the end of {bytes} bytes at {at}: somebody else's");
    }
}
