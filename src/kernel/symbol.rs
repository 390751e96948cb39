//! Addresses as people read them: with the name of the function, from the image's own table.

use super::kallsyms::SymbolTable;
use super::line::offer_shown;
use crate::addr::{VirtAddr, to_usize};
use crate::arch::aarch64::backtrace::Frame;
use crate::arch::aarch64::boot;
use core::fmt;

/// Bytes that the image keeps for its symbol table. The tool that fills it says how much it needs if this is too small.
const ROOM: usize = if cfg!(debug_assertions) { 192 << 10 } else { 72 << 10 };

/// The room itself. Nothing reads it by this name: the compiler would take the zeros for granted.
#[used]
#[unsafe(link_section = ".kallsyms")]
static KALLSYMS: [u8; ROOM] = [0; ROOM];

/// An address in the kernel's code, displayed with its function's name where the table knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pc: VirtAddr,
    /// The address to look for: a return address can lie behind the end of the function that made the call.
    lookup: VirtAddr,
}

impl Symbol {
    /// The function whose instruction is at `pc`.
    #[must_use]
    pub(super) const fn of_instruction(pc: VirtAddr) -> Self {
        Self { pc, lookup: pc }
    }

    /// The function that called with return address `pc`.
    #[must_use]
    pub(super) const fn of_return_address(pc: VirtAddr) -> Self {
        Self { pc, lookup: VirtAddr::new(pc.get().wrapping_sub(4)) }
    }

    /// The function of a frame of a backtrace.
    #[must_use]
    pub(super) const fn of_frame(frame: Frame) -> Self {
        Self { pc: frame.pc, lookup: frame.lookup_address() }
    }
}

/// The function around an address.
pub(super) struct Place<N> {
    /// Its name.
    pub(super) name: N,
    /// Bytes from its start to the address.
    pub(super) offset: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl Symbol {
    /// The address itself.
    pub(super) const fn address(self) -> VirtAddr {
        self.pc
    }

    /// The function, if one is known.
    pub(super) fn place(self) -> Option<Place<impl fmt::Display>> {
        let before = self.pc.get().wrapping_sub(self.lookup.get());
        let found = self.find()?;
        Some(Place { name: found.name, offset: u64::from(found.offset) + before, size: found.size.into() })
    }

    fn find(self) -> Option<super::kallsyms::Found<'static>> {
        self.lookup.offset_from(boot::image_start()).and_then(|offset| SymbolTable::new(table())?.lookup(offset))
    }

    /// Whether this is the first instruction of its function, which has not made a frame yet.
    pub(super) fn is_entry(self) -> bool {
        self.find().is_some_and(|found| found.offset == 0)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.pc)?;
        match self.place() {
            Some(Place { name, offset, size }) => write!(f, " {name}+{offset:#x}/{size:#x}"),
            None => Ok(()),
        }
    }
}

/// The address of a symbol.
pub(super) fn address_of(name: &str) -> Option<VirtAddr> {
    let offset = SymbolTable::new(table())?.find(name)?;
    boot::image_start().checked_add(offset)
}

/// Offers every symbol's name that is not too long for a line.
pub(super) fn names(offer: &mut dyn FnMut(&str)) {
    for (_, name) in SymbolTable::new(table()).iter().flat_map(SymbolTable::symbols) {
        offer_shown(name, offer);
    }
}

/// The bytes between the linker's marks around `.kallsyms`.
fn table() -> &'static [u8] {
    let start = boot::kallsyms_start();
    let len = boot::kallsyms_end().offset_from(start).unwrap_or(0);
    // SAFETY: the linker script puts the two symbols around the room in read-only data, which lives as long as the
    // image.
    unsafe { core::slice::from_raw_parts(start.as_ptr(), to_usize(len)) }
}
