//! The list of the areas in use, for `/proc/vmallocinfo`.
#![forbid(unsafe_code)]

use super::{AreaHal, VmapSpace};
use core::fmt::{self, Write};

/// Shows every area in use as `/proc/vmallocinfo` does, each as it is at that moment; no lock is held while it is shown.
#[derive(Clone, Copy)]
pub struct VmallocInfo<'s, 'a, H: AreaHal<'a>>(pub(super) &'s VmapSpace<'a, H>);

impl<'a, H: AreaHal<'a>> fmt::Display for VmallocInfo<'_, 'a, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for area in self.0.iter() {
            area.write_line(f)?;
            f.write_char('\n')?;
        }
        Ok(())
    }
}

impl<'a, H: AreaHal<'a>> VmapSpace<'a, H> {
    /// The areas in use, as a list to print.
    pub const fn info(&self) -> VmallocInfo<'_, 'a, H> {
        VmallocInfo(self)
    }
}
