//! Reasons why a range was not entered or not released.
#![forbid(unsafe_code)]

use super::{ResourceInfo, Span};
use core::fmt;

/// Reason why nothing was entered or released: the tree is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResourceError<'a> {
    /// The size is 0.
    Empty,
    /// The range wraps.
    NoSpan,
    /// The span is not inside the range that should contain it.
    Outside(Span, ResourceInfo<'a>),
    /// A part of it has an owner.
    Busy(ResourceInfo<'a>),
    /// It lies across a border of this one, and neither is inside the other.
    Across(ResourceInfo<'a>),
    /// No gap is large enough, aligned so, within the bounds.
    NoGap,
    /// The alignment is not a power of two.
    BadAlignment(u64),
    /// This is not exactly a requested range.
    NotThere(Span),
    /// There are ranges inside: they must be released first, or [`remove`](super::ResourceTree::remove) keeps them.
    HasChildren(ResourceInfo<'a>),
    /// The range of this name has been released.
    Stale,
    /// The tree's own range, which is never released.
    Root,
    /// No memory for a record.
    NoMemory,
}

impl fmt::Display for ResourceError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a range of no bytes"),
            Self::NoSpan => f.write_str("more bytes than there are addresses"),
            Self::Outside(span, of) => write!(f, "{span} is not inside {of}"),
            Self::Busy(info) => write!(f, "busy: {info}"),
            Self::Across(info) => write!(f, "across a border of {info}"),
            Self::NoGap => f.write_str("no gap is large enough"),
            Self::BadAlignment(align) => write!(f, "{align:#x} is no power of two"),
            Self::NotThere(span) => write!(f, "nobody has requested {span}"),
            Self::HasChildren(info) => write!(f, "there is something inside {info}"),
            Self::Stale => f.write_str("released before"),
            Self::Root => f.write_str("the root of the tree"),
            Self::NoMemory => f.write_str("no memory for a record"),
        }
    }
}

impl core::error::Error for ResourceError<'_> {}
