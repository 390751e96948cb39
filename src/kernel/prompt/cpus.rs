//! Commands about the CPUs: their states, their own memory, the locks that they hold.
#![forbid(unsafe_code)]

use crate::addr::{Bytes, CpuId};
use crate::arch::aarch64::held_locks;
use crate::global;
use crate::kernel::command::{Command, no_words};
use crate::kernel::{cpus, screen, tick};
use crate::sync::class::{Interrupts, LOCK_CLASSES};
use crate::sync::{CHECKED, HeldLocks};
use core::fmt;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cpus",
        arguments: "",
        help: "the CPUs: state, affinity, ticks of the timer since it was started",
        example: "cpus",
        words: no_words,
        run: |machine, _| screen::list(machine, list),
    },
    Command {
        name: "percpu",
        arguments: "",
        help: "the memory that each CPU has for itself",
        example: "percpu",
        words: no_words,
        run: |machine, _| screen::list(machine, percpu),
    },
    Command {
        name: "locks",
        arguments: "",
        help: "the classes of locks in their order, and the locks that CPUs hold",
        example: "locks",
        words: no_words,
        run: |machine, _| screen::list(machine, locks),
    },
];

fn list(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for cpu in global::possible_cpus() {
        writeln!(
            f,
            "{cpu:?}: {:?}, affinity {:#x}, {} ticks",
            cpus::state(cpu),
            cpus::affinity(cpu),
            tick::count(cpu)
        )?;
    }
    Ok(())
}

fn percpu(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (cpu, range) in global::cpu_locals().enumerate() {
        let cpu = u32::try_from(cpu).map_or(CpuId::BOOT, CpuId::new);
        writeln!(f, "{cpu:?}: {range}, {}", Bytes(range.size()))?;
    }
    let (used, size) = (global::cpu_local_used(), global::cpu_local_size());
    writeln!(f, "of each, {used} bytes of {size} are in use, static variables included")?;
    writeln!(f, "dynamic: {}", global::percpu_stats())
}

fn locks(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "level  interrupts  class")?;
    for class in LOCK_CLASSES {
        let interrupts = match class.interrupts {
            Interrupts::Masked => "masked",
            Interrupts::Unmasked => "unmasked",
            Interrupts::Either => "either",
        };
        writeln!(f, "{:>5}  {interrupts:<10}  {}", class.level, class.name)?;
    }
    if !CHECKED {
        return writeln!(f, "this build does not record which locks are held");
    }
    for cpu in global::online_cpus() {
        let mut any = false;
        for lock in held_locks::held_locks_of(cpu).into_iter().flat_map(HeldLocks::iter) {
            any = true;
            writeln!(f, "{cpu:?} holds {lock}")?;
        }
        if !any {
            writeln!(f, "{cpu:?} holds none")?;
        }
    }
    Ok(())
}
