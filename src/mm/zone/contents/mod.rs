//! Contents of pages that change hands: zeroes, patterns, mappings that are taken away, and memory tags.
#![forbid(unsafe_code)]

mod scrub;
mod scrubbing;
mod tags;

pub use scrub::{PAGE_POISON, Scrub};

pub(super) use scrub::report_overwritten;
