//! All that this kernel has to do for its memory.

use crate::{Console, image, ram};
use core::fmt::{Arguments, Write};
use quarry::prelude::*;
use quarry::{Machine, Memory, Options, Setup, Tables, Up};

struct OwnBoot;

quarry::machine!(OwnBoot, linear_offset = 0);

// SAFETY: TTBR0 maps all RAM where it is, on all CPUs; `hold_others` is not there.
unsafe impl Machine for OwnBoot {
    fn print(&self, text: Arguments<'_>) {
        let _ = writeln!(Console, "{text}");
    }
}

/// On the CPU that boots.
pub fn start(cpus: u32) -> Up {
    let memory = Memory::Ranges { ram: &[ram()], reserved: &[image()] };
    let setup = Setup { memory, tables: Tables::New, cpus, seed: 0, options: Options::DEFAULT };
    // SAFETY: nothing but the image is in use; boot.S has set this CPU's registers and masked interrupts; the vectors call
    // `repair` and `resume_at`.
    unsafe { quarry::bring_up(&setup) }.unwrap_or_else(|error| panic!("{error}"))
}

/// On each other CPU.
pub fn join(cpu: u32) {
    // SAFETY: boot.S has set this CPU's registers and masked interrupts; each CPU has a number of its own.
    unsafe { quarry::join_cpu(CpuId::new(cpu)) }.unwrap_or_else(|error| panic!("{error}"));
}
