//! Threads of the process, on stacks of their own with a guard page below.

use crate::call::{self, Errno};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

const STACK: usize = 64 << 10;
const PAGE: usize = 4096;

// As the C libraries ask for a thread (include/uapi/linux/sched.h).
const VM: usize = 0x100;
const FS: usize = 0x200;
const FILES: usize = 0x400;
const SIGHAND: usize = 0x800;
const THREAD: usize = 0x1_0000;
const SYSVSEM: usize = 0x4_0000;
const PARENT_SETTID: usize = 0x10_0000;
const CHILD_CLEARTID: usize = 0x20_0000;

/// A thread that has been started.
pub struct Thread {
    stack: *mut u8,
}

/// Starts a thread that calls `body` with `argument`.
pub fn spawn(body: extern "C" fn(usize), argument: usize) -> Result<Thread, Errno> {
    let stack = call::mmap(STACK, call::READ | call::WRITE)?;
    // SAFETY: the mapping is ours, and new.
    unsafe { call::madvise(stack, PAGE, call::GUARD_INSTALL) }?;
    // The words at the top: its number, which the kernel clears at its end, then what it runs.
    // SAFETY: inside of the mapping.
    let top = unsafe { stack.add(STACK - 32) }.cast::<usize>();
    for (number, value) in [body as usize, argument, 0].into_iter().enumerate() {
        // SAFETY: four words are there.
        unsafe { top.add(number).write(value) };
    }
    let number_at = top.addr() + 16;
    let flags = VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | PARENT_SETTID | CHILD_CLEARTID;
    let result: isize;
    // SAFETY: the child runs on its own stack, and never leaves this block.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "ldp x9, x0, [sp]",
            "blr x9",
            "mov x8, #93",
            "mov x0, #0",
            "svc #0",
            "brk #2",
            "2:",
            in("x8") 220,
            inlateout("x0") flags => result,
            in("x1") top,
            in("x2") number_at,
            in("x3") 0,
            in("x4") number_at,
            out("x9") _,
        );
    }
    if result < 0 {
        // SAFETY: no thread uses it.
        let _ = unsafe { call::munmap(stack, STACK) };
        return Err(Errno(-result as i32));
    }
    Ok(Thread { stack })
}

impl Thread {
    /// Waits for its end, and gives its stack back.
    pub fn join(self) {
        // SAFETY: inside of the mapping, which lives until below.
        let number = unsafe { self.stack.add(STACK - 16) }.cast::<AtomicU32>();
        // SAFETY: a word that the kernel alone writes.
        while unsafe { &*number }.load(Ordering::Acquire) != 0 {
            call::sched_yield();
        }
        // SAFETY: the thread has left it: the kernel clears the number when it does not come back.
        let _ = unsafe { call::munmap(self.stack, STACK) };
    }
}
