//! All that this kernel does for the memory of its processes: its machine, the hook that kills, and the loop over a process.

use crate::{say, sched};
use quarry::addr::UserAddr;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::user::UserFrame;
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::hal::wait::WaitQueue;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{Limits, MapError, MmapRequest, Place, VmFlags};
use quarry::mm::zone::{OomHook, OomReport, Relief};
use quarry::prelude::*;
use quarry::{AddressSpace, Machine, UserFault, resolve_user_fault};

struct Kernel;

quarry::machine!(Kernel);

// SAFETY: one CPU; the boot stub's final tables map all RAM at the usual offset.
unsafe impl Machine for Kernel {
    fn with_current_space(&self, f: &mut dyn FnMut(&AddressSpace)) {
        if let Some(process) = sched::current_process() {
            f(&process.space);
        }
    }

    fn block(&self, queue: &WaitQueue, seen: u32) -> bool {
        sched::block(queue, seen)
    }

    fn wake(&self, queue: &WaitQueue) {
        sched::wake(queue);
    }
}

/// Kills the largest process.
struct Kill;

impl OomHook for Kill {
    fn out_of_memory(&self, _: &OomReport<'_>) -> Relief {
        let alive = sched::processes().filter(|process| !process.space.is_killed());
        let Some(largest) = alive.max_by_key(|process| process.space.usage().total()) else { return Relief::GiveUp };
        say!("out of memory: a process with {} KiB is killed", largest.space.usage().total() >> 10);
        if largest.space.kill() { Relief::Retry } else { Relief::GiveUp }
    }
}

/// On the boot CPU, once.
pub fn start() {
    quarry::forbid_waiting_in_atomic(true);
    irq::local_irq_enable();
    let hooks = quarry::reclaim().oom_hooks();
    // Registered for good.
    let _ = hooks.register(quarry::context(), &Kill).unwrap_or_else(|error| panic!("{error}"));
}

/// A process of this kernel: an address space, and what it likes beside that.
pub struct Process {
    pub space: AddressSpace,
}

/// The end of a process.
#[derive(Debug)]
pub enum End {
    Exited(u64),
    Fault(SpaceFault),
}

/// Where programs and stacks are.
const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x7fff_0000_0000;

impl Process {
    pub fn new() -> Self {
        let space = quarry::new_address_space(quarry::user_layout(), Limits::DEFAULT, Gfp::KERNEL);
        Self { space: space.unwrap_or_else(|error| panic!("{error}")) }
    }

    fn load(&self, program: &[u8]) -> Result<(), MapError> {
        let (code, access) = (UserAddr::new(CODE), VmFlags::READ | VmFlags::WRITE);
        self.space.mmap(&MmapRequest::anonymous(PAGE_SIZE, access).at(Place::FixedNoReplace(code)))?;
        // This CPU sees the space, and the pages come as they are written to.
        quarry::copy_to_user(code, program).map_err(|_| MapError::NoMemory)?;
        self.space.mprotect(code, PAGE_SIZE, VmFlags::READ | VmFlags::EXEC)?;
        let stack = MmapRequest { flags: access | VmFlags::GROWSDOWN, ..MmapRequest::anonymous(PAGE_SIZE, access) };
        self.space.mmap(&stack.at(Place::FixedNoReplace(UserAddr::new(STACK - PAGE_SIZE)))).map(drop)
    }

    /// Runs a program to its end, in the thread that has this process.
    pub fn run(&self, program: &[u8]) -> End {
        self.load(program).unwrap_or_else(|error| panic!("{error}"));
        let mut frame = UserFrame::new(UserAddr::new(CODE), UserAddr::new(STACK));
        loop {
            match quarry::run_user(&self.space, &mut frame) {
                UserExit::Syscall(_) => match self.call(&mut frame) {
                    Some(value) => return End::Exited(value),
                    None => {}
                },
                // One that the space did not resolve: why.
                UserExit::Abort(esr, far) => match UserFault::new(esr, far) {
                    Some(fault) => match resolve_user_fault(&self.space, &fault, Gfp::USER) {
                        Ok(_) => {}
                        Err(error) => return End::Fault(error),
                    },
                    None => return End::Fault(SpaceFault::Denied(UserAddr::new(far.get()))),
                },
                UserExit::Interrupt => {}
                other => panic!("{other}"),
            }
        }
    }

    /// A system call of this kernel: exit, mmap, greeting, text, yield. The value with which the process exits.
    fn call(&self, frame: &mut UserFrame) -> Option<u64> {
        let [number, a, b, ..] = frame.x;
        let answer = match number {
            0 => return Some(a),
            1 => {
                let memory = MmapRequest::anonymous(a, VmFlags::READ | VmFlags::WRITE);
                self.space.mmap(&memory).map_or(0, |at| at.get())
            }
            // Copies meet pages that are not there yet: Quarry asks for the current space.
            2 => {
                let text = b"hello from EL0";
                quarry::copy_to_user(UserAddr::new(a), text).map_or(0, |()| text.len() as u64)
            }
            3 => {
                let mut text = [0; 32];
                let part = text.get_mut(..(b as usize).min(32)).unwrap_or_default();
                let copied = quarry::copy_from_user(part, UserAddr::new(a));
                say!("{}", core::str::from_utf8(part).unwrap_or("?"));
                copied.is_ok().into()
            }
            _ => 0,
        };
        sched::yield_now();
        let [first, ..] = &mut frame.x;
        *first = answer;
        None
    }
}
