//! ID registers of real CPUs, decoded.

use quarry::arch::aarch64::features::{IdRegisters, is_icache_pipt};

#[test]
fn cortex_a72_has_what_the_manual_says() {
    // Values of the Cortex-A72 TRM r0p3.
    let ids = IdRegisters {
        midr: 0x410f_d083,
        mmfr0: 0x1124,
        pfr0: 0x2222,
        dfr0: 0x1030_5106,
        isar0: 0x1_1120,
        ctr: 0x8444_c004,
        ..IdRegisters::default()
    };
    assert_eq!(ids.core_name(), "Cortex-A72");
    assert_eq!((ids.physical_bits(), ids.asid_bits(), ids.bbm_level(), ids.dcache_line()), (44, 16, 0, 64));
    assert!(ids.has_pmu());
    assert!(!ids.has_lse() && !ids.has_tlbi_range() && !ids.has_mte2() && !ids.has_mops() && !ids.has_pan());
}

#[test]
fn a_source_of_random_numbers_is_the_highest_field_of_its_register() {
    assert!(IdRegisters { isar0: 1 << 60, ..IdRegisters::default() }.has_rng());
    assert!(!IdRegisters { isar0: !(0xf << 60), ..IdRegisters::default() }.has_rng());
}

#[test]
fn a_pmu_of_another_kind_is_none() {
    assert!(!IdRegisters { dfr0: 0xf00, ..IdRegisters::default() }.has_pmu());
    assert!(!IdRegisters::default().has_pmu());
}

#[test]
fn an_instruction_cache_by_virtual_address_is_told_from_one_by_physical() {
    assert!(is_icache_pipt(0x8444_c004), "Cortex-A72");
    assert!(!is_icache_pipt(0x8444_8004), "Cortex-A53: VIPT");
    assert!(!is_icache_pipt(0) && !is_icache_pipt(1 << 14), "kinds that are reserved are treated as the worse one");
}
