//! Mapping and unmapping 4 KiB pages in live tables: `map_unmap/1`, `/512`, `/4096`. The tables exist (warm), every page
//! has an entry of its own, and the TLB has been invalidated when the operation ends.

use crate::arena::{self, Arena};
use crate::meter::{Figures, Meter, Unable};
use crate::rows::Row;
use core::arch::asm;
use core::hint::black_box;
use quarry::addr::{PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};

/// Page tables under test, in use by this CPU.
pub(crate) trait Mapper: Sized {
    /// Name of their crate.
    const NAME: &'static str;
    /// A 2 MiB-aligned address from which 16 MiB are free, in the half that the tables translate.
    const FREE: VirtAddr;

    /// Makes the tables live.
    fn new() -> Result<Self, Unable>;

    /// Maps `range` to the memory from `phys` on, writable, as 4 KiB pages.
    fn map(&mut self, range: VirtRange, phys: PhysAddr) -> Result<(), Unable>;

    /// Unmaps it, and returns when no CPU translates it any more. Tables may stay.
    fn unmap(&mut self, range: VirtRange) -> Result<(), Unable>;

    /// Takes the tables out of use.
    fn retire(self) {}
}

/// The rows of one implementation.
pub(crate) const fn rows<M: Mapper>() -> [Row; 3] {
    [
        Row { name: "map_unmap/1", by: M::NAME, run: map_unmap::<M, 1> },
        Row { name: "map_unmap/512", by: M::NAME, run: map_unmap::<M, 512> },
        Row { name: "map_unmap/4096", by: M::NAME, run: map_unmap::<M, 4096> },
    ]
}

fn map_unmap<M: Mapper, const PAGES: u64>(meter: &mut Meter) -> Result<Figures, Unable> {
    let phys = Arena::get().phys();
    let range = VirtRange::from_size(M::FREE, PAGES * PAGE_SIZE).ok_or("the range wraps")?;
    let mut mapper = M::new()?;
    prove(&mut mapper, range, phys)?;
    let mut result = Ok(());
    let figures = meter.measure(|| {
        let mapped = mapper.map(black_box(range), black_box(phys));
        let unmapped = mapper.unmap(black_box(range));
        if mapped.is_err() || unmapped.is_err() {
            result = mapped.and(unmapped);
        }
    });
    mapper.retire();
    result.map(|()| figures)
}

/// Both ends are mapped after `map`, to the right memory, and not after `unmap`, says the CPU's table walker; and what
/// is read there, through the TLB, is that of the frame that is mapped now and not of the one before.
fn prove<M: Mapper>(mapper: &mut M, range: VirtRange, phys: PhysAddr) -> Result<(), Unable> {
    let pages = range.size() / PAGE_SIZE;
    let ends = [0, pages - 1];
    let other = PhysAddr::new(phys.get() + pages * PAGE_SIZE);
    for phys in [phys, other, phys] {
        for index in ends {
            let frame = PhysAddr::new(phys.get() + index * PAGE_SIZE);
            // SAFETY: a page of the arena, which is ours.
            unsafe { arena::linear(frame).cast::<u64>().write_volatile(frame.get()) };
        }
        mapper.map(range, phys)?;
        for index in ends {
            let (virt, frame) = (page(range.start().get(), index), PhysAddr::new(phys.get() + index * PAGE_SIZE));
            if translate(virt) != Some(frame) {
                return Err("the CPU does not translate what was mapped");
            }
            // SAFETY: the CPU has just said that the address is mapped, to memory that is ours.
            if unsafe { virt.as_ptr::<u64>().read_volatile() } != frame.get() {
                return Err("the TLB translates what was unmapped");
            }
        }
        mapper.unmap(range)?;
        if ends.iter().any(|&index| translate(page(range.start().get(), index)).is_some()) {
            return Err("the CPU translates what was unmapped");
        }
    }
    Ok(())
}

const fn page(start: u64, index: u64) -> VirtAddr {
    VirtAddr::new(start + index * PAGE_SIZE)
}

/// Result of a write to `virt` by the tables (AT S1E1W; QEMU walks them without regard to the TLB).
fn translate(virt: VirtAddr) -> Option<PhysAddr> {
    let par: u64;
    // SAFETY: an address translation has no effect but on PAR_EL1.
    unsafe {
        asm!("at s1e1w, {}", "isb", "mrs {}, par_el1", in(reg) virt.get(), lateout(reg) par, options(nostack));
    }
    (par & 1 == 0).then(|| PhysAddr::new(par & 0x000f_ffff_ffff_f000))
}
