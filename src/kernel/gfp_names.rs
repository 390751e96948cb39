//! Allocation flags as people type them: `KERNEL`, `ATOMIC|ZERO`, with Linux's `GFP_` and `__GFP_` or without.
#![forbid(unsafe_code)]

use crate::gfp::{Gfp, GfpError};
use bitflags::Flags as _;
use core::fmt;

/// The text names no flags that an allocation can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GfpNameError<'t> {
    /// A word is no flag.
    Unknown(&'t str),
    /// The flags contradict each other.
    Refused(GfpError),
}

impl fmt::Display for GfpNameError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => {
                write!(f, "{word:?} is no allocation flag; flags are such as KERNEL, ATOMIC, KERNEL|ZERO")
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Every flag's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    Gfp::FLAGS.iter().map(bitflags::Flag::name)
}

/// Reads flags; an empty text is `KERNEL`.
///
/// # Errors
///
/// [`GfpNameError`].
pub fn parse(text: &str) -> Result<Gfp, GfpNameError<'_>> {
    if text.is_empty() {
        return Ok(Gfp::KERNEL);
    }
    let mut flags = Gfp::empty();
    for word in text.split('|').map(str::trim) {
        let name = word.trim_start_matches('_');
        let name = name
            .split_at_checked(4)
            .filter(|(prefix, _)| prefix.eq_ignore_ascii_case("GFP_"))
            .map_or(name, |(_, name)| name);
        let flag = Gfp::FLAGS.iter().find(|flag| flag.name().eq_ignore_ascii_case(name));
        flags |= *flag.filter(|_| !name.is_empty()).ok_or(GfpNameError::Unknown(word))?.value();
    }
    flags.check().map(|()| flags).map_err(GfpNameError::Refused)
}
