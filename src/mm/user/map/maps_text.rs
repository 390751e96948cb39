//! Areas as text, in the format of Linux's `/proc/PID/maps`.
#![forbid(unsafe_code)]

use super::translations::Objects;
use super::vma::Vma;
use super::{AddressMap, VmFlags};
use crate::addr::PAGE_SHIFT;
use core::fmt::{self, Write as _};

/// Where the name begins.
const NAME_COLUMN: usize = 73;

/// One area as a line of `/proc/PID/maps`, without the newline.
pub struct MapsLine<'m, O: Objects> {
    area: &'m Vma,
    objects: &'m O,
    /// The name that is printed if its object has none.
    role: &'static str,
}

impl AddressMap<'_> {
    /// `area` of this map as a line of `/proc/PID/maps`: `[heap]` and `[stack]` have their names.
    #[must_use]
    pub fn maps_line<'m, O: Objects>(&self, area: &'m Vma, objects: &'m O) -> MapsLine<'m, O> {
        let heap = area.start() < self.brk && area.end() > self.start_brk;
        let role = match area.flags().contains(VmFlags::GROWSDOWN) {
            true => "[stack]",
            false if heap && area.is_anonymous() => "[heap]",
            false => "",
        };
        MapsLine { area, objects, role }
    }
}

/// Counts what is written.
struct Counted<'f, 'b> {
    to: &'f mut fmt::Formatter<'b>,
    written: usize,
}

impl fmt::Write for Counted<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.written += text.len();
        self.to.write_str(text)
    }
}

/// A name, once something is written of it: with the blanks before it.
struct Name<'c, 'f, 'b> {
    line: &'c mut Counted<'f, 'b>,
    begun: bool,
}

impl fmt::Write for Name<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.begun && !text.is_empty() {
            self.begun = true;
            let blanks = NAME_COLUMN.saturating_sub(self.line.written).max(1);
            write!(self.line, "{:blanks$}", "")?;
        }
        self.line.write_str(text)
    }
}

impl<O: Objects> fmt::Display for MapsLine<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = self.area;
        let named = area.object().filter(|_| !area.is_anonymous());
        let offset = if named.is_some() { area.page_offset() << PAGE_SHIFT } else { 0 };
        let (major, minor, inode) = named.map_or((0, 0, 0), |object| self.objects.identity(object));
        let mut line = Counted { to: f, written: 0 };
        write!(line, "{:08x}-{:08x} {} ", area.start().get(), area.end().get(), area.flags())?;
        write!(line, "{offset:08x} {major:02x}:{minor:02x} {inode}")?;
        let mut name = Name { line: &mut line, begun: false };
        match named {
            Some(object) => self.objects.name(object, &mut name)?,
            None => name.write_str(self.role)?,
        }
        // Linux ends a line without a name with a blank.
        if name.begun { Ok(()) } else { line.write_str(" ") }
    }
}
