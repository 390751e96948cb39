//! Processes of the reference kernel: programs from ELF files that run at EL0, on all CPUs, with Linux's system calls.
//!
//! | file | what it holds |
//! |---|---|
//! | `elf.rs` | which memory a program's file asks for |

pub mod elf;
