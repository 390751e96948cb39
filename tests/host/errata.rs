//! The table of errata: which core of which revision meets which row.

use quarry::arch::aarch64::cores::{Core, Revision, Revisions};
use quarry::arch::aarch64::errata::{ERRATA, Handling, NO_CONFLICT_ABORT, Rows, has_no_conflict_abort, met, note};

/// A value of `MIDR_EL1`; the architecture field is 15, as every 64-bit core has it.
fn midr(implementer: u64, part: u64, variant: u64, revision: u64) -> u64 {
    implementer << 24 | variant << 20 | 0xf << 16 | part << 4 | revision
}

fn arm(part: u64, variant: u64, revision: u64) -> u64 {
    midr(0x41, part, variant, revision)
}

fn numbers(midr: u64, revidr: u64) -> Vec<&'static str> {
    Rows::of(midr, revidr).iter().map(|row| row.number).collect()
}

#[test]
fn revisions_meet_the_rows_that_linux_has_for_them() {
    let expected: &[(u64, &[&str])] = &[
        // Cortex-A53: r0p1, r0p2, r0p3, r0p4, r1p0.
        (arm(0xd03, 0, 0), &["819472", "824069", "827319", "835769", "843419"]),
        (arm(0xd03, 0, 1), &["819472", "824069", "827319", "835769", "843419"]),
        (arm(0xd03, 0, 2), &["824069", "827319", "835769", "843419"]),
        (arm(0xd03, 0, 3), &["835769", "843419"]),
        (arm(0xd03, 0, 4), &["835769", "843419"]),
        (arm(0xd03, 1, 0), &[]),
        // Cortex-A57: r1p2, r1p3.
        (arm(0xd07, 1, 2), &["832075", "1319537"]),
        (arm(0xd07, 1, 3), &["1319537"]),
        // The Pi 4's Cortex-A72 r0p3.
        (0x410f_d083, &["1319367"]),
        (arm(0xd09, 0, 2), &["858921"]),
        // Cortex-A55: r2p0, r2p1 and the last there can be.
        (arm(0xd05, 2, 0), &["1530923", "2441007"]),
        (arm(0xd05, 2, 1), &["2441007"]),
        (arm(0xd05, 15, 15), &["2441007"]),
        // Cortex-A76: r3p0, r3p1, r4p1.
        (arm(0xd0b, 3, 0), &["1165522", "1286807", "4193800"]),
        (arm(0xd0b, 3, 1), &["4193800"]),
        (arm(0xd0b, 4, 1), &["4193800"]),
        // Cortex-A77: r1p0, r1p1.
        (arm(0xd0d, 1, 0), &["1508412", "4193798"]),
        (arm(0xd0d, 1, 1), &["4193798"]),
        // Cortex-A510: r1p1, r1p2.
        (arm(0xd46, 1, 1), &["2441009"]),
        (arm(0xd46, 1, 2), &[]),
        (arm(0xd82, 0, 1), &["4118414"]),
        (arm(0xd49, 0, 0), &["4193789"]),
        (midr(0x6d, 0xd49, 0, 0), &["4193789"]),
        (midr(0x4e, 0x010, 0, 0), &["T410-OLY-1029", "T410-OLY-1027"]),
        // Cortex-A35, QEMU's max, another maker's part of the same number.
        (arm(0xd04, 0, 0), &[]),
        (midr(0x00, 0x051, 0, 0), &[]),
        (midr(0x51, 0xd05, 0, 0), &[]),
    ];
    for (midr, expected) in expected {
        assert_eq!(numbers(*midr, 0), *expected, "{midr:#x}");
    }
}

fn all_revisions() -> impl Iterator<Item = Revision> {
    (0..16).flat_map(|variant| (0..16).map(move |revision| Revision::new(variant, revision)))
}

/// `MIDR_EL1` of the first revision of a core, whose numbers are searched for.
fn first_midr(core: Core) -> u64 {
    let models = (0..0x100).flat_map(|implementer| (0..0x1000).map(move |part| midr(implementer, part, 0, 0)));
    models.into_iter().find(|midr| Core::of(*midr) == core).unwrap()
}

/// The bits of a revision in `MIDR_EL1`.
fn bits_of(revision: Revision) -> u64 {
    let mut all = (0..256).map(|bits: u64| bits >> 4 << 20 | bits & 0xf);
    all.find(|bits| Revision::of(*bits) == revision).unwrap()
}

#[test]
fn each_row_holds_from_its_first_revision_to_its_last_and_nowhere_else() {
    for row in &ERRATA {
        let Revisions { core, first, last } = row.who;
        assert!(first <= last, "{row}");
        let model = first_midr(core);
        for revision in all_revisions() {
            let expected = first <= revision && revision <= last;
            assert_eq!(row.applies(model | bits_of(revision), 0), expected, "{row}: {revision}");
        }
    }
}

#[test]
fn a_core_of_the_last_revision_may_have_it_fixed() {
    let fixed = 1 << 8;
    assert!(numbers(arm(0xd03, 0, 4), 0).contains(&"843419"));
    assert!(!numbers(arm(0xd03, 0, 4), fixed).contains(&"843419"));
    assert!(numbers(arm(0xd03, 0, 4), fixed).contains(&"835769"), "another erratum");
    assert!(numbers(arm(0xd03, 0, 3), fixed).contains(&"843419"), "the bit has this meaning in r0p4 alone");
}

#[test]
fn handling_is_asked_of_the_rows_that_apply() {
    let needs = |midr, handling| Rows::of(midr, 0).need(handling);
    assert!(needs(arm(0xd05, 1, 0), Handling::RepeatTlbi) && !needs(arm(0xd05, 1, 0), Handling::CleanAndInvalidate));
    assert!(needs(arm(0xd03, 0, 2), Handling::CleanAndInvalidate) && !needs(arm(0xd03, 0, 2), Handling::RepeatTlbi));
    assert!(!needs(arm(0xd03, 0, 3), Handling::CleanAndInvalidate));
    assert!(!needs(0x410f_d083, Handling::RepeatTlbi));
}

#[test]
fn a_row_is_new_once() {
    // The only test that notes anything.
    let a55 = Rows::of(arm(0xd05, 2, 0), 0);
    assert_eq!(note(a55), a55);
    assert_eq!(note(a55), Rows::default());
    let a76 = Rows::of(arm(0xd0b, 3, 0), 0);
    assert_eq!(note(a76), a76);
    let all: Vec<&str> = met().iter().map(|row| row.number).collect();
    assert_eq!(all, ["1530923", "2441007", "1165522", "1286807", "4193800"]);
}

#[test]
fn lines_say_who_has_it_and_what_is_done() {
    let lines = |midr| Rows::of(midr, 0).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        lines(arm(0xd0b, 3, 0)),
        [
            "erratum 1165522 of Cortex-A76 up to r3p0: nothing to do without guests",
            "erratum 1286807 of Cortex-A76 up to r3p0: a TLBI and a DSB more behind each invalidation",
            "erratum 4193800 of Cortex-A76: a TLBI and a DSB more behind each invalidation",
        ]
    );
    let [.., last] = lines(arm(0xd09, 0, 0)).try_into().unwrap_or([const { String::new() }; 1]);
    assert!(last.starts_with("erratum 858921 of Cortex-A73: NOT HANDLED: "), "{last}");
}

#[test]
fn conflict_aborts_are_ruled_out_from_the_revisions_on_that_their_makers_name() {
    for (midr, expected) in [
        (arm(0xd82, 0, 2), false),
        (arm(0xd82, 0, 3), true),
        (arm(0xd82, 1, 0), false),
        (arm(0xd83, 0, 1), false),
        (arm(0xd83, 0, 2), true),
        (arm(0xd84, 0, 1), false),
        (arm(0xd84, 0, 2), true),
        (midr(0x4e, 0x010, 0, 0), true),
        (midr(0x4e, 0x004, 0, 0), false),
        (midr(0xc0, 0xac3, 0, 0), true),
        (midr(0xc0, 0xac4, 2, 1), true),
        (midr(0xc0, 0xac5, 0, 0), false),
        (midr(0x00, 0x051, 0, 0), true),
        (0x410f_d083, false),
    ] {
        assert_eq!(has_no_conflict_abort(midr), expected, "{midr:#x}");
    }
    assert_eq!(NO_CONFLICT_ABORT.len(), 7, "each has its line above");
}
