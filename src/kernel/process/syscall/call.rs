//! A system call on its way: the thread that makes it, and what becomes of both.
#![forbid(unsafe_code)]

use crate::global::AddressSpace;
use crate::kernel::process::errno::Errno;
use crate::kernel::process::table::Turn;

/// The fate of the thread after its call.
pub(in crate::kernel::process) enum Flow {
    /// It goes on.
    Continue,
    /// Others come first.
    Yield,
    /// It sleeps, and the table knows it; it makes the call again.
    Asleep,
    /// It ends, with this status.
    ExitThread(u8),
    /// Its process ends.
    ExitProcess(u8),
}

/// A call: the thread that makes it, and its memory.
pub(super) struct Call<'c> {
    pub(super) turn: &'c mut Turn,
    pub(super) space: &'c AddressSpace,
    pub(super) arguments: [u64; 6],
}

/// The answer of a call, or what else becomes of the thread.
pub(super) enum Answer {
    Value(u64),
    Flow(Flow),
}

pub(super) type Result = core::result::Result<Answer, Errno>;
