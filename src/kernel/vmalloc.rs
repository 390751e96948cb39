//! Bringing the vmalloc region up.

use super::bootargs::BootArgs;
use crate::addr::Bytes;
use crate::addr::PAGE_SIZE;
use crate::global::{self, BringUpError, Options};
use log::info;

/// Sets the region up, as large as `vmalloc=` says, and per-CPU memory. Boot CPU, once, when pages can be allocated.
pub(super) fn init(args: BootArgs<'_>) -> Result<(), BringUpError> {
    let bounce_slots = args.number("swiotlb");
    let options = Options { vmalloc: args.any_size("vmalloc"), bounce_slots, ..Options::DEFAULT };
    let region = global::bring_areas_up(&options)?;
    let waiting = global::vmap_space().lazy_max_pages() * PAGE_SIZE;
    info!("vmalloc: {} at {}, {} may wait for a purge", Bytes(region.size()), region.start(), Bytes(waiting));
    Ok(())
}
