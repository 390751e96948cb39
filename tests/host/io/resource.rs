//! The tree of resources by Linux's rules, one at a time, and against a model that is a list.

use crate::random::Random;
use quarry::addr::{PhysAddr, to_usize};
use quarry::mm::io::resource::{
    Iomem, Request, ResourceError, ResourceFlags, ResourceId, ResourceRecord, ResourceTree, Span,
};

const MEM: ResourceFlags = ResourceFlags::MEM;
const BUSY: ResourceFlags = ResourceFlags::MEM.union(ResourceFlags::BUSY);

fn span(start: u64, last: u64) -> Span {
    Span::new(PhysAddr::new(start), PhysAddr::new(last)).unwrap()
}

fn named(name: &'static str, start: u64, last: u64) -> Request<'static> {
    Request { span: span(start, last), name, flags: MEM }
}

/// A tree of 4 GiB with records for everything that is put into it.
fn tree() -> ResourceTree<'static> {
    let mut tree = ResourceTree::new(span(0, 0xffff_ffff), "memory", MEM);
    assert!(tree.add_row(row(256)));
    tree
}

fn row(records: usize) -> &'static mut [ResourceRecord<'static>] {
    Box::leak(vec![ResourceRecord::FREE; records].into_boxed_slice())
}

/// Name, first, last address and depth of everything.
fn listing(tree: &ResourceTree<'static>) -> Vec<(&'static str, u64, u64, usize)> {
    tree.check().unwrap();
    tree.iter().map(|info| (info.name, info.span.start().get(), info.span.last().get(), info.depth)).collect()
}

/// An outer range of addresses, one inside it, one across its upper border, one apart from all.
const OUTER: (u64, u64) = (0x0, 0xffff);
const INNER: (u64, u64) = (0x1234, 0x2345);
const ACROSS: (u64, u64) = (0xabcd, 0x1_3456);
const ALIKE: (u64, u64) = (0x4567, 0xabcd);
const APART: (u64, u64) = (0x2_0000, 0x2_ffff);

type Bounds = (u64, u64);

// Behaviour 275
#[test]
fn what_shares_an_address_has_a_union() {
    let table: [(Bounds, Bounds, Option<Bounds>); 10] = [
        (INNER, OUTER, Some(OUTER)),
        (ALIKE, OUTER, Some(OUTER)),
        (ACROSS, OUTER, Some((0, 0x1_3456))),
        (APART, OUTER, None),
        (ALIKE, INNER, None),
        (ACROSS, INNER, None),
        (APART, INNER, None),
        (ACROSS, ALIKE, Some((0x4567, 0x1_3456))),
        (APART, ALIKE, None),
        (APART, ACROSS, None),
    ];
    for ((a, b), (c, d), union) in table {
        let union = union.map(|(start, last)| span(start, last));
        assert_eq!(span(a, b).union(span(c, d)), union);
        assert_eq!(span(c, d).union(span(a, b)), union);
    }
}

// Behaviour 276
#[test]
fn the_intersection_is_what_both_have() {
    let table: [(Bounds, Bounds, Option<Bounds>); 10] = [
        (INNER, OUTER, Some(INNER)),
        (ALIKE, OUTER, Some(ALIKE)),
        (ACROSS, OUTER, Some((0xabcd, 0xffff))),
        (APART, OUTER, None),
        (ALIKE, INNER, None),
        (ACROSS, INNER, None),
        (APART, INNER, None),
        (ACROSS, ALIKE, Some((0xabcd, 0xabcd))),
        (APART, ALIKE, None),
        (APART, ACROSS, None),
    ];
    for ((a, b), (c, d), both) in table {
        let both = both.map(|(start, last)| span(start, last));
        assert_eq!(span(a, b).intersection(span(c, d)), both);
        assert_eq!(span(c, d).intersection(span(a, b)), both);
    }
}

// Behaviour 277: Linux's rule, by which a union needs an address in common.
#[test]
fn what_only_touches_has_neither() {
    let (low, high) = (span(0x1000, 0x1fff), span(0x2000, 0x2fff));
    assert_eq!((low.union(high), high.union(low)), (None, None));
    assert_eq!((low.intersection(high), high.intersection(low)), (None, None));
    let mut tree = tree();
    for (name, of) in [("low", low), ("high", high)] {
        tree.request(tree.root(), &Request { span: of, name, flags: MEM }).unwrap();
    }
}

// Behaviour 282
#[test]
fn no_size_and_no_end_wraps() {
    let at = PhysAddr::new;
    assert_eq!(Span::new(at(0x2000), at(0x1fff)), None);
    assert_eq!(Span::from_size(at(0), 0), None);
    assert_eq!(Span::from_size(at(2), u64::MAX), None);
    assert_eq!(Span::from_size(at(1), u64::MAX), Span::new(at(1), at(u64::MAX)));
    assert_eq!(Span::from_size(at(u64::MAX), 1).and_then(Span::size), Some(1));
    assert_eq!(span(0, 0).size(), Some(1));
    assert_eq!(span(1, u64::MAX).size(), Some(u64::MAX));
    assert_eq!(Span::ALL.size(), None, "2^64 is no u64");

    let mut tree = ResourceTree::new(Span::ALL, "all", MEM);
    assert!(tree.add_row(row(4)));
    let top = tree.request(tree.root(), &named("top", u64::MAX - 0xfff, u64::MAX)).unwrap();
    assert_eq!(
        tree.allocate(tree.root(), (u64::MAX - 0xfff, 1), Span::ALL, ("rest", MEM)).map(|(_, at)| at),
        Ok(span(0, u64::MAX - 0x1000))
    );
    assert_eq!(tree.allocate(tree.root(), (1, 1), Span::ALL, ("none", MEM)), Err(ResourceError::NoGap));
    tree.release(top).unwrap();
    let (_, found) = tree.allocate(tree.root(), (0x1000, 0x1000), Span::ALL, ("again", MEM)).unwrap();
    assert_eq!(found.last(), PhysAddr::MAX);
}

// Behaviour 279
#[test]
fn a_request_across_a_border_is_busy() {
    let mut tree = tree();
    let bus = tree.request(tree.root(), &named("bus", 0x1000, 0x4fff)).unwrap();
    tree.request(bus, &named("device", 0x2000, 0x2fff)).unwrap();
    let before = listing(&tree);
    for (start, last, at) in [
        (0x0, 0x1000, "bus"),
        (0x4fff, 0x5000, "bus"),
        (0x0, 0x9000, "bus"),
        (0x1800, 0x2000, "device"),
        (0x2fff, 0x3000, "device"),
    ] {
        match tree.request_region(tree.root(), &named("driver", start, last)) {
            Err(ResourceError::Busy(info)) => assert_eq!(info.name, at),
            other => panic!("{start:#x}-{last:#x}: {other:?}"),
        }
    }
    assert_eq!(listing(&tree), before);
    // Addresses without an owner are no obstacle: the request goes to the innermost range that spans it.
    let driver = tree.request_region(tree.root(), &named("driver", 0x2000, 0x2fff)).unwrap();
    assert_eq!(tree.info(driver).unwrap().depth, 3);
    assert_eq!(tree.info(driver).unwrap().flags, BUSY);
    // And now somebody has it.
    let second = tree.request_region(tree.root(), &named("second", 0x2000, 0x2003));
    assert!(matches!(second, Err(ResourceError::Busy(info)) if info.name == "driver"), "{second:?}");
    // A request for one place does not look for another.
    assert!(matches!(tree.request(tree.root(), &named("x", 0x2000, 0x2fff)), Err(ResourceError::Busy(_))));
    let outside = tree.request_region(bus, &named("x", 0x0, 0xfff));
    assert!(matches!(outside, Err(ResourceError::Outside(_, info)) if info.name == "bus"), "{outside:?}");
}

// Behaviour 280
#[test]
fn what_is_not_ours_is_not_released() {
    let mut tree = tree();
    tree.request(tree.root(), &named("bus", 0x1000, 0x4fff)).unwrap();
    let driver = tree.request_region(tree.root(), &named("driver", 0x2000, 0x2fff)).unwrap();
    let before = listing(&tree);
    for (start, last) in [(0x2000, 0x2ffe), (0x2001, 0x2fff), (0x1000, 0x4fff), (0x3000, 0x3fff), (0x2000, 0x3000)] {
        let wanted = span(start, last);
        assert_eq!(tree.release_region(tree.root(), wanted), Err(ResourceError::NotThere(wanted)));
    }
    assert_eq!(tree.remove(tree.root()), Err(ResourceError::Root));
    assert_eq!(listing(&tree), before);

    tree.release_region(tree.root(), span(0x2000, 0x2fff)).unwrap();
    assert_eq!(tree.release(driver), Err(ResourceError::Stale), "twice");
    let next = tree.request_region(tree.root(), &named("next", 0x2000, 0x2fff)).unwrap();
    assert_eq!(tree.release(driver), Err(ResourceError::Stale), "what another one has now, in the same record");
    assert_eq!(tree.info(next).unwrap().name, "next");
    assert_eq!(tree.request(driver, &named("x", 0x2000, 0x2000)), Err(ResourceError::Stale));
}

// Behaviour 281: `release` refuses, `remove` leaves them to the range above.
#[test]
fn what_is_inside_stays_when_its_range_goes() {
    let mut tree = tree();
    let bus = tree.request(tree.root(), &named("bus", 0x1000, 0x4fff)).unwrap();
    tree.request(tree.root(), &named("below", 0, 0xfff)).unwrap();
    tree.request(tree.root(), &named("above", 0x5000, 0x5fff)).unwrap();
    let first = tree.request(bus, &named("first", 0x1000, 0x1fff)).unwrap();
    tree.request(bus, &named("second", 0x4000, 0x4fff)).unwrap();
    tree.request(first, &named("register", 0x1800, 0x18ff)).unwrap();
    let before = listing(&tree);
    assert!(matches!(tree.release(bus), Err(ResourceError::HasChildren(info)) if info.name == "bus"));
    assert_eq!(listing(&tree), before);
    tree.remove(bus).unwrap();
    assert_eq!(
        listing(&tree),
        [
            ("below", 0, 0xfff, 1),
            ("first", 0x1000, 0x1fff, 1),
            ("register", 0x1800, 0x18ff, 2),
            ("second", 0x4000, 0x4fff, 1),
            ("above", 0x5000, 0x5fff, 1),
        ]
    );
}

#[test]
fn what_is_inserted_goes_where_it_belongs() {
    let mut tree = tree();
    for (name, start, last) in [("a", 0x1000, 0x1fff), ("b", 0x3000, 0x3fff), ("c", 0x6000, 0x6fff)] {
        tree.insert(tree.root(), &named(name, start, last)).unwrap();
    }
    tree.insert(tree.root(), &named("around", 0x1000, 0x4fff)).unwrap();
    tree.insert(tree.root(), &named("inside", 0x3100, 0x31ff)).unwrap();
    tree.insert(tree.root(), &named("as large", 0x3000, 0x3fff)).unwrap();
    let whole = [
        ("around", 0x1000, 0x4fff, 1),
        ("a", 0x1000, 0x1fff, 2),
        ("as large", 0x3000, 0x3fff, 2),
        ("b", 0x3000, 0x3fff, 3),
        ("inside", 0x3100, 0x31ff, 4),
        ("c", 0x6000, 0x6fff, 1),
    ];
    assert_eq!(listing(&tree), whole);
    for (start, last, at) in [(0x4000, 0x6000, "around"), (0x2000, 0x3500, "as large"), (0x3000, 0x3150, "inside")] {
        match tree.insert(tree.root(), &named("x", start, last)) {
            Err(ResourceError::Across(info)) => assert_eq!(info.name, at),
            other => panic!("{start:#x}-{last:#x}: {other:?}"),
        }
    }
    assert_eq!(listing(&tree), whole);
    assert_eq!(tree.at(PhysAddr::new(0x3123)).map(|info| info.name), Some("inside"));
    assert_eq!(tree.at(PhysAddr::new(0x4123)).map(|info| info.name), Some("around"));
    assert_eq!(tree.at(PhysAddr::new(0x9000)).map(|info| info.name), Some("memory"));
    assert_eq!(tree.at(PhysAddr::new(1 << 32)), None);
}

#[test]
fn what_is_left_is_reserved_in_pieces() {
    let mut tree = tree();
    let ram = tree.request(tree.root(), &named("System RAM", 0x1000, 0x8fff)).unwrap();
    tree.request(ram, &named("Kernel code", 0x2000, 0x2fff)).unwrap();
    tree.request(ram, &named("Kernel data", 0x4000, 0x4fff)).unwrap();
    assert_eq!(tree.reserve_with_split(ram, &named("reserved", 0x2000, 0x9fff)), Ok(2));
    assert_eq!(tree.reserve_with_split(ram, &named("reserved", 0x2000, 0x8fff)), Ok(0));
    assert_eq!(tree.reserve_with_split(ram, &named("reserved", 0xa000, 0xafff)), Ok(0), "outside");
    let text = "00001000-00008fff : System RAM\n  00002000-00002fff : Kernel code\n  00003000-00003fff : reserved\n  \
                00004000-00004fff : Kernel data\n  00005000-00008fff : reserved\n";
    assert_eq!(Iomem(&tree).to_string(), text);
    assert_eq!(ResourceTree::new(span(0, 0xffff), "ports", MEM).iter().count(), 0);
}

#[test]
fn bounds_change_as_far_as_neighbours_and_content_allow() {
    let mut tree = tree();
    let low = tree.request(tree.root(), &named("low", 0x1000, 0x1fff)).unwrap();
    let bus = tree.request(tree.root(), &named("bus", 0x3000, 0x5fff)).unwrap();
    tree.request(bus, &named("device", 0x4000, 0x4fff)).unwrap();
    tree.adjust(bus, span(0x2000, 0x4fff)).unwrap();
    for (to, what) in [
        (span(0x1fff, 0x5fff), "a neighbour"),
        (span(0x4001, 0x5fff), "what is inside"),
        (span(0, 1 << 32), "the range above"),
        (span(0x8000, 0x8fff), "what is inside, and elsewhere"),
    ] {
        assert!(tree.adjust(bus, to).is_err(), "{what}");
    }
    assert!(tree.adjust(low, span(0x8000, 0x8fff)).is_err(), "beyond a neighbour");
    assert_eq!(listing(&tree)[1], ("bus", 0x2000, 0x4fff, 1));
}

// Behaviour 284
#[test]
fn the_lowest_aligned_gap_is_allocated() {
    let mut tree = tree();
    let window = tree.request(tree.root(), &named("window", 0x1000, 0xffff)).unwrap();
    for (start, last) in [(0x1000, 0x1fff), (0x2800, 0x3fff), (0x9000, 0xefff)] {
        tree.request(window, &named("taken", start, last)).unwrap();
    }
    let mut place = |size, align, min, max| {
        let found = tree.allocate(window, (size, align), span(min, max), ("new", MEM));
        found.map(|(id, at)| {
            assert_eq!(tree.info(id).unwrap().span, at);
            tree.release(id).unwrap();
            (at.start().get(), at.size().unwrap())
        })
    };
    assert_eq!(place(0x800, 1, 0, u64::MAX), Ok((0x2000, 0x800)));
    assert_eq!(place(0x801, 1, 0, u64::MAX), Ok((0x4000, 0x801)));
    assert_eq!(place(0x1000, 0x8000, 0, u64::MAX), Ok((0x8000, 0x1000)));
    assert_eq!(place(0x100, 0x100, 0x2101, u64::MAX), Ok((0x2200, 0x100)), "not below the least");
    assert_eq!(place(0x1000, 1, 0xf000, 0xffff), Ok((0xf000, 0x1000)), "the end of the window");
    for (size, align, min, max) in [
        (0x5001, 1, 0, u64::MAX),
        (0x1000, 0x1_0000, 0, u64::MAX),
        (0x1000, 1, 0xf001, u64::MAX),
        (0x800, 1, 0, 0x27fe),
        (1, 1, 0x9000, 0xefff),
        (1, 1 << 63, 1, u64::MAX),
        (u64::MAX, 1, 0, u64::MAX),
    ] {
        assert_eq!(place(size, align, min, max), Err(ResourceError::NoGap), "{size:#x} {align:#x} {min:#x} {max:#x}");
    }
    assert_eq!(place(0, 1, 0, u64::MAX), Err(ResourceError::Empty));
    assert_eq!(place(1, 3, 0, u64::MAX), Err(ResourceError::BadAlignment(3)));
}

#[test]
fn without_a_record_nothing_changes_and_a_release_gives_one_back() {
    let mut tree = ResourceTree::new(span(0, 0xffff), "memory", MEM);
    let root = tree.root();
    assert_eq!(tree.request(root, &named("a", 0, 0xf)), Err(ResourceError::NoMemory));
    assert!(tree.add_row(row(1)));
    let first = tree.request(root, &named("a", 0x10, 0x1f)).unwrap();
    let wanted = named("b", 0, 0x2f);
    assert_eq!(tree.request_region(root, &named("b", 0x10, 0x1f)), Err(ResourceError::NoMemory));
    assert_eq!(tree.insert(root, &wanted), Err(ResourceError::NoMemory));
    assert_eq!(tree.allocate(root, (1, 1), Span::ALL, ("b", MEM)), Err(ResourceError::NoMemory));
    assert_eq!(listing(&tree), [("a", 0x10, 0x1f, 1)]);
    tree.release(first).unwrap();
    tree.insert(root, &wanted).unwrap();
    for _ in 1..quarry::ds::rows::ROWS {
        assert!(tree.add_row(row(1)));
    }
    assert!(!tree.add_row(row(1)), "no place for a further row");
}

/// A range of the model. They are in the order in which a tree is visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    start: u64,
    last: u64,
    busy: bool,
    id: ResourceId,
}

impl Entry {
    fn spans(&self, start: u64, last: u64) -> bool {
        self.start <= start && last <= self.last
    }

    fn meets(&self, start: u64, last: u64) -> bool {
        self.start <= last && start <= self.last
    }
}

/// Ranges as a list: which one is in which other one follows from the addresses and the order alone.
struct Model(Vec<Entry>);

impl Model {
    /// The ranges that number `index` lies in, from the outermost.
    fn above(&self, index: usize) -> Vec<usize> {
        let Entry { start, last, .. } = self.0[index];
        (0..index).filter(|other| self.0[*other].spans(start, last)).collect()
    }

    fn parent(&self, index: usize) -> Option<usize> {
        self.above(index).last().copied()
    }

    fn children(&self, parent: Option<usize>) -> Vec<usize> {
        (0..self.0.len()).filter(|index| self.parent(*index) == parent).collect()
    }

    fn innermost(&self, id: ResourceId) -> Option<usize> {
        self.0.iter().position(|entry| entry.id == id)
    }

    /// Enters behind those that begin before it or span it, before all others; among equals first or last.
    fn enter(&mut self, entry: Entry, outer: bool) {
        let before = |other: &Entry| {
            let order = other.start.cmp(&entry.start).then(entry.last.cmp(&other.last));
            order.is_lt() || (order.is_eq() && !outer)
        };
        let place = self.0.iter().take_while(|other| before(other)).count();
        self.0.insert(place, entry);
    }
}

const LAST: u64 = 255;

// Behaviour 285
#[test]
fn random_histories_agree_with_a_list() {
    let steps = if cfg!(miri) { 1 << 8 } else { 1 << 15 };
    let mut random = Random(0x7265_736f_7572_6365);
    let mut tree = ResourceTree::new(span(0, LAST), "memory", MEM);
    assert!(tree.add_row(row(48)));
    let root = tree.root();
    let mut model = Model(Vec::new());
    let (mut entered, mut released) = (0, 0);
    for step in 0..steps {
        let start = random.below(LAST + 1);
        let most = if random.below(4) == 0 { 128 } else { 12 };
        let last = (start + random.below(most)).min(LAST);
        let what = Request { span: span(start, last), name: "x", flags: MEM };
        let full = model.0.len() == 48;
        // Somewhere, or at the top.
        let within = match to_usize(random.below(1 + model.0.len() as u64)) {
            0 => None,
            index => Some(index - 1),
        };
        let parent = within.map_or(root, |index| model.0[index].id);
        let fits = within.is_none_or(|index| model.0[index].spans(start, last));
        let overlap: Vec<usize> = (0..model.0.len()).filter(|index| model.0[*index].meets(start, last)).collect();
        match random.below(8) {
            0 => {
                let free = model.children(within).iter().all(|child| !model.0[*child].meets(start, last));
                let result = tree.request(parent, &what);
                assert_eq!(result.is_ok(), fits && free && !full, "{step}: {result:?}");
                if let Ok(id) = result {
                    model.enter(Entry { start, last, busy: false, id }, false);
                    entered += 1;
                }
            }
            1 | 2 => {
                let clear = overlap.iter().all(|i| model.0[*i].spans(start, last) && !model.0[*i].busy);
                let result = tree.request_region(root, &what);
                assert_eq!(result.is_ok(), clear && !full, "{step}: {result:?}");
                if let Ok(id) = result {
                    model.enter(Entry { start, last, busy: true, id }, false);
                    entered += 1;
                }
            }
            3 => {
                let nested = |i: &usize| {
                    let other = &model.0[*i];
                    other.spans(start, last) || (start <= other.start && other.last <= last)
                };
                let result = tree.insert(root, &what);
                assert_eq!(result.is_ok(), overlap.iter().all(nested) && !full, "{step}: {result:?}");
                if let Ok(id) = result {
                    model.enter(Entry { start, last, busy: false, id }, true);
                    entered += 1;
                }
            }
            4 => {
                let size = 1 + random.below(16);
                let align = 1 << random.below(5);
                let taken = model.children(within);
                let (low, high) = within.map_or((0, LAST), |index| (model.0[index].start, model.0[index].last));
                let (low, high) = (low.max(start), high.min(last));
                let fits = |at: &u64| {
                    at.is_multiple_of(align)
                        && at + size - 1 <= high
                        && taken.iter().all(|child| !model.0[*child].meets(*at, at + size - 1))
                };
                let lowest = (low..=high).find(fits).filter(|_| !full);
                let result = tree.allocate(parent, (size, align), span(start, last), ("x", MEM));
                assert_eq!(result.ok().map(|(_, at)| at.start().get()), lowest, "{step}");
                if let Ok((id, at)) = result {
                    model.enter(Entry { start: at.start().get(), last: at.last().get(), busy: false, id }, false);
                    entered += 1;
                }
            }
            5 => {
                let spanning = |entry: &Entry| entry.spans(start, last) && entry.busy;
                let found = model.0.iter().position(spanning);
                let found = found.filter(|i| (model.0[*i].start, model.0[*i].last) == (start, last));
                let found = found.filter(|i| model.children(Some(*i)).is_empty());
                let result = tree.release_region(root, what.span);
                assert_eq!(result.is_ok(), found.is_some(), "{step}: {result:?}");
                if let Some(index) = found {
                    model.0.remove(index);
                    released += 1;
                }
            }
            6 => {
                if let Some(index) = within {
                    let empty = model.children(Some(index)).is_empty();
                    let id = model.0[index].id;
                    assert_eq!(tree.release(id).is_ok(), empty, "{step}");
                    if empty {
                        model.0.remove(index);
                        assert_eq!(tree.release(id), Err(ResourceError::Stale));
                        released += 1;
                    }
                }
            }
            _ => {
                if let Some(index) = within.filter(|_| random.below(3) == 0 || full) {
                    tree.remove(model.0[index].id).unwrap();
                    model.0.remove(index);
                    released += 1;
                }
            }
        }
        tree.check().unwrap();
        let found: Vec<_> = tree.iter().map(|i| (i.id, i.span.start().get(), i.span.last().get(), i.depth)).collect();
        let listed =
            |(index, entry): (usize, &Entry)| (entry.id, entry.start, entry.last, model.above(index).len() + 1);
        assert_eq!(found, model.0.iter().enumerate().map(listed).collect::<Vec<_>>(), "{step}");
        assert_eq!(found.len(), tree.len());
        if let Some((id, ..)) = found.first() {
            assert_eq!(model.innermost(*id), Some(0));
        }
    }
    assert!(entered > steps / 16 && released > steps / 32, "{entered} entered, {released} released");
}
