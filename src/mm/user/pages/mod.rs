//! The page tables of a user address space and the frames behind them: faults, copy-on-write, fork, unmapping, pinning.
//! Without areas: which addresses may be used and how is for [`super::map`] to know, and comes as a [`Backing`] with each
//! call.
//!
//! # Who may call what, when
//!
//! All calls take `&self`, from any CPU, in a context that may take locks (no interrupt handler); those that take a `gfp`
//! may sleep if it says so. No concurrent call breaks the tables, frees a frame that a CPU reaches, or shows a page of one owner
//! to another. Two calls on the *same* address take effect in one order or the other; a caller that wants a certain order
//! (no page appears in a range while it is unmapped) keeps faults of that range out, as an area's lock does. Faults at
//! different addresses run side by side.
//!
//! # Locks
//!
//! A space has a lock for each of 32 residues of the 2 MiB number of an address (class [`UserEntries`](class::UserEntries)):
//! entries change under it, and it keeps the table of last entries in place. Linking and unlinking a table, and mapping a
//! block where there was nothing, or unmapping one, happens under one lock more (class [`UserTables`](class::UserTables)), taken
//! first: so the number of entries that a table has (`PT-5`) changes under the one or the other. An upper table that was
//! unlinked is freed when each of the 32 locks was free once since: a descent is under one of them (or in a look, `WALK-1`).
//! Tables that fell empty may stay, those of one place (`unmap_keeping`); who relies on an empty table of its own
//! making holds the areas of the space for itself, or looks again, as faults do. Nothing is allocated under a lock: a fault finds out what it needs, lets go, gets it, and looks again.
//!
//! # Invariants
//!
//! Tested by [`check`](check::check):
//!
//! - `USR-1`: a leaf of a private range that maps a block of [`Kind::User`](crate::mm::page::Kind::User) is writable only if
//!   no other leaf and nobody but pins has a reference to that block.
//! - `USR-2`: the references of a user block are the leaves that map its pages, in all spaces, and its pins.
//! - `USR-3`: the counters of a space are the leaves it has: pages of user blocks, pages of others, tables.
//! - `USR-4`: a pinned user block is mapped by one space.

mod anon;
mod backing;
mod check;
mod cow;
mod error;
mod evacuate;
mod fault;
mod fork;
mod frame;
mod hal;
mod leaving;
mod pin;
mod protect;
mod raw_calls;
mod relocate;
mod remap;
mod space_pages;
mod spare;
mod usual;
mod zap;

pub(in crate::mm::user) use backing::unit_in;
pub use backing::{Backing, FaultAccess, Handled, Sharing};
#[cfg(all(feature = "global", target_os = "none"))]
pub(crate) use check::check_each;
pub use check::{UserBroken, check};
pub use error::{FaultError, PagesError};
pub use evacuate::{EverySpace, evacuate};
pub use hal::UserHal;
pub use pin::Pinned;
pub(in crate::mm::user) use remap::Inserted;
pub use space_pages::{Usage, UserPages};

use crate::sync::class;
