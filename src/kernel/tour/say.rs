//! A line of a stop.

/// Prints a line with the name of the stop, or with none, in front.
macro_rules! say {
    ($stop:literal, $($arg:tt)*) => { $crate::kprintln!("{:<9}{}", $stop, core::format_args!($($arg)*)) };
}
pub(super) use say;
