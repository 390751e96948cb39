//! Processes of the reference kernel: programs from ELF files that run at EL0, on all CPUs, with Linux's system calls.
//!
//! A process is an address space ([`AddressSpace`]), threads, and a place in a table of fixed
//! length. A thread has no stack in the kernel: [`run_user`](crate::global::run_user) returns with
//! its registers, and whatever it waits for, it makes its system call again afterwards.
//!
//! | file | what it holds |
//! |---|---|
//! | `elf.rs` | which memory a program's file asks for |
//! | `load.rs` | segments and the first stack, put into an empty space |
//! | `programs.rs` | the programs that the image brings along |
//! | `start.rs` | a process from a program |
//! | `table.rs` | who there is, whose child, who waits |
//! | `spaces.rs` | the memory of each process, and which CPU sees it |
//! | `shared.rs` | memory that processes share |
//! | `turn.rs` | a thread's turn on a CPU: system calls, faults, its end |
//! | `wake.rs` | the CPUs that sleep for lack of threads |
//! | `schedule.rs` | all CPUs give threads their turns |
//! | `syscall/` | Linux's numbers and errors |
//! | `death.rs` | why a process was killed |
//! | `show.rs` | processes and their areas as text |
//! | `commands.rs` | the prompt's commands |

pub mod elf;

#[cfg(target_os = "none")]
mod commands;
#[cfg(target_os = "none")]
mod death;
#[cfg(target_os = "none")]
mod ended;
#[cfg(target_os = "none")]
mod errno;
#[cfg(target_os = "none")]
mod load;
#[cfg(target_os = "none")]
mod programs;
#[cfg(target_os = "none")]
mod schedule;
#[cfg(target_os = "none")]
mod shared;
#[cfg(target_os = "none")]
mod show;
#[cfg(target_os = "none")]
mod spaces;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod syscall;
#[cfg(target_os = "none")]
mod table;
#[cfg(target_os = "none")]
mod turn;
#[cfg(target_os = "none")]
mod wake;

#[cfg(target_os = "none")]
pub use {
    ended::{Ended, Signal},
    load::{MAX_ARGUMENT_BYTES, MAX_ARGUMENTS},
    programs::{Program, programs},
    schedule::run,
    shared::shared_objects,
    start::{StartError, default_limits, execute, kill, reap, start},
    table::{MAX_PROCESSES, MAX_THREADS, Name, Pid},
};

#[cfg(target_os = "none")]
pub(super) use {
    commands::{exec, kill_command, maps},
    schedule::run_here,
    show::{each_space_size, ps},
    spaces::{init, process_of},
};

#[cfg(target_os = "none")]
use crate::ds::rbtree::Broken;
#[cfg(target_os = "none")]
use crate::global::AddressSpace;
#[cfg(target_os = "none")]
use {table::processes, wake::wake_somebody};

/// Calls `f` with the space of the process that this CPU runs, if it runs one.
#[cfg(target_os = "none")]
pub(super) fn with_current_space(f: &mut dyn FnMut(&AddressSpace)) {
    let _ = spaces::with_current(|space| f(space));
}

/// Tests the invariants of the table, and those of every space that nobody uses at the moment: on one CPU, while no process
/// runs. No lock held.
///
/// # Errors
///
/// The first that does not hold.
#[cfg(target_os = "none")]
pub fn check() -> Result<(), Broken> {
    processes().check()?;
    for place in (0..MAX_PROCESSES).map(table::Place) {
        let checked = spaces::with(place, |space| space.check());
        checked.unwrap_or(Ok(()))?;
        let is_empty = processes().all().all(|(other, _)| other != place);
        if is_empty && spaces::with(place, |_| ()).is_some() {
            return Err(Broken { tag: "PROC-2", what: "the memory of a process that is gone" });
        }
    }
    Ok(())
}
