//! The areas of a user address space: policy, without page tables.
