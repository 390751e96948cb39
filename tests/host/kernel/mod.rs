//! The parts of the reference kernel that need no machine.

mod address;
mod elf;
mod gfp_names;
mod gicv3;
mod json;
mod kallsyms;
mod line;
mod log_level;
mod patience;
mod picture;
mod ring;
mod waker;
