//! A copy of an area's data, for reports.
#![forbid(unsafe_code)]

use super::VmFlags;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use core::fmt::{self, Write};
use core::panic::Location;

/// A snapshot of an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaInfo {
    /// Its addresses, the guard page included.
    pub range: VirtRange,
    /// Its flags.
    pub flags: VmFlags,
    /// Start of the physical range mapped there, if it is one contiguous range.
    pub phys: Option<PhysAddr>,
    /// Pages of its own, or given to it.
    pub pages: u32,
    /// Its requester.
    pub caller: Option<&'static Location<'static>>,
}

impl AreaInfo {
    /// Usable bytes: without the guard page.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.range.size() - if self.flags.contains(VmFlags::NO_GUARD) { 0 } else { PAGE_SIZE }
    }

    /// Usable addresses: without the guard page.
    #[must_use]
    pub fn mapped(&self) -> VirtRange {
        VirtRange::from_size(self.range.start(), self.size()).unwrap_or_default()
    }

    /// Whether `addr` is in the guard page.
    #[must_use]
    pub const fn is_guard(&self, addr: VirtAddr) -> bool {
        self.range.contains(addr) && addr.get() - self.range.start().get() >= self.size()
    }

    /// The line of `/proc/vmallocinfo`: range, bytes, caller, pages, physical address, kind.
    ///
    /// # Errors
    ///
    /// Those of `f`.
    pub fn write_line(&self, f: &mut impl Write) -> fmt::Result {
        write!(f, "{:#018x}-{:#018x} {:>7}", self.range.start(), self.range.end(), self.range.size())?;
        if let Some(caller) = self.caller {
            write!(f, " {}:{}", caller.file(), caller.line())?;
        }
        if self.pages != 0 {
            write!(f, " pages={}", self.pages)?;
        }
        if let Some(phys) = self.phys {
            write!(f, " phys={:#018x}", phys)?;
        }
        write!(f, "{}", self.flags)
    }
}

impl fmt::Display for AreaInfo {
    /// For a report: `0x…, 16384 bytes, from src/…:41`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes ({} pages)", self.range.start(), self.size(), self.size() >> PAGE_SHIFT)?;
        match self.caller {
            Some(caller) => write!(f, ", from {}:{}", caller.file(), caller.line()),
            None => Ok(()),
        }
    }
}
