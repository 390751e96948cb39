//! Reads the description of a DMA-capable device from the device tree.

use super::error::FdtError;
use super::node::Node;
use super::translate::DmaRange;

impl<'t, 'a> Node<'t, 'a> {
    /// Whether the device's accesses are coherent with the CPUs' caches: it, or the nearest bus above that says anything, says
    /// `dma-coherent` (Linux: `of_dma_is_coherent`; no architecture of ours is coherent by default).
    #[must_use]
    pub fn is_dma_coherent(self) -> bool {
        let says = |node: &Self| node.has("dma-coherent") || node.has("dma-noncoherent");
        self.upwards().find(says).is_some_and(|node| node.has("dma-coherent"))
    }

    /// Memory that the device can reach: the `dma-ranges` of the nearest bus above that has entries there; empty if no bus has,
    /// and then bus addresses are CPU addresses. Items as for [`Node::dma_ranges`].
    pub fn dma_windows(self) -> impl Iterator<Item = Result<DmaRange<'t, 'a>, FdtError>> {
        let limited = |bus: &Self| bus.property("dma-ranges").is_some_and(|list| !list.value.is_empty());
        self.upwards().skip(1).find(limited).into_iter().flat_map(Self::dma_ranges)
    }
}
