//! Every call refuses a range that it cannot change, and changes nothing then.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, machine, range, va};
use quarry::addr::{CpuId, Pfn, PhysAddr, VirtRange};
use quarry::arch::host::Config;
use quarry::hal::frame::{FrameSource, NoFrame};
use quarry::hal::level::{LeafLevel, Level, Slot};
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::{Change, LivePolicy, MapFlags, PageTable, PgtableError, Space, UnmapFlags};

/// What each call says of a range.
fn answers(rig: &Rig, range: VirtRange) -> Vec<PgtableError> {
    let (table, frames) = (&rig.table, &rig.frames);
    let policy = LivePolicy::BreakBeforeMake;
    [
        raw!(table.map(frames, range, super::rig::pa(RAM), Prot::KERNEL_RW, MapFlags::empty())).err(),
        table.populate(frames, range, LeafLevel::Pte).err(),
        raw!(table.protect(range, Change::access(Access::ReadOnly), policy)).err(),
        raw!(table.carve(frames, range, policy)).err(),
        raw!(table.collapse(frames, range, MapFlags::empty(), policy)).err(),
        raw!(table.unmap_and_flush(frames, range, UnmapFlags::empty())).err(),
        raw!(table.unmap(range, UnmapFlags::empty(), &mut table.gather(frames))).err(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn a_range_that_is_no_pages_of_the_space_is_refused_by_every_call() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, 4 * PAGE, RAM);
    let before = rig.check();
    for (wrong, error) in [
        (range(BASE + 8, PAGE), PgtableError::Unaligned),
        (range(BASE, PAGE + 8), PgtableError::Unaligned),
        (range(BASE, 0), PgtableError::Empty),
        (range(PAGE, PAGE), PgtableError::OutsideSpace),
        (range(BASE - (1 << 47) - PAGE, 2 * PAGE), PgtableError::OutsideSpace),
    ] {
        assert_eq!(answers(&rig, wrong), [error; 7], "{wrong}");
    }
    assert_eq!(rig.check(), before);
}

#[test]
fn frames_one_by_one_are_refused_like_a_range() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let frame = || Pfn::containing(PhysAddr::new(RAM));
    let user = Prot::KERNEL_RW.with_global(false);
    let map =
        |at, count: usize, prot| raw!(rig.table.map_frames(&rig.frames, va(at), (0..count).map(|_| frame()), prot));
    assert_eq!(map(BASE + 8, 1, Prot::KERNEL_RW), Err(PgtableError::Unaligned));
    assert_eq!(map(BASE, 0, Prot::KERNEL_RW), Err(PgtableError::Empty));
    assert_eq!(map(PAGE, 1, Prot::KERNEL_RW), Err(PgtableError::OutsideSpace));
    for count in [usize::MAX, 1 << 52, 1 << 51] {
        assert_eq!(map(BASE, count, Prot::KERNEL_RW), Err(PgtableError::OutsideSpace), "{count:#x}");
    }
    let rights = Rig::user(Config::CORTEX_A72);
    let refused = raw!(rights.table.map_frames(&rights.frames, va(PAGE), std::iter::once(frame()), user));
    assert_eq!(refused, Err(PgtableError::WrongPrivilege));
    rig.check();
    rights.check();
}

#[test]
fn a_protection_ends_at_the_edge_of_a_leaf() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, 4 * MIB, RAM);
    let policy = LivePolicy::BreakBeforeMake;
    let protect = |start, size| raw!(rig.table.protect(range(start, size), Change::access(Access::ReadOnly), policy));
    for (start, size) in [(BASE, 3 * MIB), (BASE + MIB, 3 * MIB), (BASE + 64 * KIB, PAGE)] {
        assert!(matches!(protect(start, size), Err(PgtableError::WouldSplit(_))), "{start:#x} {size:#x}");
    }
    assert_eq!(protect(BASE, 2 * MIB), Ok(()));
    rig.check();
}

/// A source of frames that has none.
struct Nothing;

// SAFETY: it gives no frame.
unsafe impl FrameSource for Nothing {
    fn alloc_table(&self) -> Result<PhysAddr, NoFrame> {
        Err(NoFrame)
    }

    unsafe fn free_table(&self, _: PhysAddr) {
        unreachable!("nothing was taken");
    }
}

#[test]
fn without_a_frame_there_is_no_root_and_no_split() {
    let machine = machine(Config::CORTEX_A72);
    // SAFETY: the machine is a model.
    let root = unsafe { PageTable::new(machine.cpu(CpuId::BOOT), &Nothing, Space::Kernel) };
    assert_eq!(root.err(), Some(PgtableError::NoFrame));
    let rig = Rig::kernel(Config::CORTEX_A72);
    rig.map_data(BASE, GIB, RAM);
    let before = rig.check();
    let carved = raw!(rig.table.carve(&Nothing, range(BASE + PAGE, PAGE), LivePolicy::BreakBeforeMake));
    assert_eq!(carved, Err(PgtableError::NoFrame));
    assert_eq!(rig.check(), before);
}

#[test]
fn a_table_that_is_known_takes_what_fits_and_nothing_else() {
    let rig = Rig::kernel(Config::CORTEX_A72);
    let pin = |at| rig.table.pin(&rig.frames, va(at)).map(|pinned| pinned.address(Slot::FIRST).get());
    assert_eq!(pin(u64::MAX - PAGE), Err(PgtableError::OutsideSpace));
    assert_eq!(pin(PAGE), Err(PgtableError::OutsideSpace));
    rig.map_data(BASE, 2 * MIB, RAM);
    assert_eq!(pin(BASE + PAGE), Err(PgtableError::Overlap(va(BASE))));
    let pinned = rig.table.pin(&rig.frames, va(BASE + 4 * MIB + PAGE)).unwrap();
    let map = |slot: Slot, list: &[u64], prot| raw!(rig.table.map_pinned(&pinned, slot, list, Pfn::new, prot));
    let last = Level::Pte.slot(va(BASE + 6 * MIB - PAGE));
    let frame = RAM / PAGE;
    let user = Prot::user(Access::ReadWrite);
    assert_eq!(map(Slot::FIRST, &[frame], user), Err(PgtableError::WrongPrivilege));
    assert_eq!(map(last, &[frame, frame + 1], Prot::KERNEL_RW), Err(PgtableError::OutsideSpace));
    assert_eq!(map(Slot::FIRST, &[frame, 1 << 40], Prot::KERNEL_RW), Err(PgtableError::PhysOutOfRange));
    assert_eq!((rig.phys_at(BASE + 4 * MIB), rig.phys_at(BASE + 6 * MIB - PAGE)), (None, None));
    assert_eq!(map(last, &[frame], Prot::KERNEL_RW), Ok(()));
    assert_eq!(rig.phys_at(BASE + 6 * MIB - PAGE), Some(RAM));
    raw!(rig.table.unmap_pinned(&pinned, last, 1));
    rig.check();
}
