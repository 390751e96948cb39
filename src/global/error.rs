//! One error for all families, so that a driver passes on with `?` whatever any of them says.
#![forbid(unsafe_code)]

use super::{
    BringUpError, CpuRefused, DeviceMemoryError, IoMemError, KvError, KvFreeError, PortError, StackAllocError, TagError,
};
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
        /// What any family of calls says when it refuses: made of each family's own error by `?`. It prints as that error.
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
    /// Nothing put into a row of values.
    Insert(InsertError),
    /// Neither an object nor an area.
    Either(KvError),
    /// Neither of them is freed.
    EitherFree(KvFreeError),
    /// No mapping, or none that is taken away.
    Map(MapError),
    /// No addresses.
    Area(AreaError),
    /// Permissions stay.
    SetMemory(SetMemoryError),
    /// No mapping of a device, or none that is taken away.
    Io(IoError),
    /// No registers as a value.
    IoMem(IoMemError),
    /// No access to a register.
    Access(AccessError),
    /// Addresses that are not to be had, or not given back.
    Resource(ResourceError<'static>),
    /// No reserved memory for a device.
    Region(RegionError),
    /// No per-CPU memory, or none that is freed.
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
    /// No memory for a device, or none that is given back.
    Dma(DmaError),
    /// A device that its tree describes wrongly.
    DmaDevice(SpecError),
    /// No memory of the device's own.
    DeviceMemory(DeviceMemoryError),
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
