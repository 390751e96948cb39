//! L1: what `mm` asks of a machine: page-table entries, TLB, caches, CPU.
