//! The memory of the machine in `kmalloc`, behind a data cache; made once, and used by every input.

use super::memory::{self, BASE, SIZE};
use quarry::addr::{PhysAddr, PhysRange, VirtAddr};
use quarry::arch::host::{CacheConfig, CachedRam};
use quarry::hal::Internal;
use quarry::hal::cpu::Interrupts;
use quarry::hal::prot::Prot;
use quarry::mm::dma::{BounceSlot, Dma, DmaHal, Entry, Report};
use quarry::mm::vmalloc::{SetMemoryError, Uncached};
use quarry::mm::zone::PageAllocator;
use std::sync::LazyLock;

/// Few, so that they run out.
const SLOTS: u64 = 8;

static DMA: LazyLock<Dma<'static, Machine>> = LazyLock::new(make);

pub fn dma() -> &'static Dma<'static, Machine> {
    &DMA
}

fn make() -> Dma<'static, Machine> {
    let range = PhysRange::from_size(PhysAddr::new(BASE), SIZE).expect("a range");
    let dma = Dma::new(Machine { ram: CachedRam::new(range, CacheConfig { line: 64, seed: 1, events: 2 }) });
    dma.set_up_bounce(SLOTS).expect("memory for slots");
    dma
}

pub struct Machine {
    pub ram: CachedRam,
}

impl Interrupts for Machine {
    type Saved = ();

    fn save(&self) {}

    fn restore(&self, (): ()) {}
}

// SAFETY: HAL-13: the copies of the simulated memory are where it says; records are leaked once.
unsafe impl DmaHal<'static> for Machine {
    type Cache = CachedRam;
    type Pages = memory::Machine;
    type Relax = quarry::arch::host::Spin;

    fn cache(&self) -> &CachedRam {
        &self.ram
    }

    fn pages(&self) -> &PageAllocator<memory::Machine> {
        memory::slabs().pages()
    }

    fn to_virt(&self, phys: PhysAddr) -> VirtAddr {
        self.ram.linear(phys)
    }

    fn to_phys(&self, virt: VirtAddr) -> Option<PhysAddr> {
        self.ram.phys(virt)
    }

    fn slots(&self, count: usize) -> Option<&'static mut [BounceSlot]> {
        Some(vec![BounceSlot::FREE; count].leak())
    }

    fn entries(&self, count: usize) -> Option<&'static mut [Entry]> {
        Some(vec![Entry::NONE; count].leak())
    }

    fn words(&self, count: usize) -> Option<&'static mut [u64]> {
        Some(vec![0; count].leak())
    }

    fn copy(&self, _: Internal, to: VirtAddr, from: VirtAddr, bytes: u64) {
        // SAFETY: both are the caller's, and apart.
        unsafe { to.as_ptr::<u8>().copy_from_nonoverlapping(from.as_ptr(), bytes as usize) };
    }

    fn zero(&self, internal: Internal, at: VirtAddr, bytes: u64) {
        self.fill(internal, at, bytes, 0);
    }

    fn fill(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) {
        // SAFETY: the bytes are the caller's.
        unsafe { at.as_ptr::<u8>().write_bytes(byte, bytes as usize) };
    }

    fn find_other(&self, _: Internal, at: VirtAddr, bytes: u64, byte: u8) -> Option<(u64, u8)> {
        // SAFETY: the bytes are the caller's.
        let read = |offset| unsafe { at.as_ptr::<u8>().wrapping_add(offset as usize).read_volatile() };
        (0..bytes).map(|offset| (offset, read(offset))).find(|(_, found)| *found != byte)
    }

    fn report(&self, report: &Report<'_>) {
        panic!("{report}");
    }

    fn uncache(&self, _: Internal, block: PhysRange) -> Result<Uncached, SetMemoryError> {
        self.ram.set_cacheable(block, false);
        Ok(Uncached { at: self.ram.uncached(block.start()), linear: Prot::KERNEL_RW })
    }

    fn recache(&self, _: Internal, block: PhysRange, _: Uncached) -> Result<(), SetMemoryError> {
        self.ram.set_cacheable(block, true);
        Ok(())
    }
}
