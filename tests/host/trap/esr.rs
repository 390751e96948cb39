use proptest::prelude::*;
use quarry::arch::aarch64::esr::{Access, Esr, ExceptionClass, FaultStatus};

/// A syndrome of `class` with `iss`.
fn esr(class: u64, iss: u64) -> Esr {
    Esr::new(class << 26 | 1 << 25 | iss)
}

#[test]
fn known_syndromes_read_as_the_manual_says() {
    let words = |raw| Esr::new(raw).to_string();
    assert_eq!(words(0x9600_0047), "data abort, write: translation fault, level 3");
    assert_eq!(words(0x9600_0004), "data abort, read: translation fault, level 0");
    assert_eq!(words(0x9600_004f), "data abort, write: permission fault, level 3");
    assert_eq!(words(0x9600_0021), "data abort, read: alignment fault");
    assert_eq!(words(0x9600_0011), "data abort, read: tag check fault");
    assert_eq!(words(0x9600_0010), "data abort, read: external abort");
    assert_eq!(words(0x9600_0144), "data abort, cache maintenance: translation fault, level 0");
    assert_eq!(words(0x8600_000e), "instruction abort, instruction fetch: permission fault, level 2");
    assert_eq!(
        words(0x8200_0005),
        "instruction abort from a lower exception level, instruction fetch: translation fault, level 1"
    );
    assert_eq!(words(0xf200_0007), "BRK, immediate 0x7");
    assert_eq!(words(0x5600_1234), "SVC, immediate 0x1234");
    assert_eq!(words(0x0200_0000), "undefined instruction or unknown reason");
    assert_eq!(words(0x9a00_0000), "SP alignment fault");
    assert_eq!(words(0x8a00_0000), "PC alignment fault");
    assert_eq!(words(0x1fe0_0000), "access to SVE, SIMD or floating point trapped, iss 0x1e00000");
    assert_eq!(words(0xbe00_0011), "SError, iss 0x11");
    assert_eq!(words(0xfe00_0000), "reserved exception class 0x3f");
}

/// Every fault status of the architecture (Arm ARM D24.2.40, DFSC), by hand; the rest is reserved.
#[test]
fn every_fault_status_has_its_meaning() {
    use FaultStatus as F;
    let known = [
        (0b000000, F::AddressSize(0)),
        (0b000001, F::AddressSize(1)),
        (0b000010, F::AddressSize(2)),
        (0b000011, F::AddressSize(3)),
        (0b000100, F::Translation(0)),
        (0b000101, F::Translation(1)),
        (0b000110, F::Translation(2)),
        (0b000111, F::Translation(3)),
        (0b001000, F::AccessFlag(0)),
        (0b001001, F::AccessFlag(1)),
        (0b001010, F::AccessFlag(2)),
        (0b001011, F::AccessFlag(3)),
        (0b001100, F::Permission(0)),
        (0b001101, F::Permission(1)),
        (0b001110, F::Permission(2)),
        (0b001111, F::Permission(3)),
        (0b010000, F::External),
        (0b010001, F::TagCheck),
        (0b010011, F::ExternalOnWalk(-1)),
        (0b010100, F::ExternalOnWalk(0)),
        (0b010101, F::ExternalOnWalk(1)),
        (0b010110, F::ExternalOnWalk(2)),
        (0b010111, F::ExternalOnWalk(3)),
        (0b011000, F::Parity),
        (0b011011, F::ParityOnWalk(-1)),
        (0b011100, F::ParityOnWalk(0)),
        (0b011101, F::ParityOnWalk(1)),
        (0b011110, F::ParityOnWalk(2)),
        (0b011111, F::ParityOnWalk(3)),
        (0b100001, F::Alignment),
        (0b100011, F::GranuleProtection(Some(-1))),
        (0b100100, F::GranuleProtection(Some(0))),
        (0b100101, F::GranuleProtection(Some(1))),
        (0b100110, F::GranuleProtection(Some(2))),
        (0b100111, F::GranuleProtection(Some(3))),
        (0b101000, F::GranuleProtection(None)),
        (0b101001, F::AddressSize(-1)),
        (0b101011, F::Translation(-1)),
        (0b110000, F::TlbConflict),
        (0b110001, F::UnsupportedUpdate),
        (0b110100, F::Lockdown),
        (0b110101, F::UnsupportedExclusive),
    ];
    for code in 0..64 {
        let meaning = known.iter().find(|(known, _)| *known == code).map_or(F::Reserved(code), |(_, meaning)| *meaning);
        assert_eq!(F::decode(code), meaning, "code {code:#08b}");
    }
}

#[test]
fn an_abort_tells_what_was_tried() {
    let access = |class, iss| esr(class, iss).abort().unwrap().access;
    assert_eq!(access(0x25, 0x07), Access::Read);
    assert_eq!(access(0x25, 1 << 6 | 0x07), Access::Write);
    assert_eq!(access(0x24, 1 << 6 | 0x07), Access::Write);
    // Cache maintenance reports itself as a write (WnR) besides.
    assert_eq!(access(0x25, 1 << 8 | 1 << 6 | 0x07), Access::CacheMaintenance);
    // The bits mean something else for a fetch.
    assert_eq!(access(0x21, 1 << 8 | 1 << 6 | 0x07), Access::Execute);
    for class in (0..64).filter(|class| !matches!(class, 0x20 | 0x21 | 0x24 | 0x25)) {
        assert_eq!(esr(class, 0x47).abort(), None, "class {class:#x}");
    }
}

#[test]
fn the_fault_address_is_trusted_only_where_the_architecture_gives_one() {
    assert!(esr(0x25, 0x07).has_fault_address());
    assert!(esr(0x21, 0x07).has_fault_address());
    assert!(esr(0x22, 0).has_fault_address(), "PC alignment");
    assert!(!esr(0x26, 0).has_fault_address(), "SP alignment");
    assert!(!esr(0x00, 0).has_fault_address(), "undefined");
    assert!(!esr(0x2f, 0).has_fault_address(), "SError");
    assert!(esr(0x25, 0x10).has_fault_address(), "external abort with FnV = 0");
    assert!(!esr(0x25, 1 << 10 | 0x10).has_fault_address(), "external abort with FnV = 1");
    assert!(esr(0x25, 1 << 10 | 0x07).has_fault_address(), "FnV means nothing for other faults");
}

proptest! {
    #[test]
    fn any_syndrome_can_be_displayed(raw: u64) {
        let esr = Esr::new(raw);
        prop_assert!(!esr.to_string().is_empty());
        prop_assert_eq!(u64::from(esr.class().get()), raw >> 26 & 0x3f);
        prop_assert_eq!(u64::from(esr.iss()), raw & 0x1ff_ffff);
        prop_assert_eq!(ExceptionClass::new(esr.class().get()), esr.class());
    }
}

/// The quick answer is the one in words, for every syndrome of an abort.
#[test]
fn an_abort_that_can_be_resolved_is_told_quickly() {
    for class in [0x20, 0x21, 0x24, 0x25] {
        for iss in 0..1 << 11 {
            let esr = esr(class, iss);
            let abort = esr.abort().expect("an abort");
            // Level -1 is that of 52-bit addresses.
            let can_be = abort.status != FaultStatus::Translation(-1)
                && matches!(
                    abort.status,
                    FaultStatus::Translation(_) | FaultStatus::AccessFlag(_) | FaultStatus::Permission(_)
                );
            assert_eq!(esr.resolvable_abort(), can_be.then_some(abort.access), "{esr:?}");
        }
    }
}
