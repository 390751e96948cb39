//! Failures on request: allocations that fail because a test wants to see what their callers do then (Linux:
//! `Documentation/fault-injection`).
//!
//! Every kind of allocation is a **site** ([`FaultSite`]) and asks a [`FaultInjector`] before it succeeds. A site fails by its
//! settings ([`FaultAttr`]: every n-th call, by chance, a number of times, by size, flags and CPU), or because one context has
//! been told that its n-th call from now on any site is to fail ([`FaultInjector::fail_nth`]). [`fail_every`] is built on the
//! second: it runs an operation again and again, with its first, its second, its third allocation failing, until it passes, and
//! sees each time that nothing is lost.
//!
//! Fast paths ask nothing. An allocator has a slow path that asks, and takes it only while it is told to:
//! [`PageAllocator::set_careful`](crate::mm::zone::PageAllocator::set_careful) for pages. The caller that configures an
//! injector must switch that too.
//!
//! It comes before `zone` in the order of imports, so that every layer above can ask directly; the page allocator asks
//! through [`Pressure::should_fail`](crate::mm::zone::Pressure::should_fail), which leaves the choice of the injector to
//! the machine.
#![forbid(unsafe_code)]

mod attr;
mod context;
mod every;
mod injector;
mod nth;
mod nth_slot;
mod point;
mod site;

pub use attr::{FaultArgError, FaultAttr, Probability, Verbosity};
pub use context::FaultContext;
pub use every::{FaultFinding, FaultTarget, MayRecover, Rounds, fail_every};
pub use injector::{FaultInjector, FaultReport};
pub use nth::{FailNth, NoSlot};
pub use point::{FaultRequest, FaultStatistics};
pub use site::FaultSite;
