//! The paragraph that tells why a process was killed.
#![forbid(unsafe_code)]

use super::Signal;
use super::spaces::Seen;
use super::table::Turn;
use super::{Name, processes};
use crate::addr::UserAddr;
use crate::arch::aarch64::esr::Access;
use crate::arch::aarch64::user_exit::UserExit;
use crate::hal::user::USER_END;
use crate::kprintln;
use crate::mm::user::SpaceFault;
use core::fmt;

/// The deed of the process.
struct Deed(UserExit);

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            UserExit::Abort(esr, far) => {
                let deed = match esr.abort().map(|abort| abort.access) {
                    Some(Access::Read) => "read",
                    Some(Access::Write) => "wrote to",
                    Some(Access::Execute) => "jumped to",
                    _ => "maintained the caches of",
                };
                write!(f, "it {deed} {:#x}", far.get())?;
                if far.get() >= USER_END.get() { f.write_str(", which is no address of a process") } else { Ok(()) }
            }
            UserExit::FpTrapped => {
                f.write_str("it used a register of floating point, which this kernel gives to nobody")
            }
            UserExit::Undefined => f.write_str("it executed an undefined instruction"),
            UserExit::Breakpoint(number) => write!(f, "it executed a breakpoint, number {number:#x}"),
            UserExit::Misaligned(..) => f.write_str("its program counter or stack pointer is not aligned"),
            UserExit::Syscall(number) => write!(f, "it executed SVC with the number {number:#x}"),
            exit => write!(f, "it did something that EL0 may not do: {exit}"),
        }
    }
}

/// The area at an address.
struct Around<'s>(&'s Seen, UserAddr);

impl fmt::Display for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(space) = self.0.space() else { return f.write_str("nothing") };
        let mut result = Ok(());
        let shown = space.with_map(|map| match map.area_at(self.1) {
            Some(area) => result = write!(f, "in {}", map.maps_line(area, space.hal())),
            None => result = f.write_str("nothing is mapped there"),
        });
        shown.map_or(Ok(()), |()| result)
    }
}

/// Tells on the console why the process of `turn` is killed: how it came back from EL0, and why its space refused the access
/// if there was one. In the turn of its thread, no lock held.
pub(super) fn report(turn: &Turn, seen: &Seen, (exit, why): (UserExit, Option<SpaceFault>), signal: Signal) {
    let name = processes().at(turn.place).map_or_else(|| Name::new("?"), |process| process.name);
    let frame = &turn.frame;
    let [.., lr] = frame.x;
    kprintln!(
        "process {} ({name}), thread {}, is killed by {signal}: {}\n  pc {:#x}, lr {lr:#x}, sp {:#x}; pc {}",
        turn.pid,
        turn.tid,
        Deed(exit),
        frame.pc.get(),
        frame.sp.get(),
        Around(seen, frame.pc)
    );
    match why {
        Some(why @ (SpaceFault::Denied(at) | SpaceFault::Guard(at) | SpaceFault::NothingThere(at))) => {
            kprintln!("  {why}, {}", Around(seen, at));
        }
        Some(why) => kprintln!("  {why}"),
        None => {}
    }
}
