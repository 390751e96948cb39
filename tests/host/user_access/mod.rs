//! How the kernel reads and writes memory of a process, over the simulated MMU and over a plain model of memory with an end.
#![expect(clippy::cast_possible_truncation, reason = "small numbers, and patterns of which the low byte counts")]

mod copies;
mod flat;
mod simulated;
mod slices;
