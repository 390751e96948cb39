//! Random histories of whole address spaces: areas, pages, numbers in the TLB and the simulated MMU, several spaces and CPUs,
//! against a model that knows each page's access and content.

use super::machine::{CPUS, run_on};
use super::whole::{NONE, R, RW, RX, Scarce, Under, Whole, World, on_a_world};
use crate::random::Random;
use quarry::addr::{Order, PAGE_SIZE, UserAddr, VirtAddr, VirtRange, to_usize};
use quarry::arch::host::{Config, Visibility};
use quarry::gfp::Gfp;
use quarry::hal::prot::Access;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Advice, MapError, MmapRequest, MremapRequest, Place, VmFlags};
use quarry::mm::user::pages::{Backing, FaultAccess, FaultError, Pinned};
use std::sync::atomic::Ordering;

const SPACES: usize = 5;
/// Numbers for spaces: with four CPUs, they roll over all the time.
const NUMBERS: u32 = 7;
/// Pages of a space that a history uses: parts of two tables.
const PAGES: u64 = 160;
/// Where they begin: 80 pages before the end of a table.
const AT: u64 = 0x40_4000_0000 - 80 * PAGE_SIZE;

/// Where a shortcut is taken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Planted {
    Nothing,
    /// Invalidations of TLBs are left out.
    NoFlush,
    /// A fork leaves the parent's pages writable.
    WritableAfterFork,
    /// A pin gives back a reference more than it took.
    ReferenceDroppedEarly,
    /// A space keeps its number through a rollover.
    NumberKept,
    /// A CPU keeps its TLB through a rollover.
    RolloverWithoutFlush,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Value(u64),
    Guard,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    access: VmFlags,
    copied: bool,
    content: Content,
}

impl Page {
    const fn new(access: VmFlags) -> Self {
        Self { access, copied: true, content: Content::Value(0) }
    }
}

struct Modelled {
    space: Whole,
    pages: Vec<Option<Page>>,
    pinned: Vec<(u64, Pinned<Under>)>,
    killed: bool,
}

const fn page(n: u64) -> u64 {
    AT + n * PAGE_SIZE
}

fn addr(n: u64) -> UserAddr {
    UserAddr::new(page(n))
}

impl Modelled {
    fn new(space: Whole) -> Self {
        Self { space, pages: vec![None; to_usize(PAGES)], pinned: Vec::new(), killed: false }
    }

    fn range(&mut self, first: u64, count: u64) -> &mut [Option<Page>] {
        &mut self.pages[to_usize(first)..to_usize(first + count)]
    }

    /// Whether one area has all of it.
    fn is_one_area(&self, first: u64, count: u64) -> bool {
        let same = |page: &Option<Page>| page.map(|page| (page.access, page.copied));
        let range = &self.pages[to_usize(first)..to_usize(first + count)];
        let first = range.first().and_then(same);
        first.is_some() && range.iter().all(|page| same(page) == first)
    }
}

struct History<'w> {
    world: &'w World,
    random: Random,
    spaces: Vec<Modelled>,
    next: u64,
    /// Calls that did something, that were refused, that failed for want of memory.
    outcomes: [u64; 3],
    planted: Planted,
}

/// Runs a history of so many steps; in one of so many steps an allocation fails. What it did.
fn history(config: Config, seed: u64, steps: u64, failing: Option<u64>, planted: Planted) -> [u64; 3] {
    println!("seed {seed:#x}, {steps} steps, failing {failing:?}, planted {planted:?}");
    let mut outcomes = [0; 3];
    on_a_world(config, NUMBERS, |world| {
        let mut random = Random(seed);
        let spaces = (0..SPACES)
            .map(|number| {
                let mut space = world.space();
                space.set_largest_unit(if number % 2 == 0 { Order::ZERO } else { Backing::RUN });
                Modelled::new(space)
            })
            .collect();
        let first = random.below(1 << 40);
        let mut history = History { world, random, spaces, next: first, outcomes, planted };
        world.kernel.keep_writable.store(planted == Planted::WritableAfterFork, Ordering::Relaxed);
        world.kernel.forget.store(planted == Planted::NoFlush, Ordering::Relaxed);
        world.stale_numbers.set(planted == Planted::NumberKept);
        world.under.0.no_flush.set(planted == Planted::RolloverWithoutFlush);
        for step in 0..steps {
            if let Some(every) = failing
                && history.random.below(every) == 0
            {
                let what = [Scarce::Records, Scarce::Tables, Scarce::Pages][to_usize(history.random.below(3))];
                world.fail_after(what, Some(history.random.below(4)));
            }
            run_on(u32::try_from(history.random.below(u64::from(CPUS))).unwrap());
            history.step();
            if failing.is_some() {
                world.nothing_fails();
            }
            if step % 256 == 0 {
                history.check();
            }
        }
        history.check();
        for who in 0..SPACES {
            for n in 0..PAGES {
                history.look(who, n);
            }
        }
        assert!(world.asids.rollovers() > steps / 200, "{} rollovers", world.asids.rollovers());
        world.asids.check_all().unwrap();
        outcomes = history.outcomes;
        for one in history.spaces {
            world.end(one.space);
            drop(one.pinned);
        }
        world.kernel.sim.check().unwrap_or_else(|violations| panic!("{violations:?}"));
    });
    outcomes
}

impl History<'_> {
    fn check(&self) {
        let all: Vec<&Whole> = self.spaces.iter().map(|one| &one.space).collect();
        self.world.check(&all);
    }

    fn span(&mut self) -> (u64, u64) {
        let first = self.random.below(PAGES);
        let longest = if self.random.below(8) == 0 { PAGES } else { 24 };
        (first, 1 + self.random.below((PAGES - first).min(longest)))
    }

    fn access(&mut self) -> VmFlags {
        [R, RW, RW, RW, RX, NONE, NONE][to_usize(self.random.below(7))]
    }

    /// What a CPU finds at a page is what the model has.
    fn look(&mut self, who: usize, n: u64) {
        let fetch = self.random.below(6) == 0;
        let access = if fetch { FaultAccess::Execute } else { FaultAccess::Read };
        let found = self.world.access(&self.spaces[who].space, page(n), access, 0);
        let one = &self.spaces[who];
        let wanted = if fetch { VmFlags::EXEC } else { VmFlags::READ };
        match (one.pages[to_usize(n)], found) {
            (_, Err(SpaceFault::OutOfMemory)) => {}
            (None, found) => assert_eq!(found, Err(SpaceFault::NotMapped(addr(n))), "space {who}, page {n}"),
            (Some(_), Err(SpaceFault::Killed)) => assert!(one.killed),
            (Some(page), found) if !page.access.contains(wanted) => {
                assert_eq!(found, Err(SpaceFault::Denied(addr(n))), "space {who}, page {n}");
            }
            (Some(Page { content: Content::Guard, .. }), found) => {
                assert_eq!(found, Err(SpaceFault::Guard(addr(n))), "space {who}, page {n}");
            }
            (Some(Page { content: Content::Value(value), .. }), found) => {
                assert_eq!(found, Ok(value), "space {who}, page {n}");
            }
        }
    }

    fn write(&mut self, who: usize, n: u64) {
        self.next += 1;
        let one = &mut self.spaces[who];
        let stored = self.world.store(&one.space, page(n), self.next);
        match (&mut one.pages[to_usize(n)], stored) {
            (_, Err(SpaceFault::OutOfMemory)) => {}
            (None, stored) => assert_eq!(stored, Err(SpaceFault::NotMapped(addr(n)))),
            (Some(_), Err(SpaceFault::Killed)) => assert!(one.killed),
            (Some(page), stored) if !page.access.contains(VmFlags::WRITE) => {
                assert_eq!(stored, Err(SpaceFault::Denied(addr(n))));
            }
            (Some(Page { content: Content::Guard, .. }), stored) => assert_eq!(stored, Err(SpaceFault::Guard(addr(n)))),
            (Some(page), stored) => {
                stored.unwrap_or_else(|fault| panic!("space {who}, page {n}: {fault}"));
                page.content = Content::Value(self.next);
            }
        }
    }

    /// Counts a call, and does what it did to the model.
    fn settle<T: std::fmt::Debug>(
        &mut self,
        who: usize,
        what: &str,
        result: Result<T, MapError>,
        expected: Result<(), ()>,
        then: impl FnOnce(&mut Modelled, T),
    ) {
        let one = &mut self.spaces[who];
        match (result, expected) {
            (Ok(value), Ok(())) => {
                self.outcomes[0] += 1;
                then(one, value);
            }
            (Err(MapError::NoMemory), _) => self.outcomes[2] += 1,
            (Err(_), Err(())) => self.outcomes[1] += 1,
            (result, expected) => panic!("space {who}: {what}: {result:?}, and the model {expected:?}"),
        }
    }

    fn step(&mut self) {
        let who = to_usize(self.random.below(SPACES as u64));
        let n = self.random.below(PAGES);
        let (first, count) = self.span();
        let size = count * PAGE_SIZE;
        match self.random.below(100) {
            0..36 => self.write(who, n),
            36..60 => self.look(who, n),
            60..66 => {
                let access = self.access();
                let replaces = self.random.below(3) != 0;
                let place = if replaces { Place::Fixed(addr(first)) } else { Place::FixedNoReplace(addr(first)) };
                let result = self.spaces[who].space.mmap(&MmapRequest::anonymous(size, access).at(place));
                let occupied = self.spaces[who].range(first, count).iter().any(Option::is_some);
                let expected = if occupied && !replaces { Err(()) } else { Ok(()) };
                self.settle(who, "mmap", result, expected, |one, _| {
                    one.range(first, count).fill(Some(Page::new(access)))
                });
            }
            66..70 => {
                let result = self.spaces[who].space.munmap(addr(first), size);
                self.settle(who, "munmap", result, Ok(()), |one, ()| one.range(first, count).fill(None));
            }
            70..79 => self.protect(who, first, count),
            79..82 => self.relocate(who, first, count),
            82..86 => self.advise(who, first, count),
            86..90 => self.pin(who, n),
            90..93 => {
                let one = &mut self.spaces[who];
                if !one.pinned.is_empty() {
                    let index = to_usize(self.random.below(one.pinned.len() as u64));
                    let (_, pinned) = one.pinned.swap_remove(index);
                    if self.planted == Planted::ReferenceDroppedEarly {
                        // SAFETY: none; it is the error that is to be caught.
                        drop(unsafe { core::ptr::read(&raw const pinned) });
                    }
                    pinned.unpin();
                }
            }
            93..97 => self.fork(who),
            97 if self.random.below(8) == 0 => {
                assert!(self.spaces[who].space.kill());
                self.spaces[who].killed = true;
            }
            _ => {
                // A CPU changes to another space and does nothing else.
                self.world.enter(&self.spaces[who].space);
            }
        }
        if self.spaces[who].killed && self.random.below(4) == 0 {
            self.world.nothing_fails();
            let mut space = self.world.space();
            space.set_largest_unit(if who.is_multiple_of(2) { Order::ZERO } else { Backing::RUN });
            self.replace(who, Modelled::new(space));
        }
    }

    /// Another space takes the place of one, which ends; devices go on for a while with some of what it had.
    fn replace(&mut self, who: usize, new: Modelled) {
        let old = std::mem::replace(&mut self.spaces[who], new);
        self.world.end(old.space);
        if self.random.below(2) == 0 {
            // Pins outlive their space: they are given back with the new one.
            self.spaces[who].pinned = old.pinned.into_iter().map(|(_, pinned)| (u64::MAX, pinned)).collect();
        }
    }

    fn protect(&mut self, who: usize, first: u64, count: u64) {
        let access = self.access();
        let result = self.spaces[who].space.mprotect(addr(first), count * PAGE_SIZE, access);
        if self.spaces[who].killed {
            return assert_eq!(result, Err(MapError::NoMemory));
        }
        let hole = self.spaces[who].range(first, count).iter().position(Option::is_none);
        let done = match result {
            Err(MapError::NoMemory) => 0,
            _ => hole.unwrap_or(to_usize(count)),
        };
        for page in self.spaces[who].range(first, count)[..done].iter_mut().flatten() {
            page.access = access;
        }
        let expected = if hole.is_some() { Err(()) } else { Ok(()) };
        self.settle(who, "mprotect", result, expected, |_, ()| {});
    }

    fn relocate(&mut self, who: usize, first: u64, count: u64) {
        let to = self.random.below(PAGES);
        let new = if self.random.below(3) == 0 { 1 + self.random.below(count) } else { count };
        if to + new > PAGES {
            return;
        }
        let request = MremapRequest {
            addr: addr(first),
            old_size: count * PAGE_SIZE,
            new_size: new * PAGE_SIZE,
            may_move: true,
            to: Some(addr(to)),
        };
        let result = self.spaces[who].space.mremap(&request);
        let overlap = first < to + new && to < first + count;
        let one_area = self.spaces[who].is_one_area(first, new);
        let expected = if overlap || !one_area { Err(()) } else { Ok(()) };
        self.settle(who, "mremap", result, expected, |one, _| {
            let moved = one.range(first, new).to_vec();
            one.range(first, count).fill(None);
            one.range(to, new).copy_from_slice(&moved);
        });
    }

    fn advise(&mut self, who: usize, first: u64, count: u64) {
        let advice = [Advice::DontNeed, Advice::GuardInstall, Advice::GuardRemove, Advice::DontFork, Advice::DoFork]
            [to_usize(self.random.below(5))];
        let result = self.spaces[who].space.madvise(addr(first), count * PAGE_SIZE, advice);
        let hole = self.spaces[who].range(first, count).iter().any(Option::is_none);
        let one = &mut self.spaces[who];
        let failed = matches!(result, Err(MapError::NoMemory));
        if !failed && (!hole || advice == Advice::DontNeed) {
            for page in one.range(first, count).iter_mut().flatten() {
                match advice {
                    Advice::DontNeed if page.content != Content::Guard => page.content = Content::Value(0),
                    Advice::GuardInstall => page.content = Content::Guard,
                    Advice::GuardRemove if page.content == Content::Guard => page.content = Content::Value(0),
                    Advice::DontFork => page.copied = false,
                    Advice::DoFork => page.copied = true,
                    _ => {}
                }
            }
        }
        self.settle(who, "madvise", result, if hole { Err(()) } else { Ok(()) }, |_, ()| {});
    }

    fn pin(&mut self, who: usize, n: u64) {
        let one = &mut self.spaces[who];
        let Some(found) = one.pages[to_usize(n)].filter(|_| !one.killed) else { return };
        let write = found.access.contains(VmFlags::WRITE);
        if found.access == NONE || found.access.contains(VmFlags::EXEC) || one.pinned.len() > 5 {
            return;
        }
        let range = VirtRange::from_size(VirtAddr::new(page(n)), PAGE_SIZE).unwrap();
        let area = Backing::private(range, if write { Access::ReadWrite } else { Access::ReadOnly });
        match (one.space.pages().pin(range.start(), write, &area, Gfp::KERNEL | Gfp::NOWARN), found.content) {
            (Ok(pinned), Content::Value(value)) => {
                assert_eq!(self.world.kernel.sim.peek(pinned.phys()), value, "space {who}, page {n}");
                if write {
                    // A device.
                    self.next += 1;
                    self.world.kernel.sim.poke(pinned.phys(), self.next);
                    one.range(n, 1)[0].as_mut().unwrap().content = Content::Value(self.next);
                }
                one.pinned.push((n, pinned));
            }
            (Err(FaultError::OutOfMemory), _) => {}
            (Err(FaultError::Guard(_)), Content::Guard) => {}
            (result, content) => panic!("space {who}, page {n}: {result:?}, {content:?}"),
        }
    }

    fn fork(&mut self, who: usize) {
        let child = (who + 1 + to_usize(self.random.below(SPACES as u64 - 1))) % SPACES;
        match self.spaces[who].space.fork() {
            Ok(space) => {
                let mut new = Modelled::new(space);
                new.pages.clone_from(&self.spaces[who].pages);
                for page in new.pages.iter_mut().filter(|page| page.is_some_and(|page| !page.copied)) {
                    *page = None;
                }
                self.replace(child, new);
                self.outcomes[0] += 1;
            }
            Err(error) => {
                assert_eq!(error, MapError::NoMemory);
                self.outcomes[2] += 1;
            }
        }
    }
}

const STEPS: u64 = if cfg!(miri) { 60 } else { 100_000 };

fn seed() -> u64 {
    std::env::var("QUARRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0421)
}

// Behaviours 420, 421, 424 to 427, 430 to 432 together
#[test]
fn spaces_have_what_they_wrote_whatever_happens_to_them() {
    let outcomes =
        history(Config { eager: false, ..Config::CORTEX_A72 }, seed(), STEPS * 7 / 10, None, Planted::Nothing);
    assert!(cfg!(miri) || outcomes[0] > 10_000 && outcomes[1] > 1_000, "{outcomes:?}");
    let mixed = Config { eager: false, visibility: Visibility::Mixed(3), ..Config::MAX };
    history(mixed, seed() + 1, STEPS * 3 / 10, None, Planted::Nothing);
}

// Behaviours 426 and 497 together
#[test]
fn spaces_have_what_they_wrote_also_where_memory_is_scarce() {
    let outcomes =
        history(Config { eager: false, ..Config::CORTEX_A72 }, seed() + 2, STEPS * 4 / 10, Some(3), Planted::Nothing);
    assert!(cfg!(miri) || outcomes[2] > 300, "{outcomes:?}");
    history(Config::MAX, seed() + 3, STEPS / 50, Some(5), Planted::Nothing);
}

#[test]
fn each_shortcut_in_a_space_is_caught() {
    if cfg!(miri) {
        return;
    }
    for planted in [
        Planted::NoFlush,
        Planted::WritableAfterFork,
        Planted::ReferenceDroppedEarly,
        Planted::NumberKept,
        Planted::RolloverWithoutFlush,
    ] {
        let config = Config { eager: false, ..Config::CORTEX_A72 };
        let caught = std::panic::catch_unwind(|| history(config, seed() + 4, 4_000, None, planted));
        assert!(caught.is_err(), "{planted:?} is not noticed");
    }
}
