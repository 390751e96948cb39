//! Permissions and behaviour of an area of a user address space (Linux: `vm_flags`).
#![forbid(unsafe_code)]

use core::fmt;

bitflags::bitflags! {
    /// Permissions and behaviour of an area. Names as in Linux (`include/linux/mm.h`, without `VM_`); only the flags
    /// that have an effect here exist.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct VmFlags: u32 {
        /// The process may read.
        const READ = 1 << 0;
        /// The process may write. Never together with [`VmFlags::EXEC`].
        const WRITE = 1 << 1;
        /// The process may execute.
        const EXEC = 1 << 2;
        /// Writes are seen by everyone who maps the object (`MAP_SHARED`).
        const SHARED = 1 << 3;
        /// `mprotect` may permit reading.
        const MAYREAD = 1 << 4;
        /// `mprotect` may permit writing.
        const MAYWRITE = 1 << 5;
        /// `mprotect` may permit executing.
        const MAYEXEC = 1 << 6;
        /// Grows downwards when an address below it is touched: a stack.
        const GROWSDOWN = 1 << 8;
        /// There may be guard pages in it. Sticky: an area that others are merged into takes it over.
        const MAYBE_GUARD = 1 << 9;
        /// Maps page frames that have no owner of their own: device registers (`remap_pfn_range`).
        const PFNMAP = 1 << 10;
        /// Its pages are not taken away (`mlock`); they count against the limit of locked pages.
        const LOCKED = 1 << 13;
        /// Device registers: reading may have an effect.
        const IO = 1 << 14;
        /// A child made by `fork` does not get it.
        const DONTCOPY = 1 << 17;
        /// `mremap` does not make it larger.
        const DONTEXPAND = 1 << 18;
        /// Maps frames with and without owners.
        const MIXEDMAP = 1 << 28;
        /// The object is a file or a device, not anonymous memory.
        const FILE = 1 << 29;
        /// The file wants to hear of every area that it gets and loses. Such an area is never deleted by a merge (Linux:
        /// `vm_ops->close`).
        const HOOKS = 1 << 30;
        /// `munmap`, `mprotect` and `mremap` leave it alone (`mseal`).
        const SEALED = 1 << 31;

        /// The flags that `mprotect` changes.
        const ACCESS = Self::READ.bits() | Self::WRITE.bits() | Self::EXEC.bits();
        /// The flags that limit `mprotect`: each lets it set the flag of `ACCESS` of the same name.
        const MAYACCESS = Self::MAYREAD.bits() | Self::MAYWRITE.bits() | Self::MAYEXEC.bits();
        /// An area with one of these is never merged, nor made larger (Linux: `VM_SPECIAL`).
        const SPECIAL = Self::IO.bits() | Self::DONTEXPAND.bits() | Self::PFNMAP.bits() | Self::MIXEDMAP.bits();
        /// Areas that differ in these alone can be merged, and the merged area has those of both (Linux: `VM_STICKY`).
        const STICKY = Self::MAYBE_GUARD.bits();
    }
}

impl VmFlags {
    /// Whether areas with these flags may be merged, as far as flags decide it (Linux: `VM_IGNORE_MERGE`).
    #[inline(always)]
    #[must_use]
    pub const fn merges_with(self, other: Self) -> bool {
        let differ = (self.bits() ^ other.bits()) & !(Self::STICKY.bits() | Self::HOOKS.bits());
        differ == 0 && !self.intersects(Self::SPECIAL)
    }

    /// Whether the access that is permitted is also permitted to be permitted.
    #[inline(always)]
    #[must_use]
    pub const fn access_is_allowed(self) -> bool {
        // The MAY bits are the access bits, shifted by four.
        self.bits() & !(self.bits() >> 4) & Self::ACCESS.bits() == 0
    }

    /// Whether this is writable and executable at once, which nothing ever is.
    #[inline(always)]
    #[must_use]
    pub const fn is_write_exec(self) -> bool {
        self.contains(Self::WRITE.union(Self::EXEC))
    }

    /// Whether the area's object has an identity: a file, or memory shared by name. Private anonymous memory has none.
    #[inline(always)]
    #[must_use]
    pub const fn has_named_object(self) -> bool {
        self.intersects(Self::FILE.union(Self::SHARED))
    }

    /// Whether the area counts as data (`RLIMIT_DATA`): private, writable, no stack.
    #[inline(always)]
    #[must_use]
    pub const fn is_data(self) -> bool {
        self.contains(Self::WRITE) && !self.intersects(Self::SHARED.union(Self::GROWSDOWN))
    }
}

impl fmt::Display for VmFlags {
    /// The four letters of `/proc/PID/maps`: `rw-p`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |flag, yes, no| if self.contains(flag) { yes } else { no };
        let read = letter(Self::READ, "r", "-");
        let write = letter(Self::WRITE, "w", "-");
        let exec = letter(Self::EXEC, "x", "-");
        let shared = letter(Self::SHARED, "s", "p");
        write!(f, "{read}{write}{exec}{shared}")
    }
}
