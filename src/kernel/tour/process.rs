//! The stop of user space: a program runs to its end.
#![forbid(unsafe_code)]

use super::say::say;
use crate::global::{self, Error};
use crate::kernel::machine::Machine;
use crate::kernel::process;

/// The program, of those that the image brings along.
const PROGRAM: &str = "hello";

pub(super) fn user(_: &Machine) -> Result<(), Error> {
    let before = global::nr_free_pages();
    say!("user", "{PROGRAM} runs at EL0, in an address space of its own:");
    match process::execute(PROGRAM, &["the", "tour"], process::default_limits()) {
        Ok(ended) => {
            let pages = before.abs_diff(global::nr_free_pages());
            say!("", "{PROGRAM}: {ended}; free pages before and after differ by {pages}");
        }
        Err(error) => say!("", "{PROGRAM}: {error}"),
    }
    Ok(())
}
