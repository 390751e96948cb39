//! The simulated machine: RAM is an arena, the MMU a model, each CPU has a TLB that keeps stale entries.
