//! What a process may not do ends that process: each in a child, and one by one by name.
#![no_std]
#![no_main]

use core::arch::asm;
use quarry_user::call::{self, Ended, Errno, READ, WRITE};
use quarry_user::{Arguments, println};

quarry_user::program!(main);

/// The kernel's image, and its linear map.
const IMAGE: usize = 0xffff_8000_8000_0000;
const LINEAR: usize = 0xffff_0000_4020_0000;

const SEGV: i32 = 11;
const ILL: i32 = 4;
const TRAP: i32 = 5;
const BUS: i32 = 7;

fn load(at: usize) {
    // SAFETY: it faults, or is a load and no more.
    unsafe { asm!("ldr x9, [{at}]", at = in(reg) at, out("x9") _) }
}

fn store(at: usize) {
    // SAFETY: it faults.
    unsafe { asm!("str xzr, [{at}]", at = in(reg) at) }
}

fn jump(at: usize) {
    // SAFETY: it faults at its target.
    unsafe { asm!("blr {at}", at = in(reg) at, out("x30") _) }
}

#[expect(unconditional_recursion, reason = "it runs off its stack")]
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 512]);
    descend(depth + 1) + room.iter().sum::<u64>()
}

fn not_executable() {
    if let Ok(at) = call::mmap(4096, READ | WRITE) {
        // SAFETY: the mapping is ours. The instruction is RET.
        unsafe { at.cast::<u32>().write(0xd65f_03c0) };
        jump(at.addr());
    }
}

fn not_mapped_any_more() {
    if let Ok(at) = call::mmap(4096, READ | WRITE) {
        store(at.addr());
        // SAFETY: it is used afterwards, which is the point.
        let _ = unsafe { call::munmap(at, 4096) };
        load(at.addr());
    }
}

fn guard() {
    if let Ok(at) = call::mmap(8192, READ | WRITE) {
        // SAFETY: the mapping is ours.
        let _ = unsafe { call::madvise(at, 4096, call::GUARD_INSTALL) };
        store(at.addr() + 4096);
        store(at.addr());
    }
}

type Deed = (&'static str, fn(), i32);

const DEEDS: [Deed; 16] = [
    ("read-kernel", || load(IMAGE), SEGV),
    ("write-kernel", || store(IMAGE), SEGV),
    ("jump-kernel", || jump(IMAGE), SEGV),
    ("read-linear", || load(LINEAR), SEGV),
    ("write-linear", || store(LINEAR), SEGV),
    ("no-address", || load(1 << 50), SEGV),
    ("null", || load(0), SEGV),
    ("write-text", || store(descend as *const () as usize), SEGV),
    ("jump-data", not_executable, SEGV),
    ("unmapped", not_mapped_any_more, SEGV),
    ("guard", guard, SEGV),
    ("stack", || _ = descend(0), SEGV),
    // SAFETY: it ends the process.
    ("undefined", || unsafe { asm!("udf #0") }, ILL),
    // SAFETY: it ends the process. The instruction is MOVI V0.2D, #0, which a soft-float assembler does not know.
    ("float", || unsafe { asm!(".inst 0x6f00e400") }, ILL),
    // SAFETY: it ends the process.
    ("breakpoint", || unsafe { asm!("brk #7") }, TRAP),
    ("odd-jump", || jump(main as *const () as usize + 2), BUS),
];

/// System calls with bad pointers answer, and the process goes on.
fn bad_arguments() {
    for at in [0, 8, IMAGE, LINEAR, 1 << 48, (1 << 48) - 1, usize::MAX - 1] {
        assert_eq!(call::write_at(1, at, 16), Err(Errno::FAULT), "{at:#x}");
    }
    assert_eq!(call::write_at(1, IMAGE, usize::MAX), Err(Errno::FAULT));
    assert_eq!(call::write_at(1, IMAGE, 0), Ok(0));
    assert_eq!(call::write(7, b"x"), Err(Errno::BADF));
    assert_eq!(call::mmap(0, READ), Err(Errno::INVAL));
    assert_eq!(call::mmap(4096, READ | WRITE | call::EXEC), Err(Errno::ACCES));
    assert_eq!(call::mmap(usize::MAX & !4095, READ), Err(Errno::NOMEM));
    // SAFETY: nothing is there.
    assert_eq!(unsafe { call::mmap_fixed(IMAGE, 4096, READ) }, Err(Errno::NOMEM));
    // SAFETY: nothing is there.
    assert_eq!(unsafe { call::munmap(core::ptr::without_provenance_mut(IMAGE), 4096) }, Err(Errno::INVAL));
    assert_eq!(call::wait(None), Err(Errno::CHILD));
    for number in [0, 29, 1000, usize::MAX] {
        // SAFETY: there is no such call.
        assert_eq!(unsafe { call::call(number, [0; 6]) }, Err(Errno::NOSYS), "{number}");
    }
}

fn main(arguments: Arguments) -> i32 {
    bad_arguments();
    if let Some(wanted) = arguments.get(1) {
        DEEDS.iter().filter(|(name, ..)| *name == wanted).for_each(|(_, deed, _)| deed());
        return 1;
    }
    for (name, deed, signal) in DEEDS {
        match call::fork() {
            Ok(0) => {
                deed();
                return 1;
            }
            Ok(child) => {
                let ended = call::wait(Some(child));
                assert_eq!(ended, Ok((child, Ended::Killed(signal))), "{name}");
            }
            Err(error) => {
                println!("fork: {error:?}");
                return 2;
            }
        }
    }
    println!("{} bad deeds ended a process each", DEEDS.len());
    0
}
