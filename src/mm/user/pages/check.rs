//! The invariants `USR-1` to `USR-4`, tested over all spaces of a machine at rest.
#![forbid(unsafe_code)]

use super::frame::Frames;
use super::{Usage, UserHal, UserPages};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, VirtAddr};
use crate::hal::entry::{Entry, Leaf};
use crate::hal::level::LeafLevel;
use crate::hal::prot::{Access, Prot};
use crate::mm::page::{Kind, Page, PageMap};
use crate::mm::pgtable::CheckError;
use crate::mm::zone::PageHal;
use core::fmt;
use core::ops::ControlFlow;

/// Which invariant does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UserBroken {
    /// `PT-1` to `PT-4`: the tables of the space with this number.
    Tables(usize, CheckError),
    /// `USR-1`: this address may be written, and others have the page too.
    SharedWritable(usize, VirtAddr),
    /// `USR-2`: the block's references, the leaves that map it, its pins.
    References(Pfn, u32, u32, u32),
    /// `USR-3`: what the counters of a space say, and what it has.
    Counters(usize, Usage, Usage),
    /// `USR-4`: a pinned page that is mapped more than once.
    PinnedTwice(Pfn),
    /// A leaf maps a frame of RAM that nobody has allocated.
    FreeFrame(usize, VirtAddr),
}

impl fmt::Display for UserBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tables(space, error) => write!(f, "space {space}: {error}"),
            Self::SharedWritable(space, at) => write!(f, "USR-1: space {space}: {at:#x} is writable and shared"),
            Self::References(pfn, references, leaves, pins) => {
                write!(f, "USR-2: {pfn:?}: {references} references, {leaves} leaves and {pins} pins")
            }
            Self::Counters(space, said, found) => write!(f, "USR-3: space {space}: counted {said:?}, found {found:?}"),
            Self::PinnedTwice(pfn) => write!(f, "USR-4: {pfn:?} is pinned and mapped more than once"),
            Self::FreeFrame(space, at) => write!(f, "space {space}: {at:#x} maps a free frame"),
        }
    }
}

impl core::error::Error for UserBroken {}

/// Shows a callback each of some spaces, with its number and which of its addresses are shared, until one is broken.
pub(crate) type EachSpace<'e, H> = &'e dyn Fn(
    &mut dyn FnMut(usize, &UserPages<H>, &dyn Fn(VirtAddr) -> bool) -> Result<(), UserBroken>,
) -> Result<(), UserBroken>;

/// Tests every invariant of the module over all spaces of a machine, while nobody uses any of them, nor any of their pages.
/// `is_shared` says which addresses of a space are shared. Cost: O(entries) and O(RAM).
///
/// # Errors
///
/// The first [`UserBroken`] found.
pub fn check<H: UserHal>(
    spaces: &[&UserPages<H>],
    is_shared: impl Fn(usize, VirtAddr) -> bool,
) -> Result<(), UserBroken> {
    let Some(first) = spaces.first() else { return Ok(()) };
    check_each(first.hal(), true, &|f| {
        spaces.iter().enumerate().try_for_each(|(number, space)| f(number, space, &|at| is_shared(number, at)))
    })
}

/// [`check`] for spaces that are not in a list. If they are not `all` of the machine's, `USR-2` and `USR-4` are not tested:
/// others may map the same pages.
///
/// # Errors
///
/// The first [`UserBroken`] found.
pub(crate) fn check_each<H: UserHal>(hal: &H, all: bool, each: EachSpace<'_, H>) -> Result<(), UserBroken> {
    let frames = Frames::new(hal);
    // A word of a user block that is nobody's: leaves are counted there.
    each_user_block(&frames, |page| {
        frames.set_leaves(page, 0);
        Ok(())
    })?;
    each(&mut |number, space, _| {
        space.tables().check().map_err(|error| UserBroken::Tables(number, error))?;
        count(space, number, &frames)
    })?;
    each(&mut |number, space, is_shared| {
        each_leaf(space, |at, leaf| {
            let Some((head, state)) = frames.block(Pfn::containing(leaf.phys)) else { return Ok(()) };
            if state.kind() != Kind::User || is_shared(at) {
                return Ok(());
            }
            let part_of_block = state.order().get() != 0 && leaf.level == LeafLevel::Pte;
            if all && frames.pins(head) != 0 && !part_of_block && frames.leaves(head) > 1 {
                return Err(UserBroken::PinnedTwice(Pfn::containing(leaf.phys)));
            }
            let own = space.is_own(&frames, head, state, leaf.level) || part_of_block;
            if leaf.prot.is_writable() && !own { Err(UserBroken::SharedWritable(number, at)) } else { Ok(()) }
        })
    })?;
    each_user_block(&frames, |page| {
        let (references, leaves, pins) = (frames.state(page).references(), frames.leaves(page), frames.pins(page));
        let pfn = Pfn::containing(frames.phys(page));
        frames.set_leaves(page, 0);
        if all && u64::from(references) != u64::from(leaves) + u64::from(pins) {
            return Err(UserBroken::References(pfn, references, leaves, pins));
        }
        Ok(())
    })
}

/// Counts the leaves of a space in the descriptors, and compares its counters.
fn count<H: UserHal>(space: &UserPages<H>, number: usize, frames: &Frames<'_, H>) -> Result<(), UserBroken> {
    let mut found = Usage { tables: space.tables().table_frames() * PAGE_SIZE, ..Usage::default() };
    each_leaf(space, |at, leaf| {
        let (pfn, bytes) = (Pfn::containing(leaf.phys), leaf.level.size());
        match frames.block(pfn) {
            _ if pfn == space.hal().zero_page() => {}
            Some((head, state)) if state.kind() == Kind::User => {
                found.anon += bytes;
                frames.set_leaves(head, frames.leaves(head).wrapping_add(1));
            }
            None if frames.find(pfn).is_some_and(|page| frames.is_free(page)) => {
                return Err(UserBroken::FreeFrame(number, at));
            }
            _ => found.mapped += bytes,
        }
        Ok(())
    })?;
    if found == space.usage() { Ok(()) } else { Err(UserBroken::Counters(number, space.usage(), found)) }
}

fn each_leaf<H: UserHal>(
    space: &UserPages<H>,
    mut f: impl FnMut(VirtAddr, &Leaf) -> Result<(), UserBroken>,
) -> Result<(), UserBroken> {
    let walked = space.tables().walk_all(|visit| match visit.entry {
        // A parked entry holds its frame as a leaf does, and nobody writes it.
        Entry::Parked(leaf) => match f(visit.start, &Leaf { prot: Prot::user(Access::ReadOnly), ..leaf }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(broken) => ControlFlow::Break(broken),
        },
        Entry::Leaf(leaf) => match f(visit.start, &leaf) {
            Ok(()) => ControlFlow::Continue(()),
            Err(broken) => ControlFlow::Break(broken),
        },
        _ => ControlFlow::Continue(()),
    });
    match walked {
        ControlFlow::Break(broken) => Err(broken),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Shows `f` every block of user memory.
fn each_user_block<H: UserHal>(
    frames: &Frames<'_, H>,
    mut f: impl FnMut(Page) -> Result<(), UserBroken>,
) -> Result<(), UserBroken> {
    let map = frames.pages().hal().map();
    for section in map.sections() {
        for index in section.first..section.end {
            let Some(page) = frames.find(Pfn::new(map.origin().get() + u64::from(index))) else { continue };
            if map.get(page).state().kind() == Kind::User {
                f(page)?;
            }
        }
    }
    debug_assert!(PAGE_SHIFT == LeafLevel::Pte.shift(), "a page is a leaf");
    Ok(())
}
