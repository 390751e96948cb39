//! Memory pools: a minimum of elements that is always there (Linux: `mm/mempool.c`).
//!
//! A pool stands in front of a [`Backing`]: pages, `kmalloc`, a cache, or functions of the caller. It keeps a **reserve** of
//! elements, allocated when the pool is made. As long as the backing has memory the reserve is not touched; when the backing
//! fails, elements come out of the reserve; when that is empty too, a caller that may wait waits until an element is freed.
//! A freed element fills the reserve before anything goes back to the backing. So work that frees its own allocations always
//! gets on, one element at a time at least, however short memory is.
//!
//! ```text
//!             1 without reclaim ┌─────────┐
//!   alloc ──────────────────────► backing ◄──────────────── free, reserve full
//!     │       3 with reclaim    └─────────┘
//!     │       2                 ┌─────────┐
//!     ├─────────────────────────► reserve ◄──────────────── free, reserve not full
//!     │                         └─────────┘                   │
//!     └─ 4  waits ◄───────────────────────────────────────────┘ wakes
//! ```
//!
//! # What misuse a pool finds
//!
//! An element that goes into the reserve is checked: it must belong to the backing, be in use, and not be in the reserve
//! already. While it is there it is marked or, with [`PoolSpec::with_poison`], filled with a pattern. An element that comes out
//! damaged was written to after its free: it is reported and set aside, never given out.
//!
//! # Contexts
//!
//! Allocating without the right to wait, and freeing, are allowed everywhere. The lock is taken with interrupts masked, and
//! nothing else happens under it than taking an element out of a list or putting it in.

mod backing;
mod check;
mod error;
mod poison;
mod pool;
mod raw_calls;
mod reserve;
mod typed;

pub use backing::{Backing, CacheBacking, Functions, KmallocBacking, PageBacking};
pub use check::PoolBroken;
pub use error::{NotElement, NotFreed, PoolCreateError, PoolDestroyError, PoolEmpty, PoolResizeError};
pub use poison::{POISON_END, POISON_FREE, POISON_IN_USE};
pub use pool::{PoolHal, PoolSpec, PoolStats, RawMempool};
pub use typed::{Mempool, MempoolBox};
