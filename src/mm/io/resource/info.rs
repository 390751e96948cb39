//! A range of a tree: its name, and its description.
#![forbid(unsafe_code)]

use super::slots::Link;
use super::{ResourceFlags, Span};
use core::fmt;

/// A range of a tree, by name. It is refused once the range has been released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResourceId {
    pub(super) link: Link,
    pub(super) generation: u32,
}

/// Description of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResourceInfo<'a> {
    /// Its name in the tree.
    pub id: ResourceId,
    /// The addresses.
    pub span: Span,
    /// Name of the owner, or of the device.
    pub name: &'a str,
    /// Flags of the range.
    pub flags: ResourceFlags,
    /// Ranges that it lies in: 0 for the tree's own.
    pub depth: usize,
}

impl fmt::Display for ResourceInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.span, self.name)
    }
}
