//! Which physical ranges are mapped now, where, and with which memory type.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::ds::rbtree::{Augment, Broken, Chain, Node, Owned, Payload, RbTree};
use crate::hal::prot::MemoryType;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Memory types that may not meet: write-back with and without tags count as one.
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
/// Fields are atomics, accessed relaxed: written by whoever has the node, read under the lock of the trees.
#[derive(Debug, Default)]
pub struct Claim {
    start: AtomicU64,
    end: AtomicU64,
    /// The address that the caller got.
    virt: AtomicU64,
    /// Somebody is unmapping it: nobody else may.
    leaving: AtomicBool,
}

impl Claim {
    /// A claim of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            virt: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
        }
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
}

/// A copy of what is known of a live mapping.
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

/// Why a claim was not entered.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another class overlaps.
    Conflict(Mapping),
    /// No descriptor is at hand.
    NoSpare,
}

/// All live mappings.
///
/// # Invariants
///
/// - `IO-1`: claims of two classes never overlap.
pub(super) struct Claims<'a> {
    trees: [RbTree<'a, Claim, MaxEnd>; CLASSES],
    spare: Chain<'a, Claim>,
}

type Tree<'a> = RbTree<'a, Claim, MaxEnd>;

/// A claim in `tree` that shares a byte with `range`, the lowest. O(log n).
#[inline]
fn overlapping<'a>(tree: &Tree<'a>, range: PhysRange) -> Option<&'a Node<'a, Claim>> {
    let (start, end) = (range.start().get(), range.end().get());
    let mut at = tree.root();
    while let Some(node) = at {
        // If anything on the left ends behind the start, then either it overlaps or everything further right begins
        // too late.
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
        Self { trees: [const { RbTree::new() }; CLASSES], spare: Chain::new() }
    }

    /// Keeps a descriptor of nothing.
    pub(super) fn add_spare(&mut self, descriptor: Owned<'a, Claim>) {
        self.spare.push_front(descriptor);
    }

    /// The trees, each with its memory type.
    fn classes(&self) -> impl Iterator<Item = (MemoryType, &Tree<'a>)> {
        MemoryType::ALL.into_iter().zip(&self.trees)
    }

    /// A live mapping that shares a frame with `range` and has another memory type than `memory`.
    #[inline]
    pub(super) fn conflict(&self, range: PhysRange, memory: MemoryType) -> Option<Mapping> {
        let others = self.classes().filter(|(other, tree)| !tree.is_empty() && class(*other) != class(memory));
        others.into_iter().find_map(|(other, tree)| Some(overlapping(tree, range)?.mapping(other)))
    }

    /// Enters a mapping.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has changed then.
    #[inline]
    pub(super) fn enter(&mut self, range: PhysRange, virt: VirtAddr, memory: MemoryType) -> Result<(), Refused> {
        if let Some(other) = self.conflict(range, memory) {
            return Err(Refused::Conflict(other));
        }
        let claim = self.spare.pop_front().ok_or(Refused::NoSpare)?;
        claim.start.store(range.start().get(), Ordering::Relaxed);
        claim.end.store(range.end().get(), Ordering::Relaxed);
        claim.virt.store(virt.get(), Ordering::Relaxed);
        claim.leaving.store(false, Ordering::Relaxed);
        // INVARIANT: IO-1 by the comparison above. The address is new, and so is the key.
        if let Some(tree) = self.trees.get_mut(class(memory))
            && let Err(claim) = tree.insert(claim)
        {
            self.spare.push_front(claim);
        }
        Ok(())
    }

    /// Marks the mapping that starts at the frame `start` and was returned as `virt` as being unmapped. What it maps;
    /// `None` if there is none, or somebody else is unmapping it.
    #[inline]
    pub(super) fn leave(&self, start: PhysAddr, virt: VirtAddr) -> Option<Mapping> {
        let key = (start.get(), virt.get());
        let (memory, claim) =
            self.classes().find_map(|(memory, tree)| Some((memory, tree.root().and_then(|_| tree.find(key))?)))?;
        (!claim.leaving.swap(true, Ordering::Relaxed)).then(|| claim.mapping(memory))
    }

    /// Forgets a mapping: no CPU translates it any more.
    #[inline]
    pub(super) fn forget(&mut self, mapping: &Mapping) {
        let Some(tree) = self.trees.get_mut(class(mapping.memory)) else { return };
        let found = tree.find((mapping.phys.start().get(), mapping.virt.get())).map(|claim| claim.node());
        if let Some(claim) = found.and_then(|node| tree.erase(node)) {
            self.spare.push_front(claim);
        }
    }

    /// The live mapping with the lowest (physical, virtual) address that is not below `(start, virt)`.
    pub(super) fn next(&self, start: PhysAddr, virt: VirtAddr) -> Option<Mapping> {
        let key = (start.get(), virt.get());
        let candidates = self.classes().filter_map(|(memory, tree)| Some((tree.first_at_or_above(key)?, memory)));
        let (claim, memory) = candidates.min_by_key(|(claim, _)| claim.key())?;
        Some(claim.mapping(memory))
    }

    /// Live mappings.
    pub(super) fn len(&self) -> usize {
        self.trees.iter().map(RbTree::len).sum()
    }

    /// Tests the trees, and `IO-1`.
    pub(super) fn check(&self) -> Result<(), Broken> {
        for (memory, tree) in self.classes() {
            tree.check()?;
            for claim in tree {
                if self.conflict(claim.range(), memory).is_some() {
                    return Err(Broken { tag: "IO-1", what: "two mappings of a frame with different memory types" });
                }
            }
        }
        Ok(())
    }
}
