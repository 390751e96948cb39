//! The AArch64 machine: registers, descriptors, MMU, TLB, traps.
