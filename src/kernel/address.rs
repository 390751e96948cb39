//! Addresses as people type them: `0x…`, `phys:0x…`, `pfn:N`, or the name of a symbol.
#![forbid(unsafe_code)]

use super::bootargs::parse_number;
use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, VirtAddr};
use core::fmt;

/// The forms, for messages.
pub const FORMS: &str = "an address is 0x…, phys:0x…, pfn:N or a symbol, such as 0xffff800080000000, phys:0x40000000, \
     pfn:0x40000 or exception_vectors+0x80";

/// An address as it was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed<'a> {
    /// A virtual address.
    Virtual(VirtAddr),
    /// The place of RAM or a device.
    Physical(PhysAddr),
    /// A frame.
    Frame(Pfn),
    /// A symbol's name, and bytes behind its start.
    Symbol(&'a str, u64),
}

/// The text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoAddress;

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }
}

impl<'a> Typed<'a> {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// [`NoAddress`].
    pub fn parse(text: &'a str) -> Result<Self, NoAddress> {
        if let Some(number) = text.strip_prefix("phys:") {
            return parse_number(number).map(|number| Self::Physical(PhysAddr::new(number))).ok_or(NoAddress);
        }
        if let Some(number) = text.strip_prefix("pfn:") {
            let number = parse_number(number).filter(|number| *number < 1 << (u64::BITS - PAGE_SHIFT));
            return number.map(|number| Self::Frame(Pfn::new(number))).ok_or(NoAddress);
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return parse_number(text).map(|number| Self::Virtual(VirtAddr::new(number))).ok_or(NoAddress);
        }
        let (name, offset) = match text.rsplit_once('+') {
            Some((name, offset)) => (name, parse_number(offset).ok_or(NoAddress)?),
            None => (text, 0),
        };
        // A name with a blank in it cannot be typed: blanks end words.
        let is_name = |letter: char| letter.is_ascii_graphic();
        if name.is_empty() || !name.chars().all(is_name) { Err(NoAddress) } else { Ok(Self::Symbol(name, offset)) }
    }
}

/// The physical address that a person has typed where one is meant: a number alone is one, too.
#[cfg(target_os = "none")]
pub(super) fn physical(text: &str) -> Option<PhysAddr> {
    match Typed::parse(text).ok()? {
        Typed::Virtual(addr) => Some(PhysAddr::new(addr.get())),
        Typed::Physical(phys) => Some(phys),
        Typed::Frame(pfn) => Some(pfn.start()),
        Typed::Symbol(..) => None,
    }
}

/// The virtual address that a person has typed: of a physical one, its place in the linear map. If there is none, says on
/// the console what would be one.
#[cfg(target_os = "none")]
pub(super) fn address(text: &str) -> Option<VirtAddr> {
    use super::symbol;
    use crate::kprintln;
    use crate::mm::layout;

    let (found, why) = match Typed::parse(text) {
        Ok(Typed::Virtual(addr)) => (Some(addr), ""),
        Ok(Typed::Physical(phys)) => (layout::phys_to_virt(phys), "the linear map does not reach so far"),
        Ok(Typed::Frame(pfn)) => (layout::phys_to_virt(pfn.start()), "the linear map does not reach so far"),
        Ok(Typed::Symbol(name, offset)) => {
            (symbol::address_of(name).and_then(|addr| addr.checked_add(offset)), "no symbol has the name")
        }
        Err(error) => {
            kprintln!("{error}");
            return None;
        }
    };
    if found.is_none() {
        kprintln!("{text}: {why}; {FORMS}");
    }
    found
}
