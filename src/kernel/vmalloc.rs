//! Bringing the vmalloc region up.

use super::bootargs::BootArgs;
use super::bytes::Bytes;
use crate::addr::PAGE_SIZE;
use crate::instance;
use crate::mm::vmalloc::SetupError;
use log::{info, warn};

/// Sets the region up, as large as `vmalloc=` says. Boot CPU, once, when pages can be allocated.
pub(super) fn init(args: BootArgs<'_>) -> Result<(), SetupError> {
    let region = instance::vmalloc_init(args.any_size("vmalloc"))?;
    if let Err(error) = instance::percpu_init() {
        warn!("per-CPU memory: {error}");
    }
    let waiting = instance::vmap_space().lazy_max_pages() * PAGE_SIZE;
    info!("vmalloc: {} at {}, {} may wait for a purge", Bytes(region.size()), region.start(), Bytes(waiting));
    Ok(())
}
