//! Finding the device tree: at the boot loader's address, or at QEMU's default without one; and mapping all of it before any of
//! it is trusted.

use super::early_map;
use crate::addr::{PhysAddr, PhysRange};
use crate::arch::aarch64::boot::BootInfo;
use crate::arch::aarch64::early_fixmap::{Fixmap, FixmapError};
use crate::arch::aarch64::probe;
use crate::fdt::{self, FdtError};
use crate::hal::prot::Prot;
use core::fmt;

/// Reason why there is no device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTree {
    /// x0 was zero, and there is no tree at QEMU's address for an ELF image.
    NoPointer,
    /// The pointer is not a multiple of 8.
    Misaligned(PhysAddr),
    /// The pointer lies beyond the physical addresses of this CPU.
    Beyond(PhysAddr),
    /// There is nothing at the pointer: the access failed on the bus.
    Unreadable(PhysAddr),
    /// There is a list of ATAGs, which nobody should have sent since 2012.
    Atags(PhysAddr),
    /// The magic number differs: this is not a device tree blob.
    NoMagic {
        /// Its address.
        at: PhysAddr,
        /// The word found, as a big-endian number.
        found: u32,
    },
    /// The tree states an impossible size, or breaks a rule of the format.
    Damaged {
        /// Its address.
        at: PhysAddr,
        /// The rule.
        error: FdtError,
    },
    /// It cannot be mapped.
    Unmappable(FixmapError),
}

impl fmt::Display for NoTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPointer => f.write_str(
                "no device tree: x0 was 0 at entry. Boot the flat Image (make image) instead of the ELF file, or let \
                 the loader pass the tree's address in x0",
            ),
            Self::Misaligned(at) => write!(f, "no device tree: x0 = {at} is not a multiple of 8"),
            Self::Beyond(at) => write!(f, "no device tree: x0 = {at} lies beyond this CPU's physical addresses"),
            Self::Unreadable(at) => write!(f, "no device tree: nothing can be read at x0 = {at}"),
            Self::Atags(at) => write!(
                f,
                "no device tree: x0 = {at} points to ATAGs. On a Pi put the board's .dtb beside kernel8.img, and let \
                 device_tree= in config.txt name it; in QEMU pass -dtb"
            ),
            Self::NoMagic { at, found } => {
                write!(f, "no device tree: the word at x0 = {at} is {found:#010x}, not {:#010x}", fdt::MAGIC)
            }
            Self::Damaged { at, error } => write!(f, "damaged device tree at {at}: {error}"),
            Self::Unmappable(error) => write!(f, "device tree: {error}"),
        }
    }
}

/// Finds the tree and maps it, read-write, in its window.
pub(crate) fn find(
    boot: &BootInfo,
    fixmap: &Fixmap,
    physical_bits: u8,
) -> Result<(PhysRange, &'static mut [u8]), NoTree> {
    let given = boot.device_tree;
    if given != PhysAddr::ZERO {
        return map(given, fixmap, physical_bits);
    }
    let left_by_elf_loader = boot.elf_device_tree();
    if left_by_elf_loader == PhysAddr::ZERO {
        return Err(NoTree::NoPointer);
    }
    map(left_by_elf_loader, fixmap, physical_bits).map_err(|error| match error {
        damaged @ NoTree::Damaged { .. } => damaged,
        _ => NoTree::NoPointer,
    })
}

fn map(at: PhysAddr, fixmap: &Fixmap, physical_bits: u8) -> Result<(PhysRange, &'static mut [u8]), NoTree> {
    if !at.is_aligned(8) {
        return Err(NoTree::Misaligned(at));
    }
    let window = |size: u64| {
        let range = PhysRange::from_size(at, size)
            .filter(|range| range.end().get() >> physical_bits.min(63) == 0)
            .ok_or(NoTree::Beyond(at))?;
        let (first, limit) = early_map::TREE_PAGES;
        let virt = fixmap.map_range(first, limit, range, Prot::KERNEL_RW).map_err(NoTree::Unmappable)?;
        Ok((range, virt))
    };

    // The first 8 bytes lie in one page, as `at` is a multiple of 8.
    let (_, head) = window(8)?;
    let first = probe::load_u64(head.start());
    fixmap.clear(early_map::TREE_PAGES.0);
    let first = first.ok_or(NoTree::Unreadable(at))?.to_le_bytes();
    if let [5 | 2, 0, 0, 0, 1, 0, 0x41, 0x54] = first {
        // A size in words, then ATAG_CORE, both little endian (Linux Documentation/arch/arm/booting.rst).
        return Err(NoTree::Atags(at));
    }
    let size = fdt::totalsize(&first).map_err(|error| match first {
        [a, b, c, d, ..] if u32::from_be_bytes([a, b, c, d]) != fdt::MAGIC => {
            NoTree::NoMagic { at, found: u32::from_be_bytes([a, b, c, d]) }
        }
        _ => NoTree::Damaged { at, error },
    })?;

    let (range, virt) = window(size)?;
    // A tree that runs past the end of RAM would fault in the middle: try one word in each page first.
    let mut page = virt.start().align_down(8);
    while page < virt.end() {
        if probe::load_u32(page).is_none() {
            return Err(NoTree::Unreadable(at));
        }
        page = page.align_down(4096).checked_add(4096).unwrap_or(virt.end());
    }
    let bytes = crate::addr::to_usize(virt.size());
    // SAFETY: the window maps these bytes, as was just tried, until the machine is switched off (the final tables take
    // the mapping over); nobody else has a reference to them, as this function runs once.
    let blob = unsafe { core::slice::from_raw_parts_mut(virt.start().as_ptr::<u8>(), bytes) };
    Ok((range, blob))
}
