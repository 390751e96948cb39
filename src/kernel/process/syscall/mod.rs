//! System calls: Linux's numbers and errors for 64-bit Arm (include/uapi/asm-generic/unistd.h). The number is in x8, the
//! arguments in x0 to x5, the answer in x0: an error is its number, negated.
#![forbid(unsafe_code)]

mod call;
mod file;
mod memory;
mod process;

pub(super) use call::Flow;

use super::errno::Errno;
use super::spaces::Seen;
use super::table::Turn;
use call::{Answer, Call};

/// Makes the system call that the frame of `turn` asks for. In the thread's turn: this CPU sees the process's memory, and no lock is held.
pub(super) fn run(turn: &mut Turn, seen: &Seen) -> Flow {
    let Some(space) = seen.space() else { return Flow::Yield };
    let [x0, x1, x2, x3, x4, x5, _, _, number, ..] = turn.frame.x;
    let mut call = Call { turn, space, arguments: [x0, x1, x2, x3, x4, x5] };
    let result = match number {
        56 => file::openat(&mut call),
        57 => file::close(&mut call),
        63 => file::read(&mut call),
        64 => file::write(&call),
        93 => Ok(Answer::Flow(Flow::ExitThread(status(x0)))),
        94 => Ok(Answer::Flow(Flow::ExitProcess(status(x0)))),
        124 => Ok(Answer::Flow(Flow::Yield)),
        172 => Ok(Answer::Value(u64::from(call.turn.pid.0))),
        173 => process::getppid(&call),
        178 => Ok(Answer::Value(u64::from(call.turn.tid))),
        214 => memory::brk(&call),
        215 => memory::munmap(&call),
        216 => memory::mremap(&call),
        220 => process::clone(&mut call),
        222 => memory::mmap(&call),
        226 => memory::mprotect(&call),
        233 => memory::madvise(&call),
        260 => process::wait4(&mut call),
        _ => Err(Errno::NOSYS),
    };
    let (answer, flow) = match result {
        Ok(Answer::Value(value)) => (value, Flow::Continue),
        Ok(Answer::Flow(Flow::Yield)) => (0, Flow::Yield),
        // The thread's registers are not its own any more, or of no use.
        Ok(Answer::Flow(flow)) => return flow,
        Err(error) => (error.answer(), Flow::Continue),
    };
    if let Some(x0) = turn.frame.x.first_mut() {
        *x0 = answer;
    }
    flow
}

/// The status of an end: the lowest byte.
fn status(x0: u64) -> u8 {
    x0.to_le_bytes().first().copied().unwrap_or(0)
}
