//! The finding of a check: a rule, and the invariant that demands it.
#![forbid(unsafe_code)]

use core::fmt;

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Its tag.
    pub tag: &'static str,
    /// The rule that is broken.
    pub what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tag, self.what)
    }
}

impl core::error::Error for Broken {}
