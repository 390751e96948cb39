//! The linear map: all RAM, at its physical address plus the offset of [`machine!`](crate::machine).

use super::machine::linear_offset;
use crate::addr::{PhysAddr, PhysRange, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::mmu::{El1Mmu, TableWindow};
use crate::mm::layout::LINEAR_MAP_SIZE;
use core::ptr::NonNull;

/// The linear-map address of a physical address that the linear map reaches.
#[inline(always)]
pub(super) fn linear(phys: PhysAddr) -> VirtAddr {
    let offset = linear_offset();
    // An OR is cheaper than an addition where the constant is one that an instruction can hold.
    VirtAddr::new(match offset & (LINEAR_MAP_SIZE - 1) {
        0 => offset | phys.get(),
        _ => offset.wrapping_add(phys.get()),
    })
}

/// An address returned by an allocator, as a pointer to its first byte.
#[inline(always)]
pub(super) const fn pointer(memory: VirtAddr) -> NonNull<u8> {
    // SAFETY: neither area nor object nor page is at the address zero: where RAM would be there, `bring_up` has set its page
    // aside. An allocation of no bytes is not there either.
    unsafe { NonNull::new_unchecked(memory.as_ptr()) }
}

/// The address of physical memory in the linear map, or `None` if the linear map cannot reach it.
#[must_use]
pub fn phys_to_virt(phys: PhysAddr) -> Option<VirtAddr> {
    (phys.get() < LINEAR_MAP_SIZE).then(|| linear(phys))
}

/// The physical address behind an address of the linear map; `None` for any other address, and for one with a memory tag.
#[inline(always)]
pub(super) fn linear_to_phys(virt: VirtAddr) -> Option<PhysAddr> {
    let phys = virt.get().wrapping_sub(linear_offset());
    (phys < LINEAR_MAP_SIZE).then_some(PhysAddr::new(phys))
}

/// The linear-map addresses of a range, or `None` if the linear map does not reach all of it.
pub(super) fn phys_range_to_virt(phys: PhysRange) -> Option<VirtRange> {
    let reached = phys.end().get() <= LINEAR_MAP_SIZE;
    phys_to_virt(phys.start()).filter(|_| reached).and_then(|start| VirtRange::from_size(start, phys.size()))
}

/// Table frames through the linear map.
#[derive(Clone, Copy, Debug)]
pub struct LinearWindow(());

// SAFETY: MACH-1: all RAM is mapped there.
unsafe impl TableWindow for LinearWindow {
    #[inline]
    unsafe fn window(&self, table: PhysAddr) -> NonNull<u64> {
        let pointer = core::ptr::with_exposed_provenance_mut(to_usize(linear(table).get()));
        // SAFETY: no table is at the address zero: where that would be RAM's, `bring_up` has set its page aside.
        unsafe { NonNull::new_unchecked(pointer) }
    }
}

/// The machine whose tables are reached through the linear map.
pub type KernelMmu = El1Mmu<LinearWindow>;

/// The machine's tables, once the linear map is up.
///
/// # Safety
///
/// MACH-1 holds from now on, and [`tlb::init_cpu`](crate::arch::aarch64::tlb::init_cpu) has run.
#[must_use]
pub(crate) const unsafe fn linear_mmu() -> KernelMmu {
    El1Mmu::with_window(LinearWindow(()))
}
