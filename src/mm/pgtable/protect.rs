//! Changing what mappings permit, in place where the architecture allows it.
#![forbid(unsafe_code)]

use super::gather::Pending;
use super::rewrite::LivePolicy;
use super::{PageTable, PgtableError};
use crate::addr::{VirtAddr, VirtRange};
use crate::hal::entry::{Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::mmu::{Mmu, WalkDepth};
use crate::hal::prot::{Access, MemoryType, Prot, ProtError};
use core::ops::ControlFlow;

/// Changes made by [`PageTable::protect`]; a field that is `None` keeps its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Permitted kinds of access.
    pub access: Option<Access>,
    /// The memory type.
    pub memory: Option<MemoryType>,
    /// The accessed flag.
    pub accessed: Option<bool>,
    /// The dirty state.
    pub dirty: Option<bool>,
}

impl Change {
    /// Changes what an access may do.
    #[must_use]
    pub const fn access(access: Access) -> Self {
        Self { access: Some(access), memory: None, accessed: None, dirty: None }
    }

    /// Changes the memory type.
    #[must_use]
    pub const fn memory(memory: MemoryType) -> Self {
        Self { access: None, memory: Some(memory), accessed: None, dirty: None }
    }

    /// Applies the change to a protection. The memory type goes first where it may be what makes the access possible.
    fn apply(self, prot: Prot) -> Result<Prot, ProtError> {
        let access = self.access.unwrap_or(prot.access());
        let memory = self.memory.unwrap_or(prot.memory());
        let prot = prot.with_access(Access::ReadOnly)?.with_memory(memory)?.with_access(access)?;
        let prot = prot.with_accessed(self.accessed.unwrap_or(prot.is_accessed()));
        Ok(self.dirty.map_or(prot, |dirty| prot.with_dirty(dirty)))
    }
}

impl<M: Mmu> PageTable<M> {
    /// [`Self::protect`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_protect(&self, range: VirtRange, change: Change, policy: LivePolicy) -> Result<(), PgtableError> {
        self.admit(range)?;
        self.admit_policy(policy)?;
        self.check_edge(range.start())?;
        self.check_edge(range.end())?;
        self.check_change(range, change, policy)?;
        match policy {
            LivePolicy::NotLive => {}
            LivePolicy::BreakBeforeMake => {
                self.step(
                    range,
                    policy,
                    |leaf, raw| {
                        if is_delicate(leaf, change) { M::Format::invalidate(raw) } else { raw }
                    },
                )
            }
            LivePolicy::BbmLevel2 => self.step(range, policy, |leaf, raw| {
                if is_delicate(leaf, change) { M::Format::with_contiguous(raw, false) } else { raw }
            }),
        }
        self.step(range, policy, |leaf, raw| match change.apply(leaf.prot) {
            Ok(prot) => M::Format::leaf(leaf.level, leaf.phys, prot, leaf.contiguous),
            Err(_) => raw,
        });
        Ok(())
    }

    /// Changes each leaf of `range`, broken ones too, by `to`, and waits until no CPU holds what they were.
    fn step(&self, range: VirtRange, policy: LivePolicy, to: impl Fn(&Leaf, RawEntry) -> RawEntry) {
        let mut pending = Pending::new();
        let _ = self.walk_places(range.start().get(), range.end().get() - 1, &mut |place| {
            let level = place.table.level();
            let next = |raw| match M::Format::decode(level, M::Format::revalidate(raw)) {
                Entry::Leaf(leaf) => to(&leaf, raw),
                _ => raw,
            };
            if next(place.raw) != place.raw {
                let old = place.table.update(&self.mmu, place.slot, next);
                if M::Format::is_valid(old)
                    && policy != LivePolicy::NotLive
                    && let Some(leaf) = level.leaf()
                {
                    pending.note(self, place.start, 1, leaf, WalkDepth::LastLevel);
                }
            }
            ControlFlow::<()>::Continue(())
        });
        if pending.flush(self).is_none() {
            self.mmu.publish();
        }
    }

    /// Refuses the change unless every leaf can take it and there is no hole.
    fn check_change(&self, range: VirtRange, change: Change, policy: LivePolicy) -> Result<(), PgtableError> {
        let mut next = range.start();
        let walked = self.do_walk(range, |visit| {
            let refused = match visit.entry {
                Entry::Table(_) | Entry::Absent => return ControlFlow::Continue(()),
                Entry::Malformed(_) => PgtableError::Malformed(visit.start),
                Entry::Guard | Entry::Parked(_) => PgtableError::NotMapped(visit.start),
                Entry::Leaf(_) if visit.start != next => PgtableError::NotMapped(next),
                Entry::Leaf(leaf) => match change.apply(leaf.prot) {
                    Err(error) => error.into(),
                    Ok(new) if policy == LivePolicy::BbmLevel2 && new.memory() != leaf.prot.memory() => {
                        PgtableError::NeedsBreak(visit.start)
                    }
                    Ok(_) => {
                        next = VirtAddr::new(visit.start.get() + leaf.level.size());
                        return ControlFlow::Continue(());
                    }
                },
            };
            ControlFlow::Break(refused)
        });
        match walked {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) if next != range.end() => Err(PgtableError::NotMapped(next)),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

/// Whether a leaf must not go from its protection to the new one in one step.
fn is_delicate(leaf: &Leaf, change: Change) -> bool {
    change.apply(leaf.prot).is_ok_and(|new| new.memory() != leaf.prot.memory() || (leaf.contiguous && new != leaf.prot))
}
