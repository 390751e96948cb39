//! Protection and memory type of a mapping: access, privilege, memory behaviour. Two combinations have no encoding at all:
//! writable and executable together, and Device memory that is executable.
#![forbid(unsafe_code)]

use core::fmt;

/// The memory type of a mapping: an index into `MAIR_EL1`, which is programmed in this order (Arm ARM D8.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum MemoryType {
    /// Device, no gathering, no reordering, no early write acknowledgement: configuration space.
    DeviceNGnRnE = 0,
    /// Device, no gathering, no reordering: the type for registers, and of `ioremap`.
    DeviceNGnRE = 1,
    /// Device, no gathering.
    DeviceNGRE = 2,
    /// Device that may gather and reorder.
    DeviceGRE = 3,
    /// Normal, not cached: write-combining frame buffers, coherent DMA memory of devices that do not snoop.
    NonCacheable = 4,
    /// Normal, cached, written through.
    WriteThrough = 5,
    /// Normal, cached, written back: all ordinary memory.
    WriteBack = 6,
    /// Normal write-back with allocation tags (MTE); plain write-back on a CPU without them.
    WriteBackTagged = 7,
}

impl MemoryType {
    /// All types, in the order of `MAIR_EL1`.
    pub const ALL: [Self; 8] = [
        Self::DeviceNGnRnE,
        Self::DeviceNGnRE,
        Self::DeviceNGRE,
        Self::DeviceGRE,
        Self::NonCacheable,
        Self::WriteThrough,
        Self::WriteBack,
        Self::WriteBackTagged,
    ];

    /// The index into `MAIR_EL1`.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The type at an index of `MAIR_EL1`; only the low three bits are used.
    #[must_use]
    pub const fn from_index(index: u8) -> Self {
        match index & 7 {
            0 => Self::DeviceNGnRnE,
            1 => Self::DeviceNGnRE,
            2 => Self::DeviceNGRE,
            3 => Self::DeviceGRE,
            4 => Self::NonCacheable,
            5 => Self::WriteThrough,
            6 => Self::WriteBack,
            _ => Self::WriteBackTagged,
        }
    }

    /// Whether this is one of the Device types: accesses must be aligned, and nothing may be executed.
    #[must_use]
    pub const fn is_device(self) -> bool {
        self.index() < Self::NonCacheable.index()
    }

    /// Whether two live mappings of one frame may have these types (Arm ARM B2.12, mismatched attributes). Write-back
    /// with and without tags count as one.
    #[must_use]
    pub const fn agrees_with(self, other: Self) -> bool {
        let both_write_back = self.index() >= Self::WriteBack.index() && other.index() >= Self::WriteBack.index();
        self.index() == other.index() || both_write_back
    }

    /// The short name that the page-table dump prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceNGnRnE => "DEVICE/nGnRnE",
            Self::DeviceNGnRE => "DEVICE/nGnRE",
            Self::DeviceNGRE => "DEVICE/nGRE",
            Self::DeviceGRE => "DEVICE/GRE",
            Self::NonCacheable => "MEM/NC",
            Self::WriteThrough => "MEM/WT",
            Self::WriteBack => "MEM/WB",
            Self::WriteBackTagged => "MEM/WB-TAGGED",
        }
    }
}

/// Accesses that a mapping permits. One field for write and execute, so that both together cannot be expressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
    /// Read and execute, at the mapping's own privilege only.
    Execute,
}

/// Privilege level that may use a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Privilege {
    /// EL1 alone. EL0 can neither read nor execute it.
    Kernel,
    /// EL0, and EL1 through the user-copy routines. EL1 never executes it.
    User,
}

/// A combination that no mapping may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProtError {
    /// Executable Device memory: the CPU may fetch from it speculatively, and so touch a register by itself.
    ExecutableDevice,
}

impl fmt::Display for ProtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExecutableDevice => f.write_str("Device memory cannot be executable"),
        }
    }
}

impl core::error::Error for ProtError {}

/// Everything about a mapping but its addresses.
///
/// # Invariants
///
/// - `PROT-1`: a Device type is never [`Access::Execute`].
/// - `PROT-2`: only [`Access::ReadWrite`] and [`Access::ReadOnly`] can be dirty.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prot {
    access: Access,
    privilege: Privilege,
    memory: MemoryType,
    global: bool,
    accessed: bool,
    dirty: bool,
}

impl Prot {
    /// Kernel code.
    pub const KERNEL_RX: Self = Self::kernel(Access::Execute);
    /// Kernel constants.
    pub const KERNEL_RO: Self = Self::kernel(Access::ReadOnly);
    /// Kernel data.
    pub const KERNEL_RW: Self = Self::kernel(Access::ReadWrite);
    /// Device registers.
    pub const KERNEL_DEVICE: Self = Self { memory: MemoryType::DeviceNGnRE, ..Self::KERNEL_RW };

    /// A global write-back mapping for the kernel, accessed and, if writable, dirty from the start.
    #[must_use]
    pub const fn kernel(access: Access) -> Self {
        // INVARIANT: PROT-1 as write-back is no Device type; PROT-2 by the match.
        Self {
            access,
            privilege: Privilege::Kernel,
            memory: MemoryType::WriteBack,
            global: true,
            accessed: true,
            dirty: matches!(access, Access::ReadWrite),
        }
    }

    /// A non-global write-back mapping for user space, accessed, and clean: the first write marks it dirty.
    #[must_use]
    pub const fn user(access: Access) -> Self {
        // INVARIANT: PROT-1 as write-back is no Device type; PROT-2 as it is clean.
        Self {
            access,
            privilege: Privilege::User,
            memory: MemoryType::WriteBack,
            global: false,
            accessed: true,
            dirty: false,
        }
    }

    /// The same with another memory type.
    ///
    /// # Errors
    ///
    /// [`ProtError::ExecutableDevice`] if this is executable and `memory` a Device type.
    pub const fn with_memory(self, memory: MemoryType) -> Result<Self, ProtError> {
        if memory.is_device() && matches!(self.access, Access::Execute) {
            return Err(ProtError::ExecutableDevice);
        }
        // INVARIANT: PROT-1 by the comparison.
        Ok(Self { memory, ..self })
    }

    /// The same with other access. Executable is never dirty; kernel memory that becomes writable is dirty at once.
    ///
    /// # Errors
    ///
    /// [`ProtError::ExecutableDevice`] if `access` is executable and the memory type a Device type.
    pub const fn with_access(self, access: Access) -> Result<Self, ProtError> {
        let dirty = match access {
            Access::Execute if self.memory.is_device() => return Err(ProtError::ExecutableDevice),
            Access::Execute => false,
            Access::ReadOnly => self.dirty,
            Access::ReadWrite => self.dirty || matches!(self.privilege, Privilege::Kernel),
        };
        // INVARIANT: PROT-1 by the first arm, PROT-2 by the second.
        Ok(Self { access, dirty, ..self })
    }

    /// The same, in the TLB under its address space's number alone (`nG`), or for all address spaces.
    #[must_use]
    pub const fn with_global(self, global: bool) -> Self {
        Self { global, ..self }
    }

    /// The same with the accessed flag set or clear (Linux: `pte_mkyoung`, `pte_mkold`). The first access to a mapping
    /// without it faults, unless the CPU sets the flag by itself.
    #[must_use]
    pub const fn with_accessed(self, accessed: bool) -> Self {
        Self { accessed, ..self }
    }

    /// The same, dirty or clean (Linux: `pte_mkdirty`, `pte_mkclean`). A clean writable mapping faults on the first
    /// write, unless the CPU keeps the dirty state by itself. Executable memory stays clean.
    #[must_use]
    pub const fn with_dirty(self, dirty: bool) -> Self {
        // INVARIANT: PROT-2 by the mask.
        Self { dirty: dirty && !matches!(self.access, Access::Execute), ..self }
    }

    /// Accesses that the mapping permits.
    #[must_use]
    pub const fn access(self) -> Access {
        self.access
    }

    /// Privilege level that may use the mapping.
    #[must_use]
    pub const fn privilege(self) -> Privilege {
        self.privilege
    }

    /// The memory type.
    #[must_use]
    pub const fn memory(self) -> MemoryType {
        self.memory
    }

    /// Whether the translation holds in every address space.
    #[must_use]
    pub const fn is_global(self) -> bool {
        self.global
    }

    /// Whether the mapping was accessed since the flag was last cleared.
    #[must_use]
    pub const fn is_accessed(self) -> bool {
        self.accessed
    }

    /// Whether the mapping was written since it was last cleaned.
    #[must_use]
    pub const fn is_dirty(self) -> bool {
        self.dirty
    }

    /// Whether the mapping may be written, now or after its first write fault.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        matches!(self.access, Access::ReadWrite)
    }

    /// Whether the mapping may be executed at its own privilege.
    #[must_use]
    pub const fn is_executable(self) -> bool {
        matches!(self.access, Access::Execute)
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if matches!(self.privilege, Privilege::User) { "USR" } else { "   " };
        let access = match self.access {
            Access::ReadOnly => "ro NX",
            Access::ReadWrite => "RW NX",
            Access::Execute => "ro x ",
        };
        let scope = if self.global { "  " } else { "NG" };
        write!(f, "{user} {access} {scope} {}", self.memory.name())
    }
}

impl fmt::Debug for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |set, name| if set { name } else { "" };
        write!(f, "{:?} {:?} {:?}", self.privilege, self.access, self.memory)?;
        write!(f, "{}{}{}", flag(self.global, " global"), flag(self.accessed, " young"), flag(self.dirty, " dirty"))
    }
}
