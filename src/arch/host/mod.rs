//! L4: a simulated machine for tests on a desk: the traits of `hal` over an arena of RAM, with CPUs whose TLBs keep stale
//! entries for as long as the architecture lets them, and an oracle that reports what a real machine might punish only
//! once in a million boots.

mod cache;
mod cpu;
mod fault;
mod held_locks;
mod io;
mod machine;
mod memory;
mod op;
mod oracle;
mod promise;
mod promised;
mod root;
mod tlb;
mod user;
mod walker;

pub use cache::{BusError, CacheConfig, CacheCounts, CachedRam, SimDevice, Window};
pub use cpu::{SimCpu, SimFrames};
pub use fault::{Fault, FaultKind, Who};
pub use held_locks::{Spin, with_held};
pub use io::{IoEvent, Recorder};
pub use machine::{Config, Counts, Machine, Violations, Visibility};
pub use user::{SimFaultHandler, SimUser};
