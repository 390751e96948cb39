//! Exceptions: the syndrome in words, and the walk over frame records.

mod backtrace;
mod esr;
mod exclusive;
mod translation;
mod user_exit;
