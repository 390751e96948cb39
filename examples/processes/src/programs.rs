//! What runs at EL0. The number of a call is in x0, its arguments in x1 and x2.

core::arch::global_asm!(
    ".section .rodata.programs, \"a\"",
    ".balign 4",
    // Maps a page, has a greeting put there, prints it; maps seven pages more, and writes to each.
    "program_greeter: mov x0, #1",
    "mov x1, #4096",
    "svc #0",
    "mov x19, x0",
    "mov x0, #2",
    "mov x1, x19",
    "svc #0",
    "mov x2, x0",
    "mov x0, #3",
    "mov x1, x19",
    "svc #0",
    "mov x20, #1",
    "1: mov x0, #1",
    "mov x1, #4096",
    "svc #0",
    "cbz x0, 2f",
    "str x20, [x0]",
    "add x20, x20, #1",
    "cmp x20, #8",
    "b.ne 1b",
    "2: mov x0, #0",
    "mov x1, x20",
    "svc #0",
    // Maps 4 MiB and writes to each page of it, for ever.
    "program_leaker: mov x0, #1",
    "mov x1, #0x400000",
    "svc #0",
    "cbz x0, 4f",
    "mov x1, #1024",
    "3: str x1, [x0]",
    "add x0, x0, #4096",
    "subs x1, x1, #1",
    "b.ne 3b",
    "b program_leaker",
    "4: mov x0, #0",
    "mov x1, #1",
    "svc #0",
    // Reads the kernel's image.
    "program_reacher: movz x0, #0xffff, lsl #48",
    "movk x0, #0x8000, lsl #32",
    "movk x0, #0x8000, lsl #16",
    "ldr x0, [x0]",
    "svc #0",
    "program_end:",
    ".previous",
);

unsafe extern "C" {
    static program_greeter: u8;
    static program_leaker: u8;
    static program_reacher: u8;
    static program_end: u8;
}

fn between(first: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: the assembly above puts both labels around a program, in this order, read-only and for good.
    unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) }
}

pub fn greeter() -> &'static [u8] {
    between(&raw const program_greeter, &raw const program_leaker)
}

pub fn leaker() -> &'static [u8] {
    between(&raw const program_leaker, &raw const program_reacher)
}

pub fn reacher() -> &'static [u8] {
    between(&raw const program_reacher, &raw const program_end)
}
