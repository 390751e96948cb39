//! Every table that a call needs fails to come, once each: whichever it is, nothing is mapped that was not, and the next
//! try succeeds.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, phys, range, va};
use quarry::addr::{PhysAddr, VirtRange};
use quarry::arch::host::{Config, SimFrames};
use quarry::gfp::Gfp;
use quarry::hal::frame::{FrameSource, NoFrame};
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::fault_inject::{
    FaultAttr, FaultContext, FaultInjector, FaultRequest, FaultSite, FaultTarget, MayRecover, fail_every,
};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PgtableError, TableCensus, UnmapFlags};

const ALL: MapFlags = MapFlags::empty();
const PAGES: MapFlags = MapFlags::NO_HUGE.union(MapFlags::NO_CONT);

/// The rig's frames, of which some fail to come.
struct Asking<'r> {
    frames: &'r SimFrames,
    faults: FaultInjector,
}

impl<'r> Asking<'r> {
    fn new(rig: &'r Rig) -> Self {
        Self { frames: &rig.frames, faults: FaultInjector::default() }
    }
}

// SAFETY: the frames are those of the source behind it.
unsafe impl FrameSource for Asking<'_> {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        let request = FaultRequest { context: FaultContext::new(0), gfp: Gfp::ATOMIC, size: 1 };
        if self.faults.should_fail(FaultSite::PageTable, request) { Err(NoFrame) } else { self.frames.alloc_table() }
    }

    unsafe fn free_table(&self, table: PhysAddr) {
        // SAFETY: `FrameSource::free_table`: the frame came from the source behind this one, and no CPU walks through it.
        unsafe { self.frames.free_table(table) }
    }
}

/// A rig, as the driver sees it.
struct Tables<'r> {
    rig: &'r Rig,
    asking: &'r Asking<'r>,
    /// What holds no mapping between two tries: empty tables may stay in it.
    spare: Option<VirtRange>,
}

impl FaultTarget for Tables<'_> {
    type Counts = TableCensus;
    type Broken = PgtableError;

    fn injector(&self) -> &FaultInjector {
        &self.asking.faults
    }

    fn context(&self) -> FaultContext {
        FaultContext::new(0)
    }

    /// The frames always ask.
    fn set_careful(&self, _: bool) {}

    /// With all empty tables given back. The rig's own check sees that the tables are the frames that are out.
    fn counts(&self) -> TableCensus {
        if let Some(spare) = self.spare {
            let mut gather = self.rig.table.gather(self.asking);
            raw!(self.rig.table.unmap(spare, UnmapFlags::empty(), &mut gather)).expect("nothing in the way");
            gather.flush();
        }
        self.rig.check()
    }

    /// The rig panics by itself, and names what it found.
    fn check(&self) -> Result<(), PgtableError> {
        self.rig.check();
        Ok(())
    }
}

// Behaviours 497, 500: every shape, from one page in an empty tree (three tables) to all leaf sizes across the edge of a
// top-level entry.
#[test]
fn whichever_table_fails_a_mapping_is_made_whole_or_not_at_all() {
    // Start, size, flags, tables that are needed.
    let shapes = [
        (BASE, PAGE, ALL, 3),
        (BASE, 2 * MIB, ALL, 2),
        (BASE, GIB, ALL, 1),
        (BASE, 6 * MIB, MapFlags::NO_HUGE, 1 + 1 + 3),
        (BASE + GIB - 2 * MIB - 3 * PAGE, 4 * MIB + 6 * PAGE, ALL, 1 + 2 + 2),
        (BASE + 512 * GIB - 2 * MIB - 8 * PAGE, 4 * MIB + 16 * PAGE, ALL, 2 + 2 + 2),
        (BASE + 64 * KIB, 64 * KIB, ALL, 3),
        (BASE + GIB - 36 * MIB - 64 * KIB, 36 * MIB + 64 * KIB + GIB + 3 * PAGE, ALL, 1 + 2 + 2),
    ];
    for config in [Config { eager: false, ..Config::CORTEX_A72 }, Config { eager: false, ..Config::MAX }] {
        for (start, size, flags, tables) in shapes {
            let rig = Rig::kernel(config);
            // Something else that must stay.
            rig.map_data(BASE + 2048 * GIB, PAGE, RAM);
            let asking = Asking::new(&rig);
            let target = Tables { rig: &rig, asking: &asking, spare: Some(range(BASE, 1024 * GIB)) };
            let to = RAM + (start - BASE) % GIB;
            let rounds = fail_every(
                &target,
                MayRecover::No,
                || {
                    let mapped =
                        raw!(rig.table.map(&asking, range(start, size), PhysAddr::new(to), Prot::KERNEL_RW, flags));
                    let expected = mapped.is_ok();
                    assert_eq!(rig.phys_at(start), expected.then_some(to));
                    assert_eq!(rig.phys_at(start + size - 1), expected.then_some(to + size - 1));
                    mapped
                },
                |()| {
                    rig.unmap(start, size, UnmapFlags::empty()).expect("mapped");
                    rig.machine.give_away(phys(to, size));
                },
            );
            assert_eq!(rounds.map(|rounds| rounds.points), Ok(tables), "{start:#x}, {size:#x}");
            assert_eq!(rig.phys_at(BASE + 2048 * GIB), Some(RAM));
        }
    }
}

// Behaviour 500: tables made ahead of a mapping.
#[test]
fn whichever_table_fails_populating_leaves_empty_tables_at_most() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let asking = Asking::new(&rig);
    let target = Tables { rig: &rig, asking: &asking, spare: Some(range(BASE, 1024 * GIB)) };
    for (size, level, tables) in
        [(GIB, LeafLevel::Pud, 1), (3 * GIB, LeafLevel::Pmd, 1 + 3), (4 * MIB, LeafLevel::Pte, 1 + 1 + 2)]
    {
        let area = range(BASE, size);
        let rounds = fail_every(
            &target,
            MayRecover::No,
            || rig.table.populate(&asking, area, level),
            |()| {
                let left = target.counts();
                assert_eq!((left.tables, left.pages), (1, 0));
            },
        );
        assert_eq!(rounds.map(|rounds| rounds.points), Ok(tables));
    }
}

// Behaviours 497, 500: splitting a block. No translation changes, whatever happens.
#[test]
fn whichever_table_fails_a_split_keeps_every_translation() {
    for (config, policy) in [(Config::CORTEX_A72, LivePolicy::BreakBeforeMake), (Config::MAX, LivePolicy::BbmLevel2)] {
        for (hole, size, tables) in [
            // One block, one table of 2 MiB blocks, one of pages; and two of these at two edges.
            (BASE + 4 * MIB, 2 * MIB, 1),
            (BASE + 4 * MIB + PAGE, PAGE, 2),
            (BASE + 4 * MIB + PAGE, 2 * MIB, 3),
            (BASE + GIB - PAGE, 2 * PAGE, 4),
        ] {
            let rig = Rig::kernel(config);
            rig.map_data(BASE, 2 * GIB, RAM);
            let asking = Asking::new(&rig);
            let target = Tables { rig: &rig, asking: &asking, spare: None };
            let whole = range(BASE, 2 * GIB);
            let intact = || {
                for offset in [0, hole - BASE - 1, hole - BASE, hole - BASE + size - 1, hole - BASE + size, 2 * GIB - 1]
                {
                    assert_eq!(rig.phys_at(BASE + offset), Some(RAM + offset));
                }
            };
            let collapse = || raw!(rig.table.collapse(&asking, whole, ALL, policy)).expect("supported");
            let rounds = fail_every(
                &target,
                MayRecover::No,
                || {
                    let carved = raw!(rig.table.carve(&asking, range(hole, size), policy));
                    intact();
                    if carved.is_err() {
                        // A split that was done stays done.
                        collapse();
                    }
                    carved
                },
                |()| {
                    collapse();
                    intact();
                },
            );
            assert_eq!(rounds.map(|rounds| rounds.points), Ok(tables), "{hole:#x}, {size:#x}");
        }
    }
}

// Behaviour 499: taking away and restricting need no frame.
#[test]
fn unmapping_and_protecting_ask_for_no_table() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let asking = Asking::new(&rig);
    rig.map_data(BASE, GIB + 34 * MIB + 64 * KIB + 3 * PAGE, RAM);
    let area = range(BASE, GIB + 34 * MIB + 64 * KIB + 3 * PAGE);
    rig.map(BASE + 4 * GIB, 4 * MIB, RAM + 4 * GIB, Prot::KERNEL_RW, PAGES).expect("free range");
    let small = range(BASE + 4 * GIB, 4 * MIB);
    asking.faults.configure(FaultSite::PageTable, &FaultAttr::always());
    let policy = LivePolicy::BreakBeforeMake;
    assert!(raw!(rig.table.carve(&asking, range(BASE + PAGE, PAGE), policy)).is_err(), "the frames do fail");
    let calls = asking.faults.statistics(FaultSite::PageTable).calls;
    raw!(rig.table.protect(area, Change::access(Access::ReadOnly), policy)).expect("mapped");
    raw!(rig.table.collapse(&asking, small, ALL, policy)).expect("supported");
    for area in [area, small] {
        let mut gather = rig.table.gather(&asking);
        raw!(rig.table.unmap(area, UnmapFlags::empty(), &mut gather)).expect("whole leaves");
        gather.flush();
    }
    assert_eq!(asking.faults.statistics(FaultSite::PageTable).calls, calls);
    let left = rig.check();
    assert_eq!((left.pages, left.pmd_blocks, left.pud_blocks), (0, 0, 0));
    assert_eq!(rig.table.translate(va(BASE)), None);
}
