//! The registers that address translation rests on: each wrong one is seen.

use quarry::arch::aarch64::mair::mair_el1;
use quarry::arch::aarch64::translation::{TranslationRegisters, WrongRegister};

/// As `examples/own-boot` sets them, with more bits than are looked at.
const GOOD: TranslationRegisters = TranslationRegisters {
    mair: mair_el1(false),
    tcr: 16 | 1 << 8 | 1 << 10 | 3 << 12 | 16 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 2 << 32,
    sctlr: 0x30d0_1805,
    daif: 0x3c0,
    has_tags: false,
};

#[test]
fn registers_as_they_must_be_are_taken() {
    assert_eq!(GOOD.check(), Ok(()));
    // The kernel decides the contents of TTBR0, and the sharing between CPUs.
    for other in [0x1, 0x3f, 1 << 7, 3 << 14, 3 << 8, 3 << 28, 7 << 32, 1 << 37, 1 << 38] {
        assert_eq!(TranslationRegisters { tcr: GOOD.tcr ^ other, ..GOOD }.check(), Ok(()), "{other:#x}");
    }
    assert_eq!(TranslationRegisters { daif: 1 << 7, ..GOOD }.check(), Ok(()));
    assert_eq!(TranslationRegisters { has_tags: true, ..GOOD }.check(), Ok(()), "tags that nobody uses");
    assert_eq!(TranslationRegisters { has_tags: true, mair: mair_el1(true), ..GOOD }.check(), Ok(()));
}

#[test]
fn each_bit_of_the_memory_types_counts() {
    for bit in 0..64 {
        let mair = GOOD.mair ^ 1 << bit;
        let wrong = Err(WrongRegister::Mair(mair, mair_el1(false)));
        assert_eq!(TranslationRegisters { mair, ..GOOD }.check(), wrong, "bit {bit}");
    }
    // The encoding of tagged memory is unpredictable on a CPU that has none.
    let mair = mair_el1(true);
    let wrong = Err(WrongRegister::Mair(mair, mair_el1(false)));
    assert_eq!(TranslationRegisters { mair, ..GOOD }.check(), wrong);
}

#[test]
fn other_addresses_pages_or_walks_of_the_upper_half_are_seen() {
    let t1sz = |size: u64| GOOD.tcr & !(0x3f << 16) | size << 16;
    let tg1 = |granule: u64| GOOD.tcr & !(3 << 30) | granule << 30;
    let wrong = (0..64).filter(|size| *size != 16).map(t1sz);
    for tcr in wrong.chain([0, 1, 3].map(tg1)).chain([GOOD.tcr | 1 << 23]) {
        assert_eq!(TranslationRegisters { tcr, ..GOOD }.check(), Err(WrongRegister::Tcr(tcr)));
    }
}

#[test]
fn a_cpu_without_mmu_or_caches_or_with_interrupts_is_seen() {
    for bit in [0, 2, 12] {
        let sctlr = GOOD.sctlr & !(1 << bit);
        assert_eq!(TranslationRegisters { sctlr, ..GOOD }.check(), Err(WrongRegister::Sctlr(sctlr)), "bit {bit}");
    }
    assert_eq!(TranslationRegisters { daif: 0x340, ..GOOD }.check(), Err(WrongRegister::NotMasked));
}
