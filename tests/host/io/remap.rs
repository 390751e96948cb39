//! `ioremap` on a machine whose TLBs keep what they have.

use crate::random::Random;
use crate::vmalloc::kernel::{CLAIMS, Kernel, RAM, Vmalloc, at_rest, take_page, with_machine};
use crate::vmalloc::machine::run_on;
use quarry::addr::{CpuId, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::host::{Config, Who};
use quarry::ds::rbtree::Owned;
use quarry::gfp::Gfp;
use quarry::hal::entry::Entry;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::io::{Claim, IoError, IoHal, IoSpace, ReservedMap};
use quarry::mm::layout;
use quarry::mm::page::PageMap;
use quarry::mm::pgtable::MapFlags;
use quarry::mm::vmalloc::{AreaError, VmFlags, VmallocError, VmallocRequest};
use quarry::mm::zone::PageHal;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Where the machine's devices are.
const DEVICES: u64 = 0x10_0000_0000;
/// Bits of a physical address, as a Cortex-A72 has them.
const PHYS_BITS: u32 = 44;

impl<'m> IoHal<'m> for Kernel<'m> {
    fn claim(&self) -> Option<Owned<'m, Claim>> {
        self.claims.lock().unwrap().pop_front()
    }

    fn free_claim(&self, claim: Owned<'m, Claim>) {
        self.claims.lock().unwrap().push_front(claim);
    }
}

type Io<'s, 'm> = IoSpace<'s, 'm, Kernel<'m>>;

/// Runs `f` on a machine, and sees that everything is as before in the end.
fn on_a_machine(config: Config, f: impl FnOnce(&Vmalloc<'_>, &Io<'_, '_>)) {
    on_a_machine_with(config, ReservedMap::NONE, f);
}

/// The same, with what a device tree sets aside.
pub(super) fn on_a_machine_with(
    config: Config,
    reserved: ReservedMap<'static>,
    f: impl FnOnce(&Vmalloc<'_>, &Io<'_, '_>),
) {
    with_machine(config, |space| {
        let free = space.hal().pages.free_page_count();
        let io = IoSpace::new(space);
        io.set_up(PhysAddr::new(1 << PHYS_BITS), reserved);
        f(space, &io);
        io.check().unwrap();
        assert_eq!(io.iter().count(), 0);
        at_rest(space, free);
    });
}

fn phys(raw: u64) -> PhysAddr {
    PhysAddr::new(raw)
}

/// The entries of a mapping: 1 GiB, 2 MiB, 4 KiB, and how many of them are in contiguous groups.
fn entries(space: &Vmalloc<'_>, addr: VirtAddr, size: u64) -> [usize; 4] {
    let range = VirtRange::from_size(addr, size).and_then(|range| range.align_outwards(PAGE_SIZE)).unwrap();
    let mut found = [0; 4];
    let _ = space.hal().table.walk(range, |visit| {
        if let Entry::Leaf(leaf) = visit.entry {
            found[match leaf.level {
                LeafLevel::Pud => 0,
                LeafLevel::Pmd => 1,
                LeafLevel::Pte => 2,
            }] += 1;
            found[3] += usize::from(leaf.contiguous);
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

// Behaviour 289
#[test]
fn a_mapping_takes_as_few_entries_as_it_can() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        let cases = [
            (DEVICES, 1, [0, 0, 1, 0]),
            (DEVICES + 0xffc, 8, [0, 0, 2, 0]),
            (DEVICES + PAGE_SIZE - 1, 2, [0, 0, 2, 0]),
            (DEVICES, 64 * KIB, [0, 0, 16, 16]),
            (DEVICES + 60 * KIB, 72 * KIB, [0, 0, 18, 16]),
            (DEVICES + 4 * KIB, 64 * KIB, [0, 0, 16, 0]),
            (DEVICES, 2 * MIB, [0, 1, 0, 0]),
            (DEVICES + MIB, 8 * MIB, [0, 3, 512, 512]),
            (DEVICES + 0x123, 4 * MIB, [0, 2, 1, 0]),
            (DEVICES, 32 * MIB, [0, 16, 0, 16]),
        ];
        for (start, size, expected) in cases {
            let addr = io.ioremap(phys(start), size, MemoryType::DeviceNGnRE).unwrap();
            assert_eq!(entries(space, addr, size), expected, "{size:#x} bytes from {start:#x}");
            assert_eq!(addr.offset_in(PAGE_SIZE), start % PAGE_SIZE);
            for offset in [0, size / 2, size - 1] {
                let found = space.hal().table.translate(VirtAddr::new(addr.get() + offset)).unwrap();
                assert_eq!(found.phys.get(), start + offset);
            }
            let area = space.find(addr).unwrap();
            assert!(area.phys == Some(phys(start)) && area.flags.contains(VmFlags::IOREMAP));
            assert!(area.caller.unwrap().file().ends_with("remap.rs"));
            let mut line = String::new();
            area.write_line(&mut line).unwrap();
            let expected = format!("phys={start:#018x} ioremap");
            assert!(line.contains("remap.rs:") && line.ends_with(&expected), "{line}");
            io.check().unwrap();
            raw!(io.iounmap(addr)).unwrap();
            assert_eq!(entries(space, addr, size), [0; 4]);
        }
    });
}

#[test]
fn blocks_of_a_gibibyte_occur_and_smaller_ones_where_the_region_has_no_room_for_them() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        // The region of this machine has 1 GiB in all, and so no room for a block of 1 GiB and a guard.
        let addr = io.ioremap(phys(DEVICES), 512 * MIB, MemoryType::DeviceNGnRE).unwrap();
        assert_eq!(entries(space, addr, 512 * MIB), [0, 256, 0, 256]);
        raw!(io.iounmap(addr)).unwrap();
        assert!(matches!(
            io.ioremap(phys(DEVICES), GIB, MemoryType::DeviceNGnRE),
            Err(IoError::Area(AreaError::TooLarge(_)))
        ));
        // A mapping that must not lie where its blocks would: it takes what there is.
        let first = io.ioremap(phys(DEVICES + PAGE_SIZE), 700 * MIB, MemoryType::DeviceNGnRE).unwrap();
        assert!(matches!(
            io.ioremap(phys(DEVICES), 512 * MIB, MemoryType::DeviceNGnRE),
            Err(IoError::Area(AreaError::Exhausted))
        ));
        let second = io.ioremap(phys(DEVICES + PAGE_SIZE), 200 * MIB, MemoryType::DeviceNGnRE).unwrap();
        raw!(io.iounmap(first)).unwrap();
        raw!(io.iounmap(second)).unwrap();
    });
}

// Behaviour 290
#[test]
fn every_memory_type_is_what_was_asked_for() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        for memory in MemoryType::ALL {
            let addr = io.ioremap(phys(DEVICES), 3 * MIB, memory).unwrap();
            let leaf = space.hal().table.translate(addr).unwrap().leaf;
            assert_eq!(leaf.prot, Prot::KERNEL_RW.with_memory(memory).unwrap());
            raw!(io.iounmap(addr)).unwrap();
        }
        let read_only = Prot::KERNEL_DEVICE.with_access(Access::ReadOnly).unwrap();
        let addr = io.ioremap_prot(phys(DEVICES), 8, read_only).unwrap();
        let cpu = space.hal().machine.cpu(CpuId::new(1));
        assert!(cpu.load(addr, Who::Kernel).is_ok() && cpu.store(addr, Who::Kernel, 1).is_err());
        assert!(cpu.fetch(addr, Who::Kernel).is_err());
        raw!(io.iounmap(addr)).unwrap();
        assert_eq!(io.ioremap_prot(phys(DEVICES), 8, Prot::KERNEL_RX), Err(IoError::BadProt));
        assert_eq!(io.ioremap_prot(phys(DEVICES), 8, Prot::user(Access::ReadOnly)), Err(IoError::BadProt));
    });
}

// Behaviours 286 and 287
#[test]
fn what_is_no_device_memory_is_refused() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        let map = |start, size| io.ioremap(phys(start), size, MemoryType::DeviceNGnRE);
        let size = 64 * MIB;
        for (start, bytes) in [(RAM, 1), (RAM + size - 1, 1), (RAM - 1, 2), (RAM + size - 1, 2), (RAM - MIB, 66 * MIB)]
        {
            assert!(matches!(map(start, bytes), Err(IoError::Ram(_))), "{bytes:#x} bytes from {start:#x}");
        }
        for (start, bytes) in [(RAM - 1, 1), (RAM + size, 8)] {
            raw!(io.iounmap(map(start, bytes).unwrap())).unwrap();
        }
        assert_eq!(map(DEVICES, 0), Err(IoError::Empty));
        assert_eq!(map(u64::MAX, 2), Err(IoError::Wraps(phys(u64::MAX), 2)));
        assert_eq!(map(DEVICES, u64::MAX), Err(IoError::Wraps(phys(DEVICES), u64::MAX)));
        for (start, bytes) in [(1 << PHYS_BITS, 1), ((1 << PHYS_BITS) - 1, 2), (u64::MAX - 1, 1), (0, 1 << 60)] {
            assert!(matches!(map(start, bytes), Err(IoError::BeyondPhysical(..))));
        }
        let last = map((1 << PHYS_BITS) - 1, 1).unwrap();
        raw!(io.iounmap(last)).unwrap();
        let page = take_page(space).unwrap();
        let ram = space.hal().pages.hal().map().phys(page);
        assert_eq!(io.memremap(ram, 5, MemoryType::WriteBack), Ok(layout::phys_to_virt(ram).unwrap()));
        assert_eq!(raw!(io.memunmap(layout::phys_to_virt(ram).unwrap())), Ok(()));
        for memory in [MemoryType::NonCacheable, MemoryType::WriteThrough] {
            assert!(matches!(io.memremap(ram, 5, memory), Err(IoError::Ram(_))));
        }
        assert!(matches!(io.memremap(phys(RAM - 1), 2, MemoryType::WriteBack), Err(IoError::Ram(_))));
        assert!(matches!(io.memremap(ram, 5, MemoryType::DeviceGRE), Err(IoError::NotMemory(_))));
        let elsewhere = io.memremap(phys(DEVICES), 5, MemoryType::WriteBack).unwrap();
        assert_eq!(space.hal().table.translate(elsewhere).unwrap().leaf.prot.memory(), MemoryType::WriteBack);
        raw!(io.memunmap(elsewhere)).unwrap();
        raw!(space.hal().pages.free_pages(page, quarry::addr::Order::ZERO)).unwrap();
        let late: Io<'_, '_> = IoSpace::new(space);
        assert_eq!(late.ioremap(phys(DEVICES), 1, MemoryType::DeviceNGnRE), Err(IoError::NotReady));
    });
}

// Behaviours 241 and 291
#[test]
fn only_what_was_returned_is_unmapped() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        // One that begins where its area does, and one behind addresses that align it.
        for start in [DEVICES + 0x10, DEVICES + MIB + 0x10] {
            let addr = io.ioremap(phys(start), 4 * MIB, MemoryType::DeviceNGnRE).unwrap();
            let area = space.find(addr).unwrap().range;
            let page = addr.align_down(PAGE_SIZE).get();
            let wrong = [page, addr.get() + 1, addr.get() + PAGE_SIZE, area.start().get() + 0x10, area.end().get() - 1];
            for wrong in wrong.into_iter().filter(|wrong| *wrong != addr.get()) {
                assert!(
                    matches!(raw!(io.iounmap(VirtAddr::new(wrong))), Err(IoError::NotThePointer(..))),
                    "{wrong:#x}"
                );
            }
            let kind = |error| matches!(error, Err(VmallocError::Area(AreaError::WrongKind(_))));
            assert!(kind(raw!(space.vfree(area.start()))) && kind(raw!(space.vunmap(area.start()))));
            assert!(space.hal().table.translate(addr).is_some());
            raw!(io.iounmap(addr)).unwrap();
            assert!(matches!(raw!(io.iounmap(addr)), Err(IoError::Area(AreaError::NoArea(_)))), "twice");
        }
        let memory = space.vmalloc(&VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL)).unwrap();
        assert!(matches!(raw!(io.iounmap(memory)), Err(IoError::Area(AreaError::WrongKind(_)))));
        let inside = VirtAddr::new(memory.get() + 8);
        assert!(matches!(
            raw!(io.iounmap(inside)),
            Err(IoError::Area(AreaError::WrongKind(_) | AreaError::NotTheStart(..)))
        ));
        raw!(space.vfree(memory)).unwrap();
        assert_eq!(raw!(io.iounmap(VirtAddr::ZERO)), Ok(()));
    });
}

// Behaviour 292
#[test]
fn one_frame_has_one_memory_type() {
    on_a_machine(Config::CORTEX_A72, |_, io| {
        let map = |start, size, memory| io.ioremap(phys(start), size, memory);
        let first = map(DEVICES, 16 * PAGE_SIZE, MemoryType::DeviceNGnRE).unwrap();
        let second = map(DEVICES + 8 * PAGE_SIZE, 16 * PAGE_SIZE, MemoryType::DeviceNGnRE).unwrap();
        for memory in MemoryType::ALL.into_iter().filter(|memory| *memory != MemoryType::DeviceNGnRE) {
            for (start, size) in [(DEVICES, 1), (DEVICES + 24 * PAGE_SIZE - 1, 1), (DEVICES - PAGE_SIZE, GIB / 8)] {
                let refused = map(start, size, memory);
                assert!(
                    matches!(refused, Err(IoError::Conflict(wanted, other))
                    if wanted == memory && other.memory == MemoryType::DeviceNGnRE),
                    "{refused:?}"
                );
            }
        }
        let beside = map(DEVICES + 24 * PAGE_SIZE, 1, MemoryType::NonCacheable).unwrap();
        raw!(io.iounmap(first)).unwrap();
        assert!(map(DEVICES + 8 * PAGE_SIZE, 1, MemoryType::NonCacheable).is_err(), "the second is alive");
        let front = map(DEVICES, 8 * PAGE_SIZE, MemoryType::WriteBack).unwrap();
        let tagged = map(DEVICES, PAGE_SIZE, MemoryType::WriteBackTagged).expect("both are write-back");
        for addr in [second, beside, front, tagged] {
            raw!(io.iounmap(addr)).unwrap();
        }
    });
}

#[test]
fn what_was_mapped_before_there_were_areas_counts() {
    with_machine(Config::CORTEX_A72, |space| {
        let hal = space.hal();
        let early = VirtRange::from_size(VirtAddr::new(layout::FIXMAP_START), 2 * PAGE_SIZE).unwrap();
        let (device, flags) = (Prot::KERNEL_DEVICE, MapFlags::empty());
        raw!(hal.table.map(&hal.machine.frames(), early, phys(DEVICES), device, flags)).unwrap();
        let io = IoSpace::new(space);
        io.set_up(PhysAddr::new(1 << PHYS_BITS), ReservedMap::NONE);
        io.adopt(early).unwrap();
        assert_eq!(io.iter().count(), 2);
        io.check().unwrap();
        assert!(matches!(
            io.ioremap(phys(DEVICES + PAGE_SIZE), 1, MemoryType::DeviceGRE),
            Err(IoError::Conflict(_, other)) if other.virt.get() == early.start().get() + PAGE_SIZE
        ));
        let again = io.ioremap(phys(DEVICES), 2 * PAGE_SIZE, MemoryType::DeviceNGnRE).unwrap();
        raw!(io.iounmap(again)).unwrap();
        assert!(matches!(raw!(io.iounmap(early.start())), Err(IoError::Area(AreaError::NoArea(_)))));
    });
}

/// A live mapping of the model.
#[derive(Clone, Copy)]
struct Live {
    addr: VirtAddr,
    frames: PhysRange,
    memory: MemoryType,
}

/// Maps and unmaps at random, on two CPUs, and knows what must be refused.
fn history(space: &Vmalloc<'_>, io: &Io<'_, '_>, seed: u64, steps: u64) -> Result<(), IoError> {
    let mut random = Random(seed);
    let mut live: Vec<Live> = Vec::new();
    for _ in 0..steps {
        run_on(u32::try_from(random.below(2)).unwrap());
        if random.below(3) == 0 && !live.is_empty() {
            let index = usize::try_from(random.below(live.len() as u64)).unwrap();
            let gone = live.swap_remove(index);
            raw!(io.iounmap(gone.addr))?;
            if !live.iter().any(|other| other.frames.overlaps(gone.frames)) {
                // As the frames of another device, or of none: no CPU may reach them.
                space.hal().machine.give_away(gone.frames);
            }
            continue;
        }
        let sizes = [1, PAGE_SIZE, 3 * PAGE_SIZE, 64 * KIB, 2 * MIB];
        let size = sizes[usize::try_from(random.below(5)).unwrap()];
        let start = phys(DEVICES + random.below(64) * 32 * KIB + random.below(2) * 0x123);
        let memory = MemoryType::from_index(u8::try_from(random.below(8)).unwrap());
        let frames = PhysRange::from_size(start, size).unwrap().align_outwards(PAGE_SIZE).unwrap();
        let conflict = live.iter().any(|other| other.frames.overlaps(frames) && !other.memory.agrees_with(memory));
        match io.ioremap(start, size, memory) {
            Ok(addr) => {
                assert!(!conflict, "two memory types for {frames}");
                for cpu in (0..2).map(CpuId::new) {
                    space.hal().machine.cpu(cpu).load(addr.align_down(8), Who::Kernel).unwrap();
                }
                live.push(Live { addr, frames, memory });
            }
            Err(IoError::Conflict(wanted, other)) => {
                assert!(conflict && wanted == memory);
                assert!(live.iter().any(|live| live.addr == other.virt && live.frames == other.phys));
            }
            Err(error) => {
                assert_eq!((error, live.len()), (IoError::NoClaim, CLAIMS + 8), "as many as can be noted");
                raw!(io.iounmap(live.pop().unwrap().addr))?;
            }
        }
        assert_eq!(io.iter().count(), live.len());
        io.check().unwrap();
    }
    run_on(0);
    live.into_iter().try_for_each(|live| raw!(io.iounmap(live.addr)))
}

#[test]
fn random_histories_agree_with_a_model() {
    let steps = if cfg!(miri) { 10 } else { 600 };
    for (seed, config) in [(1, Config::CORTEX_A72), (2, Config::MAX)] {
        on_a_machine(config, |space, io| {
            history(space, io, seed, steps).unwrap();
            space.hal().machine.violations().unwrap();
        });
    }
}

// Mappings that touch and do not overlap, all of them long settled: each is found by its own frames.
#[test]
fn a_conflict_is_found_among_neighbours() {
    on_a_machine(Config::CORTEX_A72, |_, io| {
        let place = |page: u64| phys(DEVICES + page * PAGE_SIZE);
        let mapped: Vec<VirtAddr> =
            (0..40).map(|page| io.ioremap(place(page), PAGE_SIZE, MemoryType::DeviceNGnRE).unwrap()).collect();
        for page in 0..40_u64 {
            for (first, pages) in [(page, 1), (page, 2), (page.saturating_sub(1), 2), (page, 40)] {
                let refused = io.ioremap(place(first), pages * PAGE_SIZE, MemoryType::NonCacheable);
                assert!(matches!(refused, Err(IoError::Conflict(..))), "{pages} from {first}: {refused:?}");
            }
        }
        let behind = io.ioremap(place(40), PAGE_SIZE, MemoryType::NonCacheable).unwrap();
        raw!(io.iounmap(behind)).unwrap();
        for page in [20, 19, 21, 0, 39] {
            raw!(io.iounmap(mapped[usize::try_from(page).unwrap()])).unwrap();
            let other = io.ioremap(place(page), PAGE_SIZE, MemoryType::NonCacheable).unwrap();
            raw!(io.iounmap(other)).unwrap();
        }
        for page in (0..40).filter(|page| ![20, 19, 21, 0, 39].contains(page)) {
            raw!(io.iounmap(mapped[page])).unwrap();
        }
    });
}

// Memory kept after a peak: a few descriptors for the next mappings.
#[test]
fn descriptors_of_mappings_go_back() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        let at_hand = || space.hal().claims.lock().unwrap().len();
        let before = at_hand();
        for _ in 0..3 {
            let mapped: Vec<VirtAddr> = (0..CLAIMS as u64)
                .map(|page| io.ioremap(phys(DEVICES + page * PAGE_SIZE), PAGE_SIZE, MemoryType::DeviceNGnRE).unwrap())
                .collect();
            assert!(at_hand() < before - 40);
            mapped.into_iter().for_each(|addr| raw!(io.iounmap(addr)).unwrap());
            assert!(at_hand() >= before - 10, "{} of {before}", at_hand());
        }
    });
}

#[test]
fn a_flush_left_out_is_noticed() {
    with_machine(Config::CORTEX_A72, |space| {
        let io = IoSpace::new(space);
        io.set_up(PhysAddr::new(1 << PHYS_BITS), ReservedMap::NONE);
        space.hal().table.mmu().forget.store(true, Ordering::Relaxed);
        history(space, &io, 1, 60).unwrap();
        let violations = space.hal().machine.violations().expect_err("stale translations");
        assert!(violations.mention("owner"), "{violations:?}");
    });
}

// Behaviour 271: what another CPU reads at the old address is the old memory, or a fault, and never the new memory.
#[test]
fn a_cpu_that_goes_on_reading_sees_no_other_memory_at_the_old_address() {
    on_a_machine(Config::CORTEX_A72, |space, _| {
        let map = |page| space.vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        let pages = [take_page(space).unwrap(), take_page(space).unwrap()];
        let other = space.hal().machine.cpu(CpuId::new(1));
        for round in 0..20 {
            let (old, new) = (pages[round % 2], pages[1 - round % 2]);
            let addr = map(old);
            other.load(addr, Who::Kernel).unwrap();
            raw!(space.vunmap(addr)).unwrap();
            assert!(other.load(addr, Who::Kernel).is_err(), "the invalidation is complete");
            let again = map(new);
            assert_eq!(again, addr, "the same address, other memory");
            let expected = space.hal().pages.hal().map().phys(new);
            assert_eq!(space.hal().table.translate(again).unwrap().phys, expected);
            raw!(space.vunmap(again)).unwrap();
        }
        for page in pages {
            raw!(space.hal().pages.free_pages(page, quarry::addr::Order::ZERO)).unwrap();
        }
    });
}

// Behaviour 497: each allocation of a table, a descriptor or a note fails once.
#[test]
fn a_failure_half_way_gives_everything_back() {
    on_a_machine(Config::CORTEX_A72, |space, io| {
        let mut failures = 0;
        for successes in 0.. {
            let before = (space.iter().count(), io.iter().count());
            space.hal().machine.fail_allocation_after(Some(successes));
            // Over the edge of what one table of each level translates.
            let mapped = io.ioremap(phys(DEVICES + PAGE_SIZE), 3 * MIB, MemoryType::DeviceNGnRE);
            space.hal().machine.fail_allocation_after(None);
            match mapped {
                Ok(addr) => {
                    raw!(io.iounmap(addr)).unwrap();
                    break;
                }
                Err(IoError::Tables(_)) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            assert_eq!((space.iter().count(), io.iter().count()), before);
            space.check().unwrap();
            io.check().unwrap();
        }
        assert!(failures >= 2);
        // Nothing to note a mapping with: the ninth, since the last eight need nothing.
        let kept = std::mem::take(&mut *space.hal().claims.lock().unwrap());
        let map = |number| io.ioremap(phys(DEVICES + number * PAGE_SIZE), 8, MemoryType::DeviceNGnRE);
        let mapped: Vec<VirtAddr> = (0..8).map(|number| map(number).unwrap()).collect();
        assert_eq!(map(8), Err(IoError::NoClaim));
        *space.hal().claims.lock().unwrap() = kept;
        let ninth = map(8).unwrap();
        mapped.into_iter().chain([ninth]).for_each(|addr| raw!(io.iounmap(addr)).unwrap());
    });
}
