//! L6: the reference kernel: order of boot, log, panic, tests, prompt. The parts that need no machine are built on the host
//! too.

pub mod account;
pub mod address;
pub mod bootargs;
pub mod gfp_names;
pub mod json;
pub mod kallsyms;
pub mod line;
pub mod log_level;
pub mod owner_map;
pub mod picture;
pub mod process;
pub mod ring;

#[cfg(target_os = "none")]
mod callers;
#[cfg(target_os = "none")]
mod cause;
#[cfg(target_os = "none")]
mod command;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod cpus;
#[cfg(target_os = "none")]
mod describers;
#[cfg(target_os = "none")]
mod dma;
#[cfg(target_os = "none")]
pub mod dma_benchmark;
#[cfg(target_os = "none")]
mod errata;
#[cfg(target_os = "none")]
mod exceptions;
#[cfg(target_os = "none")]
mod fault_injection;
#[cfg(target_os = "none")]
pub mod heap;
#[cfg(target_os = "none")]
pub mod init;
#[cfg(target_os = "none")]
mod input;
#[cfg(target_os = "none")]
pub mod interrupts;
#[cfg(target_os = "none")]
mod io;
#[cfg(target_os = "none")]
mod iomem;
#[cfg(target_os = "none")]
pub mod ktest;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
pub mod machine_account;
#[cfg(target_os = "none")]
mod map;
#[cfg(target_os = "none")]
mod pages;
#[cfg(target_os = "none")]
pub mod panic;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
mod pressure;
#[cfg(target_os = "none")]
pub mod prompt;
#[cfg(target_os = "none")]
mod provoke;
#[cfg(target_os = "none")]
mod record;
#[cfg(target_os = "none")]
mod reference;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
mod report_json;
#[cfg(target_os = "none")]
mod reserved;
#[cfg(target_os = "none")]
mod resume;
#[cfg(target_os = "none")]
mod screen;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
mod slabs;
#[cfg(target_os = "none")]
pub mod smp_call;
#[cfg(target_os = "none")]
mod symbol;
#[cfg(target_os = "none")]
pub mod tags;
#[cfg(target_os = "none")]
pub mod tick;
#[cfg(target_os = "none")]
mod top;
#[cfg(target_os = "none")]
mod tour;
#[cfg(target_os = "none")]
mod vmalloc;
#[cfg(target_os = "none")]
pub mod whereabouts;
#[cfg(target_os = "none")]
mod workarounds;
#[cfg(target_os = "none")]
mod wx_check;
