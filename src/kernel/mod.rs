//! L6: the reference kernel: order of boot, log, panic, tests, prompt.

mod init;

pub mod console;
pub mod log;
pub mod log_level;
pub mod power;
