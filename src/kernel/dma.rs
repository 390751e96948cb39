//! DMA at boot: the settings of the boot arguments.
#![forbid(unsafe_code)]

use super::bootargs::BootArgs;
use crate::addr::Bytes;
use crate::global;
use log::{info, warn};

/// Makes reserves of uncached memory (`coherent_pool=`) and lets calls be checked (`dma_debug=`). Boot CPU, once, when the
/// linear map can be changed.
pub(super) fn init(args: BootArgs<'_>) {
    if let Some(bytes) = args.any_size("coherent_pool") {
        match global::dma_coherent_pool(bytes) {
            Ok(()) => info!("DMA: {} uncached", Bytes(global::dma().reserved_pages().0 * crate::addr::PAGE_SIZE)),
            Err(error) => warn!("coherent_pool={bytes}: {error}"),
        }
    }
    if let Some(mappings) = args.number("dma_debug") {
        match usize::try_from(mappings).map(global::dma_debug) {
            Ok(Ok(())) => info!("DMA: calls are checked, up to {mappings} mappings"),
            Ok(Err(error)) => warn!("dma_debug={mappings}: {error}"),
            Err(error) => warn!("dma_debug={mappings}: {error}"),
        }
    }
}
