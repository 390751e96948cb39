//! The address spaces of a kernel's processes, all of them: what is killed when memory is used up, whose pages are moved, and what
//! is checked.

use super::cpu::KernelPages;
use super::reclaim::{context, reclaim};
use super::user_pages::live_spaces;
use super::{AddressSpace, movers};
use crate::addr::{Order, PhysAddr};
use crate::arch::aarch64::cpu::Relax;
use crate::gfp::Gfp;
use crate::mm::page::Page;
use crate::mm::user::pages::{Usage, UserBroken, check_each, evacuate};
use crate::mm::zone::{Mover, OomHook, OomReport, Registration, Registry, RegistryError, Relief, Scanned, Shrinker};
use core::cell::{Cell, RefCell};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// A kernel's processes, as this crate sees them: it asks them for their address spaces. A kernel has one, beside its table of
/// processes, and registers it by [`register_spaces`].
pub trait Spaces: Sync {
    /// Shows `f` each address space that there is, once; none of them is dropped until `f` returns. Called in any context that
    /// may free memory, also by a process of which one is, so it waits for nobody: one that is being put in or taken out may
    /// be left out.
    fn each(&self, f: &mut dyn FnMut(&AddressSpace));

    /// `space` was killed because memory was used up: its process ends when it runs next. Called as [`Spaces::each`] is, by
    /// the hook.
    fn killed(&self, space: &AddressSpace, victim: &Victim) {
        let _ = (space, victim);
    }
}

static SPACES: Registry<dyn Spaces, Relax> = Registry::new();

/// Has this crate look at these address spaces from now on.
///
/// # Errors
///
/// [`RegistryError::Full`].
pub fn register_spaces(spaces: &'static dyn Spaces) -> Result<Registration, RegistryError> {
    if !HAS_MOVER.swap(true, Ordering::Relaxed)
        && let Err(error) = movers().register(context(), &UserMover)
    {
        HAS_MOVER.store(false, Ordering::Relaxed);
        return Err(error);
    }
    if !HAS_SHRINKER.swap(true, Ordering::Relaxed)
        && let Err(error) = reclaim().shrinkers().register(context(), &TableShrinker)
    {
        HAS_SHRINKER.store(false, Ordering::Relaxed);
        return Err(error);
    }
    SPACES.register(context(), spaces)
}

/// Frees page tables that spaces keep for what they map next.
struct TableShrinker;

impl Shrinker for TableShrinker {
    fn name(&self) -> &str {
        "user page tables"
    }

    fn count_objects(&self, _: Gfp) -> u64 {
        let mut tables = 0;
        each_space(&mut |space| tables += space.reclaimable_tables());
        tables
    }

    fn scan_objects(&self, _: Gfp, count: u64) -> Scanned {
        let mut freed = 0;
        each_space(&mut |space| {
            if freed < count {
                freed += space.trim();
            }
        });
        Scanned::Freed(freed)
    }

    fn seeks(&self) -> u32 {
        0
    }

    fn batch(&self) -> u64 {
        1
    }
}

/// Whether the mover and the shrinker are registered: with the first spaces, for good.
static HAS_MOVER: AtomicBool = AtomicBool::new(false);
static HAS_SHRINKER: AtomicBool = AtomicBool::new(false);

/// Moves pages of registered address spaces out of ranges that somebody wants as a whole.
struct UserMover;

impl Mover for UserMover {
    fn name(&self) -> &str {
        "user pages"
    }

    fn evacuate(&self, page: Page, order: Order) -> bool {
        order == Order::ZERO && evacuate(&KernelPages(()), page, &|f| each_space(&mut |space| f(space.pages())))
    }
}

/// Ends the registration: when this returns, nobody looks at any of them. Context as for [`Registry::unregister`].
///
/// # Errors
///
/// As for [`Registry::unregister`].
pub fn unregister_spaces(registration: Registration) -> Result<(), RegistryError> {
    SPACES.unregister(context(), registration)
}

/// Shows `f` every registered address space. Any context that may free memory.
pub fn each_space(f: &mut dyn FnMut(&AddressSpace)) {
    let _: Option<()> = SPACES.visit(context(), |spaces, _| {
        spaces.each(f);
        None
    });
}

/// A space that was killed because memory was used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Victim {
    /// The root of its tables, which tells spaces apart.
    pub root: PhysAddr,
    /// Memory that it had.
    pub usage: Usage,
    /// Whether that memory is back. Not if somebody was changing the areas of the space.
    pub is_reaped: bool,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { anon, mapped, tables } = self.usage;
        let [anon, mapped, tables] = [anon, mapped, tables].map(|bytes| bytes >> 10);
        write!(f, "address space {}: anonymous {anon} kB, of drivers {mapped} kB, tables {tables} kB", self.root)?;
        if self.is_reaped { Ok(()) } else { f.write_str("; not back before its present call ends") }
    }
}

/// The registered space with the most memory, by [`Usage::total`], that is not being killed already: what an OOM hook kills. Its
/// root, and what it has. Any context that may free memory.
#[must_use]
pub fn largest_space() -> Option<(PhysAddr, Usage)> {
    let mut largest: Option<(PhysAddr, Usage)> = None;
    each_space(&mut |space| {
        let usage = space.usage();
        if !space.is_killed() && largest.is_none_or(|(_, most)| usage.total() > most.total()) {
            largest = Some((space.root(), usage));
        }
    });
    largest
}

/// Kills the largest space ([`largest_space`]), and takes its memory at once. `None` if there is none. Any context that may
/// free memory, inside a reclaimer too.
pub fn kill_largest_space() -> Option<Victim> {
    let (root, usage) = largest_space()?;
    let mut victim = None;
    let _: Option<()> = SPACES.visit(context(), |spaces, _| {
        spaces.each(&mut |space| {
            // It may have ended since, and another one have its root.
            if space.root() == root && !space.is_killed() && victim.is_none() {
                let killed = Victim { root, usage, is_reaped: space.kill() };
                victim = Some(killed);
                spaces.killed(space, &killed);
            }
        });
        victim.map(|_| ())
    });
    victim
}

/// An [`OomHook`] that kills the largest space: `reclaim().oom_hooks().register(context(), &KILL_LARGEST)`.
#[derive(Debug)]
pub struct KillLargest;

/// The hook.
pub static KILL_LARGEST: KillLargest = KillLargest;

impl OomHook for KillLargest {
    fn out_of_memory(&self, report: &OomReport<'_>) -> Relief {
        match kill_largest_space() {
            Some(victim) => {
                log::error!("out of memory, order {}: killed {victim}", report.shortage.order.get());
                if victim.is_reaped { Relief::Retry } else { Relief::GiveUp }
            }
            None => Relief::GiveUp,
        }
    }
}

/// Tests the pages of all registered spaces, over all spaces if all are registered. For [`super::check_all`].
pub(super) fn check_spaces() -> Result<(), UserBroken> {
    let found = Cell::new(0);
    each_space(&mut |_| found.set(found.get() + 1));
    if found.get() == 0 {
        return Ok(());
    }
    check_each(&KernelPages(()), found.get() == live_spaces(), &|f| {
        let (number, result) = (Cell::new(0), RefCell::new(Ok(())));
        each_space(&mut |space| {
            let mut result = result.borrow_mut();
            if result.is_ok() {
                *result = f(number.get(), space.pages(), &|at| space.is_shared_at(at));
            }
            number.set(number.get() + 1);
        });
        result.into_inner()
    })
}
