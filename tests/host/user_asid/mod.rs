//! The numbers of address spaces: random histories on CPUs whose TLBs keep stale entries, and the race between the fast path
//! and a rollover.
#![expect(clippy::cast_possible_truncation, reason = "numbers of CPUs and spaces")]

mod history;
// The model checker switches stacks, which Miri cannot.
#[cfg(not(miri))]
mod race;
