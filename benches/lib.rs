//! The benchmarks are the targets `kernel` and `host` of this package.
#![no_std]
