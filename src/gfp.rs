//! L0: `Gfp`, the flags of a caller of an allocator (Linux: `include/linux/gfp_types.h`).
#![forbid(unsafe_code)]

use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// Flags of an allocation: the actions it may take to succeed, and the kind of memory it needs.
    ///
    /// The compound names ([`Gfp::KERNEL`], [`Gfp::ATOMIC`], …) are what callers use; the modifiers are added to them.
    /// Combinations that contradict themselves are refused by every allocator: see [`Gfp::check`].
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Gfp: u32 {
        /// From the zone that every device reaches ([`ZoneType::Dma`]) and no other.
        const DMA = 1 << 0;
        /// From memory that 32-bit devices reach ([`ZoneType::Dma32`]) or below.
        const DMA32 = 1 << 1;
        /// The caller does not need the memory in the linear map. All memory is in it on a 64-bit machine, so for
        /// pages this changes nothing; `kmalloc` refuses it.
        const HIGHMEM = 1 << 2;
        /// The content can be moved elsewhere or dropped: grouped with its like, so that large blocks survive.
        const MOVABLE = 1 << 3;
        /// The content is freed when a registered shrinker asks for it: grouped with its like.
        const RECLAIMABLE = 1 << 4;
        /// May use a part of the reserve below the `min` watermark.
        const HIGH = 1 << 5;
        /// Reclaim may start input and output.
        const IO = 1 << 6;
        /// Reclaim may call into file systems.
        const FS = 1 << 7;
        /// The memory is zeroed.
        const ZERO = 1 << 8;
        /// The caller may wait, so it may reclaim memory itself.
        const DIRECT_RECLAIM = 1 << 9;
        /// The background reclaimer is woken when memory falls below the `low` watermark.
        const KSWAPD_RECLAIM = 1 << 10;
        /// A failure is not logged.
        const NOWARN = 1 << 11;
        /// Reclaim again as long as there is progress, but fail rather than call the OOM hook.
        const RETRY_MAYFAIL = 1 << 12;
        /// Never fail: wait until memory is free. Only with [`Gfp::DIRECT_RECLAIM`].
        const NOFAIL = 1 << 13;
        /// Reclaim once, then fail.
        const NORETRY = 1 << 14;
        /// May use all of the reserve: the caller is about to free memory.
        const MEMALLOC = 1 << 15;
        /// May not use the reserve: wins over [`Gfp::MEMALLOC`] and all other flags.
        const NOMEMALLOC = 1 << 16;
        /// A compound page: each of its pages points to the first, which knows the order.
        const COMP = 1 << 17;
        /// Counted as memory that user space has caused.
        const ACCOUNT = 1 << 18;
        /// From the cold end of the per-CPU list: a device will write the page first, the cache need not hold it.
        const COLD = 1 << 19;
        /// From the hot end of the per-CPU list, which is the default.
        const HOT = 1 << 20;

        /// Reclaim of both kinds.
        const RECLAIM = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The right to wait and to reclaim (Linux before 4.4: `__GFP_WAIT`).
        const WAIT = Self::RECLAIM.bits();
        /// The older name of [`Gfp::RETRY_MAYFAIL`].
        const REPEAT = Self::RETRY_MAYFAIL.bits();

        /// The usual: the caller may wait, reclaim may do anything.
        const KERNEL = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// [`Gfp::KERNEL`] memory that user space has caused.
        const KERNEL_ACCOUNT = Self::KERNEL.bits() | Self::ACCOUNT.bits();
        /// The caller may not wait, and must succeed if at all possible: part of the reserve is open to it.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The caller may not wait, and has another way if there is no memory.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits() | Self::NOWARN.bits();
        /// May wait; reclaim may not start input or output.
        const NOIO = Self::RECLAIM.bits();
        /// May wait; reclaim may not call into file systems.
        const NOFS = Self::RECLAIM.bits() | Self::IO.bits();
        /// For user space, which the kernel reaches too.
        const USER = Self::KERNEL.bits();
        /// For user space; the kernel rarely reaches it.
        const HIGHUSER = Self::USER.bits() | Self::HIGHMEM.bits();
        /// For user space, and movable.
        const HIGHUSER_MOVABLE = Self::HIGHUSER.bits() | Self::MOVABLE.bits();
    }
}

/// The zones by what reaches them, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ZoneType {
    /// Memory that every device can reach.
    Dma = 0,
    /// Memory that devices with 32 address bits can reach.
    Dma32 = 1,
    /// The rest.
    Normal = 2,
}

impl ZoneType {
    /// Number of zones.
    pub const COUNT: usize = 3;
    /// All of them, lowest first.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Dma32, Self::Normal];

    /// The position in [`ZoneType::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that `zoneinfo` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "Normal",
        }
    }
}

/// Later use of a block's content, which decides the page block it is placed in (Linux: the first three of `enum migratetype`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Mobility {
    /// It stays until it is freed.
    Unmovable = 0,
    /// It can be moved or dropped.
    Movable = 1,
    /// A shrinker frees it.
    Reclaimable = 2,
}

impl Mobility {
    /// Number of mobilities.
    pub const COUNT: usize = 3;
}

/// Reason why a set of flags is refused: it contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GfpError {
    /// Two of [`Gfp::DMA`], [`Gfp::DMA32`] and [`Gfp::HIGHMEM`]: memory lies in one zone.
    TwoZones,
    /// [`Gfp::MOVABLE`] and [`Gfp::RECLAIMABLE`].
    TwoMobilities,
    /// Two of [`Gfp::NOFAIL`], [`Gfp::RETRY_MAYFAIL`] and [`Gfp::NORETRY`].
    TwoEfforts,
    /// [`Gfp::NOFAIL`] without the right to wait: it could only spin.
    NofailWithoutWait,
    /// [`Gfp::HOT`] and [`Gfp::COLD`].
    HotAndCold,
    /// Bits that are no flag.
    UnknownBits,
}

impl fmt::Display for GfpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoZones => "more than one of DMA, DMA32, HIGHMEM",
            Self::TwoMobilities => "MOVABLE and RECLAIMABLE",
            Self::TwoEfforts => "more than one of NOFAIL, RETRY_MAYFAIL, NORETRY",
            Self::NofailWithoutWait => "NOFAIL without the right to wait",
            Self::HotAndCold => "HOT and COLD",
            Self::UnknownBits => "bits that are no flag",
        })
    }
}

impl core::error::Error for GfpError {}

impl Gfp {
    const ZONES: u32 = Self::DMA.bits() | Self::DMA32.bits() | Self::HIGHMEM.bits();
    const MOBILITIES: u32 = Self::MOVABLE.bits() | Self::RECLAIMABLE.bits();
    const EFFORTS: u32 = Self::NOFAIL.bits() | Self::RETRY_MAYFAIL.bits() | Self::NORETRY.bits();
    const ENDS: u32 = Self::HOT.bits() | Self::COLD.bits();
    /// Flags that [`Gfp::effort`] keeps.
    const EFFORT: Self = Self::RECLAIM
        .union(Self::HIGH)
        .union(Self::IO)
        .union(Self::FS)
        .union(Self::NOWARN)
        .union(Self::RETRY_MAYFAIL)
        .union(Self::NOFAIL)
        .union(Self::NORETRY)
        .union(Self::MEMALLOC)
        .union(Self::NOMEMALLOC);

    /// Refuses flags that contradict each other. Free where the flags are constant.
    ///
    /// Two combinations look like contradictions and are not: [`Gfp::NOMEMALLOC`] wins over [`Gfp::MEMALLOC`], so that a
    /// scope which may use the reserve can call code that must not, and [`Gfp::HIGH`] may be added to flags that wait.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    #[inline]
    pub const fn check(self) -> Result<(), GfpError> {
        let bits = self.bits();
        if bits & !Self::all().bits() != 0 {
            Err(GfpError::UnknownBits)
        } else if (bits & Self::ZONES).count_ones() > 1 {
            Err(GfpError::TwoZones)
        } else if bits & Self::MOBILITIES == Self::MOBILITIES {
            Err(GfpError::TwoMobilities)
        } else if (bits & Self::EFFORTS).count_ones() > 1 {
            Err(GfpError::TwoEfforts)
        } else if self.contains(Self::NOFAIL) && !self.may_wait() {
            Err(GfpError::NofailWithoutWait)
        } else if bits & Self::ENDS == Self::ENDS {
            Err(GfpError::HotAndCold)
        } else {
            Ok(())
        }
    }

    /// The highest zone that the memory may come from.
    #[must_use]
    #[inline]
    pub const fn zone(self) -> ZoneType {
        if self.contains(Self::DMA) {
            ZoneType::Dma
        } else if self.contains(Self::DMA32) {
            ZoneType::Dma32
        } else {
            ZoneType::Normal
        }
    }

    /// Mobility of the content.
    #[must_use]
    #[inline]
    pub const fn mobility(self) -> Mobility {
        if self.contains(Self::MOVABLE) {
            Mobility::Movable
        } else if self.contains(Self::RECLAIMABLE) {
            Mobility::Reclaimable
        } else {
            Mobility::Unmovable
        }
    }

    /// The flags that say how memory may be found, without those for the kind of memory and its later use. An allocator passes
    /// them on when it needs memory of its own to serve the caller (Linux: `GFP_RECLAIM_MASK`).
    #[must_use]
    #[inline]
    pub const fn effort(self) -> Self {
        self.intersection(Self::EFFORT)
    }

    /// Whether the caller may wait (Linux: `gfpflags_allow_blocking`).
    #[must_use]
    #[inline]
    pub const fn may_wait(self) -> bool {
        self.contains(Self::DIRECT_RECLAIM)
    }
}

impl fmt::Display for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}
