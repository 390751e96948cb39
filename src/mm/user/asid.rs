//! The numbers that mark the entries of a user address space in the TLB.
