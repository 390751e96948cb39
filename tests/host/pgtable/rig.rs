//! A machine with one set of tables in use on all its CPUs.

use quarry::addr::{CpuId, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::host::{Config, Machine, SimCpu, SimFrames};
use quarry::hal::mmu::{Asid, Mmu};
use quarry::hal::prot::Prot;
use quarry::mm::pgtable::{MapFlags, PageTable, PgtableError, Space, TableCensus, UnmapFlags};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const PAGE: u64 = 4 * KIB;
/// Aligned to every leaf.
pub(super) const BASE: u64 = 0xffff_8000_0000_0000;
/// Memory to map, aligned to every leaf.
pub(super) const RAM: u64 = 0x80_0000_0000;
pub(super) const ASID: Asid = Asid::new(7);

pub(super) const fn va(raw: u64) -> VirtAddr {
    VirtAddr::new(raw)
}

pub(super) const fn pa(raw: u64) -> PhysAddr {
    PhysAddr::new(raw)
}

pub(super) fn range(start: u64, size: u64) -> VirtRange {
    VirtRange::from_size(va(start), size).expect("no wrap")
}

pub(super) fn phys(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(pa(start), size).expect("no wrap")
}

pub(super) struct Rig<M = SimCpu> {
    pub(super) machine: Machine,
    pub(super) frames: SimFrames,
    pub(super) table: PageTable<M>,
}

pub(super) fn machine(config: Config) -> Machine {
    Machine::new(config, phys(0x4000_0000, 16 * MIB))
}

impl Rig {
    /// Kernel tables in every TTBR1, edited by CPU 0.
    pub(super) fn kernel(config: Config) -> Self {
        Self::with(config, Space::Kernel, |cpu| cpu)
    }

    /// User tables in every TTBR0.
    pub(super) fn user(config: Config) -> Self {
        Self::with(config, Space::User(ASID), |cpu| cpu)
    }
}

impl<M: Mmu> Rig<M> {
    /// Tables edited by CPU 0 through `wrap`.
    pub(super) fn with(config: Config, space: Space, wrap: impl FnOnce(SimCpu) -> M) -> Self {
        let machine = machine(config);
        let frames = machine.frames();
        let mmu = wrap(machine.cpu(CpuId::BOOT));
        // SAFETY: the machine is a model.
        let table = unsafe { PageTable::new(mmu, &frames, space) }.expect("a root");
        if space == Space::Kernel {
            machine.set_ttbr1(table.root());
        } else {
            (0..config.cpus).for_each(|cpu| machine.set_ttbr0(CpuId::new(cpu), table.root(), ASID));
        }
        Self { machine, frames, table }
    }

    pub(super) fn cpu(&self, cpu: u32) -> SimCpu {
        self.machine.cpu(CpuId::new(cpu))
    }

    pub(super) fn map(&self, start: u64, size: u64, to: u64, prot: Prot, flags: MapFlags) -> Result<(), PgtableError> {
        raw!(self.table.map(&self.frames, range(start, size), pa(to), prot, flags))
    }

    /// Maps kernel data with whatever leaves fit.
    pub(super) fn map_data(&self, start: u64, size: u64, to: u64) {
        self.map(start, size, to, Prot::KERNEL_RW, MapFlags::empty()).expect("free range");
    }

    pub(super) fn unmap(&self, start: u64, size: u64, flags: UnmapFlags) -> Result<(), PgtableError> {
        let mut gather = self.table.gather(&self.frames);
        let result = raw!(self.table.unmap(range(start, size), flags, &mut gather));
        gather.flush();
        result
    }

    pub(super) fn phys_at(&self, addr: u64) -> Option<u64> {
        self.table.translate(va(addr)).map(|found| found.phys.get())
    }

    /// Everything that can be checked at rest: the tables' invariants, the frames, and the machine's oracle.
    pub(super) fn check(&self) -> TableCensus {
        let census = self.table.check().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(census.tables, self.machine.frames_out() as u64, "frames taken and not given back");
        if let Err(violations) = self.machine.check() {
            panic!("{violations:?}");
        }
        census
    }
}
