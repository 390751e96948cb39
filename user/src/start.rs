//! The first instructions of a program, its arguments, and its end.

use crate::call;
use core::ffi::CStr;
use core::panic::PanicInfo;

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".global _start",
    "_start: mov x0, sp",
    "mov x29, xzr",
    "mov x30, xzr",
    "bl {begin}",
    "brk #1",
    ".previous",
    begin = sym begin,
);

unsafe extern "Rust" {
    safe fn quarry_user_program(arguments: Arguments) -> i32;
}

/// The arguments of a program, its name first, as they lie on its first stack.
#[derive(Clone, Copy)]
pub struct Arguments {
    /// The vector of `count` pointers.
    first: *const *const u8,
    count: usize,
}

impl Arguments {
    /// One of them; `None` behind the last, and for one that is not UTF-8.
    pub fn get(&self, number: usize) -> Option<&'static str> {
        if number >= self.count {
            return None;
        }
        // SAFETY: the kernel has put `count` pointers there, for good.
        let text = unsafe { *self.first.add(number) };
        // SAFETY: each points to a string that ends with NUL, for good.
        unsafe { CStr::from_ptr(text) }.to_str().ok()
    }
}

extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel starts a program with the count at its stack pointer.
    let count = unsafe { *stack };
    let arguments = Arguments { first: stack.wrapping_add(1).cast(), count };
    call::exit_group(quarry_user_program(arguments))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::println!("{info}");
    call::exit_group(101)
}
