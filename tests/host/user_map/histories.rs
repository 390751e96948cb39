//! Random histories of all calls against a model that knows pages alone, with failures of everything that can fail.
#![expect(clippy::cast_possible_truncation, reason = "numbers of pages and areas are small")]

use super::world::{Entry, World, addr, object};
use super::{R, RW, RX};
use crate::random::Random;
use quarry::mm::user::map::{
    Advice, Backing, Limits, MapError, MapLayout, MmapRequest, MremapRequest, ObjectId, Place, Placement,
    STACK_GUARD_GAP, VmFlags,
};

const PAGE: u64 = 4096;
const PAGES: u64 = 4096;
const MIN: u64 = 16;
const BASE: u64 = 3000;
const GUARD_PAGES: u64 = STACK_GUARD_GAP / PAGE;
/// Flags that the model leaves to the map: they say what may be, and do not keep areas apart.
const NOT_MODELLED: VmFlags = VmFlags::MAYBE_GUARD.union(VmFlags::HOOKS);

/// Access that a process has to a page, and the page's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    flags: VmFlags,
    /// The object, and which of its pages; `None` for private anonymous memory.
    behind: Option<(ObjectId, u64)>,
    entry: Option<Entry>,
}

#[derive(Clone)]
struct Model {
    pages: Vec<Option<Page>>,
    limits: Limits,
    placement: Placement,
    start_brk: u64,
    brk: u64,
}

/// The model refuses.
#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl Model {
    fn range(&self, low: u64, high: u64) -> &[Option<Page>] {
        &self.pages[low as usize..high as usize]
    }

    fn range_mut(&mut self, low: u64, high: u64) -> &mut [Option<Page>] {
        &mut self.pages[low as usize..high as usize]
    }

    fn count(&self, what: impl Fn(&Page) -> bool) -> u64 {
        self.pages.iter().flatten().filter(|page| what(page)).count() as u64
    }

    fn is_sealed(&self, low: u64, high: u64) -> bool {
        self.range(low, high).iter().flatten().any(|page| page.flags.contains(VmFlags::SEALED))
    }

    /// Whether nothing is mapped there, and nothing above is a stack that is too near.
    fn is_free(&self, low: u64, high: u64) -> bool {
        if low < MIN || high > PAGES || self.range(low, high).iter().any(Option::is_some) {
            return false;
        }
        let next = (high..PAGES).find(|number| self.pages[*number as usize].is_some());
        next.is_none_or(|next| {
            let stack = self.pages[next as usize].is_some_and(|page| page.flags.contains(VmFlags::GROWSDOWN));
            !stack || next - high >= GUARD_PAGES
        })
    }

    /// Where `pages` pages go.
    fn place(&self, pages: u64) -> Option<u64> {
        let fits = |low: &u64| self.is_free(*low, low + pages);
        let (below, above) = (MIN..(BASE + 1).saturating_sub(pages), BASE..(PAGES + 1).saturating_sub(pages));
        match self.placement {
            Placement::TopDown => below.rev().find(fits).or_else(|| above.clone().find(fits)),
            Placement::BottomUp => above.clone().find(fits).or_else(|| below.clone().find(fits)),
        }
    }

    fn may_expand(&self, flags: VmFlags, pages: u64, replaced: &[Option<Page>]) -> Result<(), Refused> {
        let replaced = |what: fn(&Page) -> bool| replaced.iter().flatten().filter(|page| what(page)).count() as u64;
        let total = self.count(|_| true) - replaced(|_| true) + pages;
        let data = self.count(|page| page.flags.is_data()) - replaced(|page| page.flags.is_data()) + pages;
        let too_much = total > self.limits.address_space || flags.is_data() && data > self.limits.data;
        if too_much { Err(Refused) } else { Ok(()) }
    }

    fn may_lock(&self, flags: VmFlags, pages: u64) -> Result<(), Refused> {
        let locked = self.count(|page| page.flags.contains(VmFlags::LOCKED)) + pages;
        if flags.contains(VmFlags::LOCKED) && locked > self.limits.locked { Err(Refused) } else { Ok(()) }
    }

    fn mmap(
        &mut self,
        place: Place,
        pages: u64,
        flags: VmFlags,
        behind: Option<(ObjectId, u64)>,
    ) -> Result<u64, Refused> {
        let page_of = |addr: quarry::addr::UserAddr| addr.get() / PAGE;
        let low = match place {
            Place::Anywhere => self.place(pages),
            Place::Hint(hint) => {
                let hint = page_of(hint).max(MIN);
                if hint + pages <= PAGES && self.is_free(hint, hint + pages) { Some(hint) } else { self.place(pages) }
            }
            Place::Fixed(at) | Place::FixedNoReplace(at) => {
                let low = page_of(at);
                (low >= MIN && low + pages <= PAGES).then_some(low)
            }
        };
        let low = low.ok_or(Refused)?;
        let high = low + pages;
        if matches!(place, Place::FixedNoReplace(_)) && self.range(low, high).iter().any(Option::is_some) {
            return Err(Refused);
        }
        if self.is_sealed(low, high) {
            return Err(Refused);
        }
        self.may_expand(flags, pages, self.range(low, high))?;
        self.may_lock(flags, pages)?;
        for (number, page) in (0..).zip(self.range_mut(low, high)) {
            let behind = behind.map(|(object, first)| (object, first + number));
            *page = Some(Page { flags, behind, entry: None });
        }
        Ok(low)
    }

    fn munmap(&mut self, low: u64, high: u64) -> Result<(), Refused> {
        if high > PAGES || self.is_sealed(low, high) {
            return Err(Refused);
        }
        self.range_mut(low, high).fill(None);
        Ok(())
    }

    /// Changes page by page, up to what is refused.
    fn mprotect(&mut self, low: u64, high: u64, access: VmFlags) -> Result<(), Refused> {
        for page in self.range_mut(low, high) {
            let page = page.as_mut().ok_or(Refused)?;
            let flags = (page.flags - VmFlags::ACCESS) | access;
            if page.flags.contains(VmFlags::SEALED) || !flags.access_is_allowed() {
                return Err(Refused);
            }
            page.flags = flags;
            if let Some(Entry::Page(_, permitted)) = &mut page.entry {
                *permitted = access;
            }
        }
        Ok(())
    }

    /// Changes flags of all pages or of none.
    fn change(&mut self, low: u64, high: u64, change: impl Fn(VmFlags) -> Option<VmFlags>) -> Result<(), Refused> {
        let before = self.pages.clone();
        for page in self.range_mut(low, high) {
            match page.as_mut().and_then(|page| Some((change(page.flags)?, page))) {
                Some((flags, page)) => page.flags = flags,
                None => {
                    self.pages = before;
                    return Err(Refused);
                }
            }
        }
        if self.count(|page| page.flags.contains(VmFlags::LOCKED)) > self.limits.locked.max(locked(&before)) {
            self.pages = before;
            return Err(Refused);
        }
        Ok(())
    }

    fn madvise(&mut self, low: u64, high: u64, advice: Advice) -> Result<(), Refused> {
        let discards = advice != Advice::GuardRemove;
        let (mut hole, mut wrong) = (false, false);
        for page in self.range(low, high) {
            let Some(page) = page else {
                hole = true;
                continue;
            };
            let flags = page.flags;
            let sealed = flags.contains(VmFlags::SEALED) && !flags.contains(VmFlags::WRITE) && page.behind.is_none();
            wrong |= discards && sealed;
            wrong |= match advice {
                Advice::DontNeed => flags.intersects(VmFlags::LOCKED | VmFlags::PFNMAP),
                Advice::Free => page.behind.is_some() || flags.intersects(VmFlags::LOCKED | VmFlags::PFNMAP),
                Advice::GuardInstall => flags.intersects(VmFlags::LOCKED | VmFlags::SPECIAL),
                _ => flags.intersects(VmFlags::SPECIAL),
            };
        }
        let guards = matches!(advice, Advice::GuardInstall | Advice::GuardRemove);
        if wrong || hole && guards {
            return Err(Refused);
        }
        for page in self.range_mut(low, high).iter_mut().flatten() {
            let is_guard = page.entry == Some(Entry::Guard);
            match advice {
                Advice::DontNeed if !is_guard => page.entry = None,
                Advice::GuardInstall => page.entry = Some(Entry::Guard),
                Advice::GuardRemove if is_guard => page.entry = None,
                _ => {}
            }
        }
        if hole { Err(Refused) } else { Ok(()) }
    }

    /// `end` is where the area ends in which `low` is.
    fn mremap(
        &mut self,
        low: u64,
        (old, new): (u64, u64),
        to: Option<u64>,
        may_move: bool,
        end: Option<u64>,
    ) -> Result<u64, Refused> {
        let high = low + old;
        let end = end.ok_or(Refused)?;
        if high > PAGES || to.is_some() && !may_move {
            return Err(Refused);
        }
        if to.is_none() && new <= old {
            return self.munmap(low + new, high).map(|()| low);
        }
        if let Some(to) = to {
            let overlap = low < to + new && to < high;
            if to < MIN || to + new > PAGES || overlap {
                return Err(Refused);
            }
        }
        let first = self.pages[low as usize].ok_or(Refused)?;
        let sealed_target = to.is_some_and(|to| self.is_sealed(to, to + new));
        if end - low < old.min(new) || first.flags.contains(VmFlags::SEALED) || sealed_target {
            return Err(Refused);
        }
        if new > old {
            if first.flags.intersects(VmFlags::DONTEXPAND | VmFlags::PFNMAP) {
                return Err(Refused);
            }
            self.may_lock(first.flags, new - old)?;
            self.may_expand(first.flags, new - old, &[])?;
        }
        let grown = |number: u64| {
            let behind = first.behind.map(|(object, page)| (object, page + number));
            Some(Page { flags: first.flags, behind, entry: None })
        };
        if to.is_none() {
            if high == end && self.is_free(high, low + new) {
                for number in old..new {
                    self.pages[(low + number) as usize] = grown(number);
                }
                return Ok(low);
            }
            if !may_move {
                return Err(Refused);
            }
        }
        let to = to.or_else(|| self.place(new)).ok_or(Refused)?;
        // All of the old range goes, as by munmap.
        if self.is_sealed(low, high) {
            return Err(Refused);
        }
        let moved: Vec<Option<Page>> = (0..new)
            .map(|number| if number < old { self.pages[(low + number) as usize] } else { grown(number) })
            .collect();
        self.range_mut(low, high).fill(None);
        self.range_mut(to, to + new).copy_from_slice(&moved);
        Ok(to)
    }

    fn brk(&mut self, to: u64) -> Result<(), Refused> {
        if to < self.start_brk {
            return Err(Refused);
        }
        if to < self.brk {
            self.munmap(to, self.brk)?;
        } else if to > self.brk {
            let heap = RW | VmFlags::MAYACCESS;
            if to + 1 > PAGES || self.range(self.brk, to).iter().any(Option::is_some) || !self.has_room_after(to) {
                return Err(Refused);
            }
            self.may_expand(heap, to - self.brk, &[])?;
            let brk = self.brk;
            self.range_mut(brk, to).fill(Some(Page { flags: heap, behind: None, entry: None }));
        }
        self.brk = to;
        Ok(())
    }

    /// Whether a page is free behind the heap, and no stack too near.
    fn has_room_after(&self, end: u64) -> bool {
        let next = (end..PAGES).find(|number| self.pages[*number as usize].is_some());
        next.is_none_or(|next| {
            let stack = self.pages[next as usize].is_some_and(|page| page.flags.contains(VmFlags::GROWSDOWN));
            next.saturating_sub(if stack { GUARD_PAGES } else { 0 }) > end
        })
    }

    fn expand_stack(&mut self, low: u64, end: Option<u64>) -> Result<(), Refused> {
        if low < MIN {
            return Err(Refused);
        }
        if self.pages[low as usize].is_some() {
            return Ok(());
        }
        let next = (low..PAGES).find(|number| self.pages[*number as usize].is_some()).ok_or(Refused)?;
        let flags = self.pages[next as usize].map_or(VmFlags::empty(), |page| page.flags);
        let size = end.ok_or(Refused)? - low;
        if !flags.contains(VmFlags::GROWSDOWN) || size > self.limits.stack {
            return Err(Refused);
        }
        if let Some(prev) = (0..low).rev().find(|number| self.pages[*number as usize].is_some()) {
            let below = self.pages[prev as usize].map_or(VmFlags::empty(), |page| page.flags);
            let matters = !below.contains(VmFlags::GROWSDOWN) && below.intersects(VmFlags::ACCESS);
            if matters && low - (prev + 1) < GUARD_PAGES {
                return Err(Refused);
            }
        }
        self.may_lock(flags, next - low)?;
        self.may_expand(flags, next - low, &[])?;
        self.range_mut(low, next).fill(Some(Page { flags, behind: None, entry: None }));
        Ok(())
    }
}

fn locked(pages: &[Option<Page>]) -> u64 {
    pages.iter().flatten().filter(|page| page.flags.contains(VmFlags::LOCKED)).count() as u64
}

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
