//! Frames that files put behind areas of whole spaces: in place of what is there or not at all, with references.

use super::machine::CPUS;
use super::whole::{DEVICE, GIVEN, LAZY, NONE, PAGES, R, REGISTERS, RW, Scarce, Whole, map, on_a_world};
use quarry::addr::{CpuId, Order, PAGE_SIZE, PhysAddr, UserAddr, VirtAddr};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::page::PageMap;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Backing, MapError, MmapRequest, ObjectId, Place, VmFlags};
use quarry::mm::zone::PageHal;

/// Begins 16 pages before the end of a table.
const AT: u64 = 0x4000_0000 - 16 * PAGE_SIZE;

const fn page(n: u64) -> u64 {
    AT + n * PAGE_SIZE
}

fn mmap(space: &Whole, object: ObjectId, first: u64, pages: u64, access: VmFlags) -> Result<UserAddr, MapError> {
    let flags = access | VmFlags::SHARED;
    space.mmap(&MmapRequest {
        backing: Backing::File(object),
        ..MmapRequest::anonymous(pages * PAGE_SIZE, flags).at(Place::Fixed(UserAddr::new(page(first))))
    })
}

// Behaviours 405, 424 and 497
#[test]
fn registers_take_the_place_of_memory_or_nothing_changes() {
    if cfg!(miri) {
        return;
    }
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let space = world.space();
        map(&space, AT, 600, RW);
        for n in 0..600 {
            world.store(&space, page(n), n + 1).unwrap();
        }
        world.enter_everywhere(&space);
        let usage = space.usage();
        // Two records, as the area is cut in the middle; and the tables of the cut block.
        let mut failures = 0;
        'all: for (what, most) in [(Scarce::Records, 2), (Scarce::Tables, u64::MAX)] {
            for count in 0..most {
                world.fail_after(what, Some(count));
                // Over the edge of a table, and into the middle of a block.
                let mapped = mmap(&space, DEVICE, 10, 20, RW);
                world.nothing_fails();
                world.check(&[&space]);
                if mapped.is_ok() {
                    break 'all;
                }
                failures += 1;
                assert_eq!(mapped, Err(MapError::NoMemory));
                assert_eq!(space.usage().anon, usage.anon);
                (0..600).for_each(|n| assert_eq!(world.load(&space, page(n)), Ok(n + 1), "{what:?} {count}: page {n}"));
            }
        }
        assert!(failures >= 3, "{failures}");
        assert_eq!((space.usage().anon, space.usage().mapped), (usage.anon - 20 * PAGE_SIZE, 20 * PAGE_SIZE));
        let register = |n: u64| PhysAddr::new(REGISTERS.get() + n * PAGE_SIZE);
        world.kernel.sim.poke(register(7), 70);
        for cpu in 0..CPUS {
            let found = world.kernel.sim.cpu(CpuId::new(cpu)).load(VirtAddr::new(page(17)), Who::User);
            assert_eq!(found, Ok(70), "no CPU has what was there");
        }
        world.store(&space, page(12), 5).unwrap();
        assert_eq!(world.kernel.sim.peek(register(2)), 5);
        // Parked, forked, and back: the frames and their type stay.
        space.mprotect(UserAddr::new(page(10)), 20 * PAGE_SIZE, NONE).unwrap();
        let child = space.fork().unwrap();
        world.check(&[&space, &child]);
        assert_eq!(world.load(&child, page(12)), Err(SpaceFault::Denied(UserAddr::new(page(12)))));
        child.mprotect(UserAddr::new(page(10)), 20 * PAGE_SIZE, R).unwrap();
        assert_eq!(world.load(&child, page(12)), Ok(5));
        let found = child.pages().tables().translate(VirtAddr::new(page(12))).unwrap();
        assert_eq!((found.phys, found.leaf.prot.memory()), (register(2), MemoryType::DeviceNGnRE));
        space.munmap(UserAddr::new(page(10)), 20 * PAGE_SIZE).unwrap();
        assert_eq!((space.usage().mapped, child.usage().mapped), (0, 20 * PAGE_SIZE));
        (0..10).chain(30..600).for_each(|n| assert_eq!(world.load(&space, page(n)), Ok(n + 1), "page {n}"));
        // An area that is made without access has its frames too.
        mmap(&space, DEVICE, 10, 2, NONE).unwrap();
        assert_eq!(world.load(&space, page(11)), Err(SpaceFault::Denied(UserAddr::new(page(11)))));
        space.mprotect(UserAddr::new(page(10)), 2 * PAGE_SIZE, R).unwrap();
        world.kernel.sim.poke(register(1), 11);
        assert_eq!(world.load(&space, page(11)), Ok(11));
        world.check(&[&space, &child]);
        world.end(child);
        world.end(space);
    });
}

// Behaviour 424: pages of a driver, and who holds them
#[test]
fn pages_that_a_driver_gives_are_held_by_each_area_and_refused_if_they_are_not_its_own() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let pages = &world.kernel.pages;
        let new = || pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, Order::ZERO).unwrap();
        let (first, second) = (new(), new());
        GIVEN.set(vec![first, second, first]);
        let space = world.space();
        mmap(&space, PAGES, 0, 3, RW).unwrap();
        assert_eq!((pages.page_count(first), pages.page_count(second)), (3, 2));
        world.store(&space, page(0), 8).unwrap();
        assert_eq!(world.load(&space, page(2)), Ok(8), "one page at two addresses");
        assert_eq!(mmap(&space, PAGES, 8, 4, RW), Err(MapError::File(22)), "more than there are");
        let child = space.fork().unwrap();
        assert_eq!((pages.page_count(first), pages.page_count(second)), (5, 3));
        world.store(&child, page(0), 9).unwrap();
        assert_eq!(world.load(&space, page(0)), Ok(9), "shared");
        // The driver lets go of one: it is there until the last mapping is gone.
        raw!(pages.free_pages(first, Order::ZERO)).unwrap();
        space.munmap(UserAddr::new(page(0)), 3 * PAGE_SIZE).unwrap();
        assert_eq!(world.load(&child, page(2)), Ok(9));
        world.check(&[&space, &child]);
        world.end(child);
        // A page that is free by now; one of a process.
        GIVEN.set(vec![second, first]);
        assert_eq!(mmap(&space, PAGES, 0, 2, RW), Err(MapError::File(22)));
        assert_eq!(pages.page_count(second), 1, "what was held before it is not any more");
        map(&space, page(20), 1, RW);
        world.store(&space, page(20), 1).unwrap();
        let phys = space.pages().tables().translate(VirtAddr::new(page(20))).unwrap().phys;
        let own = pages.hal().map().find(quarry::addr::Pfn::containing(phys)).unwrap();
        GIVEN.set(vec![own]);
        assert_eq!(mmap(&space, PAGES, 20, 1, RW), Err(MapError::File(22)));
        assert_eq!(world.load(&space, page(20)), Ok(1), "and what was there stays");
        world.check(&[&space]);
        world.end(space);
        raw!(pages.free_pages(second, Order::ZERO)).unwrap();
    });
}

// Linux's `vm_ops->fault`
#[test]
fn a_file_gives_its_pages_one_by_one_as_they_are_accessed() {
    on_a_world(Config::CORTEX_A72, 16, |world| {
        let pages = &world.kernel.pages;
        let new = || pages.alloc_pages(Gfp::KERNEL | Gfp::ZERO, Order::ZERO).unwrap();
        let file = [new(), new(), new()];
        GIVEN.set(file.to_vec());
        let held = || file.map(|page| pages.page_count(page));
        let space = world.space();
        mmap(&space, LAZY, 0, 4, RW).unwrap();
        let private = MmapRequest {
            backing: Backing::File(LAZY),
            offset: PAGE_SIZE,
            ..MmapRequest::anonymous(2 * PAGE_SIZE, RW).at(Place::Fixed(UserAddr::new(page(8))))
        };
        space.mmap(&private).unwrap();
        assert_eq!((held(), space.usage().mapped), ([1, 1, 1], 0), "nothing is mapped yet");
        // Nothing is lost where there is no memory, for the object, the table or its own page.
        for what in [Scarce::Pages, Scarce::Tables] {
            world.fail_after(what, Some(0));
            assert_eq!(world.store(&space, page(1), 5), Err(SpaceFault::OutOfMemory), "{what:?}");
            world.nothing_fails();
            assert_eq!(held(), [1, 1, 1]);
        }
        world.store(&space, page(1), 5).unwrap();
        assert_eq!((held(), space.usage().mapped), ([1, 2, 1], PAGE_SIZE));
        assert_eq!(world.load(&space, page(8)), Ok(5), "the private area has the file's page");
        assert_eq!(held(), [1, 3, 1]);
        world.store(&space, page(8), 6).unwrap();
        assert_eq!((world.load(&space, page(8)), world.load(&space, page(1))), (Ok(6), Ok(5)), "and then a copy");
        assert_eq!(held(), [1, 2, 1]);
        world.store(&space, page(9), 7).unwrap();
        assert_eq!((world.load(&space, page(9)), world.load(&space, page(2))), (Ok(7), Ok(0)), "written to at once");
        let beyond = UserAddr::new(page(3));
        assert_eq!(world.load(&space, page(3)), Err(SpaceFault::NothingThere(beyond)), "the file has three pages");
        // A child that nobody prepared sees the same pages, those too that the parent touches later.
        let child = space.fork().unwrap();
        world.store(&space, page(0), 1).unwrap();
        assert_eq!(world.load(&child, page(0)), Ok(1));
        world.store(&child, page(0), 2).unwrap();
        assert_eq!(world.load(&space, page(0)), Ok(2));
        // A page that `madvise` gave up comes back from the file.
        space.madvise(UserAddr::new(page(0)), 2 * PAGE_SIZE, quarry::mm::user::map::Advice::DontNeed).unwrap();
        assert_eq!(space.usage().mapped, PAGE_SIZE);
        assert_eq!((world.load(&space, page(0)), world.load(&space, page(1))), (Ok(2), Ok(5)));
        // A shared area that may only be read: a write through the other is seen, one through this refused.
        space.mprotect(UserAddr::new(page(0)), 4 * PAGE_SIZE, R).unwrap();
        assert_eq!(world.store(&space, page(0), 9), Err(SpaceFault::Denied(UserAddr::new(page(0)))));
        world.check(&[&space, &child]);
        world.end(child);
        world.end(space);
        assert_eq!(held(), [1, 1, 1]);
        for page in file {
            raw!(pages.free_pages(page, Order::ZERO)).unwrap();
        }
    });
}
