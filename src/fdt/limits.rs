//! Limits of the trees that are accepted: beyond them a tree is damaged, or built to cost time.
#![forbid(unsafe_code)]

/// Levels of nodes that we accept, the root being level 0. Real trees have up to 12; the `fdt` crate skips nodes by
/// recursion and keeps an array of 64 parents, so this bounds both.
pub const MAX_DEPTH: u32 = 32;
/// Bytes in a property's name, the terminator left out. The specification says 31, real trees exceed it. Without a
/// bound, many properties that share one long string would make each walk take time quadratic in the size.
pub const MAX_PROPERTY_NAME: usize = 127;
