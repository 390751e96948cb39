//! Live mappings: their physical ranges, addresses and memory types.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::ds::Broken;
use crate::ds::rbtree::{Augment, Chain, Node, Owned, Payload, RbTree};
use crate::hal::prot::MemoryType;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Memory types that may not overlap: write-back with and without tags count as one.
const CLASSES: usize = 7;

/// The class of a memory type.
const fn class(memory: MemoryType) -> usize {
    match memory {
        MemoryType::WriteBackTagged => MemoryType::WriteBack.index() as usize,
        other => other.index() as usize,
    }
}

/// A live mapping, in the tree of its class.
///
/// Fields are atomics, accessed relaxed: written by the node's owner, read under the lock of the trees.
#[derive(Debug, Default)]
pub struct Claim {
    start: AtomicU64,
    end: AtomicU64,
    /// The address returned to the caller.
    virt: AtomicU64,
}

impl Claim {
    /// An unused descriptor.
    #[must_use]
    pub const fn new() -> Self {
        Self { start: AtomicU64::new(0), end: AtomicU64::new(0), virt: AtomicU64::new(0) }
    }

    fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    fn range(&self) -> PhysRange {
        PhysRange::new(PhysAddr::new(self.start()), PhysAddr::new(self.end())).unwrap_or_default()
    }

    fn mapping(&self, memory: MemoryType) -> Mapping {
        Mapping { phys: self.range(), virt: VirtAddr::new(self.virt.load(Ordering::Relaxed)), memory }
    }
}

impl Payload for Claim {
    /// One range may be mapped more than once.
    type Key = (u64, u64);
    type Summary = u64;
    const NO_SUMMARY: u64 = 0;

    #[inline]
    fn key(&self) -> (u64, u64) {
        (self.start(), self.virt.load(Ordering::Relaxed))
    }
}

/// The summary of a tree of ranges that may overlap: the highest end (Linux: `interval_tree.h`).
pub(super) struct MaxEnd;

impl Augment<Claim> for MaxEnd {
    const KEPT: bool = true;

    #[inline]
    fn summarize(top: &Claim, left: Option<u64>, right: Option<u64>) -> u64 {
        top.end().max(left.unwrap_or(0)).max(right.unwrap_or(0))
    }

    #[inline]
    fn join(one: u64, other: u64) -> u64 {
        one.max(other)
    }
}

/// A copy of a live mapping's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The frames, whole pages.
    pub phys: PhysRange,
    /// The address that mapping them returned.
    pub virt: VirtAddr,
    /// The memory type; plain write-back also for tagged.
    pub memory: MemoryType,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} as {}", self.phys, self.virt, self.memory.name())
    }
}

/// Reason why a claim was not entered.
#[derive(Debug)]
pub(super) enum Refused {
    /// The request overlaps a mapping of another class.
    Conflict(MemoryType, Mapping),
    /// No spare descriptor is left.
    NoSpare,
}

/// Mappings that are kept out of the trees: those entered last, since short-lived mappings are unmapped first.
const RECENT: usize = 8;

/// Descriptors that are kept for the next mappings; more go back.
const SPARE: usize = RECENT;

/// All live mappings: the last few in slots, the others in a tree for each class.
///
/// # Invariants
///
/// - `IO-1`: mappings of two classes never overlap.
/// - `IO-3`: a bit of `live` is set where `recent` has a mapping, and a bit of `filled` where a tree has one.
pub(super) struct Claims<'a> {
    recent: [Mapping; RECENT],
    live: u32,
    /// The slot to be cleared next when all are taken.
    oldest: usize,
    trees: [Tree<'a>; CLASSES],
    filled: u32,
    spare: Chain<'a, Claim>,
}

type Tree<'a> = RbTree<'a, Claim, MaxEnd>;

/// The numbers of the bits that are set, from the lowest.
#[inline]
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let lowest = (set != 0).then_some(set.trailing_zeros())?;
        set &= set - 1;
        Some(lowest as usize)
    })
}

/// A claim in `tree` that shares a byte with `range`, the lowest. O(log n).
#[inline]
fn overlapping<'a>(tree: &Tree<'a>, range: PhysRange) -> Option<&'a Node<'a, Claim>> {
    let (start, end) = (range.start().get(), range.end().get());
    let mut at = tree.root();
    while let Some(node) = at {
        // If a mapping on the left ends behind the start, then either it overlaps or all further right begin too late.
        if let Some(left) = node.left().filter(|left| left.summary() > start) {
            at = Some(left);
            continue;
        }
        if node.start() >= end {
            return None;
        }
        if node.end() > start {
            return Some(node.node());
        }
        at = node.right();
    }
    None
}

impl<'a> Claims<'a> {
    pub(super) const fn new() -> Self {
        const NOTHING: Mapping =
            Mapping { phys: PhysRange::EMPTY, virt: VirtAddr::ZERO, memory: MemoryType::DeviceNGnRnE };
        let trees = [const { RbTree::new() }; CLASSES];
        Self { recent: [NOTHING; RECENT], live: 0, oldest: 0, trees, filled: 0, spare: Chain::new() }
    }

    /// Keeps an unused descriptor.
    pub(super) fn add_spare(&mut self, descriptor: Owned<'a, Claim>) {
        self.spare.push_front(descriptor);
    }

    /// The mappings that are in no tree.
    #[inline]
    fn recent(&self) -> impl Iterator<Item = &Mapping> {
        bits(self.live).filter_map(|place| self.recent.get(place))
    }

    /// The trees that are not empty, each with its memory type.
    #[inline]
    fn filled(&self, which: u32) -> impl Iterator<Item = (MemoryType, &Tree<'a>)> {
        bits(self.filled & which).filter_map(|class| Some((*MemoryType::ALL.get(class)?, self.trees.get(class)?)))
    }

    /// A live mapping that shares a frame with `range` and has another memory type than `memory`.
    #[inline(always)]
    pub(super) fn conflict(&self, range: PhysRange, memory: MemoryType) -> Option<Mapping> {
        let differs = |other: &&Mapping| other.phys.overlaps(range) && !other.memory.agrees_with(memory);
        if let Some(other) = self.recent().find(differs) {
            return Some(*other);
        }
        self.filled(!(1 << class(memory))).find_map(|(other, tree)| Some(overlapping(tree, range)?.mapping(other)))
    }

    /// Enters a mapping.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has changed then.
    #[inline(always)]
    pub(super) fn enter(&mut self, mapping: Mapping) -> Result<(), Refused> {
        // INVARIANT: IO-1 by the comparison.
        if let Some(other) = self.conflict(mapping.phys, mapping.memory) {
            return Err(Refused::Conflict(mapping.memory, other));
        }
        let mut place = (!self.live).trailing_zeros() as usize;
        if place >= RECENT {
            place = self.oldest;
            self.settle(place)?;
            self.oldest = (place + 1) % RECENT;
        }
        if let Some(free) = self.recent.get_mut(place) {
            // INVARIANT: IO-3.
            *free = mapping;
            self.live |= 1 << place;
        }
        Ok(())
    }

    /// Moves a recent mapping into the tree of its class.
    #[cold]
    fn settle(&mut self, place: usize) -> Result<(), Refused> {
        let Some(mapping) = self.recent.get(place) else { return Ok(()) };
        let claim = self.spare.pop_front().ok_or(Refused::NoSpare)?;
        claim.start.store(mapping.phys.start().get(), Ordering::Relaxed);
        claim.end.store(mapping.phys.end().get(), Ordering::Relaxed);
        claim.virt.store(mapping.virt.get(), Ordering::Relaxed);
        let class = class(mapping.memory);
        let Some(tree) = self.trees.get_mut(class) else { return Ok(()) };
        match tree.insert(claim) {
            Ok(_) => {
                // INVARIANT: IO-3.
                self.filled |= 1 << class;
                self.live &= !(1 << place);
            }
            // The same frames at the same address twice: impossible, as no two live mappings have one address.
            Err(claim) => self.spare.push_front(claim),
        }
        Ok(())
    }

    /// Moves all recent mappings into the trees, for good.
    ///
    /// # Errors
    ///
    /// [`Refused::NoSpare`]; some have not moved then.
    pub(super) fn settle_all(&mut self) -> Result<(), Refused> {
        bits(self.live).try_for_each(|place| self.settle(place))
    }

    /// The mapping whose frames start at `start` and whose address is `virt`.
    pub(super) fn find(&self, start: PhysAddr, virt: VirtAddr) -> Option<Mapping> {
        let wanted = |mapping: &&Mapping| mapping.virt == virt && mapping.phys.start() == start;
        if let Some(mapping) = self.recent().find(wanted) {
            return Some(*mapping);
        }
        let key = (start.get(), virt.get());
        self.filled(u32::MAX).find_map(|(memory, tree)| Some(tree.find(key)?.mapping(memory)))
    }

    /// Removes the record of a mapping: no CPU translates it any more. Returns a surplus descriptor.
    #[inline]
    pub(super) fn forget(&mut self, start: PhysAddr, virt: VirtAddr) -> Option<Owned<'a, Claim>> {
        let found = bits(self.live).find(|place| self.recent.get(*place).is_some_and(|recent| recent.virt == virt));
        match found {
            // INVARIANT: IO-3.
            Some(place) => {
                self.live &= !(1 << place);
                None
            }
            None => self.forget_settled((start.get(), virt.get())),
        }
    }

    #[cold]
    fn forget_settled(&mut self, key: (u64, u64)) -> Option<Owned<'a, Claim>> {
        for class in bits(self.filled) {
            let Some(tree) = self.trees.get_mut(class) else { continue };
            let found = tree.find(key).map(|claim| claim.node());
            if let Some(claim) = found.and_then(|node| tree.erase(node)) {
                if tree.is_empty() {
                    // INVARIANT: IO-3.
                    self.filled &= !(1 << class);
                }
                if self.spare.len() >= SPARE {
                    return Some(claim);
                }
                self.spare.push_front(claim);
                return None;
            }
        }
        None
    }

    /// The live mapping with the lowest (physical, virtual) address that is not below `(start, virt)`.
    pub(super) fn next(&self, start: PhysAddr, virt: VirtAddr) -> Option<Mapping> {
        let key = (start.get(), virt.get());
        let place = |mapping: &Mapping| (mapping.phys.start().get(), mapping.virt.get());
        let settled =
            self.filled(u32::MAX).filter_map(|(memory, tree)| Some(tree.first_at_or_above(key)?.mapping(memory)));
        self.recent().copied().filter(|mapping| place(mapping) >= key).chain(settled).min_by_key(place)
    }

    /// Live mappings.
    pub(super) fn len(&self) -> usize {
        self.live.count_ones() as usize + self.trees.iter().map(RbTree::len).sum::<usize>()
    }

    /// Tests the trees, `IO-1` and `IO-3`.
    pub(super) fn check(&self) -> Result<(), Broken> {
        const MIXED: Broken = Broken { tag: "IO-1", what: "two mappings of a frame with different memory types" };
        const MARKS: Broken = Broken { tag: "IO-3", what: "marks that do not say which places are taken" };
        if self.recent().any(|mapping| self.conflict(mapping.phys, mapping.memory).is_some()) {
            return Err(MIXED);
        }
        for ((class, memory), tree) in MemoryType::ALL.into_iter().enumerate().zip(&self.trees) {
            tree.check()?;
            if tree.into_iter().any(|claim| self.conflict(claim.range(), memory).is_some()) {
                return Err(MIXED);
            }
            if (self.filled & 1 << class != 0) == tree.is_empty() {
                return Err(MARKS);
            }
        }
        Ok(())
    }
}
