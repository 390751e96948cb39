//! Barriers between accesses to coherent memory that a device sees too (Linux: `dma_wmb` and its kin,
//! arch/arm64/include/asm/barrier.h). The device is an observer of the outer shareable domain, so barriers between CPUs, which are
//! of the inner one, do not serve.
#![forbid(unsafe_code)]

use aarch64_cpu::asm::barrier;

/// Stores to coherent memory before this are seen by devices before those after it: data before the index that hands it over.
/// A store to a register needs no such barrier if it is made by `writel` or [`IoMem::write`](super::IoMem), which has its own;
/// one by a `tock-registers` block does. One instruction; any context.
#[inline(always)]
pub fn dma_wmb() {
    barrier::dmb(barrier::OSHST);
}

/// Loads from coherent memory before this are satisfied before those after it: the device's index before the data that it
/// announces. One instruction; any context.
#[inline(always)]
pub fn dma_rmb() {
    barrier::dmb(barrier::OSHLD);
}

/// Both, and loads against stores too. One instruction; any context.
#[inline(always)]
pub fn dma_mb() {
    barrier::dmb(barrier::OSH);
}
