//! The invariants of a map as code, by their tags.
#![forbid(unsafe_code)]

use super::limits::Usage;
use super::{AddressMap, VmFlags};
use crate::ds::rbtree::Broken;

impl AddressMap<'_> {
    /// Tests every invariant. O(n).
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        const fn broken(tag: &'static str, what: &'static str) -> Result<(), Broken> {
            Err(Broken { tag, what })
        }
        self.tree.check()?;
        let mut usage = Usage::default();
        for area in self.areas() {
            let flags = area.flags();
            if flags.is_write_exec() {
                return broken("VMA-4", "an area that is writable and executable");
            }
            if !flags.access_is_allowed() {
                return broken("VMA-4", "an area that permits what it may not");
            }
            if flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE | VmFlags::MAYEXEC) {
                return broken("VMA-4", "an area that others may write to and that may become executable");
            }
            if flags.has_named_object() && area.object().is_none() {
                return broken("VMA-4", "an area of a file, or shared, without an object");
            }
            if area.start() < self.layout.mmap_min || area.end() > self.layout.task_size {
                return broken("VMA-6", "an area that is not within the address space");
            }
            usage.add(flags, area.pages());
        }
        if usage != self.usage {
            return broken("VMA-5", "pages of the areas, and what is counted");
        }
        if self.brk < self.start_brk {
            return broken("VMA-6", "a break below its start");
        }
        Ok(())
    }
}
