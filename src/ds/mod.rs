//! L2: data structures that more than one part of `mm` needs.

pub mod rbtree;
pub mod rows;
