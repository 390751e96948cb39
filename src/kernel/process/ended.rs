//! How a process ends: by itself, or by a signal of Linux's.
#![forbid(unsafe_code)]

use core::fmt;

/// A signal that ends a process (Linux: `include/uapi/asm-generic/signal.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Signal {
    /// An instruction that does not exist, or that EL0 may not use.
    Ill = 4,
    /// A breakpoint.
    Trap = 5,
    /// A misaligned access, or memory with nothing behind it.
    Bus = 7,
    /// From outside, or for lack of memory.
    Kill = 9,
    /// An access that nothing permits.
    Segv = 11,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ill => "SIGILL",
            Self::Trap => "SIGTRAP",
            Self::Bus => "SIGBUS",
            Self::Kill => "SIGKILL",
            Self::Segv => "SIGSEGV",
        })
    }
}

/// The end of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It called `exit` with this status.
    Exited(u8),
    /// It was killed.
    Killed(Signal),
}

impl Ended {
    /// The word that `wait` stores.
    pub(super) const fn status(self) -> u32 {
        match self {
            Self::Exited(status) => (status as u32) << 8,
            Self::Killed(signal) => signal as u32,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "killed by {signal}"),
        }
    }
}
