//! DMA at boot, as the boot arguments ask for it, and at the prompt.
#![forbid(unsafe_code)]

use super::bootargs::{BootArgs, parse_number};
use super::dma_benchmark::DmaBenchmark;
use crate::addr::Bytes;
use crate::fdt::Tree;
use crate::global;
use crate::kprintln;
use crate::mm::dma::DmaDirection;
use log::{info, warn};

/// Makes the tree's default pool and reserves of uncached memory (`coherent_pool=`), and lets calls be checked (`dma_debug=`). Boot CPU, once, when the
/// linear map can be changed.
pub(super) fn init(tree: &Tree<'static>, args: BootArgs<'_>) {
    global::default_pool_of(tree);
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

/// The prompt's command: the state of DMA, or a benchmark of one second for each direction.
pub(super) fn command(rest: &str) {
    let mut words =
        rest.split_whitespace().map(|word| parse_number(word).and_then(|number| u32::try_from(number).ok()));
    match (words.next(), words.next(), words.next()) {
        (None, ..) => {
            let bounce = global::bounce_stats();
            let (pages, used) = global::dma().reserved_pages();
            kprintln!("bounce slots: {}, {} in use, at most {} so far", bounce.slots, bounce.used, bounce.most);
            kprintln!(
                "uncached: {}, {} in use",
                Bytes(pages * crate::addr::PAGE_SIZE),
                Bytes(used * crate::addr::PAGE_SIZE)
            );
        }
        (Some(Some(threads)), Some(Some(granule)), None) => {
            for direction in [DmaDirection::ToDevice, DmaDirection::FromDevice, DmaDirection::Bidirectional] {
                let run = DmaBenchmark { threads, seconds: 1, granule, bits: 64, direction, coherent: false };
                match run.run() {
                    Ok(latency) => kprintln!("{direction:?}: {latency}"),
                    Err(error) => return kprintln!("{error}"),
                }
            }
        }
        _ => kprintln!("dma CPUS PAGES: two numbers, such as dma 1 16"),
    }
}
