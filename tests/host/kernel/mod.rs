//! The parts of the reference kernel that need no machine.

mod kallsyms;
mod log_level;
mod waker;
