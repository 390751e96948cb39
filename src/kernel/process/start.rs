//! A process from a program of the image.
#![forbid(unsafe_code)]

use super::elf::{ElfError, Image};
use super::spaces::{self, Seen};
use super::table::{Name, Pid};
use super::{Ended, Signal, load, processes, programs, schedule, wake_somebody};
use crate::addr::UserAddr;
use crate::arch::aarch64::user::UserFrame;
use crate::gfp::Gfp;
use crate::global;
use crate::mm::user::map::{Limits, MapError};
use core::fmt;

/// Reason why a program could not be started. Nothing is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The image has no program of that name.
    NoProgram,
    /// Its file is not one that can be loaded.
    Elf(ElfError),
    /// There are as many processes or threads as there can be.
    TooMany,
    /// Its memory could not be mapped.
    Map(MapError),
    /// The call sleeps, and its caller may not, which has been reported.
    Atomic,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("there is no such program"),
            Self::Elf(error) => error.fmt(f),
            Self::TooMany => f.write_str("there are as many processes as there can be"),
            Self::Map(error) => error.fmt(f),
            Self::Atomic => f.write_str("starting a process sleeps, and sleeping is not allowed here"),
        }
    }
}

impl core::error::Error for StartError {}

/// The limits of a process that nobody has given others: a quarter of RAM for its data, else Linux's.
#[must_use]
pub fn default_limits() -> Limits {
    Limits { data: global::totalram_pages() / 4, ..Limits::DEFAULT }
}

/// Makes a process of the program `name`, with these arguments behind its name, as a child of `parent`:
/// [`Pid::KERNEL`], which waits for it by [`reap`], or [`Pid::NOBODY`]. It runs when CPUs give turns ([`run`](super::run)). Only
/// where sleeping is allowed.
///
/// # Errors
///
/// [`StartError`].
pub fn start(name: &str, arguments: &[&str], parent: Pid, limits: Limits) -> Result<Pid, StartError> {
    global::might_sleep("process::start").map_err(|_| StartError::Atomic)?;
    let program = programs::find(name).ok_or(StartError::NoProgram)?;
    start_file(program.file, name, arguments, parent, limits)
}

/// [`start`] of an ELF file.
fn start_file(file: &[u8], name: &str, arguments: &[&str], parent: Pid, limits: Limits) -> Result<Pid, StartError> {
    let layout = global::user_layout();
    let image = Image::new(file, load::room(&layout)).map_err(StartError::Elf)?;
    let mut all = [""; load::MAX_ARGUMENTS];
    let mut places = all.iter_mut();
    for text in core::iter::once(&name).chain(arguments) {
        *places.next().ok_or(StartError::Map(MapError::TooLarge(arguments.len() as u64)))? = text;
    }
    let count = 1 + arguments.len();
    let space = global::new_address_space(layout, limits, Gfp::KERNEL).map_err(StartError::Map)?;
    let (place, pid, thread) = processes().reserve(parent, Name::new(name)).map_err(|_| StartError::TooMany)?;
    drop(spaces::exchange(place, Some(space)));
    let loaded = match Seen::new(place) {
        Some(seen) => load::segments(&seen, &image).and_then(|()| {
            let space = seen.space().ok_or(MapError::NoMemory)?;
            load::stack(space, &layout, all.get(..count).unwrap_or_default())
        }),
        None => Err(MapError::NoMemory),
    };
    match loaded {
        Ok(stack) => {
            processes().make_ready(thread, &UserFrame::new(image.entry(), stack), UserAddr::new(0));
            wake_somebody();
            Ok(pid)
        }
        Err(error) => {
            drop(spaces::exchange(place, None));
            processes().cancel(place, thread);
            Err(StartError::Map(error))
        }
    }
}

/// Takes the end of a process that the kernel has started as its own child; `None` if it has not ended.
pub fn reap(pid: Pid) -> Option<Ended> {
    processes().reap(Pid::KERNEL, Some(pid)).ok().flatten().map(|(_, ended)| ended)
}

/// Kills a process: its threads end at their next return to the kernel. Whether there was one that was alive. Any context
/// but interrupt handlers.
pub fn kill(pid: Pid) -> bool {
    let mut table = processes();
    let place = table.find(pid);
    let killed = place.is_some_and(|place| table.condemn(place, Ended::Killed(Signal::Kill)));
    drop(table);
    wake_somebody();
    killed
}

/// Starts a program and runs all processes until the last one has ended: how this one did. Only where sleeping is allowed.
///
/// # Errors
///
/// [`StartError`].
pub fn execute(name: &str, arguments: &[&str], limits: Limits) -> Result<Ended, StartError> {
    let pid = start(name, arguments, Pid::KERNEL, limits)?;
    schedule::run(&|| false);
    // No process is alive any more.
    Ok(reap(pid).unwrap_or(Ended::Killed(Signal::Kill)))
}
