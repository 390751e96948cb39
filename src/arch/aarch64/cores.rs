//! Cores by the implementer and part number of `MIDR_EL1` (Arm ARM D24.2.112; numbers as in Linux,
//! arch/arm64/include/asm/cputype.h), and ranges of their revisions.
#![forbid(unsafe_code)]

use core::fmt;

/// A core's model: implementer and part number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Core {
    implementer: u8,
    part: u16,
}

impl Core {
    /// The core with these numbers.
    #[must_use]
    pub const fn new(implementer: u8, part: u16) -> Self {
        Self { implementer, part }
    }

    /// The core that a value of `MIDR_EL1` names.
    #[must_use]
    pub const fn of(midr: u64) -> Self {
        Self { implementer: (midr >> 24 & 0xff) as u8, part: (midr >> 4 & 0xfff) as u16 }
    }

    /// Its name, if the kernel knows it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        CORES.iter().find(|(core, _)| *core == self).map(|(_, name)| *name)
    }
}

/// A revision of a core, `r` VARIANT `p` REVISION. Ordered as they came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revision(u8);

impl Revision {
    /// The first.
    pub const FIRST: Self = Self::new(0, 0);
    /// Later than any.
    pub const LAST: Self = Self::new(15, 15);

    /// Revision `r`VARIANT`p`REVISION; both have four bits.
    #[must_use]
    pub const fn new(variant: u8, revision: u8) -> Self {
        Self((variant & 0xf) << 4 | revision & 0xf)
    }

    /// The revision that a value of `MIDR_EL1` states.
    #[must_use]
    pub const fn of(midr: u64) -> Self {
        Self::new((midr >> 20 & 0xf) as u8, (midr & 0xf) as u8)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}p{}", self.0 >> 4, self.0 & 0xf)
    }
}

/// Revisions of a core, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revisions {
    /// The core.
    pub core: Core,
    /// The first.
    pub first: Revision,
    /// The last.
    pub last: Revision,
}

impl Revisions {
    /// All of a core.
    #[must_use]
    pub const fn all(core: Core) -> Self {
        Self { core, first: Revision::FIRST, last: Revision::LAST }
    }

    /// From the first up to `last`.
    #[must_use]
    pub const fn up_to(core: Core, variant: u8, revision: u8) -> Self {
        Self { core, first: Revision::FIRST, last: Revision::new(variant, revision) }
    }

    /// Of variant 0, from `revision` on.
    #[must_use]
    pub const fn r0_from(core: Core, revision: u8) -> Self {
        Self { core, first: Revision::new(0, revision), last: Revision::new(0, 15) }
    }

    /// Whether a value of `MIDR_EL1` is one of them.
    #[must_use]
    pub fn contain(&self, midr: u64) -> bool {
        Core::of(midr) == self.core && (self.first..=self.last).contains(&Revision::of(midr))
    }
}

impl fmt::Display for Revisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.core.name().unwrap_or("unknown core"))?;
        match (self.first, self.last) {
            (Revision::FIRST, Revision::LAST) => Ok(()),
            (Revision::FIRST, last) => write!(f, " up to {last}"),
            (first, last) => write!(f, " {first} to {last}"),
        }
    }
}

macro_rules! cores {
    ($($constant:ident = $implementer:literal, $part:literal, $name:literal;)*) => {
        impl Core {
            $(#[doc = $name] pub const $constant: Self = Self::new($implementer, $part);)*
        }
        /// Every core that the kernel knows by name.
        const CORES: &[(Core, &str)] = &[$((Core::$constant, $name)),*];
    };
}

cores! {
    QEMU_MAX = 0x00, 0x051, "QEMU max";
    CORTEX_A53 = 0x41, 0xd03, "Cortex-A53";
    CORTEX_A35 = 0x41, 0xd04, "Cortex-A35";
    CORTEX_A55 = 0x41, 0xd05, "Cortex-A55";
    CORTEX_A57 = 0x41, 0xd07, "Cortex-A57";
    CORTEX_A72 = 0x41, 0xd08, "Cortex-A72";
    CORTEX_A73 = 0x41, 0xd09, "Cortex-A73";
    CORTEX_A75 = 0x41, 0xd0a, "Cortex-A75";
    CORTEX_A76 = 0x41, 0xd0b, "Cortex-A76";
    NEOVERSE_N1 = 0x41, 0xd0c, "Neoverse-N1";
    CORTEX_A77 = 0x41, 0xd0d, "Cortex-A77";
    CORTEX_A76AE = 0x41, 0xd0e, "Cortex-A76AE";
    NEOVERSE_V1 = 0x41, 0xd40, "Neoverse-V1";
    CORTEX_A78 = 0x41, 0xd41, "Cortex-A78";
    CORTEX_A78AE = 0x41, 0xd42, "Cortex-A78AE";
    CORTEX_X1 = 0x41, 0xd44, "Cortex-X1";
    CORTEX_A510 = 0x41, 0xd46, "Cortex-A510";
    CORTEX_A710 = 0x41, 0xd47, "Cortex-A710";
    CORTEX_X2 = 0x41, 0xd48, "Cortex-X2";
    NEOVERSE_N2 = 0x41, 0xd49, "Neoverse-N2";
    CORTEX_A78C = 0x41, 0xd4b, "Cortex-A78C";
    CORTEX_X1C = 0x41, 0xd4c, "Cortex-X1C";
    CORTEX_X3 = 0x41, 0xd4e, "Cortex-X3";
    NEOVERSE_V2 = 0x41, 0xd4f, "Neoverse-V2";
    CORTEX_X4 = 0x41, 0xd82, "Cortex-X4";
    NEOVERSE_V3AE = 0x41, 0xd83, "Neoverse-V3AE";
    NEOVERSE_V3 = 0x41, 0xd84, "Neoverse-V3";
    CORTEX_X925 = 0x41, 0xd85, "Cortex-X925";
    C1_ULTRA = 0x41, 0xd8c, "C1-Ultra";
    C1_PREMIUM = 0x41, 0xd90, "C1-Premium";
    OLYMPUS = 0x4e, 0x010, "NVIDIA Olympus";
    COBALT_100 = 0x6d, 0xd49, "Azure Cobalt 100";
    AMPERE_ONE = 0xc0, 0xac3, "AmpereOne";
    AMPERE_ONE_A = 0xc0, 0xac4, "AmpereOne A";
}
