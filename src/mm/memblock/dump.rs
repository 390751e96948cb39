//! Both lists as text, in the format of Linux's `memblock=debug`.
#![forbid(unsafe_code)]

use super::{Memblock, RegionList};
use core::fmt;

impl<M, const INIT: usize> fmt::Display for Memblock<'_, M, INIT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "MEMBLOCK configuration:")?;
        writeln!(f, " memory size = {:#018x} reserved size = {:#018x}", self.memory.total(), self.reserved.total())?;
        write!(f, "{}{}", self.memory, self.reserved)
    }
}

impl<const INIT: usize> fmt::Display for RegionList<'_, INIT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        writeln!(f, " {name}.cnt  = {:#x}", self.len())?;
        for (index, region) in self.regions().iter().enumerate() {
            let last = region.end().get().saturating_sub(1);
            let (start, size) = (region.start(), region.range.size());
            let flags = region.flags.bits();
            writeln!(f, " {name}[{index:#x}]\t[{start:#018x}-{last:#018x}], {size:#018x} bytes flags: {flags:#x}")?;
        }
        Ok(())
    }
}
