//! Data caches, for devices that read and write memory past them (Arm ARM D7.5).

use super::Internal;
use crate::addr::VirtRange;

/// Maintenance of the data caches, to the point of coherency: where devices see memory.
///
/// Each call works on whole lines, those that share a byte with the range. It is done for certain only when
/// [`DataCache::complete`] has returned; until then a device may still see the old contents.
///
/// # Safety
///
/// - `HAL-12`: after [`DataCache::clean`] and [`DataCache::complete`] memory holds the CPUs' earlier writes to the range. After
///   [`DataCache::invalidate`] and [`DataCache::complete`] the CPUs read a device's earlier writes from memory, as long as no
///   cacheable mapping lets them fetch it too early. No write-back touches memory outside of the [`DataCache::granule`] that
///   was written to.
pub unsafe trait DataCache {
    /// Bytes that a write-back may overwrite at most, a power of two from 16 to 2048 (`CTR_EL0.CWG`). A buffer that a device
    /// writes to must not share such a granule with anything else. Maintenance goes by lines, which may be smaller.
    fn granule(&self) -> u64;

    /// Writes the cached lines of `range` to memory, and keeps them (`DC CVAC`). Any context. `range` is mapped.
    fn clean(&self, _: Internal, range: VirtRange);

    /// Drops the cached lines of `range`; data not yet written to memory may be lost (`DC IVAC`). Any context. `range` is
    /// mapped, and lines that it shares with others lose their content too.
    fn invalidate(&self, _: Internal, range: VirtRange);

    /// Writes the cached lines of `range` to memory, and drops them (`DC CIVAC`). Any context. `range` is mapped.
    fn clean_and_invalidate(&self, _: Internal, range: VirtRange);

    /// Waits until all maintenance of this CPU before is done, and orders it before what devices are told next (`DSB SY`).
    fn complete(&self);
}
