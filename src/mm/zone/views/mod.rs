//! The allocator seen from outside: its invariants as a check, the use of every page, and reports in Linux's formats.
#![forbid(unsafe_code)]

mod census;
mod check;
mod report;

pub use census::{Census, Miscount, Stock, Usage, ZoneCensus};
pub use report::{BuddyInfo, FreeBlocks, MemInfo, PageTypeInfo, ZoneInfo, ZoneSnapshot};
