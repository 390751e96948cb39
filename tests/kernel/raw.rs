//! The macro by which a test makes a raw call.

/// A raw call of a test: on what it owns itself, or with a name that the call has to refuse.
macro_rules! raw {
    ($call:expr) => {{
        // SAFETY: what is named is the caller's own and not used afterwards, or nobody's, and refused.
        unsafe { $call }
    }};
}
