//! Errata of cores: one table of the cores and revisions that have one, its number, and the way it is handled; and the list of
//! cores with a good property that only their makers' word attests. Arm's numbers, ranges and descriptions are those of Linux
//! (Documentation/arch/arm64/silicon-errata.rst, arch/arm64/kernel/cpu_errata.c, arch/arm64/Kconfig).
//!
//! Each CPU that comes up is looked for in the table ([`note`]), and the log has a line for each row that is met the first
//! time. Handling that costs something is in the image from the start, and is taken out when no CPU has shown to need it:
//! `alternative.rs`.
#![forbid(unsafe_code)]

use super::cores::{Core, Revision, Revisions};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// The way an erratum is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handling {
    /// The completion of a broadcast TLBI is not enough for accesses that used the dropped translation: each DSB behind TLBIs
    /// is followed by one more TLBI and DSB. One for any number of TLBIs is enough, of any kind: the entries themselves are
    /// dropped at once. (Linux: `ARM64_WORKAROUND_REPEAT_TLBI`, since 7.0 so; its commit cites Arm's errata notices.)
    RepeatTlbi,
    /// `DC CVAC` and `DC CVAU` do not what they should: `DC CIVAC` takes their place.
    CleanAndInvalidate,
    /// A load of `PAR_EL1` beside certain accesses can hang the core: a `DMB SY` stands before it and behind.
    BarrierAroundPar,
    /// The sequence of instructions is not in the image: the linker (843419) or the tool that finishes images (835769) has
    /// changed each, and the suite looks for them.
    NotInImage,
    /// Only a hypervisor that switches its guests' translations on this core meets it. The kernel has no guests.
    NoGuests,
    /// Not handled, for the reason given.
    Not(&'static str),
}

impl fmt::Display for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RepeatTlbi => "a TLBI and a DSB more behind each invalidation",
            Self::CleanAndInvalidate => "lines that are cleaned are invalidated too",
            Self::BarrierAroundPar => "barriers around each read of PAR_EL1",
            Self::NotInImage => "the image has no such sequence",
            Self::NoGuests => "nothing to do without guests",
            Self::Not(why) => return write!(f, "NOT HANDLED: {why}"),
        })
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Erratum {
    /// The cores that have it.
    pub who: Revisions,
    /// Bits of `REVIDR_EL1` of which one says that the last of these revisions has it fixed.
    pub fixed: u64,
    /// Its maker's number.
    pub number: &'static str,
    /// The way it is handled.
    pub handling: Handling,
}

impl Erratum {
    /// Whether the core with these values of `MIDR_EL1` and `REVIDR_EL1` has it.
    #[must_use]
    pub fn applies(&self, midr: u64, revidr: u64) -> bool {
        let fixed = Revision::of(midr) == self.who.last && revidr & self.fixed != 0;
        self.who.contain(midr) && !fixed
    }
}

impl fmt::Display for Erratum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "erratum {} of {}: {}", self.number, self.who, self.handling)
    }
}

const fn row(number: &'static str, who: Revisions, handling: Handling) -> Erratum {
    Erratum { who, fixed: 0, number, handling }
}

/// A row of those that came in one notice in 2026 (CVE-2025-10263): "some memory accesses might not be completed by broadcast
/// TLB invalidation". Every revision of the core has it.
const fn completion(number: &'static str, core: Core) -> Erratum {
    row(number, Revisions::all(core), RepeatTlbi)
}

use Handling::{BarrierAroundPar, CleanAndInvalidate, NoGuests, Not, NotInImage, RepeatTlbi};

/// All rows.
pub const ERRATA: [Erratum; 39] = [
    row("819472", Revisions::up_to(Core::CORTEX_A53, 0, 1), CleanAndInvalidate),
    row("824069", Revisions::up_to(Core::CORTEX_A53, 0, 2), CleanAndInvalidate),
    row("827319", Revisions::up_to(Core::CORTEX_A53, 0, 2), CleanAndInvalidate),
    row("835769", Revisions::up_to(Core::CORTEX_A53, 0, 4), NotInImage),
    // Of r0p4 some have it fixed: Linux, `MIDR_FIXED(MIDR_CPU_VAR_REV(0, 4), BIT(8))`.
    Erratum { fixed: 1 << 8, ..row("843419", Revisions::up_to(Core::CORTEX_A53, 0, 4), NotInImage) },
    row(
        "832075",
        Revisions::up_to(Core::CORTEX_A57, 1, 2),
        Not("a load from a device between exclusive accesses can hang the core"),
    ),
    row("1319537", Revisions::all(Core::CORTEX_A57), NoGuests),
    row("1319367", Revisions::all(Core::CORTEX_A72), NoGuests),
    row("858921", Revisions::all(Core::CORTEX_A73), Not("the counter may be read wrong while its lower half carries")),
    row("1530923", Revisions::up_to(Core::CORTEX_A55, 2, 0), NoGuests),
    row("2441007", Revisions::all(Core::CORTEX_A55), RepeatTlbi),
    row("1165522", Revisions::up_to(Core::CORTEX_A76, 3, 0), NoGuests),
    row("1286807", Revisions::up_to(Core::CORTEX_A76, 3, 0), RepeatTlbi),
    row("1508412", Revisions::up_to(Core::CORTEX_A77, 1, 0), BarrierAroundPar),
    row("2441009", Revisions::up_to(Core::CORTEX_A510, 1, 1), RepeatTlbi),
    completion("4193800", Core::CORTEX_A76),
    completion("4193801", Core::CORTEX_A76AE),
    completion("4193798", Core::CORTEX_A77),
    completion("4193791", Core::CORTEX_A78),
    completion("4193793", Core::CORTEX_A78AE),
    completion("4193794", Core::CORTEX_A78C),
    completion("4193788", Core::CORTEX_A710),
    completion("4193791", Core::CORTEX_X1),
    completion("4193792", Core::CORTEX_X1C),
    completion("4193788", Core::CORTEX_X2),
    completion("4193786", Core::CORTEX_X3),
    completion("4118414", Core::CORTEX_X4),
    completion("4193781", Core::CORTEX_X925),
    completion("4193780", Core::C1_PREMIUM),
    completion("4193780", Core::C1_ULTRA),
    completion("4193800", Core::NEOVERSE_N1),
    completion("4193789", Core::NEOVERSE_N2),
    completion("4193790", Core::NEOVERSE_V1),
    completion("4193787", Core::NEOVERSE_V2),
    completion("4193784", Core::NEOVERSE_V3),
    completion("4193784", Core::NEOVERSE_V3AE),
    completion("4193789", Core::COBALT_100),
    completion("T410-OLY-1029", Core::OLYMPUS),
    row(
        "T410-OLY-1027",
        Revisions::all(Core::OLYMPUS),
        Not("a device may see a load before an older store; drivers need a barrier between them"),
    ),
];

const _: () = assert!(ERRATA.len() <= 64, "a row has a bit of `Rows`");

/// Rows of the table, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rows(u64);

impl Rows {
    /// The rows that apply to a core with these values of `MIDR_EL1` and `REVIDR_EL1`.
    #[must_use]
    pub fn of(midr: u64, revidr: u64) -> Self {
        let bits = ERRATA.iter().zip(0_u32..).filter(|(row, _)| row.applies(midr, revidr)).map(|(_, bit)| 1 << bit);
        Self(bits.fold(0, |all, bit: u64| all | bit))
    }

    /// The rows themselves, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = &'static Erratum> {
        ERRATA.iter().zip(0_u32..).filter(move |(_, bit)| self.0 >> bit & 1 != 0).map(|(row, _)| row)
    }

    /// Whether one of them is handled so.
    #[must_use]
    pub fn need(self, handling: Handling) -> bool {
        self.iter().any(|row| row.handling == handling)
    }
}

/// The rows that apply to a CPU that has come up.
static MET: AtomicU64 = AtomicU64::new(0);

/// The rows that apply to any CPU that has come up so far.
#[must_use]
pub fn met() -> Rows {
    Rows(MET.load(Ordering::Relaxed))
}

/// Looks a CPU up that has come, and returns the rows that no CPU before it had. Each CPU once, of itself. Any context.
pub fn note(here: Rows) -> Rows {
    let before = MET.fetch_or(here.0, Ordering::Relaxed);
    Rows(here.0 & !before)
}

/// Cores whose level 2 of FEAT_BBM never raises a TLB conflict abort. The architecture permits the abort (Arm ARM D8.17.1), and
/// a handler that must not touch the mapping that it repairs is no place to find out; so the makers' word counts, as Linux has
/// it (`bbml2_noabort`, arch/arm64/kernel/cpufeature.c). Neoverse V3 and V3AE before r0p2 and Cortex-X4 before r0p3 have an
/// erratum instead (3053180 of V3 and V3AE). QEMU's `max` has no such abort.
pub const NO_CONFLICT_ABORT: [Revisions; 7] = [
    Revisions::all(Core::QEMU_MAX),
    Revisions::r0_from(Core::CORTEX_X4, 3),
    Revisions::r0_from(Core::NEOVERSE_V3AE, 2),
    Revisions::r0_from(Core::NEOVERSE_V3, 2),
    Revisions::all(Core::OLYMPUS),
    Revisions::all(Core::AMPERE_ONE),
    Revisions::all(Core::AMPERE_ONE_A),
];

/// Whether a core is in [`NO_CONFLICT_ABORT`].
#[must_use]
pub fn has_no_conflict_abort(midr: u64) -> bool {
    NO_CONFLICT_ABORT.iter().any(|cores| cores.contain(midr))
}
