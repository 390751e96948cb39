//! All address spaces of a kernel together: which is killed when memory is used up, and that its pages are those of the others.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};
use quarry::addr::{Order, PAGE_SIZE, UserAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, AddressSpace, KILL_LARGEST, Spaces, Victim};
use quarry::kernel::cpus::run_everywhere;
use quarry::kprintln;
use quarry::ktest;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Limits, MapError, MmapRequest, Place, VmFlags};
use quarry::mm::user::pages::FaultAccess;
use spin::rwlock::RwLock;

/// The processes of this kernel.
struct Table {
    places: [RwLock<Option<AddressSpace>>; 4],
    /// The root of the last that was killed.
    killed: AtomicU64,
}

impl Spaces for Table {
    fn each(&self, f: &mut dyn FnMut(&AddressSpace)) {
        for place in self.places.iter().filter_map(RwLock::try_read) {
            if let Some(space) = place.as_ref() {
                f(space);
            }
        }
    }

    fn killed(&self, space: &AddressSpace, victim: &Victim) {
        assert_eq!(space.root(), victim.root);
        assert!(victim.is_reaped && space.usage().anon == 0, "its memory is back when the hook hears of it");
        self.killed.store(victim.root.get(), Ordering::Relaxed);
    }
}

static TABLE: Table = Table { places: [const { RwLock::new(None) }; 4], killed: AtomicU64::new(0) };

fn new_space() -> AddressSpace {
    global::new_address_space(global::user_layout(), Limits::DEFAULT, Gfp::KERNEL).expect("memory")
}

fn map(space: &AddressSpace, pages: u64) -> UserAddr {
    space.mmap(&MmapRequest::anonymous(pages * PAGE_SIZE, VmFlags::READ | VmFlags::WRITE)).expect("room")
}

fn touch(space: &AddressSpace, at: UserAddr, pages: u64) -> Result<(), SpaceFault> {
    (0..pages).try_for_each(|page| {
        let at = UserAddr::new(at.get() + page * PAGE_SIZE);
        space.fault(at, FaultAccess::Write, Gfp::USER).map(|_| ())
    })
}

/// Runs `body` with these spaces registered, and puts them away.
fn with_spaces(spaces: impl IntoIterator<Item = AddressSpace>, body: impl FnOnce(&Table)) {
    for (place, space) in TABLE.places.iter().zip(spaces) {
        *place.write() = Some(space);
    }
    let registration = global::register_spaces(&TABLE).expect("a place");
    body(&TABLE);
    global::unregister_spaces(registration).expect("registered");
    for place in &TABLE.places {
        drop(place.write().take());
    }
}

fn check_spaces() -> Result<(), ()> {
    let mut result = Err(());
    global::check_all(&mut |part, found| {
        if part == "user spaces" {
            if let Err(error) = &found {
                kprintln!("{error}");
            }
            result = found.map_err(|_| ());
        }
    });
    result
}

// Behaviour: an allocation that only a kill can serve is served.
ktest!(the_largest_space_is_killed_when_memory_is_used_up, machine = "mem=128M");
fn the_largest_space_is_killed_when_memory_is_used_up() {
    let (small, large) = (new_space(), new_space());
    let beyond = 2 * global::nr_free_pages();
    let (in_small, in_large) = (map(&small, 64), map(&large, beyond));
    touch(&small, in_small, 64).expect("memory");
    touch(&large, in_large, 256).expect("memory");
    let hook = global::reclaim().oom_hooks().register(global::context(), &KILL_LARGEST).expect("a place");
    with_spaces([small, large], |table| {
        let [small, large, ..] = &table.places;
        let (small, large) = (small.read(), large.read());
        let (small, large) = (small.deref().as_ref().expect("put in"), large.deref().as_ref().expect("put in"));
        assert_eq!(global::largest_space().map(|(root, _)| root), Some(large.root()));
        // More than there is: the fault that meets the end of memory is the large one's own.
        assert_eq!(touch(large, in_large, beyond), Err(SpaceFault::Killed));
        assert_eq!(table.killed.load(Ordering::Relaxed), large.root().get());
        assert!(large.is_killed() && !small.is_killed());
        assert_eq!(large.usage().anon, 0);
        assert_eq!(large.fault(in_large, FaultAccess::Read, Gfp::USER), Err(SpaceFault::Killed));
        assert_eq!(large.fork().map(|_| ()), Err(MapError::NoMemory));
        assert_eq!(global::largest_space().map(|(root, _)| root), Some(small.root()), "nobody is killed twice");
        // There is memory again, for the other too.
        let more = map(small, 1024);
        touch(small, more, 1024).expect("memory");
        assert_eq!(small.usage().anon, (1024 + 64) * PAGE_SIZE);
        check_spaces().expect("sound");
    });
    global::reclaim().oom_hooks().unregister(global::context(), hook).expect("registered");
}

ktest!(what_all_spaces_map_is_what_their_pages_say);
fn what_all_spaces_map_is_what_their_pages_say() {
    let parent = new_space();
    let at = map(&parent, 700);
    touch(&parent, at, 700).expect("memory");
    let anon = parent.usage().anon;
    let child = parent.fork().expect("memory");
    assert_eq!((parent.usage().anon, child.usage().anon), (anon, anon), "shared pages count for both");
    // The child makes some its own, and gives some up.
    touch(&child, at, 100).expect("memory");
    child.munmap(at, 50 * PAGE_SIZE).expect("mapped");
    assert_eq!(child.usage().anon, anon - 50 * PAGE_SIZE);
    with_spaces([parent, child], |table| {
        check_spaces().expect("sound");
        let [parent, ..] = &table.places;
        let grandchild = parent.read().as_ref().expect("put in").fork().expect("memory");
        // One more that is not registered: what is shared with it is not held against the others.
        check_spaces().expect("sound");
        drop(grandchild);
        check_spaces().expect("sound");
    });
    check_spaces().expect("no spaces, nothing wrong");
}

ktest!(tables_that_are_kept_are_given_back_when_memory_is_short, machine = "mem=128M");
fn tables_that_are_kept_are_given_back_when_memory_is_short() {
    let (idle, hungry) = (new_space(), new_space());
    let at = map(&idle, 4);
    touch(&idle, at, 4).expect("memory");
    idle.munmap(at, 4 * PAGE_SIZE).expect("mapped");
    assert_eq!((idle.usage().tables, idle.reclaimable_tables()), (4 * PAGE_SIZE, 3));
    with_spaces([idle], |table| {
        let [idle, ..] = &table.places;
        let idle = idle.read();
        let idle = idle.as_ref().expect("put in");
        let beyond = 2 * global::nr_free_pages();
        let at = map(&hungry, beyond);
        // Nobody is killed for it.
        let lightly = Gfp::USER | Gfp::NORETRY | Gfp::NOWARN;
        let touched =
            (0..beyond).try_for_each(|page| hungry.fault(nth(at, page), FaultAccess::Write, lightly).map(|_| ()));
        assert_eq!(touched, Err(SpaceFault::OutOfMemory));
        assert_eq!((idle.usage().tables, idle.reclaimable_tables(), idle.is_killed()), (PAGE_SIZE, 0, false));
        drop(hungry);
        check_spaces().expect("sound");
    });
}

ktest!(tables_come_and_go_under_the_calls_of_all_cpus, machine = "smp=4");
fn tables_come_and_go_under_the_calls_of_all_cpus() {
    let mut space = new_space();
    space.set_largest_unit(Order::ZERO);
    run_everywhere(&|cpu| {
        // Of one table with the others, or of a table or a whole branch of its own.
        let places = [1, 3, 512].into_iter().flat_map(|pages| [0, 2 << 20, 1 << 30].map(|apart| (pages, apart)));
        for (round, (pages, apart)) in (0..300_u64).zip(places.cycle()) {
            let size = pages * PAGE_SIZE;
            let place = UserAddr::new((64 << 30) + apart * u64::from(cpu.get()) + (8 << 20) * (round % 2));
            let request = MmapRequest::anonymous(size, VmFlags::READ | VmFlags::WRITE);
            let at = space.mmap(&MmapRequest { place: Place::Hint(place), ..request }).expect("room");
            touch(&space, at, pages).expect("memory");
            if round % 2 == 0 {
                space.trim();
            }
            raw!(global::activate(&space)).expect("a number");
            let (mut found, mark) = ([0; 8], u64::from(cpu.get()) << 32 | round);
            global::copy_to_user(at, &mark.to_ne_bytes()).expect("there");
            space.trim();
            global::copy_from_user(&mut found, at).expect("there");
            global::leave_mm();
            assert_eq!(u64::from_ne_bytes(found), mark);
            space.munmap(at, size).expect("mapped");
        }
    });
    assert_eq!(space.usage().anon, 0);
    space.trim();
    assert_eq!(space.usage().tables, PAGE_SIZE, "the root");
    with_spaces([space], |_| check_spaces().expect("sound"));
}

fn nth(at: UserAddr, page: u64) -> UserAddr {
    UserAddr::new(at.get() + page * PAGE_SIZE)
}

/// Every CPU reads the number of each page.
fn each_page_has_its_number(space: &AddressSpace, at: UserAddr, pages: u64) {
    run_everywhere(&|_| {
        raw!(global::activate(space)).expect("a number");
        for page in 0..pages {
            let mut word = [0; 8];
            global::copy_from_user(&mut word, nth(at, page)).expect("there");
            assert_eq!(u64::from_ne_bytes(word), page);
        }
        global::leave_mm();
    });
}

// Behaviour 325
ktest!(a_contiguous_area_is_emptied_of_pages_of_processes, machine = "mem=192M smp=4 append='cma=32M'", timeout = 120);
fn a_contiguous_area_is_emptied_of_pages_of_processes() {
    const MOST: u64 = 40 << 10;
    let area =
        global::cma_default().and_then(|area| global::cma_areas().find(|found| found.area == area)).expect("one");
    let lent = || global::page_allocator().cma_usage(area.area).expect("this machine's").lent;
    let mut space = new_space();
    space.set_largest_unit(Order::ZERO);
    let at = map(&space, MOST);
    // Processes fill the area when other memory gets short; there is room elsewhere for what it lends.
    let mut pages = 0;
    while u64::from(lent()) <= 1024 {
        assert!(pages < MOST, "nothing is lent: {}", lent());
        touch(&space, nth(at, pages), 256).expect("memory");
        pages += 256;
    }
    raw!(global::activate(&space)).expect("a number");
    for page in 0..pages {
        global::copy_to_user(nth(at, page), &page.to_ne_bytes()).expect("there");
    }
    global::leave_mm();
    // Two spaces have every page.
    let child = space.fork().expect("memory");
    with_spaces([space, child], |table| {
        let [space, child, ..] = &table.places;
        let (space, child) = (space.read(), child.read());
        let (space, child) = (space.as_ref().expect("put in"), child.as_ref().expect("put in"));
        each_page_has_its_number(space, at, pages);
        let all = area.area.pages();
        let taken = global::page_allocator().cma_alloc(area.area, all, 1, Gfp::KERNEL).expect("all of it");
        assert_eq!(lent(), 0);
        each_page_has_its_number(space, at, pages);
        each_page_has_its_number(child, at, pages);
        check_spaces().expect("sound");
        raw!(global::page_allocator().cma_release(taken, all)).expect("taken");
        // What each writes from now on is its own.
        raw!(global::activate(space)).expect("a number");
        for page in 0..64 {
            space.fault(nth(at, page), FaultAccess::Write, Gfp::USER).expect("memory");
            global::copy_to_user(nth(at, page), &u64::MAX.to_ne_bytes()).expect("there");
        }
        global::leave_mm();
        each_page_has_its_number(child, at, pages);
        check_spaces().expect("sound");
    });
}
