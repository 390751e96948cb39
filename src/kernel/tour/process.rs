//! The stop of user space: a program runs to its end.
#![forbid(unsafe_code)]

use super::say::say;
use crate::gfp::Gfp;
use crate::global::{self, Error};
use crate::kernel::machine::Machine;
use crate::kernel::process;

/// The program, of those that the image brings along.
const PROGRAM: &str = "hello";

/// Free pages, with those that wait on the CPUs' lists and in slabs without objects.
fn free_pages() -> u64 {
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

pub(super) fn user(_: &Machine) -> Result<(), Error> {
    // The first space makes what stays for all others: the cache of areas, and the page of zeros.
    match global::new_address_space(global::user_layout(), process::default_limits(), Gfp::KERNEL) {
        Ok(first) => drop(first),
        Err(error) => {
            say!("user", "no address space: {error}");
            return Ok(());
        }
    }
    let before = free_pages();
    say!("user", "{PROGRAM} runs at EL0, in an address space of its own:");
    match process::execute(PROGRAM, &["the", "tour"], process::default_limits()) {
        Ok(ended) => {
            say!("", "{PROGRAM}: {ended}; free pages: {before} before, {} after", free_pages());
        }
        Err(error) => say!("", "{PROGRAM}: {error}"),
    }
    Ok(())
}
