//! The numbers of address spaces: random histories on CPUs whose TLBs keep stale entries, and the race between the fast path
//! and a rollover.

mod history;
// The model checker switches stacks, which Miri cannot.
#[cfg(not(miri))]
mod race;
