//! The runtime of the programs that the reference kernel runs at EL0: entry, system calls, output, heap, threads,
//! children.
//!
//! The kernel speaks Linux's numbers and errors for 64-bit Arm, so that nothing here knows of Quarry.
#![no_std]

pub mod call;
pub mod children;
pub mod heap;
pub mod print;
mod start;
pub mod thread;

pub use call::Errno;
pub use start::Arguments;

/// Names the program's main function: `fn(Arguments) -> i32`, whose result is the exit status.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn quarry_user_program(arguments: $crate::Arguments) -> i32 {
            let main: fn($crate::Arguments) -> i32 = $main;
            main(arguments)
        }
    };
}
