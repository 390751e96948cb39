//! The free blocks of a zone, all behind its lock: lists by order and migrate type, the buddy system over them, and the
//! watermarks that say how far they may be emptied. The lowest layer: it knows no CPU and no machine.
#![forbid(unsafe_code)]

mod buddy;
mod fallback;
mod free_area;
mod pageblock;
mod watermark;
mod zone;

pub use watermark::{Mark, WatermarkTuning, Watermarks};
pub use zone::ZoneEvents;

pub(super) use buddy::{block_type, set_block_type};
pub(super) use free_area::Corrupt;
pub(super) use watermark::Reach;
pub(super) use zone::Zone;
