//! How the kernel reads and writes memory of a process, over the simulated MMU and over a plain model of memory with an end.

mod copies;
mod flat;
mod simulated;
mod slices;
