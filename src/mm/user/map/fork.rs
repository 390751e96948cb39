//! The map of a child (Linux: `dup_mmap`).
#![forbid(unsafe_code)]

use super::records::Records;
use super::translations::{Objects, VmaSource};
use super::vma::Record;
use super::{AddressMap, MapError, VmFlags};

impl<'a> AddressMap<'a> {
    /// A copy of the map for a child made by `fork`: without areas that are not to be copied, nothing locked or pinned.
    /// Copying translations is the space's part, area by area.
    ///
    /// # Errors
    ///
    /// [`MapError::NoMemory`]: there is no child, and objects have been told so.
    pub fn fork<H: VmaSource<'a> + Objects>(&self, with: &H) -> Result<Self, MapError> {
        let mut child = Self::new(self.layout, self.limits);
        (child.start_brk, child.brk) = (self.start_brk, self.brk);
        let mut prev = None;
        for area in self.tree.iter() {
            if area.flags().contains(VmFlags::DONTCOPY) {
                continue;
            }
            match child.copy(with, prev, area) {
                Ok(at) => prev = Some(at),
                Err(error) => {
                    child.release_areas(with);
                    return Err(error);
                }
            }
        }
        Ok(child)
    }

    /// Puts in a copy of `area` behind all others.
    fn copy<H: VmaSource<'a> + Objects>(
        &mut self,
        with: &H,
        prev: Option<&'a Record<'a>>,
        area: &super::Vma,
    ) -> Result<&'a Record<'a>, MapError> {
        let mut records = Records::take(with, 1)?;
        let record = records.pop().ok_or(MapError::NoMemory)?;
        let flags = area.flags() - VmFlags::LOCKED;
        record.set_low(area.low());
        record.set_high(area.high());
        record.set_page_offset(area.page_offset());
        record.set_flags(flags);
        record.set_object(area.object());
        match self.tree.insert(prev, record) {
            Ok(at) => {
                if let Some(object) = area.object() {
                    with.get(object);
                    if flags.contains(VmFlags::HOOKS) {
                        with.opened(object, area.range());
                    }
                }
                // INVARIANT: VMA-5.
                self.usage.add(flags, area.pages());
                Ok(at)
            }
            Err(record) => {
                // Impossible: the areas come by rising address.
                with.give(record);
                Err(MapError::NoMemory)
            }
        }
    }
}
