//! A model of a process's map that knows pages alone: what each call does to each page.
#![expect(clippy::cast_possible_truncation, reason = "numbers of pages are small")]

use super::RW;
use super::world::Entry;
use quarry::mm::user::map::{Advice, Limits, ObjectId, Place, Placement, STACK_GUARD_GAP, VmFlags};

pub(super) const PAGE: u64 = 4096;
/// Pages of the space: those below `MIN` are not given out, and the search for room begins at `BASE`.
pub(super) const PAGES: u64 = 4096;
pub(super) const MIN: u64 = 16;
pub(super) const BASE: u64 = 3000;
const GUARD_PAGES: u64 = STACK_GUARD_GAP / PAGE;

/// Access that a process has to a page, and the page's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page {
    pub(super) flags: VmFlags,
    /// The object, and which of its pages; `None` for private anonymous memory.
    pub(super) behind: Option<(ObjectId, u64)>,
    pub(super) entry: Option<Entry>,
}

#[derive(Clone)]
pub(super) struct Model {
    pub(super) pages: Vec<Option<Page>>,
    pub(super) limits: Limits,
    pub(super) placement: Placement,
    pub(super) start_brk: u64,
    pub(super) brk: u64,
}

/// The model refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

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

    pub(super) fn mmap(
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

    pub(super) fn munmap(&mut self, low: u64, high: u64) -> Result<(), Refused> {
        if high > PAGES || self.is_sealed(low, high) {
            return Err(Refused);
        }
        self.range_mut(low, high).fill(None);
        Ok(())
    }

    /// Changes page by page, up to what is refused.
    pub(super) fn mprotect(&mut self, low: u64, high: u64, access: VmFlags) -> Result<(), Refused> {
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
    pub(super) fn change(
        &mut self,
        low: u64,
        high: u64,
        change: impl Fn(VmFlags) -> Option<VmFlags>,
    ) -> Result<(), Refused> {
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

    pub(super) fn madvise(&mut self, low: u64, high: u64, advice: Advice) -> Result<(), Refused> {
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
    pub(super) fn mremap(
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

    pub(super) fn brk(&mut self, to: u64) -> Result<(), Refused> {
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

    pub(super) fn expand_stack(&mut self, low: u64, end: Option<u64>) -> Result<(), Refused> {
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
