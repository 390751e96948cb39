//! The chain of callers behind a fault or a panic, frames of one recursion folded.

use super::symbol::Symbol;
use crate::addr::VirtAddr;
use crate::arch::aarch64::backtrace::{Frame, Left};
use crate::arch::aarch64::trap;

/// A function that has not returned yet, or a recursion of it.
pub(super) struct Caller {
    /// Its number from the innermost on.
    pub(super) number: usize,
    /// Where it goes on.
    pub(super) frame: Frame,
    /// Number of equal frames above it.
    pub(super) more: usize,
}

/// The callers, innermost first. `interrupted` is where the innermost function was interrupted, if it was, and its link
/// register, which names its caller as long as it has no frame of its own.
pub(super) fn folded(interrupted: Option<(VirtAddr, VirtAddr)>, fp: VirtAddr) -> impl Iterator<Item = Caller> {
    let pc = interrupted.map(|(pc, _)| Frame { pc, left: Left::Exception });
    let caller = interrupted.filter(|(pc, _)| Symbol::of_instruction(*pc).is_entry());
    let caller = caller.map(|(_, link)| Frame { pc: link, left: Left::Call });
    let mut frames = pc.into_iter().chain(caller).chain(trap::backtrace(fp)).enumerate().peekable();
    core::iter::from_fn(move || {
        let (number, frame) = frames.next()?;
        let mut more = 0;
        while frames.next_if(|&(_, next)| next == frame).is_some() {
            more += 1;
        }
        Some(Caller { number, frame, more })
    })
}
