//! A process without a machine: a map of areas; translations, records and files that can be made to fail.

use quarry::addr::{Pfn, PhysAddr, UserAddr, UserRange};
use quarry::ds::rbtree::{Chain, Node, Owned};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::user::map::{
    AddressMap, Backing, Discard, Fill, Limits, MapError, MapLayout, MmapRequest, MremapRequest, NewArea, NoMemory,
    ObjectId, Objects, Place, Placement, Translations, VmFlags, Vma, VmaSource,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU64;

/// Content of a page table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A page with this content, and the access that it permits.
    Page(u64, VmFlags),
    Guard,
}

/// The layers below the map: records, translations, objects.
pub(super) struct Below {
    spare: RefCell<Chain<'static, Vma>>,
    /// Records that are out.
    pub(super) records: Cell<usize>,
    /// Calls that can fail until the one that does.
    pub(super) fail_after: Cell<Option<usize>>,
    /// Whether it did.
    failed: Cell<bool>,
    /// Entries by page number.
    pub(super) entries: RefCell<BTreeMap<u64, Entry>>,
    /// References to objects.
    pub(super) references: RefCell<BTreeMap<ObjectId, i64>>,
    /// Areas with hooks that were opened and not closed.
    pub(super) opened: Cell<i64>,
    /// Flags that a file adds to an area and takes from it, and frames that it maps.
    pub(super) file_adds: Cell<VmFlags>,
    pub(super) file_takes: Cell<VmFlags>,
    pub(super) file_fills: Cell<Option<(PhysAddr, MemoryType)>>,
    /// Whether something new may be mapped where an area is closed.
    pub(super) replaces: Cell<bool>,
    /// Where areas were at the last check; `None` where no test looks at their edges.
    pub(super) areas: RefCell<Option<Vec<(u64, u64)>>>,
    /// Edges that were made, and not looked at.
    pub(super) cuts: RefCell<Vec<u64>>,
    /// The gap around the range that was unmapped last.
    hole: Cell<Option<(u64, u64)>>,
    /// Ranges that were unmapped.
    pub(super) unmapped: RefCell<Vec<(u64, u64)>>,
}

impl Below {
    fn may_fail(&self) -> Result<(), NoMemory> {
        match self.fail_after.get() {
            Some(0) => {
                self.failed.set(true);
                Err(NoMemory)
            }
            Some(left) => {
                self.fail_after.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn pages(range: UserRange) -> std::ops::Range<u64> {
        assert!(range.start().is_aligned(4096) && range.end().is_aligned(4096) && !range.is_empty(), "{range}");
        range.start().get() >> 12..range.end().get() >> 12
    }

    /// No block of a page table spans an end of `range`.
    fn assert_edges(&self, range: UserRange) {
        let (areas, cuts) = (self.areas.borrow(), self.cuts.borrow());
        for end in [range.start().get(), range.end().get()] {
            let inside = areas.iter().flatten().find(|(low, high)| *low < end && end < *high);
            assert!(inside.is_none() || cuts.contains(&end), "{range} ends inside {inside:x?}");
        }
    }

    fn take_entries(&self, range: UserRange) -> BTreeMap<u64, Entry> {
        let pages = Self::pages(range);
        let mut entries = self.entries.borrow_mut();
        let mut taken = entries.split_off(&pages.start);
        entries.append(&mut taken.split_off(&pages.end));
        taken
    }
}

impl VmaSource<'static> for Below {
    fn take(&self, gfp: Gfp) -> Option<Owned<'static, Vma>> {
        assert!(gfp.contains(Gfp::ACCOUNT));
        self.may_fail().ok()?;
        self.records.set(self.records.get() + 1);
        let spare = self.spare.borrow_mut().pop_front();
        Some(spare.unwrap_or_else(|| Owned::new(Box::leak(Box::new(Node::new(Vma::new()))))))
    }

    fn give(&self, record: Owned<'static, Vma>) {
        self.records.set(self.records.get() - 1);
        self.spare.borrow_mut().push_front(record);
    }
}

impl Translations for Below {
    fn cut(&self, at: UserAddr) -> Result<(), NoMemory> {
        self.may_fail()?;
        self.cuts.borrow_mut().push(at.get());
        Ok(())
    }

    fn unmap(&self, range: UserRange, hole: UserRange) {
        assert!(hole.contains_range(range));
        self.hole.set(Some((hole.start().get(), hole.end().get())));
        self.assert_edges(range);
        self.take_entries(range);
        self.unmapped.borrow_mut().push((range.start().get(), range.end().get()));
    }

    fn protect(&self, range: UserRange, flags: VmFlags) {
        self.assert_edges(range);
        for (_, entry) in self.entries.borrow_mut().range_mut(Self::pages(range)) {
            if let Entry::Page(_, access) = entry {
                *access = flags & VmFlags::ACCESS;
            }
        }
    }

    fn relocate(&self, from: UserRange, to: UserAddr) -> Result<(), NoMemory> {
        self.may_fail()?;
        let destination = UserRange::from_size(to, from.size()).unwrap();
        assert!(!destination.overlaps(from));
        self.assert_edges(from);
        self.assert_edges(destination);
        self.take_entries(destination);
        let moved = self.take_entries(from);
        let shift = |page: u64| page - (from.start().get() >> 12) + (to.get() >> 12);
        self.entries.borrow_mut().extend(moved.into_iter().map(|(page, entry)| (shift(page), entry)));
        Ok(())
    }

    fn discard(&self, range: UserRange, how: Discard) {
        self.assert_edges(range);
        if how == Discard::Now {
            let pages = Self::pages(range);
            self.entries.borrow_mut().retain(|page, entry| !pages.contains(page) || *entry == Entry::Guard);
        }
    }

    fn guard(&self, range: UserRange, put: bool) -> Result<(), NoMemory> {
        if put {
            self.may_fail()?;
            self.entries.borrow_mut().extend(Self::pages(range).map(|page| (page, Entry::Guard)));
        } else {
            let pages = Self::pages(range);
            self.entries.borrow_mut().retain(|page, entry| !pages.contains(page) || *entry != Entry::Guard);
        }
        Ok(())
    }

    fn fill(&self, range: UserRange, fill: &Fill, flags: VmFlags) -> Result<(), MapError> {
        self.may_fail()?;
        self.take_entries(range);
        let (first, phys) = (range.start().get() >> 12, fill.first().unwrap().get());
        let entry = |page| (page, Entry::Page(phys + page - first, flags & VmFlags::ACCESS));
        self.entries.borrow_mut().extend(Self::pages(range).map(entry));
        Ok(())
    }
}

impl Objects for Below {
    fn mmap(&self, _: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        if self.may_fail().is_err() {
            return Err(MapError::File(19));
        }
        area.flags = (area.flags - self.file_takes.get()) | self.file_adds.get();
        if let Some((phys, memory)) = self.file_fills.get() {
            raw!(area.io_remap_pfn_range(Pfn::containing(phys), memory));
        }
        Ok(())
    }

    fn get(&self, object: ObjectId) {
        *self.references.borrow_mut().entry(object).or_default() += 1;
    }

    fn put(&self, object: ObjectId) {
        let mut references = self.references.borrow_mut();
        let count = references.get_mut(&object).expect("an object that is referred to");
        assert!(*count > 0, "a reference given up twice");
        *count -= 1;
    }

    fn opened(&self, _: ObjectId, _: UserRange) {
        self.opened.set(self.opened.get() + 1);
    }

    fn closed(&self, _: ObjectId, range: UserRange) {
        self.opened.set(self.opened.get() - 1);
        let pages = Self::pages(range);
        let translated = self.entries.borrow().range(pages).count();
        assert!(translated == 0 || self.replaces.get(), "closed while it is translated");
    }

    fn identity(&self, object: ObjectId) -> (u32, u32, u64) {
        (0xfe, 1, object.0.get())
    }

    fn name(&self, object: ObjectId, to: &mut dyn std::fmt::Write) -> std::fmt::Result {
        write!(to, "/dev/{}", object.0)
    }
}

/// A process.
pub(super) struct World {
    pub(super) map: AddressMap<'static>,
    pub(super) below: Below,
}

pub(super) fn object(number: u64) -> ObjectId {
    ObjectId(NonZeroU64::new(number).unwrap())
}

pub(super) fn addr(raw: u64) -> UserAddr {
    UserAddr::new(raw)
}

pub(super) const LAYOUT: MapLayout = MapLayout {
    mmap_min: UserAddr::new(0x1_0000),
    task_size: UserAddr::new(1 << 48),
    mmap_base: UserAddr::new(0x7fff_0000_0000),
    placement: Placement::TopDown,
};

impl World {
    pub(super) fn new() -> Self {
        Self::with(LAYOUT, Limits::DEFAULT)
    }

    pub(super) fn with(layout: MapLayout, limits: Limits) -> Self {
        let below = Below {
            spare: RefCell::new(Chain::new()),
            records: Cell::new(0),
            fail_after: Cell::new(None),
            failed: Cell::new(false),
            entries: RefCell::default(),
            references: RefCell::default(),
            opened: Cell::new(0),
            file_adds: Cell::default(),
            file_takes: Cell::default(),
            file_fills: Cell::new(None),
            replaces: Cell::new(false),
            areas: RefCell::new(None),
            cuts: RefCell::default(),
            hole: Cell::new(None),
            unmapped: RefCell::default(),
        };
        Self { map: AddressMap::new(layout, limits), below }
    }

    pub(super) fn areas(&self) -> impl Iterator<Item = &Vma> {
        self.map.areas()
    }

    pub(super) fn mmap(&mut self, request: &MmapRequest) -> Result<u64, MapError> {
        self.map.mmap(&self.below, request).map(UserAddr::get)
    }

    /// Private anonymous memory at a fixed place.
    pub(super) fn anonymous(&mut self, low: u64, high: u64, access: VmFlags) {
        let request = MmapRequest::anonymous(high - low, access).at(Place::FixedNoReplace(addr(low)));
        assert_eq!(self.mmap(&request), Ok(low));
    }

    /// A file at a fixed place, by the offset that makes areas of it continue.
    pub(super) fn file(&mut self, number: u64, low: u64, high: u64, access: VmFlags) {
        let request = MmapRequest {
            backing: Backing::File(object(number)),
            offset: low,
            ..MmapRequest::anonymous(high - low, access).at(Place::FixedNoReplace(addr(low)))
        };
        assert_eq!(self.mmap(&request), Ok(low));
    }

    pub(super) fn munmap(&mut self, low: u64, high: u64) -> Result<(), MapError> {
        self.below.hole.set(None);
        let result = self.map.munmap(&self.below, addr(low), high - low);
        if let Some(hole) = self.below.hole.get() {
            let before = self.areas().filter(|area| area.end().get() <= low).last().map_or(0, |area| area.end().get());
            let end = self.map.layout().task_size;
            assert_eq!(hole, (before, self.map.find_vma(addr(low)).map_or(end, |area| area.start()).get()));
        }
        result
    }

    pub(super) fn mprotect(&mut self, low: u64, high: u64, access: VmFlags) -> Result<(), MapError> {
        self.map.mprotect(&self.below, addr(low), high - low, access)
    }

    pub(super) fn mremap(&mut self, low: u64, old: u64, new: u64, to: Option<u64>) -> Result<u64, MapError> {
        let to = to.map(addr);
        let request = MremapRequest { addr: addr(low), old_size: old, new_size: new, may_move: to.is_some(), to };
        self.map.mremap(&self.below, &request).map(UserAddr::get)
    }

    /// A page is written to: `Err` if that faults.
    pub(super) fn touch(&mut self, at: u64, content: u64) -> Result<(), ()> {
        let area = self.map.area_at(addr(at)).filter(|area| area.flags().intersects(VmFlags::ACCESS)).ok_or(())?;
        let access = area.flags() & VmFlags::ACCESS;
        let mut entries = self.below.entries.borrow_mut();
        match entries.get(&(at >> 12)) {
            Some(Entry::Guard) => Err(()),
            _ => {
                entries.insert(at >> 12, Entry::Page(content, access));
                Ok(())
            }
        }
    }

    /// Every invariant of the map, and what holds between it and what is below.
    pub(super) fn check(&self) {
        self.map.check().unwrap_or_else(|broken| panic!("{broken}\n{:#?}", self.areas().collect::<Vec<_>>()));
        assert_eq!(self.below.records.get(), self.map.map_count(), "records that are out");
        let mut references: BTreeMap<ObjectId, i64> = BTreeMap::new();
        let mut opened = 0;
        for area in self.areas() {
            if let Some(object) = area.object() {
                *references.entry(object).or_default() += 1;
            }
            opened += i64::from(area.flags().contains(VmFlags::HOOKS));
        }
        self.below.references.borrow_mut().retain(|_, count| *count != 0);
        assert_eq!(*self.below.references.borrow(), references, "one reference an area");
        assert_eq!(self.below.opened.get(), opened, "areas of which the file has heard");
        if let Some(areas) = &mut *self.below.areas.borrow_mut() {
            areas.clear();
            areas.extend(self.areas().map(|area| (area.start().get(), area.end().get())));
            self.below.cuts.borrow_mut().clear();
        }
        for (page, entry) in &*self.below.entries.borrow() {
            let area = self.map.area_at(addr(page << 12)).expect("a translation outside all areas");
            match entry {
                Entry::Page(_, access) => assert_eq!(*access, area.flags() & VmFlags::ACCESS, "{page:#x} {area:?}"),
                Entry::Guard => assert!(area.flags().contains(VmFlags::MAYBE_GUARD), "{page:#x} {area:?}"),
            }
        }
    }

    /// All that a failed call must not change.
    pub(super) fn state(&self) -> String {
        let mut text = format!("{:?} {:?} {}\n", self.map.usage(), self.map.current_brk(), self.below.records.get());
        for area in self.areas() {
            writeln!(text, "{area:?} {:?}", area.flags()).unwrap();
        }
        self.below.references.borrow_mut().retain(|_, count| *count != 0);
        write!(text, "{:?} {:?}", self.below.entries, self.below.references).unwrap();
        text
    }

    /// Makes every call below fail in turn while `call` is done, each time with the same outcome: a failure that changes
    /// nothing. Then lets it succeed. How often it failed.
    pub(super) fn fail_every<T>(&mut self, mut call: impl FnMut(&mut Self) -> Result<T, MapError>) -> (T, usize) {
        let before = self.state();
        for failures in 0.. {
            self.below.fail_after.set(Some(failures));
            self.below.failed.set(false);
            let result = call(self);
            self.below.fail_after.set(None);
            let failed = self.below.failed.get();
            match result {
                Ok(value) => {
                    assert!(!failed, "a failure that nobody was told of");
                    self.check();
                    return (value, failures);
                }
                Err(error) => {
                    assert!(failed && matches!(error, MapError::NoMemory | MapError::File(19)), "{error}");
                    assert_eq!(self.state(), before, "a failure that changed something");
                    self.check();
                }
            }
        }
        unreachable!("a call fails no more than it calls");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.check();
        self.map.clear(&self.below);
        self.check();
        assert_eq!((self.map.map_count(), self.below.records.get()), (0, 0));
        assert!(self.below.entries.borrow().is_empty());
    }
}

/// The registers of a device.
pub(super) const REGISTERS: (PhysAddr, MemoryType) = (PhysAddr::new(0x901_0000), MemoryType::DeviceNGnRE);
