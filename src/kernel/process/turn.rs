//! A thread's turn on a CPU: it runs at EL0 until it sleeps, ends, or an interrupt takes the CPU from it.
#![forbid(unsafe_code)]

use super::spaces::{self, Seen};
use super::syscall::{self, Flow};
use super::table::{Place, Turn};
use super::{Ended, Signal, death, processes, wake_somebody};
use crate::addr::UserAddr;
use crate::arch::aarch64::esr::FaultStatus;
use crate::arch::aarch64::user_exit::UserExit;
use crate::gfp::Gfp;
use crate::global::{self, UserFault};
use crate::mm::user::SpaceFault;
use crate::mm::user::access::UserPtr;

/// How a turn is over.
enum Over {
    /// The thread may run again at once.
    Ready,
    /// It sleeps, as the table knows.
    Asleep,
    /// It has ended so.
    Thread(Ended),
}

/// Gives the thread its turn. A CPU with interrupts unmasked, no lock held, that sees no process's memory.
pub(super) fn run(mut turn: Turn) {
    let over = match Seen::new(turn.place) {
        Some(seen) => run_seen(&mut turn, &seen),
        None => {
            condemn(turn.place, Ended::Killed(Signal::Kill));
            Over::Thread(Ended::Killed(Signal::Kill))
        }
    };
    match over {
        Over::Ready => processes().make_ready(turn.thread, &turn.frame, turn.clear),
        Over::Asleep => {}
        Over::Thread(ended) => {
            let last = processes().end_thread(turn.thread, ended);
            if let Some(place) = last {
                end(place);
            }
        }
    }
}

/// Gives back what a process without threads has, and tells its parent.
pub(super) fn end(place: Place) {
    drop(spaces::exchange(place, None));
    processes().finish(place);
    wake_somebody();
}

/// Decides how a process ends.
fn condemn(place: Place, ended: Ended) {
    processes().condemn(place, ended);
}

fn is_dying(place: Place) -> bool {
    processes().at(place).is_none_or(|process| process.dying.is_some())
}

fn run_seen(turn: &mut Turn, seen: &Seen) -> Over {
    loop {
        if is_dying(turn.place) {
            return Over::Thread(Ended::Killed(Signal::Kill));
        }
        let Some(space) = seen.space() else {
            condemn(turn.place, Ended::Killed(Signal::Kill));
            continue;
        };
        let exit = global::run_user(space, &mut turn.frame);
        let mut why = None;
        let signal = match exit {
            UserExit::Syscall(0) => match syscall::run(turn, seen) {
                Flow::Continue => continue,
                Flow::Yield => return Over::Ready,
                Flow::Asleep => return Over::Asleep,
                Flow::ExitThread(status) => {
                    clear_number(turn);
                    return Over::Thread(Ended::Exited(status));
                }
                Flow::ExitProcess(status) => {
                    condemn(turn.place, Ended::Exited(status));
                    continue;
                }
            },
            UserExit::Interrupt => return Over::Ready,
            UserExit::Abort(esr, far) => match UserFault::new(esr, far) {
                Some(fault) => match resolve(seen, &fault) {
                    Ok(()) => continue,
                    Err(error) => {
                        why = Some(error);
                        signal_of(error)
                    }
                },
                None => match esr.abort().map(|abort| abort.status) {
                    Some(FaultStatus::Translation(_) | FaultStatus::Permission(_) | FaultStatus::AddressSize(_)) => {
                        Signal::Segv
                    }
                    _ => Signal::Bus,
                },
            },
            UserExit::Misaligned(..) => Signal::Bus,
            UserExit::Breakpoint(_) => Signal::Trap,
            // Another immediate than Linux's is no system call either.
            UserExit::Syscall(_) | UserExit::Undefined | UserExit::FpTrapped | UserExit::Other(..) => Signal::Ill,
        };
        let first = processes().condemn(turn.place, Ended::Killed(signal));
        // The killer of a space has told why.
        if first && why != Some(SpaceFault::Killed) {
            death::report(turn, seen, (exit, why), signal);
        }
    }
}

const fn signal_of(fault: SpaceFault) -> Signal {
    match fault {
        SpaceFault::NothingThere(_) => Signal::Bus,
        SpaceFault::OutOfMemory | SpaceFault::Killed | SpaceFault::Busy => Signal::Kill,
        SpaceFault::NotMapped(_) | SpaceFault::Denied(_) | SpaceFault::Guard(_) => Signal::Segv,
    }
}

fn resolve(seen: &Seen, fault: &UserFault) -> Result<(), SpaceFault> {
    let space = seen.space().ok_or(SpaceFault::Killed)?;
    global::resolve_user_fault(space, fault, Gfp::USER).map(|_| ())
}

/// Tells other threads of the process that this one ends.
fn clear_number(turn: &Turn) {
    if turn.clear != UserAddr::new(0) {
        // A bad address is the thread's own fault.
        let _ = global::put_user(UserPtr::<u32>::new(turn.clear), 0);
    }
}
