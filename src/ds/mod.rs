//! L2: data structures that more than one part of `mm` needs.

mod broken;
pub mod rbtree;
pub mod rows;

pub use broken::Broken;
