//! The two calls that the exception vectors of every kernel on this crate make.
//!
//! A fault at EL1 is either expected, and [`repair`] says how the code goes on, or it ends the kernel. The questions, in this order:
//!
//! | step | function | lock | interrupts | if it is | if it is not |
//! |---|---|---|---|---|---|
//! | 1. is the address mapped by now? | `spurious::is_spurious` | none | masked | the access is made again | 2 |
//! | 2. an access to user memory? | `uaccess::repair` | those of the fault's handler, where sleeping is allowed | as the code had them | made again, or the copy ends there | 3 |
//! | 3. a load that may fault? | `probe::fix_up` | none | masked | it answers that nothing is there | 4 |
//! | 4. a load of a restartable fast path? | `rseq::fix_up` | none | masked | the slow path goes on | 5 |
//! | 5. a descriptor of no page? | `probe::read_zero` | none | masked | it reads zero, as a page that starts no block | the report |
#![forbid(unsafe_code)]

use super::uaccess;
use crate::addr::VirtAddr;
use crate::arch::aarch64::exception::Exception;
use crate::arch::aarch64::{probe, rseq, spurious};
use crate::mm::layout;

/// Repairs a synchronous exception that was taken at EL1, if it is one that this crate expects: a load that may fault, a
/// page descriptor that does not exist, a translation that exists by now, or an access to user memory. Whether it was; the kernel returns to `elr`
/// then, by way of [`resume_at`]. Call it before anything is reported. Any context; takes no lock of its own: an
/// access to user memory calls the kernel's handler ([`set_user_fault_handler`](super::set_user_fault_handler)).
#[must_use]
pub fn repair(exception: &mut Exception<'_>) -> bool {
    // This comes first: a probe of an address that is mapped by now must find it.
    spurious::is_spurious(exception)
        || uaccess::repair(exception)
        || probe::fix_up(exception)
        || rseq::fix_up(exception)
        || probe::read_zero(exception, layout::descriptors())
}

/// Return address of an exception taken at EL1, to be used in place of `elr`: the same address, or the start of a restartable
/// sequence that was interrupted. Call it before **every** return to EL1, from interrupts too, and whenever a thread that was
/// interrupted there continues. Any context; takes no lock. Cost: a binary search.
#[must_use]
#[inline]
pub fn resume_at(elr: VirtAddr) -> VirtAddr {
    rseq::resumption(elr).unwrap_or(elr)
}
