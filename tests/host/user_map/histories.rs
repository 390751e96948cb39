//! Random histories of all calls against a model that knows pages alone, with failures of everything that can fail.
#![expect(clippy::cast_possible_truncation, reason = "numbers of pages and areas are small")]

use super::page_model::{BASE, MIN, Model, PAGE, PAGES, Page, Refused};
use super::world::{Entry, World, addr, object};
use super::{R, RW, RX};
use crate::random::Random;
use quarry::mm::user::map::{
    Advice, Backing, Limits, MapError, MapLayout, MmapRequest, MremapRequest, Place, Placement, VmFlags,
};

/// Flags that the model leaves to the map: they say what may be, and do not keep areas apart.
const NOT_MODELLED: VmFlags = VmFlags::MAYBE_GUARD.union(VmFlags::HOOKS);

/// The map, page by page.
fn pages_of(world: &World) -> Vec<Option<Page>> {
    let mut pages = vec![None; PAGES as usize];
    let entries = world.below.entries.borrow();
    for area in world.areas() {
        for number in area.start().get() / PAGE..area.end().get() / PAGE {
            let named = area.object().filter(|_| !area.is_anonymous());
            let behind = named.map(|object| (object, area.page_offset_of(addr(number * PAGE))));
            let flags = area.flags() - NOT_MODELLED;
            pages[number as usize] = Some(Page { flags, behind, entry: entries.get(&number).copied() });
        }
    }
    pages
}

struct History {
    world: World,
    model: Model,
    random: Random,
    /// Calls that did something, refused by both, and failed for want of memory.
    outcomes: [usize; 3],
}

impl History {
    fn new(seed: u64) -> Self {
        let layout = MapLayout {
            mmap_min: addr(MIN * PAGE),
            task_size: addr(PAGES * PAGE),
            mmap_base: addr(BASE * PAGE),
            placement: if seed.is_multiple_of(2) { Placement::BottomUp } else { Placement::TopDown },
        };
        let limits = Limits { stack: 500, locked: 200, ..Limits::DEFAULT };
        let mut world = World::with(layout, limits);
        world.below.replaces.set(true);
        world.below.areas.replace(Some(Vec::new()));
        world.map.set_start_brk(addr(32 * PAGE));
        let placement = layout.placement;
        let model = Model { pages: vec![None; PAGES as usize], limits, placement, start_brk: 32, brk: 32 };
        Self { world, model, random: Random(seed), outcomes: [0; 3] }
    }

    /// A range that is likely to have something to do with what is mapped.
    fn range(&mut self) -> (u64, u64) {
        let areas = self.world.map.map_count() as u64;
        let low = if areas > 0 && self.random.below(4) != 0 {
            let area = self.world.areas().nth(self.random.below(areas) as usize).unwrap();
            let (start, end) = (area.start().get() / PAGE, area.end().get() / PAGE);
            match self.random.below(4) {
                0 => start,
                1 => end.min(PAGES - 1),
                _ => start + self.random.below(end - start),
            }
        } else {
            self.random.below(PAGES)
        };
        let spread = [4, 20, 200][self.random.below(3) as usize];
        (low, (low + 1 + self.random.below(spread)).min(PAGES))
    }

    fn access(&mut self) -> VmFlags {
        [R, RW, RW, RX, VmFlags::empty()][self.random.below(5) as usize]
    }

    /// Compares what the call said, and takes what the model has become.
    fn settle<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        before: Option<String>,
        result: Result<T, MapError>,
        mut model: Model,
        expected: Result<T, Refused>,
    ) {
        self.world.below.fail_after.set(None);
        match (result, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found, expected, "{what}");
                self.outcomes[0] += 1;
            }
            (Err(MapError::NoMemory | MapError::File(19) | MapError::MapCount(_)), _) => {
                assert_eq!(Some(self.world.state()), before, "{what}: a failure that changed something");
                model = self.model.clone();
                self.outcomes[2] += 1;
            }
            (Err(_), Err(Refused)) => self.outcomes[1] += 1,
            (found, expected) => panic!("{what}: {found:?}, and the model {expected:?}"),
        }
        self.model = model;
        self.world.check();
        let (found, expected) = (pages_of(&self.world), &self.model.pages);
        if let Some(number) = (0..found.len()).find(|number| found[*number] != expected[*number]) {
            panic!("{what}: page {number}: {:?}, and the model {:?}", found[number], expected[number]);
        }
    }

    /// State that a failure must not change, if there may be one.
    fn state(&self) -> Option<String> {
        let may_fail =
            self.world.below.fail_after.get().is_some() || self.model.limits.map_count < Limits::DEFAULT.map_count;
        may_fail.then(|| self.world.state())
    }

    fn mmap(&mut self, what: &str) {
        let (low, high) = self.range();
        let place = match self.random.below(8) {
            0 => Place::Fixed(addr(low * PAGE)),
            1 => Place::FixedNoReplace(addr(low * PAGE)),
            2 | 3 => Place::Hint(addr(low * PAGE)),
            _ => Place::Anywhere,
        };
        let (mut flags, mut backing, mut behind) = (self.access(), Backing::Anonymous, None);
        let (mut adds, mut takes) = (VmFlags::empty(), VmFlags::empty());
        let offset = low * PAGE;
        match self.random.below(8) {
            number @ 1..=3 => {
                (backing, behind) = (Backing::File(object(number)), Some((object(number), low)));
                match number {
                    2 => adds = VmFlags::HOOKS,
                    3 => adds = VmFlags::IO | VmFlags::PFNMAP | VmFlags::DONTEXPAND | VmFlags::HOOKS,
                    _ => takes = VmFlags::MAYWRITE,
                }
            }
            4 => {
                (backing, behind) = (Backing::Shared(object(4)), Some((object(4), low)));
                flags |= VmFlags::SHARED;
            }
            5 if self.random.below(3) == 0 => flags |= VmFlags::GROWSDOWN,
            6 if self.random.below(3) == 0 => flags |= VmFlags::LOCKED,
            _ => {}
        }
        self.world.below.file_adds.set(adds);
        self.world.below.file_takes.set(takes);
        let request = MmapRequest { place, size: (high - low) * PAGE - 7, align: 0, flags, backing, offset };
        let before = self.state();
        let result = self.world.mmap(&request).map(|low| low / PAGE);
        let mut model = self.model.clone();
        let is_file = matches!(backing, Backing::File(_));
        if flags.contains(VmFlags::SHARED) {
            takes |= VmFlags::MAYEXEC;
        }
        let all = flags | (VmFlags::MAYACCESS - takes) | if is_file { VmFlags::FILE | adds } else { VmFlags::empty() };
        let expected = if all.access_is_allowed() {
            model.mmap(place, high - low, all - NOT_MODELLED, behind)
        } else {
            Err(Refused)
        };
        self.settle(what, before, result, model, expected);
    }

    fn mremap(&mut self, what: &str) {
        let (low, high) = self.range();
        let (old, new) = (high - low, 1 + self.random.below(60));
        let may_move = self.random.below(3) != 0;
        let to = (self.random.below(2) == 0).then(|| self.range().0);
        let end = self.world.map.area_at(addr(low * PAGE)).map(|area| area.end().get() / PAGE);
        let before = self.state();
        let request = MremapRequest {
            addr: addr(low * PAGE),
            old_size: old * PAGE,
            new_size: new * PAGE,
            may_move,
            to: to.map(|to| addr(to * PAGE)),
        };
        let result = self.world.map.mremap(&self.world.below, &request).map(|to| to.get() / PAGE);
        let mut model = self.model.clone();
        let expected = model.mremap(low, (old, new), to, may_move, end);
        self.settle(what, before, result, model, expected);
    }

    fn fork(&mut self) {
        match self.world.map.fork(&self.world.below) {
            Ok(mut child) => {
                child.check().unwrap();
                let expected = self.model.pages.iter().flatten().filter(|page| !page.flags.contains(VmFlags::DONTCOPY));
                assert_eq!(child.usage().total, expected.count() as u64);
                assert_eq!(child.usage().locked, 0);
                // Its areas are given up without translations of its own.
                let entries = self.world.below.entries.take();
                child.clear(&self.world.below);
                self.world.below.entries.replace(entries);
                self.outcomes[0] += 1;
            }
            Err(error) => {
                assert_eq!(error, MapError::NoMemory);
                self.outcomes[2] += 1;
            }
        }
        self.world.below.fail_after.set(None);
        self.world.check();
    }

    fn step(&mut self, what: &str) {
        self.limit();
        let fails = self.random.below(4) == 0;
        if fails {
            let after = self.random.below(6) as usize;
            self.world.below.fail_after.set(Some(after));
        }
        let (low, high) = self.range();
        let (at, size) = (addr(low * PAGE), (high - low) * PAGE);
        let before = self.state();
        let mut model = self.model.clone();
        let (map, below) = (&mut self.world.map, &self.world.below);
        match self.random.below(24) {
            0..=5 => self.mmap(what),
            6 | 7 => {
                let result = self.world.munmap(low * PAGE, high * PAGE);
                let expected = model.munmap(low, high);
                self.settle(what, before, result, model, expected);
            }
            8..=10 => {
                // Where the limit stops it depends on the areas, which the model does not know.
                self.world.map.set_limits(Limits { data: u64::MAX, ..self.model.limits });
                let access = self.access();
                let result = self.world.mprotect(low * PAGE, high * PAGE, access);
                let expected = model.mprotect(low, high, access);
                self.world.map.set_limits(self.model.limits);
                self.settle(what, before, result, model, expected);
            }
            11 | 12 => self.mremap(what),
            13 => {
                let to = 30 + self.random.below(40);
                let result = self.world.map.brk(&self.world.below, addr(to * PAGE)).map(|_| ());
                let expected = model.brk(to);
                self.settle(what, before, result, model, expected);
            }
            14..=16 => {
                let advice = [Advice::DontNeed, Advice::Free, Advice::GuardInstall, Advice::GuardRemove]
                    [self.random.below(4) as usize];
                let result = self.world.map.madvise(&self.world.below, at, size, advice);
                let expected = model.madvise(low, high, advice);
                self.settle(what, before, result, model, expected);
            }
            17 => {
                let result = map.mlock(below, at, size);
                let expected = model.change(low, high, |flags| {
                    Some(if flags.intersects(VmFlags::SPECIAL) { flags } else { flags | VmFlags::LOCKED })
                });
                self.settle(what, before, result, model, expected);
            }
            18 => {
                let result = map.munlock(below, at, size);
                let expected = model.change(low, high, |flags| Some(flags - VmFlags::LOCKED));
                self.settle(what, before, result, model, expected);
            }
            19 => {
                let dont = self.random.below(2) == 0;
                let advice = if dont { Advice::DontFork } else { Advice::DoFork };
                let result = self.world.map.madvise(&self.world.below, at, size, advice);
                let expected = model.change(low, high, |flags| match dont {
                    true => Some(flags | VmFlags::DONTCOPY),
                    false if flags.intersects(VmFlags::SPECIAL) => None,
                    false => Some(flags - VmFlags::DONTCOPY),
                });
                self.settle(what, before, result, model, expected);
            }
            20 => {
                let end = map.find_vma(at).map(|area| area.end().get() / PAGE);
                let result = map.expand_stack(at).map(|_| ());
                let expected = model.expand_stack(low, end);
                self.settle(what, before, result, model, expected);
            }
            21 => self.fork(),
            22 if self.random.below(40) == 0 => {
                let result = self.world.map.mseal(&self.world.below, at, PAGE);
                let expected = model.change(low, low + 1, |flags| Some(flags | VmFlags::SEALED));
                self.settle(what, before, result, model, expected);
            }
            22 => {
                map.attach(below, at, object(6 + low % 2));
                self.settle(what, before, Ok(()), model, Ok(()));
            }
            _ => {
                for number in low..high {
                    let content = self.random.below(u64::MAX);
                    if self.world.touch(number * PAGE, content).is_ok()
                        && let Some(page) = &mut model.pages[number as usize]
                    {
                        page.entry = Some(Entry::Page(content, page.flags & VmFlags::ACCESS));
                    }
                }
                self.settle(what, before, Ok(()), model, Ok(()));
            }
        }
        self.world.below.fail_after.set(None);
    }

    /// Other limits from time to time.
    fn limit(&mut self) {
        if self.random.below(8) == 0 {
            let map = &mut self.world.map;
            let mut limits = Limits { stack: 500, locked: 200, ..Limits::DEFAULT };
            match self.random.below(5) {
                0 => limits.address_space = map.usage().total + self.random.below(100),
                2 => limits.data = map.usage().data + self.random.below(100),
                1 => limits.map_count = map.map_count() as u32 + self.random.below(2) as u32,
                _ => {}
            }
            map.set_limits(limits);
            self.model.limits = limits;
        }
    }
}

/// Steps of all histories together; a page-by-page comparison follows each.
const STEPS: u64 = if cfg!(miri) { 200 } else { 12_000 };

#[test]
fn random_histories_agree_with_a_model_of_pages() {
    let mut outcomes = [0; 3];
    for seed in 1..=8 {
        let mut history = History::new(seed);
        for step in 0..STEPS / 8 {
            history.step(&format!("seed {seed}, step {step}"));
        }
        for (all, some) in outcomes.iter_mut().zip(history.outcomes) {
            *all += some;
        }
    }
    assert!(cfg!(miri) || outcomes.iter().all(|count| *count > 500), "{outcomes:?}: not all of it was tried");
}
