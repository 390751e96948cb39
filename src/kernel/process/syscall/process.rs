//! Calls that make processes and threads, and wait for them.
#![forbid(unsafe_code)]

use super::call::{Answer, Call, Flow, Result};
use crate::addr::UserAddr;
use crate::arch::aarch64::user::UserFrame;
use crate::global;
use crate::kernel::process::errno::Errno;
use crate::kernel::process::table::{Pid, Waited};
use crate::kernel::process::{processes, spaces, wake_somebody};
use crate::mm::user::access::UserPtr;

// include/uapi/linux/sched.h.
const VM: u64 = 0x100;
const FS: u64 = 0x200;
const FILES: u64 = 0x400;
const SIGHAND: u64 = 0x800;
const THREAD: u64 = 0x1_0000;
const SYSVSEM: u64 = 0x4_0000;
const SETTLS: u64 = 0x8_0000;
const PARENT_SETTID: u64 = 0x10_0000;
const CHILD_CLEARTID: u64 = 0x20_0000;
const CHILD_SETTID: u64 = 0x100_0000;
/// The signal that a child sends at its end.
const SIGNAL: u64 = 0xff;
const SIGCHLD: u64 = 17;

/// `clone(flags, stack, parent_tid, tls, child_tid)`, in the order of arm64: a child, or a thread of the process, as the C
/// libraries ask for them. All else is refused.
pub(super) fn clone(call: &mut Call<'_>) -> Result {
    let [flags, ..] = call.arguments;
    const SHARES_ALL: u64 = VM | FS | FILES | SIGHAND | THREAD;
    let optional = SETTLS | PARENT_SETTID | CHILD_CLEARTID | CHILD_SETTID;
    if flags & SHARES_ALL == SHARES_ALL && flags & !(SHARES_ALL | SYSVSEM | optional) == 0 {
        thread(call, flags)
    } else if flags & SIGNAL == SIGCHLD && flags & !(SIGNAL | optional) == 0 {
        fork(call, flags)
    } else {
        Err(Errno::INVAL)
    }
}

/// The frame with which the child begins.
fn first_frame(call: &Call<'_>, flags: u64) -> UserFrame {
    let [_, stack, _, tls, ..] = call.arguments;
    let mut frame = call.turn.frame.clone();
    if let Some(x0) = frame.x.first_mut() {
        *x0 = 0;
    }
    if stack != 0 {
        frame.sp = UserAddr::new(stack);
    }
    if flags & SETTLS != 0 {
        frame.tls = tls;
    }
    frame
}

fn clear_place(call: &Call<'_>, flags: u64) -> UserAddr {
    let [.., child_tid, _] = call.arguments;
    UserAddr::new(if flags & CHILD_CLEARTID != 0 { child_tid } else { 0 })
}

/// A child with the memory that the process has now.
fn fork(call: &mut Call<'_>, flags: u64) -> Result {
    let [_, _, parent_tid, ..] = call.arguments;
    let parent = call.turn.pid;
    let (place, pid, thread) = {
        let mut table = processes();
        let process = table.at(call.turn.place).ok_or(Errno::AGAIN)?;
        let (name, files) = (process.name, process.files);
        let reserved = table.reserve(parent, name)?;
        if let Some(child) = table.at(reserved.0) {
            child.files = files;
        }
        reserved
    };
    match call.space.fork() {
        Ok(space) => drop(spaces::exchange(place, Some(space))),
        Err(error) => {
            processes().cancel(place, thread);
            return Err(error.into());
        }
    }
    if flags & PARENT_SETTID != 0 {
        let _ = global::put_user(UserPtr::<u32>::new(UserAddr::new(parent_tid)), pid.0);
    }
    let (frame, clear) = (first_frame(call, flags), clear_place(call, flags));
    processes().make_ready(thread, &frame, clear);
    wake_somebody();
    Ok(Answer::Value(u64::from(pid.0)))
}

/// Another thread of the process.
fn thread(call: &mut Call<'_>, flags: u64) -> Result {
    let [_, stack, parent_tid, _, child_tid, _] = call.arguments;
    if stack == 0 {
        return Err(Errno::INVAL);
    }
    let (tid, thread) = processes().reserve_thread(call.turn.place)?;
    // Both before it runs.
    for (flag, at) in [(PARENT_SETTID, parent_tid), (CHILD_SETTID, child_tid)] {
        if flags & flag != 0 {
            let _ = global::put_user(UserPtr::<u32>::new(UserAddr::new(at)), tid);
        }
    }
    let (frame, clear) = (first_frame(call, flags), clear_place(call, flags));
    processes().make_ready(thread, &frame, clear);
    wake_somebody();
    Ok(Answer::Value(u64::from(tid)))
}

/// `getppid()`.
pub(super) fn getppid(call: &Call<'_>) -> Result {
    let parent = processes().at(call.turn.place).map_or(Pid::NOBODY, |process| process.parent);
    Ok(Answer::Value(if parent == Pid::KERNEL { 0 } else { u64::from(parent.0) }))
}

/// `wait4(pid, status, options, rusage)`, with `WNOHANG`; the usage is not counted.
pub(super) fn wait4(call: &mut Call<'_>) -> Result {
    const WNOHANG: u64 = 1;
    let [pid, status, options, usage, ..] = call.arguments;
    if options & !WNOHANG != 0 || usage != 0 {
        return Err(Errno::INVAL);
    }
    // The lower half of the register: the number is an `int`. Groups of processes do not exist.
    let wanted = match pid & u64::from(u32::MAX) {
        0 | 0xffff_ffff => None,
        pid => Some(Pid(u32::try_from(pid).map_err(|_| Errno::CHILD)?)),
    };
    let mut again = call.turn.frame.clone();
    // Of the instruction that made this call.
    again.pc = again.pc.checked_sub(4).ok_or(Errno::INVAL)?;
    let waited = processes().wait(call.turn, wanted, options & WNOHANG == 0, &again)?;
    match waited {
        Waited::Child(pid, ended) => {
            if status != 0 {
                global::put_user(UserPtr::<u32>::new(UserAddr::new(status)), ended.status())?;
            }
            Ok(Answer::Value(u64::from(pid.0)))
        }
        Waited::NotYet => Ok(Answer::Value(0)),
        Waited::Asleep => Ok(Answer::Flow(Flow::Asleep)),
    }
}
