//! Every call refuses a range that it cannot change, and changes nothing then.

use super::rig::{BASE, GIB, KIB, MIB, PAGE, RAM, Rig, machine, phys, range, va};
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
    let map_from = |origin, slot: Slot, list: &[u32], prot| {
        let page_of = |distance: u32| (distance >> 31 == 0).then_some(distance);
        raw!(rig.table.map_pinned(&pinned, slot, list, Pfn::new(origin), page_of, prot))
    };
    let last = Level::Pte.slot(va(BASE + 6 * MIB - PAGE));
    let map = |slot, list: &[u32], prot| map_from(RAM / PAGE, slot, list, prot);
    let user = Prot::user(Access::ReadWrite);
    assert_eq!(map(Slot::FIRST, &[0], user), Err(PgtableError::WrongPrivilege));
    assert_eq!(map(last, &[0, 1], Prot::KERNEL_RW), Err(PgtableError::OutsideSpace));
    // The last frame that an entry can name, and the one behind it.
    let top = (1 << 36) - 1;
    for (origin, distance) in [(top, 1), (top + 1, 0), (top - 9, 10), (u64::MAX, 0), (u64::MAX, 1)] {
        let refused = map_from(origin, Slot::FIRST, &[0, distance], Prot::KERNEL_RW);
        assert_eq!(refused, Err(PgtableError::PhysOutOfRange), "{origin:#x} {distance}");
    }
    assert_eq!((rig.phys_at(BASE + 4 * MIB), rig.phys_at(BASE + 6 * MIB - PAGE)), (None, None));
    assert_eq!(map_from(top - 9, last, &[9], Prot::KERNEL_RW), Ok(true));
    assert_eq!(rig.phys_at(BASE + 6 * MIB - PAGE), Some(top * PAGE));
    raw!(rig.table.unmap_pinned(&pinned, last, 1));
    assert_eq!(map(last, &[0], Prot::KERNEL_RW), Ok(true));
    assert_eq!(rig.phys_at(BASE + 6 * MIB - PAGE), Some(RAM));
    assert_eq!(rig.table.frame_pinned(&pinned, last), Some(Pfn::new(RAM / PAGE)));
    // Up to the first that may not be mapped.
    assert_eq!(map(Slot::FIRST, &[3, 1 << 31 | 4, 5], Prot::KERNEL_RW), Ok(false));
    let frames = [0, 1, 2].map(|slot| rig.table.frame_pinned(&pinned, Slot::wrapping(slot)));
    assert_eq!(frames, [Some(Pfn::new(RAM / PAGE + 3)), None, None]);
    raw!(rig.table.unmap_pinned(&pinned, Slot::FIRST, 3));
    raw!(rig.table.unmap_pinned(&pinned, last, 1));
    rig.check();
}

// One frame that no entry can name, in the first table, at its edge, and in the next: nothing stays mapped.
#[test]
fn a_bad_frame_among_good_ones_leaves_nothing_mapped() {
    for bad in [0, 1, 5, 7, 8, 9, 19] {
        let rig = Rig::kernel(Config::CORTEX_A72);
        let start = BASE + 2 * MIB - 8 * PAGE;
        let frame = |index: u64| Pfn::new(if index == bad { 1 << 36 } else { RAM / PAGE + 3 * index });
        let list: Vec<Pfn> = (0..20).map(frame).collect();
        let refused = raw!(rig.table.map_frames(&rig.frames, va(start), list.iter().copied(), Prot::KERNEL_RW));
        assert_eq!(refused, Err(PgtableError::PhysOutOfRange));
        assert!((0..20).all(|page| rig.phys_at(start + page * PAGE).is_none()), "page {bad} is bad");
        rig.check();
        rig.machine.give_away(phys(RAM, 2 * MIB));
        rig.check();
    }
}
