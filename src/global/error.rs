//! One error type for all families, so that a driver can pass on any error with `?`.
#![forbid(unsafe_code)]

use super::{BringUpError, CpuRefused, IoMemError, KvError, KvFreeError, PortError, StackAllocError, TagError};
use crate::gfp::GfpError;
use crate::hal::prot::ProtError;
use crate::mm::alloc::{InsertError, Refused};
use crate::mm::dma::{DmaError, PoolError, SpecError};
use crate::mm::io::resource::ResourceError;
use crate::mm::io::{AccessError, IoError, NotKept, RegionError};
use crate::mm::mempool::{NotFreed, PoolCreateError, PoolDestroyError, PoolEmpty, PoolResizeError};
use crate::mm::percpu::PerCpuError;
use crate::mm::pgtable::PgtableError;
use crate::mm::slab::{self, CreateError, DestroyError, Misuse};
use crate::mm::vmalloc::{AreaError, MapError, SetMemoryError};
use crate::mm::zone::{self, ContigError, FreeError, RegistryError, SleepsInAtomic};
use crate::sync::SwitchError;
use core::fmt;

/// The enum, and for each family the way into it.
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
    /// No pages.
    Pages(zone::AllocError),
    /// No contiguous pages.
    Contig(ContigError),
    /// Pages that are not freed.
    Free(FreeError),
    /// No object.
    Object(slab::AllocError),
    /// An object that is not freed.
    Misuse(Misuse),
    /// No cache.
    Cache(CreateError),
    /// A cache that stays.
    Destroy(DestroyError),
    /// Error of inserting into an array.
    Insert(InsertError),
    /// Neither an object nor an area.
    Either(KvError),
    /// Neither of them is freed.
    EitherFree(KvFreeError),
    /// Error of mapping or unmapping.
    Map(MapError),
    /// No addresses.
    Area(AreaError),
    /// Permissions stay.
    SetMemory(SetMemoryError),
    /// Error of mapping or unmapping a device.
    Io(IoError),
    /// No registers as a value.
    IoMem(IoMemError),
    /// No access to a register.
    Access(AccessError),
    /// Addresses that are not to be had, or not given back.
    Resource(ResourceError<'static>),
    /// No reserved memory for a device.
    Region(RegionError),
    /// Error of allocating or freeing per-CPU memory.
    PerCpu(PerCpuError),
    /// A pool of elements that is not made.
    PoolCreate(PoolCreateError),
    /// A pool whose reserve stays as large as it is.
    PoolResize(PoolResizeError),
    /// A pool that stays.
    PoolDestroy(PoolDestroyError),
    /// No element of a pool.
    PoolEmpty(PoolEmpty),
    /// An element that does not go back to its pool.
    PoolFree(NotFreed),
    /// Error of allocating or freeing memory for a device.
    Dma(DmaError),
    /// A device that its tree describes wrongly.
    DmaDevice(SpecError),
    /// No pool of coherent memory, or no block of it.
    DmaPool(PoolError),
    /// Memory that a device does not have.
    NotKept(NotKept),
    /// No I/O ports.
    Port(PortError),
    /// No stack.
    Stack(StackAllocError),
    /// Page tables that stay as they are.
    Tables(PgtableError),
    /// Protections that contradict each other.
    Prot(ProtError),
    /// Flags that contradict each other.
    Flags(GfpError),
    /// Nothing registered with reclaim.
    Registry(RegistryError),
    /// A call that may sleep, where that is not legal.
    Sleeps(SleepsInAtomic),
    /// A thread that is not left for another.
    Switch(SwitchError),
    /// No memory tags.
    Tags(TagError),
    /// The kernel is not brought up.
    BringUp(BringUpError),
    /// A CPU does not join.
    Cpu(CpuRefused),
}

/// Of [`KVec::push`](super::KVec) and its sisters: the value is dropped.
impl<T, E: Into<Self>> From<Refused<T, E>> for Error {
    fn from(refused: Refused<T, E>) -> Self {
        refused.error.into()
    }
}

/// Of [`KmemCache::destroy`](super::KmemCache::destroy) and that of a typed cache: the cache stays for good.
impl<C> From<(C, DestroyError)> for Error {
    fn from((_, error): (C, DestroyError)) -> Self {
        Self::Destroy(error)
    }
}

/// Of [`mempool_destroy`](super::mempool_destroy): the pool stays.
impl<C> From<(C, PoolDestroyError)> for Error {
    fn from((_, error): (C, PoolDestroyError)) -> Self {
        Self::PoolDestroy(error)
    }
}
