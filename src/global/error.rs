//! One error type for all families, so that a driver can pass on any error with `?`.
#![forbid(unsafe_code)]

use super::{
    BringUpError, CpuRefused, DeviceMemoryError, IoMemError, KvError, KvFreeError, PortError, StackAllocError,
    TagError, UserError,
};
use crate::gfp::GfpError;
use crate::hal::prot::ProtError;
use crate::mm::alloc::{InsertError, Refused};
use crate::mm::dma::{DmaError, PoolError, SpecError};
use crate::mm::io::resource::ResourceError;
use crate::mm::io::{AccessError, IoError, NoKey, NotKept, RegionError};
use crate::mm::mempool::{NotFreed, PoolCreateError, PoolDestroyError, PoolEmpty, PoolResizeError};
use crate::mm::percpu::PerCpuError;
use crate::mm::pgtable::PgtableError;
use crate::mm::slab::{self, CreateError, DestroyError, Misuse};
use crate::mm::user::SpaceFault;
use crate::mm::user::access::UserAccessError;
use crate::mm::user::asid::AsidError;
use crate::mm::user::pages::{FaultError, PagesError};
use crate::mm::vmalloc::{AreaError, SetMemoryError, VmallocError};
use crate::mm::zone::{self, ContigError, FreeError, RegistryError, SleepsInAtomic};
use crate::sync::SwitchError;
use core::fmt;

/// Defines the enum, and each family's conversion into it.
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident($inner:ty),)+) => {
        /// Error of any family of calls: each family's own error converts into it by `?`. It prints as that error.
        ///
        #[doc = concat!("```ignore\n", include_str!("../../docs/families/errors.rs"), "```")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $variant($inner),)+
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(error) => error.fmt(f),)+
                }
            }
        }

        impl core::error::Error for Error {
            /// The family's own error.
            fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
                Some(match self {
                    $(Self::$variant(error) => error,)+
                })
            }
        }

        $(
            impl From<$inner> for Error {
                fn from(error: $inner) -> Self {
                    Self::$variant(error)
                }
            }
        )+
    };
}

families! {
    /// An access of a process that cannot be.
    Space(SpaceFault),
    /// Error of allocating pages.
    Pages(zone::AllocError),
    /// Error of allocating contiguous pages.
    Contig(ContigError),
    /// Error of freeing pages.
    Free(FreeError),
    /// Error of allocating an object.
    Object(slab::SlabAllocError),
    /// Error of freeing an object.
    Misuse(Misuse),
    /// Error of making a cache.
    Cache(CreateError),
    /// Error of destroying a cache: it stays.
    Destroy(DestroyError),
    /// Error of inserting into an array.
    Insert(InsertError),
    /// Error of `kvmalloc`.
    Either(KvError),
    /// Error of `kvfree`.
    EitherFree(KvFreeError),
    /// Error of mapping or unmapping.
    Map(VmallocError),
    /// Error of allocating addresses.
    Area(AreaError),
    /// Error of changing permissions.
    SetMemory(SetMemoryError),
    /// Error of mapping or unmapping a device.
    Io(IoError),
    /// Error of mapping registers as a value.
    IoMem(IoMemError),
    /// Error of accessing a register.
    Access(AccessError),
    /// Error of requesting or releasing addresses.
    Resource(ResourceError<'static>),
    /// Error of finding a device's reserved memory.
    Region(RegionError),
    /// Error of allocating or freeing per-CPU memory.
    PerCpu(PerCpuError),
    /// Error of making a pool of elements.
    PoolCreate(PoolCreateError),
    /// Error of resizing a pool's reserve.
    PoolResize(PoolResizeError),
    /// Error of destroying a pool: it stays.
    PoolDestroy(PoolDestroyError),
    /// Error of allocating an element of a pool.
    PoolEmpty(PoolEmpty),
    /// Error of freeing an element to its pool.
    PoolFree(NotFreed),
    /// Error of allocating or freeing memory for a device.
    Dma(DmaError),
    /// Error in a device tree's description of a device.
    DmaDevice(SpecError),
    /// No memory of the device's own.
    DeviceMemory(DeviceMemoryError),
    /// No pool of coherent memory, or no block of it.
    DmaPool(PoolError),
    /// Error of freeing memory that a device does not have.
    NotKept(NotKept),
    /// Error of releasing a mapping or a region that a device does not have.
    NoKey(NoKey),
    /// Memory of a process that cannot be accessed.
    UserAccess(UserAccessError),
    /// An address space that does not run.
    Asid(AsidError),
    /// No processes on this machine.
    User(UserError),
    /// Error of changing the areas of a process.
    UserMap(crate::mm::user::map::MapError),
    /// No I/O ports.
    Port(PortError),
    /// Error of allocating a stack.
    Stack(StackAllocError),
    /// Error of changing page tables.
    Tables(PgtableError),
    /// Error of protections that contradict each other.
    Prot(ProtError),
    /// Memory of a user space that stays as it is.
    UserPages(PagesError),
    /// An access of a user space that cannot be.
    UserFault(FaultError),
    /// Flags that contradict each other.
    Flags(GfpError),
    /// Error of registering with reclaim.
    Registry(RegistryError),
    /// Error of a call that may sleep, where that is not legal.
    Sleeps(SleepsInAtomic),
    /// Error of switching threads.
    Switch(SwitchError),
    /// Error of switching memory tags on.
    Tags(TagError),
    /// Error of bringing the kernel up.
    BringUp(BringUpError),
    /// Error of a CPU that joins.
    Cpu(CpuRefused),
}

/// From [`KVec::push`](super::KVec) and its sisters: the value is dropped.
impl<T, E: Into<Self>> From<Refused<T, E>> for Error {
    fn from(refused: Refused<T, E>) -> Self {
        refused.error.into()
    }
}

/// From [`KmemCache::destroy`](super::KmemCache::destroy) and that of a typed cache: the cache stays for good.
impl<C> From<(C, DestroyError)> for Error {
    fn from((_, error): (C, DestroyError)) -> Self {
        Self::Destroy(error)
    }
}

/// From [`mempool_destroy`](super::mempool_destroy): the pool stays.
impl<C> From<(C, PoolDestroyError)> for Error {
    fn from((_, error): (C, PoolDestroyError)) -> Self {
        Self::PoolDestroy(error)
    }
}
