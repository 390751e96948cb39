//! L3: the algorithms and policy of memory management, generic over the machine.

pub mod alloc;
pub mod dma;
pub mod fault_inject;
pub mod io;
pub mod layout;
pub mod memblock;
pub mod mempool;
pub mod page;
pub mod percpu;
pub mod pgtable;
pub mod slab;
pub mod tags;
pub mod user;
pub mod vmalloc;
pub mod zone;
