//! L6: the reference kernel: order of boot, log, panic, tests, prompt. What needs no machine is built on the host too.

pub mod kallsyms;
pub mod log_level;

#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
mod init;
#[cfg(target_os = "none")]
pub mod ktest;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod panic;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
mod symbol;
