//! The counter of retired instructions, and the proof that it counts what it says: event counter 0, which the boot stub
//! has set to INST_RETIRED.

use core::arch::asm;
use core::hint::black_box;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::pmu;
use quarry::kprintln;

/// Instructions between two readings that follow each other: the second one's ISB, and one MRS.
pub(crate) const READING: u32 = 2;

/// The counter, wrapping at 32 bits. Everything before is counted, nothing after.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the counter has 32 bits")]
pub(crate) fn read() -> u32 {
    let count: u64;
    // SAFETY: reading a counter has no effect. No `nomem`: memory accesses stay on their side of it.
    unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", out(reg) count, options(nostack, preserves_flags)) };
    count as u32
}

/// From now on the counter counts cycles of the CPU (event CPU_CYCLES), which every PMU has.
///
/// # Panics
///
/// If the CPU has no PMU.
pub(crate) fn count_cycles(cpu: &IdRegisters) {
    const CPU_CYCLES: u64 = 0x11;
    assert!(cpu.has_pmu(), "this CPU has no PMU, and so no counter of cycles");
    // SAFETY: the event of a counter that only the benchmarks read.
    unsafe { asm!("msr pmevtyper0_el0, {}", "isb", in(reg) CPU_CYCLES, options(nomem, nostack, preserves_flags)) };
}

/// The count of a sequence of instructions written out between two readings.
macro_rules! counted {
    ($($instruction:literal),* $(, in $operand:ident = $value:expr)?) => {{
        let (before, after): (u64, u64);
        // SAFETY: the sequences below store to a page of their own and otherwise change registers only.
        unsafe {
            asm!(
                "isb", "mrs {before}, pmevcntr0_el0",
                $($instruction,)*
                "isb", "mrs {after}, pmevcntr0_el0",
                $($operand = in(reg) $value,)?
                before = out(reg) before, after = out(reg) after, out("x9") _, out("x10") _, out("x30") _,
                options(nostack),
            );
        }
        after.wrapping_sub(before) & 0xffff_ffff
    }};
}

/// Counts sequences whose length is known; refuses to go on if one count is off by one.
///
/// # Panics
///
/// If the CPU has no event INST_RETIRED, or miscounts.
pub(crate) fn calibrate(cpu: &IdRegisters) {
    assert!(
        pmu::counts_instructions(cpu),
        "this CPU has no event INST_RETIRED: QEMU counts it only with -icount and a fixed shift"
    );
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    static PAGE: spin::mutex::SpinMutex<Page> = spin::mutex::SpinMutex::new(Page([0; 4096]));
    let mut page = PAGE.lock();
    let page = black_box(&mut page.0).as_mut_ptr();
    let known = [
        ("nothing", 0, counted!()),
        ("1 NOP", 1, counted!("nop")),
        ("1000 NOP", 1000, counted!(".rept 1000", "nop", ".endr")),
        ("500 rounds of SUBS, B.NE", 1001, counted!("mov x9, #500", "2: subs x9, x9, #1", "b.ne 2b")),
        ("BL, RET, B", 3, counted!("bl 3f", "b 4f", "3: ret", "4:")),
        (
            "64 DC ZVA",
            128,
            counted!("mov x10, {p}", ".rept 63", "dc zva, x10", "add x10, x10, #64", ".endr", "dc zva, x10", in p = page),
        ),
        (
            "LDXR, STXR, LDP, STP",
            4,
            counted!("ldxr x9, [{p}]", "stxr w10, x9, [{p}]", "ldp x9, x10, [{p}]", "stp x9, x10, [{p}]", in p = page),
        ),
        ("DSB, TLBI, DSB, ISB", 4, counted!("dsb ishst", "tlbi vaale1is, xzr", "dsb ish", "isb")),
    ];
    for (what, length, count) in known {
        assert_eq!(count, length + u64::from(READING), "the count of {what} and one reading");
    }
    for _ in 0..100 {
        let before = read();
        let after = read();
        assert_eq!(after.wrapping_sub(before), READING, "two readings that follow each other");
    }
    kprintln!("bench: calibrated\t{}", known.len());
}
